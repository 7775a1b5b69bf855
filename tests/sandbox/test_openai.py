"""OpenAI: strict parameters, masks by alpha, server-sent events."""

import base64
import json
from itertools import pairwise
from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.sandbox.pictures import alpha_mask, drawn, image_of, plain, repainted_on_the_left, white_mask

pytestmark = pytest.mark.anyio

PNG = "image/png"


def part(name: str, data: bytes, content_type: str = PNG) -> tuple[str, tuple[str, bytes, str]]:
    return name, ("picture.png", data, content_type)


async def generate(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"model": "gpt-image-2", "prompt": "a lighthouse", "size": "64x64", **fields}
    return await client.post("/openai/v1/images/generations", json=body)


async def edit(client: httpx.AsyncClient, files: list[Any], **fields: str) -> httpx.Response:
    data = {"model": "gpt-image-2", "prompt": "a hat", "size": "64x64", **fields}
    return await client.post("/openai/v1/images/edits", data=data, files=files)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.text.endswith("\n\n")
    found = []
    for block in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


async def test_an_answer_has_openais_shape(client: httpx.AsyncClient) -> None:
    answer = await generate(client, quality="low")
    assert drawn(answer).size == (64, 64)
    body = answer.json()
    assert set(body["data"][0]) == {"b64_json"}
    assert (body["size"], body["quality"], body["background"], body["output_format"]) == (
        "64x64",
        "low",
        "opaque",
        "png",
    )
    usage = body["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens_details"]["image_tokens"] == 0
    assert usage["output_tokens_details"]["image_tokens"] == usage["output_tokens"]


async def test_several_are_drawn_at_once(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    answer = await generate(client, n=10)
    assert len({entry["b64_json"] for entry in answer.json()["data"]}) == 10
    assert sandbox.world.journal.drawings["openai"] == 10


async def test_nulls_of_some_parameters_count_as_absent(client: httpx.AsyncClient) -> None:
    answer = await generate(client, n=None, quality=None, stream=None, partial_images=None, output_compression=None)
    assert drawn(answer).size == (64, 64)


async def test_more_compression_makes_smaller_files(client: httpx.AsyncClient) -> None:
    lengths = [
        len((await generate(client, output_format="jpeg", output_compression=percent)).content) for percent in (90, 5)
    ]
    assert lengths[0] > lengths[1]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "b64_json"}, "response_format", "unknown_parameter"),
        ({"response_format": None}, "response_format", "unknown_parameter"),
        ({"style": "vivid"}, "style", "unknown_parameter"),
        ({"seed": 1}, "seed", "unknown_parameter"),
        ({"input_fidelity": "high"}, "input_fidelity", "unknown_parameter"),
        ({"model": "dall-e-3"}, "model", "invalid_value"),
        ({"model": None}, "model", "invalid_type"),
        ({"n": 11}, "n", "integer_above_max_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"n": 2, "stream": True}, "input", "unsupported_parameter"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"partial_images": 4, "stream": True}, "partial_images", "integer_above_max_value"),
        ({"size": "100x100"}, "size", "invalid_value"),
        ({"size": "64x256"}, "size", "invalid_value"),
        ({"size": "4000x4000"}, "size", "invalid_value"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"output_compression": 50}, None, "invalid_png_output_compression"),
        ({"background": "transparent", "output_format": "jpeg"}, "background", "invalid_value"),
        ({"prompt": None}, "prompt", "invalid_type"),
    ],
)
async def test_a_generation_takes_only_what_openai_takes(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str | None, code: str
) -> None:
    answer = await generate(client, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


async def test_the_model_is_required(client: httpx.AsyncClient) -> None:
    answer = await client.post("/openai/v1/images/generations", json={"prompt": "a fox"})
    assert answer.json()["error"]["code"] == "missing_required_parameter"


@pytest.mark.parametrize("name", ["image", "image[]"])
async def test_an_edit_repaints_where_the_mask_is_transparent(client: httpx.AsyncClient, name: str) -> None:
    # Of the mask's type OpenAI asks nothing, of the image's it does.
    files = [part(name, plain()), part("mask", alpha_mask(), "application/octet-stream")]
    answer = await edit(client, files)
    assert repainted_on_the_left(drawn(answer))
    assert answer.json()["usage"]["input_tokens_details"]["image_tokens"] > 0


@pytest.mark.parametrize(
    ("files", "fields", "code"),
    [
        ([part("image", plain()), part("image", plain())], {}, "duplicate_parameter"),
        ([part("image", plain()), part("image[]", plain())], {}, "duplicate_parameter"),
        ([part("image[]", plain())] * 17, {}, "array_above_max_length"),
        ([part("image", plain(), "application/octet-stream")], {}, "unsupported_file_mimetype"),
        ([part("image", b"GIF89a")], {}, "invalid_image_file"),
        ([part("image", plain(format="GIF"))], {}, "invalid_image_file"),
        ([part("image", plain()), part("mask", white_mask())], {}, "invalid_mask_image_format"),
        ([part("image", plain((48, 48))), part("mask", alpha_mask())], {}, "invalid_mask_image_format"),
        ([part("image", plain())], {"response_format": "b64_json"}, "unknown_parameter"),
        ([part("image", plain()), part("markup", plain())], {}, "unknown_parameter"),
        ([part("mask", alpha_mask())], {}, "missing_required_parameter"),
    ],
)
async def test_an_edit_takes_only_what_openai_takes(
    client: httpx.AsyncClient, files: list[Any], fields: dict[str, str], code: str
) -> None:
    answer = await edit(client, files, **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_an_image_that_breaks_off_is_refused(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    answer = await edit(client, [part("image", plain()[:60])])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_image_file")
    assert sandbox.world.journal.drawings["openai"] == 0


async def test_a_stream_brings_partial_images_of_increasing_detail_and_then_the_picture(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    answer = await generate(client, stream=True, partial_images=3)
    assert answer.headers["content-type"] == "text/event-stream"
    *partials, completed = events(answer)
    assert [event["type"] for event in partials] == ["image_generation.partial_image"] * 3
    assert [event["partial_image_index"] for event in partials] == [0, 1, 2]
    assert completed["type"] == "image_generation.completed"
    assert set(completed["usage"]) == {"input_tokens", "input_tokens_details", "output_tokens", "total_tokens"}
    images = [image_of(base64.b64decode(event["b64_json"])) for event in (*partials, completed)]
    assert {image.size for image in images} == {(64, 64)}
    colours = [len(image.getcolors(4096) or ()) for image in images]
    assert all(fewer < more for fewer, more in pairwise(colours)), colours
    assert sandbox.world.journal.drawings["openai"] == 1


async def test_an_event_arrives_in_several_pieces(client: httpx.AsyncClient) -> None:
    body = {"model": "gpt-image-2", "prompt": "a fox", "size": "256x256", "stream": True}
    async with client.stream("POST", "/openai/v1/images/generations", json=body) as answer:
        pieces = [piece async for piece in answer.aiter_raw()]
    assert len(pieces) > 1


async def test_an_edit_streams_events_of_its_own(client: httpx.AsyncClient) -> None:
    answer = await edit(client, [part("image", plain())], stream="true", partial_images="1")
    assert [event["type"] for event in events(answer)] == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.parametrize(("fault", "code"), [("moderation200", "moderation_blocked"), ("failed200", None)])
async def test_a_stream_can_end_in_an_error_event(client: httpx.AsyncClient, fault: str, code: str | None) -> None:
    [event] = events(await generate(client, stream=True, prompt=f"a fox [[fault:{fault}]]"))
    assert event["type"] == "error"
    assert event["error"]["code"] == (code or "image_generation_failed")


async def test_a_stream_can_end_without_its_picture(client: httpx.AsyncClient) -> None:
    found = events(await generate(client, stream=True, partial_images=2, prompt="a fox [[fault:noimage]]"))
    assert [event["type"] for event in found] == ["image_generation.partial_image"] * 2


async def test_there_is_no_variation(client: httpx.AsyncClient) -> None:
    answer = await client.post("/openai/v1/images/variations", files={"image": plain()})
    assert answer.status_code == 404


async def test_the_model_is_listed(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/openai/v1/models")).json()
    assert [model["id"] for model in answer["data"]] == ["gpt-image-2"]
