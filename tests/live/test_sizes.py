"""Sizes: drawn as asked, or refused with the nearest that would be; never something else without a word."""

import re
from typing import Any

import pytest
from PIL import Image

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import SCHNELL, SEEDREAM, House, at, fields_of, file_of, marked, picture, plain
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, provider, sandbox_providers, served_by
from tests.live.wire import Reply, edit, generate

pytestmark = pytest.mark.anyio

PHOTO = file_of(plain((64, 48)))


def refusal(reply: Reply) -> dict[str, Any]:
    error = reply.error()
    assert (reply.status, error["param"]) == (400, "size")
    assert reply.header("x-gateway-provider") is None
    return error


def drawn_size(reply: Reply) -> str:
    """As the picture has it; the answer says the same."""
    size = "{}x{}".format(*picture(reply).size)
    assert reply.json()["size"] == size
    return size


# --- as asked ---


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "sdxl", "gpt", "kontext"])
@pytest.mark.parametrize("size", ["64x64", "96x48", "48x128", "16x16"])
async def test_a_size_that_can_be_drawn_is_drawn(home: House, model: str, size: str) -> None:
    reply = await generate(home.port, model=model, size=size)
    assert drawn_size(reply) == size
    assert reply.header("x-gateway-mapped") is None


@pytest.mark.parametrize("model", ["fill", "reshape", "kontext", "gpt"])
async def test_an_edit_is_drawn_in_the_size_that_was_asked_for(home: House, model: str) -> None:
    mask = (("mask", ("m.png", marked((64, 48)))),) if model == "fill" else ()
    photo = ("image", ("i.png", PHOTO))
    reply = await edit(home.port, photo, *mask, ("model", model), ("prompt", "a fox"), ("size", "96x80"))
    assert drawn_size(reply) == "96x80"


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "sdxl", "gpt", "kontext"])
async def test_width_and_height_are_a_size(home: House, model: str) -> None:
    prompt = f"width and height at {model}"
    assert drawn_size(await generate(home.port, model=model, width=96, height=64, prompt=prompt)) == "96x64"
    [seen] = home.seen(prompt)
    if model in ("schnell", "sdxl"):
        assert (seen["width"], seen["height"]) == (96, 64)
        assert "size" not in seen
    else:
        assert seen["size"] == "96x64"
        assert "width" not in seen


async def test_width_and_height_in_a_form_are_a_size(home: House) -> None:
    photo = ("image", ("i.png", PHOTO))
    edges = (("width", "96"), ("height", "80"))
    assert drawn_size(await edit(home.port, photo, ("model", "gpt"), ("prompt", "a fox"), *edges)) == "96x80"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"width": 64}, "height"),
        ({"height": 64}, "width"),
        ({"width": 64, "height": 64, "size": "64x48"}, "size"),
        ({"width": 0, "height": 64}, "width"),
        ({"size": "0x0"}, "size"),
        ({"size": "64"}, "size"),
        ({"size": "64x"}, "size"),
        ({"size": "large"}, "size"),
        ({"size": "100000x64"}, "size"),
        ({"size": 64}, "size"),
    ],
)
async def test_a_size_that_is_none_is_refused(home: House, said: dict[str, Any], param: str) -> None:
    reply = await generate(home.port, model="schnell", **said)
    assert (reply.status, reply.error()["param"]) == (400, param)


async def test_a_size_said_twice_alike_is_said(home: House) -> None:
    assert drawn_size(await generate(home.port, model="schnell", width=64, height=48, size="64x48")) == "64x48"


# --- refused ---


@pytest.mark.parametrize(
    ("model", "size", "nearest"),
    [
        ("schnell", "100x130", "96x128"),
        ("netmind-schnell", "250x250", "256x256"),
        ("sdxl", "100x131", "96x128"),
        ("gpt", "65x65", "64x64"),
        ("kontext", "63x48", "64x48"),
        ("schnell", "1x1", "16x16"),
        ("seedream", "256x256", "512x512"),
        ("seedream", "300x600", "512x1024"),
        ("gpt", "4000x2000", "3840x1920"),
    ],
)
async def test_a_size_that_cannot_be_drawn_is_refused_with_the_nearest_which_can(
    home: House, model: str, size: str, nearest: str
) -> None:
    error = refusal(await generate(home.port, model=model, size=size, prompt=f"never seen {size}"))
    assert error["code"] == "invalid_value"
    assert size in error["message"]
    told = re.search(r"(\d+x\d+) is the nearest", error["message"])
    assert told
    assert told[1] == nearest
    assert home.seen(f"never seen {size}") == []
    if nearest != "3840x1920":
        assert drawn_size(await generate(home.port, model=model, size=nearest)) == nearest


async def test_a_picture_that_would_be_too_large_is_refused_with_one_of_its_shape(home: House) -> None:
    photo = ("image", ("i.png", PHOTO))
    error = refusal(await edit(home.port, photo, ("model", "reshape"), ("prompt", "x"), ("size", "2048x1024")))
    told = re.search(r"(\d+)x(\d+) is the nearest", error["message"])
    assert told
    width, height = int(told[1]), int(told[2])
    assert width * height <= 1_062_400
    assert 1.9 < width / height < 2.1


@pytest.mark.parametrize("model", ["depth", "netmind-fill"])
async def test_where_nobody_can_choose_the_size_nobody_is_ignored(home: House, model: str) -> None:
    mask = (("mask", ("m.png", marked((64, 48)))),) if model == "netmind-fill" else ()
    photo = ("image", ("i.png", PHOTO))
    reply = await edit(home.port, photo, *mask, ("model", model), ("prompt", "x"), ("size", "64x48"))
    assert "leave it out" in refusal(reply)["message"]
    assert (await edit(home.port, photo, *mask, ("model", model), ("prompt", "x"))).status == 200


# --- lists, defaults, failover ---


async def test_a_list_of_sizes_is_kept_to(start: Start, sandbox: Sandbox) -> None:
    listed = at("nebula", SCHNELL, size={"list": ["64x64", "128x64", "64x128"]})
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": {"flux": listed}})
    for size in ("64x64", "128x64", "64x128"):
        assert drawn_size(await generate(gateway.port, size=size)) == size
    for size, nearest in (("128x128", "64x64"), ("256x128", "128x64"), ("80x160", "64x128")):
        message = refusal(await generate(gateway.port, size=size))["message"]
        assert f"{nearest} is the nearest" in message
        assert "64x64, 128x64, 64x128" in message


async def test_a_size_goes_to_the_deployment_that_can(start: Start, sandbox: Sandbox) -> None:
    deployments = [{"provider": "nebula", "model": SEEDREAM}, {"provider": "netmind", "model": SCHNELL}]
    gateway = await start(
        {"providers": sandbox_providers(sandbox.base_url), "models": {"m": {"deployments": deployments}}}
    )
    reply = await generate(gateway.port, model="m", size="64x64")
    assert drawn_size(reply) == "64x64"
    assert (reply.header("x-gateway-provider"), reply.header("x-gateway-attempts")) == ("netmind", "1")


@pytest.mark.parametrize("model", ["kontext", "gpt", "schnell", "netmind-schnell"])
async def test_auto_leaves_it_to_the_provider(start: Start, upstream: Scripted, home: House, model: str) -> None:
    """Upstream nothing is said, for `auto` is not known everywhere; asked of a host that answers small."""
    providers = {"a": provider(upstream.at("a", answer(image_json(""))))}
    models = home.gateway.app.state.runtime.catalog.models
    profile = next(each for each in models if model in (each.name, *each.aliases)).deployments[0].profile
    parameters = sorted(set(profile.parameters or ()) - {"width", "height", "n"} | {"size"})
    gateway = await start(
        {"providers": providers, "models": {"flux": served_by("a", profile={"parameters": parameters})}}
    )
    await generate(gateway.port, size="auto")
    [received] = upstream.received("a")
    assert "size" not in received.json


# --- an edit without a size ---


@pytest.mark.parametrize(
    ("photo", "size", "mapped"),
    [
        ((64, 48), "64x48", None),
        ((128, 16), "128x16", None),
        ((100, 100), "96x96", "size=96x96"),
        ((250, 120), "256x128", "size=256x128"),
        ((5, 5), "16x16", "size=16x16"),
    ],
)
@pytest.mark.parametrize("model", ["fill", "reshape"])
@pytest.mark.parametrize("stream", ["false", "true"])
async def test_an_edit_keeps_the_pictures_size_or_the_nearest_and_says_so(
    home: House, photo: tuple[int, int], size: str, mapped: str | None, model: str, stream: str
) -> None:
    mask = (("mask", ("m.png", marked(photo))),) if model == "fill" else ()
    files = (("image", ("i.png", file_of(plain(photo)))), *mask)
    reply = await edit(home.port, *files, ("model", model), ("prompt", "a fox"), ("stream", stream), ("size", "auto"))
    assert reply.header("x-gateway-mapped") == mapped
    if stream == "false":
        assert drawn_size(reply) == size
    else:
        assert f'"mapped":{[mapped] if mapped else []}'.replace("'", '"').encode() in reply.body
        assert f'"size":"{size}"'.encode() in reply.body


@pytest.mark.parametrize("n", ["1", "2"])
async def test_a_photograph_that_is_stored_lying_keeps_its_upright_shape_and_is_told_by_it(home: House, n: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = file_of(plain((120, 250)), "JPEG", exif=exif)
    files = (("image", ("i.jpg", photo)), ("mask", ("m.png", marked((250, 120)))))
    for model, sent in (("fill", files), ("reshape", files[:1])):
        reply = await edit(home.port, *sent, ("model", model), ("prompt", "a fox"), ("n", n))
        assert drawn_size(reply) == "256x128"
        assert reply.header("x-gateway-mapped") == "size=256x128"


@pytest.mark.parametrize("model", ["kontext", "gpt"])
async def test_an_edit_without_a_size_is_sent_without_one_where_the_model_keeps_the_pictures(
    home: House, model: str
) -> None:
    prompt = f"no size at {model}"
    reply = await edit(home.port, ("image", ("i.png", PHOTO)), ("model", model), ("prompt", prompt))
    assert drawn_size(reply) == "64x48"
    [seen] = home.seen(prompt)
    assert "size" not in seen
    assert reply.header("x-gateway-mapped") is None


async def test_a_default_size_is_sent_where_none_is_asked_for(start: Start, sandbox: Sandbox) -> None:
    flux: Config = at("nebula", SCHNELL, default_size="96x64")
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": {"flux": flux}})
    assert drawn_size(await generate(gateway.port)) == "96x64"
    assert drawn_size(await generate(gateway.port, size="64x64")) == "64x64"
    seen = [fields_of(entry) for entry in sandbox.world.journal.last(2)]
    assert [(fields["width"], fields["height"]) for fields in seen] == [(96, 64), (64, 64)]
