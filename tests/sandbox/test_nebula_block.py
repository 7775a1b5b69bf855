"""Nebula Block: parameters by model, raw base64, its own shapes of answers and errors."""

from typing import Any

import httpx
import pytest

from tests.sandbox.pictures import drawn, mask, plain, repainted_on_the_left, saved, text, white_mask
from tests.sandbox.pictures import image_of as opened

pytestmark = pytest.mark.anyio

SDXL, SCHNELL = "stabilityai/stable-diffusion-xl-base-1.0", "black-forest-labs/FLUX.1-schnell"
SEEDREAM, FILL = "Bytedance/seedream-3-0-t2i-250415", "black-forest-labs/FLUX.1-Fill-dev"
KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"
PICTURE, WHITE = text(plain()), text(white_mask())


async def ask(client: httpx.AsyncClient, model: str = SCHNELL, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "a flying cat", "width": 64, "height": 64, **fields}
    return await client.post("/nebula/api/v1/images/generation", json=body)


async def test_an_answer_has_the_providers_own_shape(client: httpx.AsyncClient) -> None:
    answer = await ask(client, width=96)
    assert drawn(answer).size == (96, 64)
    body = answer.json()
    [entry] = body.pop("data")
    assert body == {
        "model": SCHNELL,
        "object": "list",
        "message": "Image generated successfully",
        "status": "success",
    }
    assert set(entry) == {"timings", "index", "b64_json"}
    assert entry["index"] == 0
    assert entry["timings"]["inference"] >= 0


async def test_the_same_seed_draws_the_same_and_another_does_not(client: httpx.AsyncClient) -> None:
    first, again, other = [drawn(await ask(client, seed=seed)).tobytes() for seed in (7, 7, 8)]
    assert first == again != other


@pytest.mark.parametrize("fields", [{}, {"seed": -1}])
async def test_without_a_seed_every_drawing_differs(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    assert drawn(await ask(client, **fields)).tobytes() != drawn(await ask(client, **fields)).tobytes()


async def test_seedream_draws_jpeg(client: httpx.AsyncClient) -> None:
    assert drawn(await ask(client, SEEDREAM, guidance_scale=2.5)).format == "JPEG"


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (SDXL, {"negative_prompt": "rain", "num_steps": 25, "guidance_scale": 9}),
        (SDXL, {"negative_prompt": None}),
        (SCHNELL, {"num_steps": 4, "guidance_scale": 3.5, "seed": 1}),
        (FILL, {"num_steps": 40, "guidance_scale": 4.5, "image": PICTURE, "mask": WHITE}),
        (KONTEXT, {"guidance_scale": 2.5, "image": PICTURE}),
    ],
)
async def test_a_model_takes_what_the_guide_lists_for_it(
    client: httpx.AsyncClient, model: str, fields: dict[str, Any]
) -> None:
    assert drawn(await ask(client, model, **fields)).size == (64, 64)


@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [
        (SDXL, {"seed": 1}, "seed"),
        (SDXL, {"width": 65}, "divisible by 8"),
        (SCHNELL, {"negative_prompt": "rain"}, "negative_prompt"),
        (SCHNELL, {"n": 1}, "'n'"),
        (SCHNELL, {"size": "64x64"}, "size"),
        (SCHNELL, {"response_format": "b64_json"}, "response_format"),
        (SCHNELL, {"image": PICTURE}, "image"),
        (SCHNELL, {"width": "64"}, "width"),
        (SCHNELL, {"width": True}, "width"),
        (SCHNELL, {"seed": None}, "seed"),
        (SCHNELL, {"num_steps": 0}, "num_steps"),
        (SEEDREAM, {"num_steps": 4}, "num_steps"),
        (SEEDREAM, {"seed": -1}, "seed"),
        (FILL, {"image": PICTURE}, "mask"),
        (FILL, {"mask": WHITE}, "image"),
        (FILL, {"image": PICTURE, "mask": WHITE, "seed": 1}, "seed"),
        (FILL, {"image": f"data:image/png;base64,{PICTURE}", "mask": WHITE}, "data:"),
        (FILL, {"image": PICTURE, "mask": "%%%"}, "mask"),
        (FILL, {"image": text(b"no picture"), "mask": WHITE}, "image"),
        (FILL, {"input_image": PICTURE, "mask_image": WHITE}, "input_image"),
        (KONTEXT, {"image": PICTURE, "mask": WHITE}, "mask"),
        ("gpt-image-2", {}, "gpt-image-2"),
    ],
)
async def test_a_model_refuses_everything_else_in_the_providers_own_shape(
    client: httpx.AsyncClient, model: str, fields: dict[str, Any], said: str
) -> None:
    answer = await ask(client, model, **fields)
    assert answer.status_code == 400
    body = answer.json()
    assert (set(body), body["data"], body["status"]) == ({"data", "message", "status"}, None, "failed")
    assert said in body["message"]


async def test_fill_repaints_where_the_mask_is_white(client: httpx.AsyncClient) -> None:
    jpeg_mask = text(saved(opened(white_mask()), "JPEG"))
    assert repainted_on_the_left(drawn(await ask(client, FILL, image=PICTURE, mask=jpeg_mask)))
    dark_hole = text(mask("RGBA", (255, 255, 255, 255), (0, 0, 0, 0)))
    assert not repainted_on_the_left(drawn(await ask(client, FILL, image=PICTURE, mask=dark_hole)))


async def test_fill_draws_1024x1024_unless_told(client: httpx.AsyncClient) -> None:
    body = {"model": FILL, "prompt": "a hat", "image": PICTURE, "mask": WHITE}
    answer = await client.post("/nebula/api/v1/images/generation", json=body)
    assert drawn(answer).size == (1024, 1024)


async def test_fill_moves_a_size_to_multiples_of_16(client: httpx.AsyncClient) -> None:
    answer = await ask(client, FILL, width=100, height=60, image=PICTURE, mask=WHITE)
    assert drawn(answer).size == (96, 48)


async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient) -> None:
    for content in (b"[]", b"{", b""):
        headers = {"content-type": "application/json"}
        answer = await client.post("/nebula/api/v1/images/generation", content=content, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (400, "failed")


async def test_the_models_are_listed(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/nebula/api/v1/serverless/models")).json()
    assert answer["status"] == "success"
    assert {model["model_name"] for model in answer["data"]["models"]} == {SDXL, SCHNELL, SEEDREAM, FILL, KONTEXT}
