"""Requests' bodies: those that cannot be read, those that are too large, and what arrives upstream of the others."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import tempfile
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live import pictures
from tests.live.conftest import Start
from tests.live.pictures import encoded, heavy, opened, text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by
from tests.live.wire import Line, Reply, ask, edit, form, generate, line, post, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024
GENERATIONS, EDITS, VARIATIONS = (f"/v1/images/{name}" for name in ("generations", "edits", "variations"))
PNG, JPEG, WEBP = encoded(), encoded(format="JPEG"), encoded(format="WEBP")


def drawing(sandbox: Sandbox, **sections: Any) -> Config:
    """`gpt`: OpenAI's own dialect and rules; `kontext` and `schnell`: two of the presets'."""
    models = {
        "gpt": {"deployments": [{"provider": "openai", "model": "gpt-image-2"}], "profile": {"results": ["b64_json"]}},
        "kontext": {"deployments": [{"provider": "nebul", "model": "black-forest-labs/FLUX.1-Kontext-dev"}]},
        "schnell": {"deployments": [{"provider": "nebula", "model": "black-forest-labs/FLUX.1-schnell"}]},
        "sdxl": {"deployments": [{"provider": "nebula", "model": "stabilityai/stable-diffusion-xl-base-1.0"}]},
        "redux": {"deployments": [{"provider": "netmind", "model": "black-forest-labs/FLUX.1-Redux-dev"}]},
    }
    return {"providers": sandbox_providers(sandbox.base_url), "models": models, **sections}


def nobody(**sections: Any) -> Config:
    """A gateway whose requests go nowhere: what is refused, is refused by itself."""
    return {"providers": {"a": provider("http://127.0.0.1:9/v1")}, "models": {"flux": served_by("a")}, **sections}


def assert_drawn(reply: Reply) -> Any:
    assert (reply.status, reply.complete) == (200, True), reply
    for image in reply.json()["data"]:
        opened(image["b64_json"])
    return reply.json()


def seen(sandbox: Sandbox) -> dict[str, Any]:
    [entry] = sandbox.world.journal.last(9)
    return entry


# --- bodies that cannot be read ---

UNREADABLE = [
    (GENERATIONS, "application/json", b"", None, None),
    (GENERATIONS, "application/json", b"   ", None, None),
    (GENERATIONS, "application/json", b'{"model": "flux", "prompt": "x"', None, None),
    (GENERATIONS, "application/json", b"{'model': 'flux'}", None, None),
    (GENERATIONS, "application/json", b'[{"model": "flux"}]', None, "invalid_type"),
    (GENERATIONS, "application/json", b'"flux"', None, "invalid_type"),
    (GENERATIONS, "application/json", b"null", None, "invalid_type"),
    (GENERATIONS, "application/json", b'{"model": "flux", "prompt": "\xff"}', None, None),
    (GENERATIONS, "application/json", b'{"model": "flux", "prompt": "a", "n": NaN}', "n", "invalid_value"),
    (GENERATIONS, "application/json", b"[" * 100_000, None, None),
    (GENERATIONS, None, b'{"model": "flux", "prompt": "x"}', None, "unsupported_content_type"),
    (GENERATIONS, "text/plain", b'{"model": "flux"}', None, "unsupported_content_type"),
    (GENERATIONS, "application/x-www-form-urlencoded", b"model=flux&prompt=x", None, "unsupported_content_type"),
    (GENERATIONS, *form(("model", "flux"), ("prompt", "x")), None, "unsupported_content_type"),
    (EDITS, "application/x-www-form-urlencoded", b"model=flux&prompt=x", None, "unsupported_content_type"),
    (EDITS, None, b"x", None, "unsupported_content_type"),
    (VARIATIONS, "application/json", b"{}", None, "unsupported_content_type"),
    (EDITS, "multipart/form-data", b"--x\r\n", None, "invalid_multipart"),
    (EDITS, "multipart/form-data; boundary=", b"--x\r\n", None, "invalid_multipart"),
    (EDITS, "multipart/form-data; boundary=x", b"", None, "invalid_multipart"),
    (EDITS, "multipart/form-data; boundary=x", b"garbage", None, "invalid_multipart"),
    (EDITS, "multipart/form-data; boundary=x", b"--x--\r\n", "model", "missing_required_parameter"),
    (EDITS, form()[0], form(("model", "flux"), ("image", ("a.png", PNG)))[1][:-40], None, "invalid_multipart"),
    (EDITS, *form(("model", "flux"), ("prompt", "x")), "image", "missing_required_parameter"),
    (EDITS, *form(("model", "flux"), ("prompt", "x"), ("image", "text")), "image", "invalid_type"),
    (EDITS, *form(("model", "flux"), ("prompt", "x"), ("image", ("a.png", b""))), "image", "invalid_image_file"),
    (
        EDITS,
        *form(("model", "flux"), ("prompt", "x"), ("image", ("a.png", b"GIF89a.."))),
        "image",
        "invalid_image_file",
    ),
    *(
        (EDITS, *form(("model", "flux"), ("prompt", "x"), ("image", ("a.png", cut))), "image", "invalid_image_file")
        for cut in (PNG[:8], PNG[:33], PNG[:-12], PNG[:8] + bytes(100), JPEG[:3], JPEG[:100], WEBP[:20], WEBP[:-8])
    ),
    (EDITS, *form(("model", "flux"), ("prompt", "x"), ("images", ("a.png", PNG))), "images", "unknown_parameter"),
    (EDITS, *form(("model", "a"), ("model", "b"), ("image", ("a.png", PNG))), "model", "duplicate_parameter"),
]


@pytest.mark.parametrize(("path", "content_type", "body", "param", "code"), UNREADABLE)
async def test_a_body_that_cannot_be_read_is_a_400_that_says_why(
    start: Start, path: str, content_type: str | None, body: bytes, param: str | None, code: str | None
) -> None:
    gateway = await start(nobody())
    headers = {"content_type": content_type} if content_type else {}
    reply = await ask(gateway.port, request("POST", path, body, **headers))
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] in ("invalid_request_error", "image_generation_user_error")


async def test_a_request_without_any_body_is_a_400(start: Start) -> None:
    reply = await ask((await start(nobody())).port, request("POST", GENERATIONS, content_type="application/json"))
    assert (reply.status, reply.error()["type"]) == (400, "invalid_request_error")


async def test_a_compressed_body_is_a_400(start: Start) -> None:
    reply = await post((await start(nobody())).port, GENERATIONS, b"\x1f\x8b", content_encoding="gzip")
    assert (reply.status, reply.error()["code"]) == (400, "unsupported_content_encoding")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 11}, "n", "integer_above_max_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"n": "2"}, "n", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"size": "bogus"}, "size", "invalid_value"),
        ({"size": "0x0"}, "size", "invalid_value"),
        ({"size": 123}, "size", "invalid_type"),
        ({"size": "100000x16"}, "size", "invalid_value"),
        ({"prompt": ""}, "prompt", "empty_string"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": "x" * 32_001}, "prompt", "string_above_max_length"),
        ({"prompt": "\ud800"}, "prompt", "invalid_value"),
        ({"prompt": "a\0b"}, "prompt", "invalid_value"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": "nope"}, "model", "invalid_value"),
        ({"quality": "ultra"}, "quality", "invalid_value"),
        ({"output_compression": 101}, "output_compression", "integer_above_max_value"),
        ({"partial_images": 4}, "partial_images", "integer_above_max_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"response_format": "png"}, "response_format", "invalid_value"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_parameter_that_is_wrong_is_named(
    start: Start, fields: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    reply = await generate((await start(nobody())).port, **{"stream": stream, **fields})
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, param, code)


# --- bodies that are too large ---

SMALL = {"server": {"max_request_mb": 1, "max_upload_mb": 0.5}}


async def test_a_length_over_the_limit_is_refused_before_anything_was_sent(start: Start) -> None:
    gateway = await start(nobody(**SMALL))
    async with line(gateway.port) as opened:
        await opened.send(
            request("POST", EDITS, b"", content_type="multipart/form-data; boundary=x", content_length="5000000")
        )
        head, text = await opened.head(), await opened.piece()
    assert head.status == 413
    assert head.header("connection") == "close"
    assert json.loads(text)["error"]["code"] == "request_too_large"


async def test_a_caller_that_asks_first_is_refused_without_being_told_to_go_on(start: Start) -> None:
    gateway = await start(nobody(**SMALL))
    async with line(gateway.port) as opened:
        headers = {"content_type": "application/json", "content_length": "5000000", "expect": "100-continue"}
        await opened.send(request("POST", GENERATIONS, b"", **headers))
        assert (await opened.head()).status == 413


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
async def test_a_413_reaches_a_caller_who_is_still_sending(start: Start, chunked: bool, path: str) -> None:
    gateway = await start(nobody(**SMALL))
    body = form(("model", "flux"), ("image", ("a.png", heavy(8 * MEGABYTE))))[1]
    framing = {"transfer_encoding": "chunked"} if chunked else {"content_length": str(len(body))}
    content_type = form()[0] if path == EDITS else "application/json"
    async with line(gateway.port) as opened:
        await opened.send(request("POST", path, b"", content_type=content_type, **framing))
        for offset in range(0, len(body), 262_144):
            piece = body[offset : offset + 262_144]
            await opened.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await opened.send(b"0\r\n\r\n")
        reply = await opened.reply()
    assert (reply.status, reply.complete, reply.closed) == (413, True, True)
    assert reply.error()["type"] == "invalid_request_error"


async def test_a_file_over_its_limit_is_a_413_that_names_it(start: Start) -> None:
    gateway = await start(nobody(**SMALL))
    reply = await edit(gateway.port, ("prompt", "x"), ("image", ("a.png", PNG)), ("mask", ("m", heavy(600_000))))
    assert (reply.status, reply.error()["param"], reply.error()["code"]) == (413, "mask", "file_too_large")


async def test_a_prompt_over_a_megabyte_is_refused_in_the_envelope(start: Start) -> None:
    reply = await edit((await start(nobody())).port, ("model", "flux"), ("prompt", "x" * 1_100_000))
    assert reply.status == 413
    assert reply.error()["code"] == "request_too_large"


@pytest.mark.parametrize("path", ["/v1/models", "/nope", "/v1/images/generations"])
async def test_an_upload_to_where_none_is_taken_does_not_eat_the_answer(start: Start, path: str) -> None:
    gateway = await start(nobody(keys=[{"name": "a", "key": "a-key-of-a-caller"}]))
    reply = await post(gateway.port, path, b" " * 6 * MEGABYTE)
    assert (reply.status, reply.complete) == ({"/v1/models": 405, "/nope": 404}.get(path, 401), True)
    assert reply.error()


# --- bodies that do not end ---

GUARDED: Config = {"keys": [{"name": "a", "key": "a-key-of-a-caller"}]}
AUTHORIZED = {"authorization": "Bearer a-key-of-a-caller"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.patience.GRACE_SECONDS", 0.1)
    monkeypatch.setattr("app.api.responses.sending.DRAIN_SECONDS", 0.1)


async def dribbled(gateway: Gateway, head: bytes, begun: bytes) -> Reply:
    """The answer to a body that goes on for ever, a byte at a time; the connection is closed after it."""

    async def dribble(opened: Line) -> None:
        with contextlib.suppress(ConnectionError):
            await opened.send(head, begun)
            while True:
                await opened.send(b"x")
                await asyncio.sleep(0.01)

    async with line(gateway.port) as opened:
        sender = asyncio.create_task(dribble(opened))
        try:
            reply = await opened.reply()
            assert await opened.is_closed()
            return reply
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)


@pytest.mark.parametrize("path", [GENERATIONS, EDITS, "json"])
@pytest.mark.usefixtures("impatient")
async def test_a_body_that_dribbles_is_a_408_and_leaves_nothing_behind(start: Start, path: str) -> None:
    gateway = await start(nobody(**GUARDED, server={"min_upload_rate": 2345}))
    content_type, begun = "application/json", b'{"prompt": "'
    if path == EDITS:
        content_type, begun = form(("image", ("a.png", heavy(MEGABYTE))))
        begun = begun[: MEGABYTE // 2]
    elif path == "json":
        path, begun = EDITS, b'{"images": [{"image_url": "data:image/png;base64,' + text(heavy(MEGABYTE))[:-4].encode()
    head = request("POST", path, b"", content_type=content_type, content_length="50000000", **AUTHORIZED)
    reply = await dribbled(gateway, head, begun)
    assert (reply.status, reply.error()["code"]) == (408, "request_timeout")
    assert "fewer than 2345 bytes a second" in reply.error()["message"]
    assert reply.header("connection") == "close"
    budget = gateway.app.state.runtime.resources.upload_budget
    assert (budget.disk, budget.memory) == (0, 0)


@pytest.mark.parametrize(("path", "status"), [(GENERATIONS, 401), ("/nope", 404), ("/v1/models", 405)])
@pytest.mark.usefixtures("impatient")
async def test_a_body_that_dribbles_behind_a_refusal_is_drained_for_a_while_only(
    start: Start, path: str, status: int
) -> None:
    gateway = await start(nobody(**GUARDED))
    reply = await dribbled(gateway, request("POST", path, b"", content_length="50000000"), b"")
    assert (reply.status, reply.complete) == (status, True)


async def test_uploads_that_fill_the_budget_are_a_503_until_others_are_drawn(start: Start, upstream: Scripted) -> None:
    drawn = asyncio.Event()
    base_url = upstream.at("a", drawn, answer(image_json(text(PNG))))
    upstream.at("a", answer(image_json(text(PNG))))
    budget = {"max_upload_mb": 1, "max_request_mb": 1, "max_uploads_mb": 1}
    gateway = await start(
        {"providers": {"a": provider(base_url)}, "models": {"flux": served_by("a")}, "server": budget}
    )
    parts = (("model", "flux"), ("prompt", "x"), ("image", ("a.png", heavy(700_000))))
    first = asyncio.create_task(edit(gateway.port, *parts))
    await until(lambda: upstream.received("a"))
    refused = await edit(gateway.port, *parts)
    assert (refused.status, refused.error()["code"], refused.header("retry-after")) == (503, "no_room", "30")
    assert "server.max_uploads_mb" in refused.error()["message"]
    assert (await generate(gateway.port, n=11)).status == 400  # what has no pictures is read as ever
    assert gateway.app.state.runtime.resources.upload_budget.disk >= 700_000
    drawn.set()
    assert_drawn(await first)
    assert_drawn(await edit(gateway.port, *parts))
    assert gateway.app.state.runtime.resources.upload_budget.disk == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_an_upload_for_which_no_file_can_be_opened_is_a_503_and_blames_no_provider(
    start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    gateway = await start(drawing(sandbox))
    parts = (("model", "kontext"), ("prompt", "x"), ("image", ("a.png", heavy(300_000))))
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", refuse)
        refused = await edit(gateway.port, *parts)
    assert (refused.status, refused.error()["code"], refused.header("retry-after")) == (503, "no_room", "30")
    assert "oo many open files" in refused.error()["message"]
    assert not any(sandbox.world.journal.drawings.values())
    answer = await edit(gateway.port, *parts)
    assert_drawn(answer)
    assert answer.header("x-gateway-attempts") == "1"


# --- connections ---


async def test_a_connection_serves_one_request_after_the_other(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    good = json.dumps({"model": "schnell", "prompt": "a fox", "size": "64x64"}).encode()
    statuses = []
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for body in (b"{", good, b"[]", good):
        writer.write(request("POST", GENERATIONS, body, content_type="application/json"))
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(int(head.split()[1]))
        if b"chunked" in head:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    writer.close()
    assert statuses == [400, 200, 400, 200]


async def test_requests_sent_before_their_turn_are_answered_in_order(start: Start) -> None:
    gateway = await start(nobody())
    async with line(gateway.port) as opened:
        await opened.send(request("GET", "/v1/models/flux"), request("GET", "/healthz", connection="close"))
        assert (await opened.reply()).json()["id"] == "flux"


async def test_a_body_byte_by_byte_is_the_same_body(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    content_type, body = form(("image", ("a.png", PNG)), ("model", "gpt"), ("prompt", "a fox"))
    async with line(gateway.port) as opened:
        await opened.send(request("POST", EDITS, b"", content_type=content_type, content_length=str(len(body))))
        for index in range(len(body)):
            await opened.send(body[index : index + 1])
        assert_drawn(await opened.reply())


# --- what arrives upstream ---


@pytest.mark.parametrize(
    ("names", "upstream"),
    [
        (["image"], ["image"]),
        (["image[]"], ["image"]),
        (["image[0]"], ["image"]),
        (["image[]"] * 3, ["image[]"] * 3),
        (["image"] * 3, ["image[]"] * 3),
        (["image", "image[]"], ["image[]"] * 2),
        (["image[2]", "image[0]", "image[1]"], ["image[]"] * 3),
        (["image[]"] * 16, ["image[]"] * 16),
    ],
)
async def test_however_images_are_named_they_arrive_in_order(
    start: Start, sandbox: Sandbox, names: list[str], upstream: list[str]
) -> None:
    gateway = await start(drawing(sandbox))
    files = [encoded((64, 16 + index)) for index in range(len(names))]
    parts = [(name, ("upload", file)) for name, file in zip(names, files, strict=True)]
    reply = await edit(gateway.port, *parts, ("model", "gpt"), ("prompt", "a fox"))
    assert_drawn(reply)
    arrived = [part for part in seen(sandbox)["form"] if part["name"].startswith("image")]
    assert [part["name"] for part in arrived] == upstream
    order = [1, 2, 0] if names[0] == "image[2]" else range(len(files))
    assert [part["sha256"] for part in arrived] == [hashlib.sha256(files[index]).hexdigest() for index in order]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
async def test_what_a_picture_is_is_read_from_its_bytes(start: Start, sandbox: Sandbox, format: str) -> None:
    gateway = await start(drawing(sandbox))
    reply = await edit(
        gateway.port, ("image", ("wrong.gif", encoded(format=format))), ("model", "gpt"), ("prompt", "a fox")
    )
    assert_drawn(reply)
    [image] = [part for part in seen(sandbox)["form"] if part["name"] == "image"]
    assert image["content_type"] == f"image/{format.lower()}"


async def test_a_mask_of_openais_arrives_as_it_was_where_the_convention_is_the_same(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(drawing(sandbox))
    picture = encoded((64, 64), colour="white")
    parts = (("mask", ("m.png", pictures.mask())), ("image", ("i.png", picture)), ("prompt", "a fox"), ("model", "gpt"))
    image = opened(assert_drawn(await edit(gateway.port, *parts))["data"][0]["b64_json"]).convert("RGB")
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((32, 32)) != (255, 255, 255)


async def test_a_chunked_upload_with_files_first_is_drawn(start: Start, sandbox: Sandbox) -> None:
    """As Node sends a file that it reads as a stream."""
    gateway = await start(drawing(sandbox))
    content_type, body = form(("image", ("a.png", PNG)), ("model", "gpt"), ("prompt", "a fox"))
    async with line(gateway.port) as opened:
        await opened.send(request("POST", EDITS, b"", content_type=content_type, transfer_encoding="chunked"))
        for offset in range(0, len(body), 50):
            piece = body[offset : offset + 50]
            await opened.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await opened.send(b"0\r\n\r\n")
        assert_drawn(await opened.reply())


async def test_an_edit_in_json_arrives_as_a_form_with_files(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    urls = [f"data:image/png;base64,{text(encoded((64, edge)))}" for edge in (16, 32)]
    images = [{"image_url": url} for url in urls]
    body = {"images": images, "model": "gpt", "prompt": "a fox", "mask": None, "n": 1, "size": "64x64"}
    assert_drawn(await post(gateway.port, EDITS, body))
    arrived = seen(sandbox)["form"]
    assert [(part["name"], part.get("height")) for part in arrived if "sha256" in part] == [
        ("image[]", 16),
        ("image[]", 32),
    ]
    assert {"name": "size", "value": "64x64"} in arrived


@pytest.mark.parametrize(
    ("images", "param"),
    [
        ([], "images"),
        ({}, "images"),
        (["x"], "images[0]"),
        ([{"image_url": "https://example.com/a.png"}], "images[0].image_url"),
        ([{"image_url": "http://127.0.0.1/a.png"}], "images[0].image_url"),
        ([{"image_url": "file:///etc/passwd"}], "images[0].image_url"),
        ([{"image_url": "data:image/png;base64,####"}], "images[0].image_url"),
        ([{"file_id": "file-1"}], "images[0].file_id"),
        ([{"image_url": f"data:image/png;base64,{text(PNG)}"}] * 17, "images"),
    ],
)
async def test_images_in_json_that_cannot_be_taken_are_named(start: Start, images: Any, param: str) -> None:
    reply = await post((await start(nobody())).port, EDITS, {"model": "flux", "prompt": "x", "images": images})
    assert (reply.status, reply.error()["param"]) == (400, param)


async def test_a_variation_is_drawn(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    reply = await edit(gateway.port, ("image", ("a.png", PNG)), ("model", "redux"), path=VARIATIONS)
    assert opened(assert_drawn(reply)["data"][0]["b64_json"]).size == (64, 64)


async def test_the_fields_own_parameters_arrive_under_the_names_of_the_upstream(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    fields = {"width": 64, "height": 128, "guidance": 3.5, "steps": 4, "seed": 7}
    assert_drawn(await generate(gateway.port, model="schnell", **fields))
    assert seen(sandbox)["json"] == {
        "model": "black-forest-labs/FLUX.1-schnell",
        "prompt": "a red fox",
        "width": 64,
        "height": 128,
        "guidance_scale": 3.5,
        "num_steps": 4,
        "seed": 7,
    }


async def test_parameters_that_are_null_are_absent(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    nothing = dict.fromkeys(("n", "quality", "size", "stream", "user", "seed", "mask", "response_format", "unheard_of"))
    assert_drawn(await generate(gateway.port, model="sdxl", **nothing))
    assert set(seen(sandbox)["json"]) == {"model", "prompt"}


async def test_hints_that_are_not_honoured_are_reported_as_they_were_spelt(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    reply = await generate(gateway.port, model="sdxl", style="vivid", quality="hd", user="u", size="64x64")
    assert_drawn(reply)
    assert sorted((reply.header("x-gateway-dropped") or "").split(",")) == ["quality", "style", "user"]
    assert not {"style", "quality", "user"} & set(seen(sandbox)["json"])


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"seed": 7}, "seed", "unsupported_parameter"),
        ({"size": "1001x1000"}, "size", "invalid_value"),
        ({"background": "transparent"}, "background", "unsupported_parameter"),
        ({"lora": "x"}, "lora", "unknown_parameter"),
    ],
)
async def test_a_requirement_that_cannot_be_met_is_a_400_that_names_it(
    start: Start, sandbox: Sandbox, fields: dict[str, Any], param: str, code: str
) -> None:
    reply = await generate((await start(drawing(sandbox))).port, model="sdxl", **fields)
    error = reply.error()
    assert (reply.status, error["param"], error["code"]) == (400, param, code)
    assert sandbox.world.journal.last(9) == []


async def test_a_host_about_which_nothing_is_known_gets_everything_as_it_was_said(
    start: Start, upstream: Scripted
) -> None:
    base_url = upstream.at("a", answer(image_json(text(PNG))))
    said = {
        "model": "flux",
        "prompt": "ein Füchslein 🦊",
        "size": "512x512",
        "quality": "hd",
        "num_inference_steps": 4,
        "guidance_scale": 2.5,
        "seed": 7,
        "lora": {"name": "ink", "scale": [1, 2.5]},
        "response_format": "b64_json",
    }
    providers = {"a": provider(base_url, headers={"x-team": "art"})}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    assert_drawn(await post(gateway.port, GENERATIONS, said, authorization="Bearer callers-own", x_custom="1"))
    [arrived] = upstream.received("a")
    assert (arrived.method, arrived.target) == ("POST", "/a/v1/images/generations")
    assert arrived.json == said
    assert "Füchslein 🦊".encode() in arrived.body
    assert arrived.headers["authorization"] == "Bearer upstream-secret"
    assert arrived.headers["x-team"] == "art"
    assert arrived.headers["content-type"] == "application/json"
    assert arrived.headers["accept-encoding"] == "identity"
    assert "transfer-encoding" not in arrived.headers
    assert "x-custom" not in arrived.headers
    assert b"callers-own" not in b"".join(f"{k}{v}".encode() for k, v in arrived.headers.items())


async def test_a_form_arrives_with_a_length_and_nested_fields_as_the_sdks_nest_them(
    start: Start, upstream: Scripted
) -> None:
    base_url = upstream.at("a", answer(image_json(text(PNG))))
    gateway = await start({"providers": {"a": provider(base_url)}, "models": {"flux": served_by("a")}})
    parts = (
        ("model", "flux"),
        ("prompt", "ein Füchslein"),
        ("guidance", "3.5"),
        ("lora[name]", "ink"),
        ("tags[]", "x"),
        ("tags[]", "y"),
    )
    assert_drawn(await edit(gateway.port, *parts, ("image", ("ä b.png", PNG))))
    [arrived] = upstream.received("a")
    assert int(arrived.headers["content-length"]) == len(arrived.body)
    assert "transfer-encoding" not in arrived.headers
    body = arrived.body
    assert PNG in body
    assert 'filename="ä b.png"'.encode() in body
    for name, value in (("guidance", "3.5"), ("lora[name]", "ink"), ("tags[]", "x"), ("tags[]", "y")):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body


# --- memory ---


async def test_spools_are_gone_when_the_request_is_over(start: Start, upstream: Scripted) -> None:
    base_url = upstream.at("a", answer(image_json(text(PNG))))
    gateway = await start({"providers": {"a": provider(base_url)}, "models": {"flux": served_by("a")}})
    before = _nameless_files()
    for _ in range(3):
        assert_drawn(
            await edit(gateway.port, ("model", "flux"), ("prompt", "x"), ("image", ("a", heavy(2 * MEGABYTE))))
        )
    await until(lambda: _nameless_files() - gateway.spare_files <= before)


def _nameless_files() -> int:
    """Spools have no name; the book's database, which opens more files as it needs them, has one."""
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.isfile(link) and os.readlink(link).endswith(" (deleted)") for link in links)
