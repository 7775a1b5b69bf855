"""Nebul: several files as `image`, masks by alpha, several drawings at once."""

from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.sandbox.pictures import alpha_mask, drawn, image_of, plain, repainted_on_the_left, striped, white_mask

pytestmark = pytest.mark.anyio

KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"


async def generate(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/nebul/v1/images/generations", json={"prompt": "a cat", "size": "64x64", **fields})


async def edit(client: httpx.AsyncClient, files: list[Any], **fields: str) -> httpx.Response:
    data = {"model": KONTEXT, "prompt": "a hat", **fields}
    return await client.post("/nebul/v1/images/edits", data=data, files=files)


async def test_an_answer_has_the_documented_shape(client: httpx.AsyncClient) -> None:
    answer = await generate(client, guidance=2.5, user="me", quality="auto")
    assert drawn(answer).size == (64, 64)
    body = answer.json()
    assert set(body["data"][0]) == {"b64_json", "url"}
    assert body["data"][0]["url"] is None
    assert body["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert (body["background"], body["quality"], body["size"], body["output_format"]) == (
        "auto",
        "auto",
        "64x64",
        "png",
    )


@pytest.mark.parametrize(("output_format", "format"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
async def test_the_file_type_can_be_chosen(client: httpx.AsyncClient, output_format: str, format: str) -> None:
    answer = await generate(client, output_format=output_format)
    assert drawn(answer).format == format
    assert answer.json()["output_format"] == output_format


async def test_several_are_drawn_at_once_and_differ(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    answer = await generate(client, n=3)
    assert len({drawn(answer, index).tobytes() for index in range(3)}) == 3
    assert sandbox.world.journal.drawings["nebul"] == 3


async def test_a_transparent_background_is_transparent(client: httpx.AsyncClient) -> None:
    image = drawn(await generate(client, background="transparent"))
    assert image.mode == "RGBA"
    assert image.getchannel("A").getextrema()[0] == 0


async def test_an_address_is_handed_out_when_asked_for(client: httpx.AsyncClient) -> None:
    [entry] = (await generate(client, response_format="url")).json()["data"]
    assert entry["b64_json"] is None
    assert image_of((await client.get(entry["url"])).content).size == (64, 64)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seed": 1}, "seed"),
        ({"style": "vivid"}, "style"),
        ({"guidance_scale": 2}, "guidance_scale"),
        ({"guidance": "2"}, "guidance"),
        ({"output_compression": 50}, "output_compression"),
        ({"stream": False}, "stream"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": "2"}, "n"),
        ({"n": None}, "n"),
        ({"quality": "ultra"}, "quality"),
        ({"output_format": "gif"}, "output_format"),
        ({"background": "transparent", "output_format": "jpeg"}, "background"),
    ],
)
async def test_a_generation_takes_only_what_is_documented(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    answer = await generate(client, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_an_unknown_model_is_a_404(client: httpx.AsyncClient) -> None:
    answer = await generate(client, model="gpt-image-2")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_an_edit_repaints_where_the_mask_is_transparent(client: httpx.AsyncClient) -> None:
    answer = await edit(client, [("image", plain()), ("mask", alpha_mask())], n="1", guidance="2.5")
    assert repainted_on_the_left(drawn(answer))


async def test_every_further_image_shows_in_the_result(client: httpx.AsyncClient) -> None:
    grey, red, green = plain(), plain(colour=(255, 0, 0)), plain(colour=(0, 255, 0))
    image = drawn(await edit(client, [("image", grey), ("image", red), ("image", green)]))
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert image.getpixel((15, 5)) == (0, 255, 0)


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ([("image[]", plain())], {}, "image[]"),
        ([("image", plain()), ("mask", white_mask())], {}, "mask"),
        ([("image", plain((48, 48))), ("mask", alpha_mask())], {}, "mask"),
        ([("image", plain())], {"seed": "1"}, "seed"),
        ([("image", plain())], {"n": "two"}, "n"),
        ([("mask", alpha_mask())], {}, "image"),
    ],
)
async def test_an_edit_takes_only_what_is_documented(
    client: httpx.AsyncClient, files: list[Any], fields: dict[str, str], param: str
) -> None:
    answer = await edit(client, files, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_text_field_sent_twice_is_refused(client: httpx.AsyncClient) -> None:
    data = {"model": KONTEXT, "prompt": ["a", "b"]}
    answer = await client.post("/nebul/v1/images/edits", data=data, files=[("image", plain())])
    assert answer.json()["error"]["code"] == "duplicate_parameter"


async def test_a_variation_takes_one_image_and_no_prompt(client: httpx.AsyncClient) -> None:
    path = "/nebul/v1/images/variations"
    answer = await client.post(path, data={"n": "2", "size": "80x48"}, files={"image": striped()})
    assert [drawn(answer, index).size for index in range(2)] == [(80, 48), (80, 48)]
    refused = await client.post(path, data={"prompt": "no"}, files={"image": striped()})
    assert refused.json()["error"]["param"] == "prompt"


async def test_an_upload_of_50_megabytes_arrives_whole(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    heavy = plain() + bytes(50 * 1024 * 1024)  # what follows the end of a PNG is no part of the picture
    assert drawn(await edit(client, [("image", heavy)])).size == (64, 64)
    [entry] = sandbox.world.journal.last(1)
    assert isinstance(entry["form"], list)
    assert entry["form"][-1]["size"] == len(heavy)


@pytest.mark.parametrize("path", ["/nebul/model/info", "/nebul/v1/model/info"])
async def test_the_catalogue_needs_no_credential(client: httpx.AsyncClient, path: str) -> None:
    del client.headers["authorization"]
    assert [model["model_name"] for model in (await client.get(path)).json()["data"]] == [KONTEXT]
