"""What callers send arrives as it was meant: pictures upright and in a format that the provider reads, in their order;
parameters by the provider's names, or reported, or refused."""

import itertools
from typing import Any

import pytest
from PIL import Image, ImageStat

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import (
    GPT_IMAGE_2,
    SCHNELL,
    House,
    at,
    bytes_of,
    data_url,
    fields_of,
    file_of,
    marked,
    near,
    picture,
    plain,
)
from tests.live.pictures import encoded, text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, provider, sandbox_providers, served_by
from tests.live.wire import Reply, edit, events, generate, post
from tests.pixels import corners, exif, mpo, stored

pytestmark = pytest.mark.anyio

SIZE = (64, 48)
UPRIGHT = corners(SIZE)
counter = itertools.count()


async def send(port: int, model: str, *photos: bytes, **fields: str) -> tuple[str, Reply]:
    """An edit, or a variation by the model that knows nothing else, with a prompt of its own."""
    prompt = f"edit {next(counter)}"
    files = [("image[]" if len(photos) > 1 else "image", ("photo", photo)) for photo in photos]
    files += [("mask", ("mask", marked(SIZE)))] if "fill" in model else []
    if model == "redux":
        return prompt, await edit(port, ("model", model), *files, path="/v1/images/variations")
    return prompt, await edit(port, ("model", model), ("prompt", prompt), *fields.items(), *files)


async def send_json(port: int, model: str, *urls: str, **fields: Any) -> tuple[str, Reply]:
    prompt = f"edit {next(counter)}"
    body = {"model": model, "prompt": prompt, "images": [{"image_url": url} for url in urls], **fields}
    return prompt, await post(port, "/v1/images/edits", body)


def images_of(fields: dict[str, Any]) -> list[dict[str, Any]]:
    found = fields.get("image[]", fields.get("image"))
    return found if isinstance(found, list) else [found] if found else []


def alike(one: Image.Image, other: Image.Image, tolerance: int = 16) -> bool:
    """In the middle of each quarter."""
    places = [(x, y) for x in (16, 48) for y in (12, 36)]
    one, other = one.convert("RGB"), other.convert("RGB")
    return one.size == other.size and all(near(one.getpixel(p), other.getpixel(p), tolerance) for p in places)


# --- pictures ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("model", ["gpt", "kontext"])
async def test_a_photograph_arrives_upright(home: House, model: str, orientation: int) -> None:
    photo = file_of(stored(UPRIGHT, orientation), "JPEG", quality=95, exif=exif(orientation))
    prompt, reply = await send(home.port, model, photo)
    assert picture(reply).size == SIZE
    [seen] = images_of(home.seen(prompt)[0])
    assert (seen["format"], seen["width"], seen["height"]) == ("jpeg", *SIZE)
    assert (seen["filename"], seen["content_type"]) == ("photo.jpg" if orientation > 1 else "photo", "image/jpeg")
    body = {"model": model, "prompt": prompt, "images": [{"image_url": data_url(file_of(UPRIGHT))}]}
    assert alike(picture(reply), picture(await post(home.port, "/v1/images/edits", body)))


@pytest.mark.parametrize("model", ["gpt", "kontext", "depth", "reshape", "redux", "fill", "netmind-fill"])
async def test_every_provider_gets_a_photograph_upright(home: House, model: str) -> None:
    photo = file_of(stored(UPRIGHT, 6), "JPEG", quality=95, exif=exif(6))
    _, reply = await send(home.port, model, photo)
    image = picture(reply).convert("RGB")
    assert image.size == SIZE
    assert reply.header("x-gateway-mapped") is None
    # The white quarter is the lower right one, whatever was painted over all of them.
    grey = image.convert("L")
    bright = [ImageStat.Stat(grey.crop((x, y, x + 8, y + 8))).mean[0] for x in (12, 44) for y in (8, 32)]
    assert max(bright) == bright[3]
    if "fill" in model:
        assert near(image.getpixel((48, 36)), (255, 255, 255))


KINDS = {
    "several in one file (MPO)": mpo(),
    "palette": file_of(UPRIGHT.quantize(8)),
    "grey": file_of(UPRIGHT.convert("L")),
    "black and white": file_of(UPRIGHT.convert("1")),
    "16 bits of grey": file_of(UPRIGHT.convert("L").convert("I").convert("I;16")),
    "CMYK": file_of(UPRIGHT.convert("CMYK"), "JPEG", quality=95),
    "grey JPEG": file_of(UPRIGHT.convert("L"), "JPEG"),
    "WebP": file_of(UPRIGHT, "WEBP", lossless=True),
    "animated WebP": file_of(UPRIGHT, "WEBP", save_all=True, append_images=[plain(SIZE)], lossless=True),
    "transparent": file_of(UPRIGHT.convert("RGBA")),
    "interlaced": file_of(UPRIGHT, "PNG", interlace=1),
    "progressive": file_of(UPRIGHT, "JPEG", progressive=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["gpt", "kontext", "depth", "reshape"])
async def test_a_picture_of_any_kind_arrives_as_an_ordinary_one(home: House, model: str, kind: str) -> None:
    prompt, reply = await send(home.port, model, KINDS[kind])
    assert picture(reply).width in (32, 64)
    [seen] = images_of(home.seen(prompt)[0])
    assert seen["format"] in ("png", "jpeg", "webp")
    assert seen["mode"] in ("RGB", "RGBA")
    if seen["content_type"] is not None:
        assert seen["content_type"] == f"image/{seen['format']}"


async def test_an_ordinary_picture_arrives_as_it_was(home: House) -> None:
    for photo in (file_of(UPRIGHT), file_of(UPRIGHT, "JPEG"), file_of(UPRIGHT.convert("RGBA"))):
        prompt, _ = await send(home.port, "gpt", photo)
        [seen] = images_of(home.seen(prompt)[0])
        assert seen["size"] == len(photo)


@pytest.mark.parametrize("format", ["WEBP", "JPEG", "PNG"])
async def test_a_provider_that_reads_png_only_gets_png(start: Start, sandbox: Sandbox, format: str) -> None:
    gpt: Config = at("openai", "gpt-image-2", **GPT_IMAGE_2, input_formats=["png"])
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": {"gpt": gpt}})
    photos = [file_of(UPRIGHT, format), file_of(plain((32, 32)), format)]
    _, reply = await send(gateway.port, "gpt", *photos)
    assert picture(reply).size == SIZE
    seen = images_of(fields_of(sandbox.world.journal.last(1)[0]))
    assert [(part["format"], part["width"], part["content_type"]) for part in seen] == [
        ("png", 64, "image/png"),
        ("png", 32, "image/png"),
    ]
    assert all(part["filename"].endswith(".png") for part in seen if format != "PNG")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
AVIF = b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + b"\0" * 64
NOT_TAKEN = {
    "image/gif": encoded(SIZE, "GIF"),
    "image/bmp": encoded(SIZE, "BMP"),
    "image/tiff": encoded(SIZE, "TIFF"),
    "image/heic": HEIC,
    "image/avif": AVIF,
    "image/svg+xml": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "application/pdf": b"%PDF-1.7\n" + b"x" * 99,
    "text/html": b"<!doctype html><html></html>",
    "no image": b"just some words, which are no image",
    "empty": b"",
}


@pytest.mark.parametrize("kind", NOT_TAKEN)
@pytest.mark.parametrize("place", ["image", "mask"])
async def test_what_is_no_picture_that_is_taken_is_told_precisely(home: House, kind: str, place: str) -> None:
    data = {"image": file_of(UPRIGHT), "mask": marked(SIZE), place: NOT_TAKEN[kind]}
    files = [(name, (f"{name}.png", content)) for name, content in data.items()]
    form = await edit(home.port, ("model", "gpt"), ("prompt", "x"), *files)
    body = {
        "model": "gpt",
        "prompt": "x",
        "images": [{"image_url": data_url(data["image"])}],
        "mask": {"image_url": data_url(data["mask"])},
    }
    in_json = await post(home.port, "/v1/images/edits", body)
    for reply, names in ((form, [place]), (in_json, ["images[0].image_url", "mask.image_url"])):
        error = reply.error()
        assert reply.status == 400
        assert error["param"] in names
        if kind == "empty":
            assert "empty" in error["message"]
            continue
        assert error["code"] == "invalid_image_file"
        assert ("PNG, JPEG or WebP") in error["message"]
        assert kind == "no image" or kind in error["message"]


@pytest.mark.parametrize("model", ["fill", "kontext"])
async def test_a_picture_that_is_cut_and_has_to_be_converted_is_told(home: House, model: str) -> None:
    photo = file_of(stored(UPRIGHT, 6), "JPEG", quality=95, exif=exif(6))
    _, reply = await send(home.port, model, photo[: len(photo) * 2 // 3])
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, "image", "invalid_image_file")


# --- their order ---

WIDTHS = [16, 32, 48, 80, 96, 112]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["image[]"] * 6, [0, 1, 2, 3, 4, 5]),
        (["image"] * 6, [0, 1, 2, 3, 4, 5]),
        ([f"image[{index}]" for index in range(6)], [0, 1, 2, 3, 4, 5]),
        ([f"image[{index}]" for index in (5, 3, 1, 0, 2, 4)], [3, 2, 4, 1, 5, 0]),
        ([f"image[{index}]" for index in (10, 9, 2, 1, 11, 0)], [5, 3, 2, 1, 0, 4]),
    ],
)
@pytest.mark.parametrize("model", ["gpt", "kontext"])
async def test_several_images_keep_their_order(home: House, model: str, names: list[str], order: list[int]) -> None:
    photos = [file_of(plain((width, 32)), ("PNG", "WEBP")[width % 32 == 0]) for width in WIDTHS]
    prompt = f"in order {next(counter)}"
    parts = [(name, ("upload", photo)) for name, photo in zip(names, photos, strict=True)]
    reply = await edit(home.port, *parts, ("model", model), ("prompt", prompt))
    assert picture(reply).width == WIDTHS[order[0]]
    [seen] = home.seen(prompt)
    assert [part["width"] for part in images_of(seen)] == [WIDTHS[index] for index in order]


@pytest.mark.parametrize("model", ["gpt", "kontext"])
async def test_several_images_in_json_keep_their_order(home: House, model: str) -> None:
    prompt, _ = await send_json(home.port, model, *(data_url(file_of(plain((width, 32)))) for width in WIDTHS))
    assert [part["width"] for part in images_of(home.seen(prompt)[0])] == WIDTHS


@pytest.mark.parametrize("model", ["depth", "fill", "reshape"])
async def test_more_images_than_a_model_takes_are_refused_and_others_named(home: House, model: str) -> None:
    _, reply = await send(home.port, model, file_of(UPRIGHT), file_of(UPRIGHT))
    error = reply.error()
    assert (reply.status, error["param"]) == (400, "image")
    assert "gpt" in error["message"]
    assert "kontext" in error["message"]


async def test_a_variation_is_of_one_picture(home: House) -> None:
    for model, field in itertools.product(("redux", "kontext"), ("image", "image[]")):
        files = [(field, ("photo", file_of(UPRIGHT)))] * 2
        reply = await edit(home.port, ("model", model), *files, path="/v1/images/variations")
        assert (reply.status, reply.error()["param"]) == (400, "image")
        assert "at most 1 image(s), not 2; send fewer" in reply.error()["message"]


# --- addresses ---


async def test_addresses_are_not_fetched_unless_the_configuration_says_so(home: House) -> None:
    _, reply = await send_json(home.port, "gpt", "https://example.com/fox.png")
    error = reply.error()
    assert (reply.status, error["param"]) == (400, "images[0].image_url")
    assert "server.remote_images" in error["message"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "10.0.0.1", "169.254.169.254", "0.0.0.0"]
)
async def test_addresses_of_private_hosts_are_refused(start: Start, sandbox: Sandbox, host: str) -> None:
    gpt: Config = at("openai", "gpt-image-2", **GPT_IMAGE_2)
    providers = sandbox_providers(sandbox.base_url)
    gateway = await start({"providers": providers, "models": {"gpt": gpt}, "server": {"remote_images": True}})
    port = sandbox.base_url.rpartition(":")[2]
    _, reply = await send_json(gateway.port, "gpt", f"https://{host}:{port}/pictures/1.png?secret=1")
    error = reply.error()
    assert (reply.status, error["code"], error["param"]) == (400, "invalid_image_url", "images[0].image_url")
    assert "public" in error["message"]
    assert "secret" not in error["message"]
    _, reply = await send_json(gateway.port, "gpt", f"http://{host}:{port}/pictures/1.png")
    assert (reply.status, reply.error()["param"]) == (400, "images[0].image_url")
    _, reply = await send_json(gateway.port, "gpt", data_url(file_of(UPRIGHT)))
    assert reply.status == 200
    assert sandbox.world.journal.drawings["openai"] == 1


# --- seeds ---


@pytest.mark.parametrize("seed", [0, 7, 2**31])
async def test_a_seed_is_sent_and_told(home: House, seed: int) -> None:
    prompt = f"seeded {seed}"
    reply = await generate(home.port, model="schnell", size="64x48", prompt=prompt, seed=seed)
    assert reply.json()["data"][0]["seed"] == seed
    again = await generate(home.port, model="schnell", size="64x48", prompt=prompt, seed=seed)
    assert bytes_of(reply) == bytes_of(again)
    assert [fields["seed"] for fields in home.seen(prompt)] == [seed, seed]
    streamed = await generate(home.port, model="schnell", size="64x48", prompt=prompt, seed=seed, stream=True)
    [(_, document)] = events(streamed.body)
    assert (document["seed"], document["b64_json"]) == (seed, text(bytes_of(reply)))


@pytest.mark.parametrize("seed", [None, -1])
async def test_without_a_seed_none_is_made_up(home: House, seed: int | None) -> None:
    prompt = f"unseeded {seed}"
    reply = await generate(home.port, model="schnell", size="64x48", prompt=prompt, seed=seed)
    assert "seed" not in reply.json()["data"][0]
    assert "seed" not in home.seen(prompt)[0]


@pytest.mark.parametrize("model", ["sdxl", "netmind-schnell", "gpt", "kontext"])
@pytest.mark.parametrize("name", ["seed", "negative_prompt"])
async def test_what_must_not_be_lost_is_refused_where_it_is_not_known(home: House, model: str, name: str) -> None:
    prompt = f"unseen with {name} at {model}"
    value = 7 if name == "seed" else "a cat"
    reply = await generate(home.port, model=model, size="64x48", prompt=prompt, **{name: value})
    if (model, name) == ("sdxl", "negative_prompt"):
        assert home.seen(prompt)[0]["negative_prompt"] == "a cat"
        return
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, name, "unsupported_parameter")
    assert ("schnell" if name == "seed" else "sdxl") in error["message"]
    assert home.seen(prompt) == []


async def test_a_seed_goes_to_the_deployment_that_knows_seeds(start: Start, sandbox: Sandbox) -> None:
    flux = served_by("netmind", "nebula")
    for deployment in flux["deployments"]:
        deployment["model"] = SCHNELL
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": {"flux": flux}})
    assert (await generate(gateway.port, size="64x48")).header("x-gateway-provider") == "netmind"
    reply = await generate(gateway.port, size="64x48", seed=3)
    assert reply.header("x-gateway-provider") == "nebula"
    assert reply.json()["data"][0]["seed"] == 3


async def test_the_seed_that_the_provider_tells_is_the_one_that_holds(start: Start, upstream: Scripted) -> None:
    said = {"created": 1, "data": [{"b64_json": text(encoded()), "seed": 99}]}
    providers = {"a": provider(upstream.at("a", answer(said)))}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    for fields in ({}, {"seed": 5}):
        assert (await generate(gateway.port, **fields)).json()["data"][0]["seed"] == 99
    assert [received.json.get("seed") for received in upstream.received("a")] == [None, 5]


# --- hints ---

HINTS = {"style": "vivid", "quality": "high", "user": "u", "moderation": "low", "steps": 9, "guidance_scale": 2.5}


@pytest.mark.parametrize(
    ("model", "dropped"),
    [
        ("netmind-schnell", {"style", "quality", "user", "moderation", "steps", "guidance_scale"}),
        ("schnell", {"style", "quality", "user", "moderation"}),
        ("gpt", {"style", "steps", "guidance_scale"}),
        ("kontext", {"style", "moderation", "steps"}),
    ],
)
async def test_hints_that_are_lost_are_reported_everywhere(home: House, model: str, dropped: set[str]) -> None:
    reply = await generate(home.port, model=model, size="64x48", **HINTS)
    assert reply.status == 200, reply.body
    assert set((reply.header("x-gateway-dropped") or "").split(",")) == dropped
    for n in (1, 2):
        reply = await generate(home.port, model=model, size="64x48", stream=True, n=n, **HINTS)
        for _, document in events(reply.body):
            assert set(document["gateway"]["dropped"]) == dropped
    reply = await generate(home.port, model=model, size="64x48", n=2, **HINTS)
    assert set((reply.header("x-gateway-dropped") or "").split(",")) == dropped


@pytest.mark.parametrize("model", ["netmind-schnell", "schnell", "sdxl", "gpt", "kontext"])
async def test_what_leaves_the_choice_to_the_provider_is_not_reported(home: House, model: str) -> None:
    auto = dict.fromkeys(("quality", "background", "moderation"), "auto")
    reply = await generate(home.port, model=model, size="64x48", **auto)
    assert reply.status == 200
    assert reply.header("x-gateway-dropped") is None
    [(_, document)] = events((await generate(home.port, model=model, size="64x48", stream=True, **auto)).body)
    assert document["gateway"]["dropped"] == []


async def test_hints_in_a_form_are_reported_too(home: House) -> None:
    _, reply = await send(home.port, "depth", file_of(UPRIGHT), quality="high", steps="9", input_fidelity="high")
    assert set((reply.header("x-gateway-dropped") or "").split(",")) == {"quality", "steps", "input_fidelity"}


@pytest.mark.parametrize("model", ["netmind-schnell", "schnell", "gpt", "kontext"])
async def test_hints_that_a_generation_cannot_need_are_reported_too(home: House, model: str) -> None:
    reply = await generate(home.port, model=model, size="64x48", input_fidelity="high", partial_images=2)
    assert (reply.status, reply.header("x-gateway-dropped")) == (200, "input_fidelity,partial_images")
    reply = await generate(home.port, model=model, size="64x48", partial_images=0)
    assert (reply.status, reply.header("x-gateway-dropped")) == (200, None)


# --- what nobody knows ---


@pytest.mark.parametrize("model", ["netmind-schnell", "schnell", "gpt", "kontext"])
async def test_a_field_that_nobody_knows_is_refused(home: House, model: str) -> None:
    for fields in ({"lora": "x"}, {"extra": {"a": 1}}, {"Prompt": "x"}, {"mask_convention": "white"}):
        reply = await generate(home.port, model=model, size="64x48", **fields)
        error = reply.error()
        assert (reply.status, error["param"], error["code"]) == (400, next(iter(fields)), "unknown_parameter")


async def test_a_field_that_nobody_knows_is_refused_in_edits(home: House) -> None:
    for name in ("lora", "lora[weight]", "loras[]"):
        _, reply = await send(home.port, "kontext", file_of(UPRIGHT), **{name: "x"})
        assert (reply.status, reply.error()["code"]) == (400, "unknown_parameter"), name
    _, reply = await send_json(home.port, "kontext", data_url(file_of(UPRIGHT)), lora={"weight": 1})
    assert (reply.status, reply.error()["param"]) == (400, "lora")


EXTRA = {"lora": {"name": "ink", "weights": [0.5, 1]}, "tiled": True, "note": "å", "nothing": None, "count": 3}


async def test_a_field_that_nobody_knows_passes_to_a_host_that_may_know_it(start: Start, upstream: Scripted) -> None:
    providers = {"a": provider(upstream.at("a", answer(image_json(text(encoded())))))}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    assert (await generate(gateway.port, **EXTRA)).status == 200
    assert (await send_json(gateway.port, "flux", data_url(file_of(UPRIGHT)), **EXTRA))[1].status == 200
    flat = {"lora[name]": "ink", "lora[weights][]": "1", "tiled": "true", "note": "å"}
    assert (await send(gateway.port, "flux", file_of(UPRIGHT), **flat))[1].status == 200
    in_json, from_json, from_form = upstream.received("a")
    said = {name: value for name, value in EXTRA.items() if value is not None}
    assert {name: in_json.json.get(name) for name in EXTRA if name in in_json.json} == said
    parts = {'"lora[name]"\r\n\r\nink\r\n', '"tiled"\r\n\r\ntrue\r\n', '"note"\r\n\r\nå\r\n'}
    for received in (from_json, from_form):
        for part in parts:
            assert f"name={part}".encode() in received.body
    assert b'name="lora[weights][]"\r\n\r\n0.5\r\n' in from_json.body
    assert b'name="count"\r\n\r\n3\r\n' in from_json.body
    assert b'name="nothing"' not in from_json.body


async def test_a_field_that_nobody_knows_goes_to_the_deployment_that_may_know_it(
    start: Start, upstream: Scripted
) -> None:
    script = answer(image_json(text(encoded())))
    providers = {name: provider(upstream.at(name, script)) for name in "ab"}
    flux = served_by("a", "b")
    flux["deployments"][0]["profile"] = {"extra": "refuse"}
    gateway = await start({"providers": providers, "models": {"flux": flux}})
    assert (await generate(gateway.port)).header("x-gateway-provider") == "a"
    assert (await generate(gateway.port, lora="x")).header("x-gateway-provider") == "b"
