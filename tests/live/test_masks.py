"""Masks in pixels: whatever the caller's mask means and the provider's would mean, the region that was marked is the
one that is repainted."""

import base64
import io
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import (
    FILL,
    GREY,
    KONTEXT,
    House,
    assert_repainted,
    box_of,
    data_url,
    decoded,
    file_of,
    marked,
    near,
    picture,
    plain,
)
from tests.live.pictures import text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import provider, sandbox_providers, served_by
from tests.live.wire import Reply, edit, events, post

pytestmark = pytest.mark.anyio

SIZE = (64, 48)
MODELS = ["gpt", "kontext", "fill", "netmind-fill"]
PHOTO = file_of(plain(SIZE))


async def repaint(
    port: int, model: str, mask: bytes, *, photo: bytes = PHOTO, prompt: str = "paint it", **more: str
) -> Reply:
    files = (("image", ("photo.png", photo)), ("mask", ("mask.png", mask)))
    return await edit(port, ("model", model), ("prompt", prompt), *files, *more.items())


async def repaint_json(port: int, model: str, mask: bytes, *, photo: bytes = PHOTO, **more: Any) -> Reply:
    body = {"images": [{"image_url": data_url(photo)}], "mask": {"image_url": data_url(mask)}}
    return await post(port, "/v1/images/edits", {"model": model, "prompt": "paint it", **body, **more})


# --- every provider ---


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("door", [repaint, repaint_json])
async def test_what_is_transparent_is_repainted_and_nothing_else(home: House, model: str, door: Any) -> None:
    reply = await door(home.port, model, marked(SIZE))
    image = picture(reply)
    assert image.size == SIZE
    assert_repainted(image, box_of(SIZE), margin=0)
    assert reply.header("x-gateway-mapped") is None
    assert reply.header("x-gateway-dropped") is None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("said", "format"), [("white", "PNG"), ("black", "PNG"), ("white", "JPEG"), ("black", "WEBP")])
@pytest.mark.parametrize("door", [repaint, repaint_json])
async def test_a_mask_in_black_and_white_means_what_its_caller_says(
    home: House, model: str, said: str, format: str, door: Any
) -> None:
    reply = await door(home.port, model, marked(SIZE, said, format), mask_convention=said)
    assert_repainted(picture(reply), box_of(SIZE), margin=0 if format == "PNG" else 2)


@pytest.mark.parametrize("model", MODELS)
async def test_a_soft_edge_stays_soft(home: House, model: str) -> None:
    """From left to right: from repainted to kept."""
    alpha = Image.linear_gradient("L").rotate(90).resize(SIZE)
    reply = await repaint(home.port, model, file_of(Image.merge("RGBA", (alpha, alpha, alpha, alpha))))
    image = picture(reply).convert("RGB")
    paint = picture(await repaint(home.port, model, file_of(Image.new("RGBA", SIZE, (0, 0, 0, 0))))).getpixel((5, 5))
    assert isinstance(paint, tuple)
    for x in range(SIZE[0]):
        kept = alpha.getpixel((x, 20))
        assert isinstance(kept, int)
        expected = [round(p + (g - p) * kept / 255) for p, g in zip(paint, GREY, strict=False)]
        assert near(image.getpixel((x, 20)), expected, tolerance=3), x


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["LA", "palette", "keyed", "WebP"])
async def test_any_kind_of_transparency_is_a_mask(home: House, model: str, kind: str) -> None:
    mask = decoded(marked(SIZE))
    if kind == "LA":
        data = file_of(mask.convert("LA"))
    elif kind == "palette":
        data = file_of(mask.quantize(4))
    elif kind == "keyed":
        data = file_of(decoded(marked(SIZE, "white")), transparency=(255, 255, 255))
    else:
        data = file_of(mask, "WEBP", lossless=True)
    assert_repainted(picture(await repaint(home.port, model, data)), box_of(SIZE), margin=0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("alpha", [0, 255])
async def test_all_or_nothing_is_a_mask_too(home: House, model: str, alpha: int) -> None:
    image = picture(await repaint(home.port, model, file_of(Image.new("RGBA", SIZE, (9, 9, 9, alpha)))))
    assert near(image.getpixel((3, 3)), GREY) == bool(alpha)
    assert near(image.getpixel((60, 40)), GREY) == bool(alpha)


# --- every pair of conventions, at a host of which nothing else is known ---


@pytest.mark.parametrize("said", ["alpha", "white", "black"])
@pytest.mark.parametrize("meant", ["alpha", "white", "black"])
async def test_every_convention_is_turned_into_every_other(
    start: Start, upstream: Scripted, said: str, meant: str
) -> None:
    providers = {"a": provider(upstream.at("a", answer(image_json(text(PHOTO)))))}
    gateway = await start({"providers": providers, "models": {"m": served_by("a", profile={"mask": meant})}})
    assert (await repaint(gateway.port, "m", marked(SIZE, said), mask_convention=said)).status == 200
    [received] = upstream.received("a")
    parts = received.body.split(b"\r\n\r\n")
    data = next(part for head, part in pairwise(parts) if b'name="mask"' in head)
    mask = Image.open(io.BytesIO(data)).convert("RGBA")
    inside, outside = mask.getpixel((20, 15)), mask.getpixel((60, 40))
    assert isinstance(inside, tuple)
    assert isinstance(outside, tuple)
    if meant == "alpha":
        assert (inside[3], outside[3]) == (0, 255)
    else:
        assert (inside[0], outside[0]) == ((255, 0) if meant == "white" else (0, 255))
        assert inside[3] == outside[3] == 255
    assert b"mask_convention" not in received.body


# --- what is refused ---


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("door", [repaint, repaint_json])
async def test_a_mask_that_says_nothing_or_of_something_else_is_refused(home: House, model: str, door: Any) -> None:
    without_alpha, other_size = marked(SIZE, "white"), marked((48, 64))
    for mask, word in ((without_alpha, "alpha"), (other_size, "48x64")):
        reply = await door(home.port, model, mask)
        error = reply.error()
        assert (reply.status, error["param"], error["code"]) == (400, "mask", "invalid_mask_image_format")
        assert word in error["message"]
        assert reply.header("x-gateway-provider") is None
        assert reply.header("x-gateway-attempts") is None


@pytest.mark.parametrize("n", [1, 3])
async def test_what_is_refused_here_counts_no_attempts(home: House, n: int) -> None:
    reply = await repaint(home.port, "fill", marked((48, 64)), n=str(n))
    assert reply.error()["code"] == "invalid_mask_image_format"
    assert reply.header("x-gateway-attempts") is None


@pytest.mark.parametrize("model", ["depth", "reshape"])
async def test_a_mask_that_a_model_would_ignore_is_refused_and_models_that_heed_it_are_named(
    home: House, model: str
) -> None:
    reply = await repaint(home.port, model, marked(SIZE), prompt=f"unseen by {model}")
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, "mask", "unsupported_parameter")
    for able in ("gpt", "kontext", "fill", "netmind-fill"):
        assert f"{able}" in error["message"]
    assert home.seen(f"unseen by {model}") == []


@pytest.mark.parametrize("model", ["fill", "netmind-fill"])
async def test_a_model_that_needs_a_mask_says_so(home: House, model: str) -> None:
    reply = await edit(home.port, ("model", model), ("prompt", "a fox"), ("image", ("photo.png", PHOTO)))
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, "mask", "missing_required_parameter")


async def test_a_convention_that_there_is_not_is_refused(home: House) -> None:
    reply = await repaint(home.port, "gpt", marked(SIZE), mask_convention="grey")
    assert (reply.status, reply.error()["param"]) == (400, "mask_convention")


# --- several images, sizes, failover ---


@pytest.mark.parametrize("model", ["gpt", "kontext"])
async def test_a_mask_is_one_of_the_first_image(home: House, model: str) -> None:
    other = ("other.png", file_of(plain((32, 32), "red")))
    parts = [("image[]", ("photo.png", PHOTO)), ("image[]", other), ("mask", ("mask.png", marked(SIZE)))]
    reply = await edit(home.port, ("model", model), ("prompt", "paint the first"), *parts)
    image = picture(reply)
    assert image.size == SIZE
    assert_repainted(image, box_of(SIZE), margin=0)
    parts[0], parts[1] = ("image[]", other), ("image[]", ("photo.png", PHOTO))
    reply = await edit(home.port, ("model", model), ("prompt", "paint the first"), *parts)
    assert reply.error()["code"] == "invalid_mask_image_format"


async def test_a_derived_size_moves_image_and_mask_together_and_is_reported(home: House) -> None:
    size = (250, 120)
    reply = await repaint(
        home.port, "fill", marked(size), photo=file_of(plain(size)), prompt="move both", stream="false"
    )
    image = picture(reply)
    assert image.size == (256, 128 if image.height == 128 else 112)
    assert reply.header("x-gateway-mapped") == f"size={image.width}x{image.height}"
    [seen] = home.seen("move both")
    assert (seen["width"], seen["height"]) == image.size
    assert (seen["image"]["width"], seen["image"]["height"]) == image.size
    assert (seen["mask"]["width"], seen["mask"]["height"]) == image.size
    left, top, right, bottom = box_of(size)
    x, y = image.width / size[0], image.height / size[1]
    assert_repainted(image, (round(left * x), round(top * y), round(right * x), round(bottom * y)), margin=3)


@pytest.mark.parametrize("order", [("nebul", "nebula"), ("nebula", "nebul"), ("netmind", "nebul")])
async def test_failover_to_another_convention_keeps_the_region(
    start: Start, sandbox: Sandbox, order: tuple[str, str]
) -> None:
    upstream = {"nebul": KONTEXT, "nebula": FILL, "netmind": FILL}
    deployments = [{"provider": name, "model": upstream[name]} for name in order]
    gateway = await start(
        {"providers": sandbox_providers(sandbox.base_url), "models": {"m": {"deployments": deployments}}}
    )
    prompt = f"paint it [[fault@{order[0]}:503]]"
    for said in ("alpha", "white"):
        reply = await repaint(gateway.port, "m", marked(SIZE, said), mask_convention=said, prompt=prompt)
        assert_repainted(picture(reply), box_of(SIZE), margin=0)
        assert reply.header("x-gateway-provider") == order[1]
        assert reply.header("x-gateway-attempts") == "2"


async def test_a_mask_follows_a_photograph_that_is_stored_lying(home: House) -> None:
    """As seen or as stored: whichever way the mask was made, the place that it marks is the one that is repainted."""
    upright = plain((64, 48))
    upright.paste("white", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # is to be turned clockwise to be seen upright
    photo = file_of(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    as_seen = marked((64, 48))
    as_stored = file_of(decoded(as_seen).transpose(Image.Transpose.ROTATE_90))
    for mask in (as_seen, as_stored):
        for model in MODELS:
            image = picture(await repaint(home.port, model, mask, photo=photo)).convert("RGB")
            assert image.size == (64, 48), model
            assert near(image.getpixel((3, 3)), (255, 255, 255)), model
            assert not near(image.getpixel((24, 18)), GREY), model
            assert near(image.getpixel((50, 40)), GREY), model


async def test_a_mask_at_every_provider_gives_the_same_picture(home: House) -> None:
    replies = [await repaint(home.port, model, marked(SIZE), prompt="one and the same") for model in MODELS]
    pictures = {picture(reply).convert("RGB").tobytes() for reply in replies}
    assert len(pictures) == 1


@pytest.mark.parametrize("model", ["fill", "netmind-fill", "gpt"])
async def test_every_one_of_several_is_repainted_in_the_same_place(home: House, model: str) -> None:
    for said in ("alpha", "black"):
        reply = await repaint(home.port, model, marked(SIZE, said), mask_convention=said, n="3")
        assert len(reply.json()["data"]) == 3
        for index in range(3):
            assert_repainted(picture(reply, index), box_of(SIZE), margin=0)


async def test_a_mask_in_a_stream_marks_the_same_place(home: House) -> None:
    for model in MODELS:
        reply = await repaint(home.port, model, marked(SIZE, "white"), mask_convention="white", stream="true")
        [(name, document)] = events(reply.body)
        assert name == "image_edit.completed"
        assert_repainted(decoded(base64.b64decode(document["b64_json"])), box_of(SIZE), margin=0)
