from __future__ import annotations

import asyncio
import base64
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.requests.body import Limits
from app.errors import InvalidRequest
from app.images import ImageRequest, Operation, Size
from app.storage.spool import Uploads
from tests.api.requests.feeding import CAPTURES, captured, content, png, read, read_form, read_json, unknown

pytestmark = pytest.mark.anyio
# Not: an edit whose picture is four letters of base64, and the variations, which name no model.
READABLE = [path for path in CAPTURES if "json-via-post" not in path.name and "variation" not in path.name]


def summary(request: ImageRequest) -> tuple[object, ...]:
    pictures = [content(upload) for upload in (*request.images, request.mask, request.markup) if upload]
    names = [upload.filename for upload in request.images]
    said = (request.model, request.prompt, request.n, request.size, request.stream, request.partial_images)
    return (*said, pictures, names, request.parameters, request.extra)


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
async def test_a_request_of_an_official_sdk_is_read_whole_or_byte_by_byte(path: Path) -> None:
    operation, content_type, body, files = captured(path)
    with Uploads() as uploads:
        request = await read(operation, content_type, body, uploads=uploads)
        assert request.operation is operation
        assert request.model
        assert sorted(content(u) for u in (*request.images, request.mask, request.markup) if u) == sorted(files)
        assert all(u.media_type == "image/png" and u.size == Size(8, 8) for u in request.images)
        single = [body[at : at + 1] for at in range(len(body))]
        assert summary(await read(operation, content_type, single, uploads=uploads)) == summary(request)


@given(st.sampled_from(READABLE), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_where_the_network_cuts_a_request_makes_no_difference(path: Path, seed: int) -> None:
    operation, content_type, body, _ = captured(path)
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(body)) for _ in range(chance.randrange(1, 12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    on_disk = Limits(1_000_000, 1_000_000, memory_bytes=64)
    with Uploads() as uploads:
        cut = asyncio.run(read(operation, content_type, pieces, uploads=uploads, limits=on_disk))
        assert summary(cut) == summary(asyncio.run(read(operation, content_type, body, uploads=uploads)))


async def read_captured(name: str) -> ImageRequest:
    operation, content_type, body, _ = captured(next(path for path in CAPTURES if path.stem == name))
    return await read(operation, content_type, body)


async def test_every_parameter_of_the_python_sdk_arrives() -> None:
    request = await read_captured("py3.52.0-generate-all-params")
    assert request == ImageRequest(
        Operation.GENERATIONS,
        "gpt-image-2",
        "p",
        n=2,
        size=Size(1024, 1536),
        response_format="b64_json",
        parameters={
            "background": "transparent",
            "moderation": "low",
            "output_compression": 80,
            "output_format": "webp",
            "quality": "high",
            "style": "vivid",
            "user": "u1",
        },
    )


async def test_extra_fields_of_a_form_arrive_as_they_came() -> None:
    request = await read_captured("py3.52.0-edit-extra-body-nested")
    assert request.parameters == {"guidance": 3.5, "moderation": "low"}
    assert unknown(request) == (
        ("flag", "true"),
        ("lora[name]", "a"),
        ("lora[w]", "0.5"),
        ("tags[]", "x"),
        ("tags[]", "y"),
        ("objs[][a]", "1"),
        ("objs[][a]", "2"),
    )


async def test_the_nested_svg_object_of_a_form_arrives_as_an_object() -> None:
    request = await read_captured("py3.52.0-edit-svg-markup")
    assert request.parameters["svg"] == {"model": "gpt-5", "reasoning": {"effort": "low"}}
    assert request.markup is not None
    assert request.markup.filename == "mask.png"


async def test_files_before_the_text_fields_are_no_obstacle() -> None:
    request = await read_captured("node7.55.0-edit-one-mask-readstream")
    assert (request.model, request.prompt, request.n, request.size) == ("gpt-image-2", "p", 1, Size(1024, 1024))
    assert [upload.media_type for upload in request.images] == ["image/png"]  # sent as application/octet-stream
    assert request.mask is not None


async def test_several_images_keep_their_order_and_names() -> None:
    request = await read_captured("py3.52.0-edit-list3-mask")
    assert [upload.filename for upload in request.images] == ["otter.png", "b.png", "c.png"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
async def test_json_may_be_announced_in_any_of_its_ways(content_type: str) -> None:
    request = await read(Operation.GENERATIONS, content_type, b'{"model": "m", "prompt": "p"}')
    assert request.prompt == "p"


@pytest.mark.parametrize(
    ("operation", "content_type"),
    [
        (Operation.GENERATIONS, "text/plain"),
        (Operation.GENERATIONS, "multipart/form-data; boundary=x"),
        (Operation.GENERATIONS, "application/x-www-form-urlencoded"),
        (Operation.EDITS, "application/x-www-form-urlencoded"),
        (Operation.EDITS, "multipart/mixed; boundary=x"),
        (Operation.VARIATIONS, "application/json"),
        (Operation.VARIATIONS, "application/x-www-form-urlencoded"),
    ],
)
async def test_a_content_type_that_is_not_taken_is_refused_by_name(operation: Operation, content_type: str) -> None:
    with pytest.raises(InvalidRequest, match=content_type.partition(";")[0].replace("+", r"\+")) as caught:
        await read(operation, content_type, b"{}")
    assert caught.value.code == "unsupported_content_type"
    assert caught.value.status == 400
    remedy = (
        "a form with the images as files" if operation is Operation.VARIATIONS else "'Content-Type: application/json'"
    )
    assert remedy in caught.value.message.partition("only. Send ")[2]


async def test_a_missing_content_type_is_refused_by_naming_the_header() -> None:
    with pytest.raises(InvalidRequest, match="header 'Content-Type' is missing") as caught:
        await read(Operation.GENERATIONS, None, b'{"model": "m", "prompt": "p"}')
    assert caught.value.code == "unsupported_content_type"


@pytest.mark.parametrize("name", ["py3.52.0-variation", "node7.55.0-variation"])
async def test_a_variation_of_an_sdk_that_names_no_model_is_told_where_the_models_are(name: str) -> None:
    with pytest.raises(InvalidRequest, match="GET /v1/models") as caught:
        await read_captured(name)
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


@pytest.mark.parametrize("model", [[], [("model", "")]], ids=["absent", "empty"])
async def test_a_request_of_any_shape_gets_the_default_model(model: list[tuple[str, str]]) -> None:
    picture = {"image_url": "data:image/png;base64," + base64.b64encode(png()).decode()}
    fields = {**dict(model), "prompt": "a fox"}
    parts = (*model, ("prompt", "a fox"), ("image", "fox.png", png()))
    for request in (
        await read_json(Operation.GENERATIONS, fields, default_model="m"),
        await read_json(Operation.EDITS, {**fields, "images": [picture]}, default_model="m"),
        await read_form(Operation.EDITS, *parts, default_model="m"),
        await read_form(Operation.VARIATIONS, *parts, default_model="m"),
    ):
        assert request.model == "m"


async def test_a_picture_of_an_sdks_json_edit_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no image that is known") as caught:
        await read_captured("py3.52.0-edit-json-via-post")
    assert caught.value.code == "invalid_image_file"


async def test_the_files_of_a_refused_request_are_closed_with_its_uploads() -> None:
    uploads = Uploads()
    with pytest.raises(InvalidRequest), uploads:
        await read_json(Operation.EDITS, {"images": [{"image_url": "data:;base64," + "A" * 40}]}, uploads=uploads)
    with uploads:
        spool = uploads.spool(0)
        spool.write(png())
    with pytest.raises(ValueError, match="closed"):
        spool.read(0, 1)
