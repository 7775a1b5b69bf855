"""NetMind: what it takes, what it refuses, which part of a mask it repaints."""

from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.sandbox.pictures import (
    GREY,
    INSIDE,
    distance,
    drawn,
    image_of,
    mask,
    plain,
    repainted_on_the_left,
    striped,
    white_mask,
)

pytestmark = pytest.mark.anyio

SCHNELL, FILL = "black-forest-labs/FLUX.1-schnell", "black-forest-labs/FLUX.1-Fill-dev"
DEPTH, REDUX = "black-forest-labs/FLUX.1-Depth-dev", "black-forest-labs/FLUX.1-Redux-dev"
B64 = {"response_format": "b64_json"}


async def generate(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"model": SCHNELL, "prompt": "a fox", "size": "64x64", **fields}
    return await client.post("/netmind/v1/images/generations", json=body)


async def edit(client: httpx.AsyncClient, files: dict[str, bytes] | list[Any], **fields: str) -> httpx.Response:
    data = {"model": FILL, "prompt": "a hat", **B64, **fields}
    return await client.post("/netmind/v1/images/edits", data=data, files=files)


async def test_a_generation_has_exactly_the_size_that_was_asked_for(client: httpx.AsyncClient) -> None:
    image = drawn(await generate(client, size="100x60", **B64))
    assert (image.size, image.format, image.mode) == ((100, 60), "PNG", "RGB")


async def test_without_a_response_format_an_address_comes_that_can_be_fetched(client: httpx.AsyncClient) -> None:
    answer = await generate(client)
    [entry] = answer.json()["data"]
    assert set(entry) == {"url"}
    fetched = await client.get(entry["url"])
    assert fetched.headers["content-type"] == "image/png"
    assert image_of(fetched.content).size == (64, 64)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 1}, "n"),
        ({"seed": 7}, "seed"),
        ({"quality": "high"}, "quality"),
        ({"user": None}, "user"),
        ({"size": None}, "size"),
        ({"size": "64"}, "size"),
        ({"size": "9000x64"}, "size"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"response_format": "png"}, "response_format"),
        ({"model": FILL}, "model"),
        ({"model": "gpt-image-2"}, "model"),
        ({"model": "stabilityai/stable-diffusion-3.5-large", "size": "72x72"}, "size"),
    ],
)
async def test_a_generation_takes_only_what_is_documented(
    client: httpx.AsyncClient, sandbox: Sandbox, fields: dict[str, Any], param: str
) -> None:
    answer = await generate(client, **fields)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["param"] == param
    assert sandbox.world.journal.drawings["netmind"] == 0


async def test_fill_repaints_where_the_mask_is_white(client: httpx.AsyncClient) -> None:
    answer = await edit(client, {"image": plain(), "mask": white_mask()})
    assert repainted_on_the_left(drawn(answer))


async def test_fill_reads_the_colours_of_a_mask_and_not_its_transparency(client: httpx.AsyncClient) -> None:
    openai_mask = mask("RGBA", (255, 255, 255, 255), (0, 0, 0, 0))
    answer = await edit(client, {"image": plain(), "mask": openai_mask})
    assert not repainted_on_the_left(drawn(answer))


async def test_a_soft_edge_of_a_mask_blends(client: httpx.AsyncClient) -> None:
    full = drawn(await edit(client, {"image": plain(), "mask": mask("L", 0, 255)}))
    half = drawn(await edit(client, {"image": plain(), "mask": mask("L", 0, 128)}))
    assert 0 < distance(half, INSIDE, GREY) < distance(full, INSIDE, GREY)


async def test_an_edit_has_the_size_of_its_input(client: httpx.AsyncClient) -> None:
    answer = await edit(client, {"image": plain((80, 48)), "mask": plain((80, 48), 255, mode="L")})
    assert drawn(answer).size == (80, 48)


async def test_depth_tints_the_whole_picture_and_keeps_its_structure(client: httpx.AsyncClient) -> None:
    image = drawn(await edit(client, {"image": striped()}, model=DEPTH)).convert("L")
    dark, light = image.getpixel((8, 32)), image.getpixel((56, 32))
    assert isinstance(dark, int)
    assert isinstance(light, int)
    assert dark > 30
    assert light - dark > 80


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ([("image", plain())], {}, "mask"),
        ([("image", plain()), ("mask", white_mask())], {"model": DEPTH}, "mask"),
        ([("image", plain()), ("mask", white_mask())], {"size": "64x64"}, "size"),
        ([("image", plain()), ("mask", white_mask())], {"n": "1"}, "n"),
        ([("image", plain()), ("mask", white_mask())], {"model": SCHNELL}, "model"),
        ([("image", plain()), ("image", plain()), ("mask", white_mask())], {}, "image"),
        ([("image[]", plain()), ("mask", white_mask())], {}, "image[]"),
        ([("image", b"no picture"), ("mask", white_mask())], {}, "image"),
        ([("image", plain((48, 48))), ("mask", white_mask())], {}, "mask"),
        ([("mask", white_mask())], {}, "image"),
        ([("mask", white_mask())], {"image": "text"}, "image"),
    ],
)
async def test_an_edit_takes_only_what_is_documented(
    client: httpx.AsyncClient, files: list[Any], fields: dict[str, str], param: str
) -> None:
    answer = await edit(client, files, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_an_edit_as_json_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/netmind/v1/images/edits", json={"model": FILL})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_content_type")


async def test_a_variation_recolours_its_input(client: httpx.AsyncClient) -> None:
    files = {"image": striped()}
    path = "/netmind/v1/images/variations"
    image = drawn(await client.post(path, data={"model": REDUX, **B64}, files=files))
    assert image.size == (64, 64)
    light = image.getpixel((56, 32))
    assert isinstance(light, tuple)
    assert len(set(light)) > 1, "a grey input is not grey any more"
    refused = await client.post(path, data={"model": REDUX, "prompt": "no", **B64}, files=files)
    assert refused.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "Token abc"])
async def test_no_drawing_without_a_credential(client: httpx.AsyncClient, authorization: str) -> None:
    client.headers["authorization"] = authorization
    answer = await generate(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
