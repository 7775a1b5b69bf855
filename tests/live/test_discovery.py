"""What `/v1/models` says of a model is what requests then find: every simulated model, asked for all that it claims and
for what it does not."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from app.dialects import bfl
from tests.live.conftest import Start
from tests.live.house import bytes_of, decoded, file_of, marked, plain
from tests.live.loops import in_thread
from tests.live.pictures import encoded
from tests.live.servers import Gateway, provider, served_by, serving
from tests.live.wire import Reply, ask, edit, events, generate, request

pytestmark = pytest.mark.anyio

IDS = [
    "Bytedance/seedream-3-0-t2i-250415",
    "black-forest-labs/FLUX.1-Canny-dev",
    "black-forest-labs/FLUX.1-Depth-dev",
    "black-forest-labs/FLUX.1-Fill-dev",
    "black-forest-labs/FLUX.1-Kontext-dev",
    "black-forest-labs/FLUX.1-Redux-dev",
    "black-forest-labs/FLUX.1-schnell",
    "flux-2-flex",
    "flux-2-klein-4b",
    "flux-2-klein-9b",
    "flux-2-max",
    "flux-2-pro",
    "flux-dev",
    "flux-kontext-max",
    "flux-kontext-pro",
    "flux-pro-1.0-fill",
    "flux-pro-1.1",
    "flux-pro-1.1-ultra",
    "gpt-image-2",
    "runwayml/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-3.5-large",
    "stabilityai/stable-diffusion-xl-base-1.0",
]
ALIASES = {
    **dict.fromkeys(("gpt-image-1", "gpt-image-1.5", "gpt-image-1-mini"), "gpt-image-2"),
    "dall-e-2": "black-forest-labs/FLUX.1-Kontext-dev",
    "dall-e-3": "black-forest-labs/FLUX.1-schnell",
}
SMALLEST = {"Bytedance/seedream-3-0-t2i-250415": "512x512", "flux-pro-1.1": "256x256", "flux-dev": "256x256"}
WITHOUT_SIZES = {"flux-pro-1.1-ultra", "flux-kontext-pro", "flux-kontext-max"}  # of those that generate
OPERATIONS = ["edits", "generations", "variations"]
PHOTO = ("image", ("photo.png", encoded((256, 256), colour="grey")))
MASK = ("mask", ("mask.png", marked((256, 256))))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """As it serves with no configuration at all, but for the pauses between status calls."""
    with (
        mock.patch.multiple(bfl, FIRST_PAUSE=0.01, LONGEST_PAUSE=0.01),
        in_thread(lambda: serving({}, tmp_path_factory.mktemp("discovery"))) as running,
    ):
        yield running


async def get(port: int, path: str) -> Reply:
    return await ask(port, request("GET", path))


async def capabilities(gateway: Gateway, model: str) -> dict[str, Any]:
    reply = await get(gateway.port, f"/v1/models/{model}")
    assert reply.status == 200
    found: dict[str, Any] = reply.json()["capabilities"]
    return found


async def draw(gateway: Gateway, model: str, operation: str, *, mask: bool = False, **fields: Any) -> Reply:
    if operation == "generations":
        size = {} if model in WITHOUT_SIZES else {"size": SMALLEST.get(model, "64x64")}
        return await generate(gateway.port, model=model, **{**size, **fields})
    prompt = (("prompt", "a fox"),) if operation == "edits" else ()
    text = [(name, str(value).lower() if value is True else str(value)) for name, value in fields.items()]
    files = (PHOTO, MASK) if mask else (PHOTO,)
    return await edit(gateway.port, ("model", model), *prompt, *text, *files, path=f"/v1/images/{operation}")


def operation_of(can: dict[str, Any]) -> str:
    return "generations" if "generations" in can["operations"] else str(can["operations"][0])


async def test_all_models_are_listed_with_the_same_words_as_alone(gateway: Gateway) -> None:
    listed = (await get(gateway.port, "/v1/models")).json()
    assert sorted(model["id"] for model in listed["data"]) == sorted((*IDS, *ALIASES))
    assert {model["id"]: model["capabilities"]["alias_of"] for model in listed["data"]} == ALIASES | dict.fromkeys(IDS)
    for model in listed["data"]:
        assert (await get(gateway.port, f"/v1/models/{model['id']}")).json() == model


@pytest.mark.parametrize("model", IDS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_operations_are_those_that_are_done(gateway: Gateway, model: str, operation: str) -> None:
    can = await capabilities(gateway, model)
    reply = await draw(gateway, model, operation, mask=operation == "edits" and can["mask"])
    if operation in can["operations"]:
        assert reply.status == 200, reply.body[:500]
        return
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, "model", "unsupported_operation")
    assert ", ".join(can["operations"]) in error["message"]


@pytest.mark.parametrize("model", IDS)
async def test_masks_are_taken_and_needed_as_it_is_said(gateway: Gateway, model: str) -> None:
    can = await capabilities(gateway, model)
    if "edits" not in can["operations"]:
        assert not can["mask"]
        assert not can["mask_required"]
        assert can["max_images"] == ("variations" in can["operations"])
        return
    assert ((await draw(gateway, model, "edits", mask=True)).status == 200) == can["mask"]
    assert ((await draw(gateway, model, "edits")).status == 200) != can["mask_required"]


@pytest.mark.parametrize("model", IDS)
async def test_as_many_are_drawn_as_it_is_said_in_every_format_and_as_a_stream(gateway: Gateway, model: str) -> None:
    can = await capabilities(gateway, model)
    operation, mask = operation_of(can), can["mask_required"]
    assert (await draw(gateway, model, operation, mask=mask, n=can["max_n"] + 1)).error()["param"] == "n"
    for format in can["output_formats"]:
        reply = await draw(gateway, model, operation, mask=mask, output_format=format)
        image = decoded(bytes_of(reply))
        assert (image.format or "").lower() == format
        assert reply.json()["output_format"] == format
    assert can["streaming"] is True
    reply = await draw(gateway, model, operation, mask=mask, stream=True, n=2)
    names = [name.rpartition(".")[2] for name, _ in events(reply.body)]
    assert names == ["completed", "completed"]


@pytest.mark.parametrize("model", IDS)
async def test_partial_images_come_where_it_is_said(gateway: Gateway, model: str) -> None:
    can = await capabilities(gateway, model)
    operation = operation_of(can)
    if operation == "variations":
        return  # they know no partial images
    reply = await draw(gateway, model, operation, mask=can["mask_required"], stream=True, partial_images=2)
    names = [name.rpartition(".")[2] for name, _ in events(reply.body)]
    assert names == ["partial_image"] * (2 if can["partial_images"] else 0) + ["completed"]
    assert reply.header("x-gateway-dropped") == (None if can["partial_images"] else "partial_images")


@pytest.mark.parametrize("model", IDS)
async def test_no_more_images_are_taken_than_it_is_said(gateway: Gateway, model: str) -> None:
    can = await capabilities(gateway, model)
    if "edits" not in can["operations"]:
        return
    mask = (MASK,) if can["mask_required"] else ()

    async def with_images(count: int) -> Reply:
        images = [
            ("image[]", ("i.png", file_of(plain((256, 256)), compress_level=index % 9))) for index in range(count)
        ]
        images[0] = ("image[]", PHOTO[1])
        return await edit(gateway.port, ("model", model), ("prompt", "a fox"), *images, *mask)

    assert (await with_images(can["max_images"])).status == 200
    reply = await with_images(can["max_images"] + 1)
    assert (reply.status, reply.error()["param"]) == (400, "image")


@pytest.mark.parametrize("model", IDS)
@pytest.mark.parametrize(
    ("parameter", "value"),
    [("seed", 7), ("negative_prompt", "a cat"), ("steps", 20), ("guidance", 2.5), ("quality", "low"), ("user", "u")],
)
async def test_parameters_are_honoured_dropped_or_refused_as_it_is_said(
    gateway: Gateway, model: str, parameter: str, value: Any
) -> None:
    can = await capabilities(gateway, model)
    reply = await draw(gateway, model, operation_of(can), mask=can["mask_required"], **{parameter: value})
    if parameter in can["parameters"]:
        assert reply.status == 200, reply.body[:500]
    elif parameter in ("seed", "negative_prompt"):
        error = reply.error()
        assert (reply.status, error["param"], error["code"]) == (400, parameter, "unsupported_parameter")
    else:
        assert reply.status == 200
        assert reply.header("x-gateway-dropped") == parameter


@pytest.mark.parametrize("model", IDS)
async def test_sizes_are_told_where_they_can_be_chosen(gateway: Gateway, model: str) -> None:
    can = await capabilities(gateway, model)
    reply = await draw(gateway, model, operation_of(can), mask=can["mask_required"], size=SMALLEST.get(model, "64x64"))
    assert (reply.status, can["sizes"] != []) in ((200, True), (400, False))
    if not can["sizes"]:
        assert reply.error()["param"] == "size"


@pytest.mark.parametrize("model", IDS)
async def test_the_deployments_are_those_that_serve(gateway: Gateway, model: str) -> None:
    can = await capabilities(gateway, model)
    served = set()
    for operation in can["operations"]:
        for mask in {can["mask"] and operation == "edits", can["mask_required"]}:
            reply = await draw(gateway, model, operation, mask=mask)
            served.add(f"{reply.header('x-gateway-provider')}/{reply.header('x-gateway-model')}")
    assert served <= set(can["deployments"])
    assert can["aliases"] == []
    assert can["price_per_image"] is None or can["price_per_image"] > 0
    assert can["typical_seconds"] is None or can["typical_seconds"] > 0


async def test_what_the_configuration_says_is_told(start: Start) -> None:
    profile = {
        "operations": ["generations"],
        "size": {"list": ["64x64", "128x64"]},
        "price_per_image": 0.04,
        "typical_seconds": 7,
        "parameters": ["size", "seed"],
        "max_images": 3,
        "mask": "none",
        "streaming": False,
    }
    models = {"flux": served_by("a", aliases=["flux-dev"], profile=profile), "open": served_by("a")}
    gateway = await start({"providers": {"a": provider("http://127.0.0.1:9/v1")}, "models": models})
    told = await capabilities(gateway, "flux")
    assert await capabilities(gateway, "flux-dev") == {**told, "aliases": ["flux"], "alias_of": "flux"}
    assert told == {
        "operations": ["generations"],
        "sizes": ["64x64", "128x64"],
        "size_rules": [{"sizes": ["64x64", "128x64"]}],
        "max_n": 10,
        "output_formats": ["png", "jpeg", "webp"],
        "mask": False,
        "mask_required": False,
        "max_images": 0,
        "parameters": ["height", "seed", "size", "width"],
        "streaming": True,
        "partial_images": False,
        "price_per_image": 0.04,
        "typical_seconds": 7,
        "aliases": ["flux-dev"],
        "alias_of": None,
        "deployments": ["a/flux"],
    }
    assert (await capabilities(gateway, "open"))["parameters"] is None
