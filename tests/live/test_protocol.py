"""What of HTTP is the server's own business: offers of other protocols, callers of HTTP/1.0."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.pictures import encoded, heavy, opened, text
from tests.live.scripted import End, Scripted, Step, answer, event, head, image_json
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by
from tests.live.wire import Reply, ask, events, form, line, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PNG = encoded()
JSON = "application/json"
GOOD = json.dumps({"model": "schnell", "prompt": "a fox", "size": "64x64"}).encode()

# As the JDK's HttpClient and `curl --http2` make it with every request, and others that nobody here takes up.
H2C = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAEAAEAAAAIAAAAA"}
OFFERS = [
    H2C,
    {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_key": "eA==", "sec_websocket_version": "13"},
    {"connection": "upgrade", "upgrade": "TLS/1.2"},
    {"connection": "keep-alive, Upgrade", "upgrade": "h2c, TLS/1.3"},
]


def drawing(sandbox: Sandbox) -> Config:
    gpt = {"deployments": [{"provider": "openai", "model": "gpt-image-2"}], "profile": {"results": ["b64_json"]}}
    schnell = {"deployments": [{"provider": "nebula", "model": "black-forest-labs/FLUX.1-schnell"}]}
    return {"providers": sandbox_providers(sandbox.base_url), "models": {"gpt": gpt, "schnell": schnell}}


def chunked(body: bytes, step: int) -> bytes:
    pieces = [body[offset : offset + step] for offset in range(0, len(body), step)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def framed(
    body: bytes,
    offer: dict[str, str],
    *,
    in_chunks: bool,
    step: int = 50,
    path: str = GENERATIONS,
    content_type: str = JSON,
) -> bytes:
    headers = {"content_type": content_type, **offer}
    if in_chunks:
        return request("POST", path, None, transfer_encoding="chunked", **headers) + chunked(body, step)
    return request("POST", path, body, **headers)


def assert_drawn(reply: Reply) -> Any:
    assert (reply.status, reply.complete) == (200, True), reply
    [image] = reply.json()["data"]
    return opened(image["b64_json"])


async def scripted(start: Start, upstream: Scripted, *steps: Step) -> Gateway:
    providers = {"a": provider(upstream.at("a", *steps), timeout={"read": 5})}
    return await start({"providers": providers, "models": {"flux": served_by("a")}})


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose answers are looked at as they are, for 10 s at most."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


async def showing(start: Start, upstream: Scripted, picture: str) -> Gateway:
    return await scripted(start, upstream, answer(image_json(picture)))


async def statuses(gateway: Gateway, requests: list[bytes], *, together: bool) -> list[int]:
    """Of the answers, until the connection is closed."""
    found = []
    async with raw(gateway.port) as (reader, writer):
        for asked in [b"".join(requests), *[b""] * (len(requests) - 1)] if together else requests:
            writer.write(asked)
            said = await reader.readuntil(b"\r\n\r\n")
            found.append(int(said.split()[1]))
            if b"chunked" in said:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                await reader.readexactly(int(said.lower().partition(b"content-length: ")[2].split()[0]))
        assert await reader.read() == b""
    return found


# --- offers of other protocols ---


@pytest.mark.parametrize("offer", OFFERS, ids=[offer["upgrade"] for offer in OFFERS])
@pytest.mark.parametrize("in_chunks", [False, True])
async def test_a_request_that_offers_another_protocol_is_answered_as_it_is(
    start: Start, sandbox: Sandbox, caplog: pytest.LogCaptureFixture, offer: dict[str, str], in_chunks: bool
) -> None:
    gateway = await start(drawing(sandbox))
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        assert_drawn(await ask(gateway.port, framed(GOOD, offer, in_chunks=in_chunks)))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("where", ["after the head", "within the head", "within the body"])
async def test_the_body_after_an_offer_may_come_later_than_its_head(
    start: Start, sandbox: Sandbox, in_chunks: bool, where: str
) -> None:
    gateway = await start(drawing(sandbox))
    whole = framed(GOOD, H2C, in_chunks=in_chunks)
    end = whole.index(b"\r\n\r\n") + 4
    cut = {"after the head": end, "within the head": end - 2, "within the body": end + 20}[where]
    async with line(gateway.port) as caller:
        await caller.send(whole[:cut])
        await asyncio.sleep(0.05)
        await caller.send(whole[cut:])
        assert_drawn(await caller.reply())


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_a_request_with_an_offer_may_come_byte_by_byte(start: Start, sandbox: Sandbox, in_chunks: bool) -> None:
    gateway = await start(drawing(sandbox))
    whole = framed(GOOD, H2C, in_chunks=in_chunks, step=7)
    async with raw(gateway.port) as (reader, writer):
        for index in range(len(whole)):
            writer.write(whole[index : index + 1])
            await asyncio.sleep(0.0005)  # for a segment of its own
        assert b" 200 " in await reader.readline()


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_a_large_form_after_an_offer_arrives_whole(start: Start, sandbox: Sandbox, in_chunks: bool) -> None:
    gateway = await start(drawing(sandbox))
    picture = heavy(8 * MEGABYTE)
    content_type, body = form(("image", ("a.png", picture)), ("model", "gpt"), ("prompt", "a fox"))
    whole = framed(body, H2C, in_chunks=in_chunks, step=65_536, path=EDITS, content_type=content_type)
    assert_drawn(await ask(gateway.port, whole))
    entry: Any = sandbox.world.journal.last(1)[0]
    [arrived] = [part for part in entry["form"] if part["name"] == "image"]
    assert arrived["sha256"] == hashlib.sha256(picture).hexdigest()


@pytest.mark.parametrize("together", [True, False])
async def test_requests_after_one_with_an_offer_are_answered_in_order(
    start: Start, sandbox: Sandbox, together: bool
) -> None:
    gateway = await start(drawing(sandbox))
    requests = [
        framed(GOOD, H2C, in_chunks=False),
        framed(b"{", H2C, in_chunks=True),
        request("GET", "/v1/models/gpt", None, **H2C),
        framed(b"{}", {}, in_chunks=False),
        request("GET", "/nothing", None, **OFFERS[1]),
        framed(GOOD, {}, in_chunks=True),
        request("GET", "/healthz", connection="close, Upgrade", upgrade="h2c"),
    ]
    assert await statuses(gateway, requests, together=together) == [200, 400, 200, 400, 404, 200, 200]


async def test_thousands_of_offers_at_once_are_answered_one_by_one(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    last = request("GET", "/healthz", connection="close")
    assert set(await statuses(gateway, [one] * 3_000 + [last], together=True)) == {200}


async def test_a_websocket_is_declined_where_a_library_for_it_is_installed(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    async with line(gateway.port) as caller:
        await until(lambda: gateway.connections)
        [connection] = gateway.state.connections
        connection.ws_protocol_class = object  # type: ignore[union-attr]
        await caller.send(request("GET", "/v1/models", None, **OFFERS[1]))
        assert (await caller.reply()).json()["object"] == "list"


async def test_who_offers_and_asks_whether_to_send_is_told_to(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    length = str(len(GOOD))
    headers = {"content_type": JSON, "content_length": length, "expect": "100-continue", **H2C}
    async with raw(gateway.port) as (reader, writer):
        writer.write(request("POST", GENERATIONS, b"", **headers))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(GOOD)
        assert b" 200 " in await reader.readline()


async def test_a_broken_body_after_an_offer_is_refused(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    broken = request("POST", GENERATIONS, None, content_type=JSON, transfer_encoding="chunked", **H2C) + b"no length"
    reply = await ask(gateway.port, broken)
    assert (reply.status, reply.closed) == (400, True)


async def test_a_framing_that_nobody_can_read_is_refused_with_an_offer_too(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    reply = await ask(
        gateway.port, request("POST", GENERATIONS, None, content_type=JSON, transfer_encoding="gzip", **H2C) + b"x"
    )
    assert (reply.status, reply.header("connection")) == (400, "close")


async def test_a_caller_who_leaves_within_the_body_after_an_offer_is_not_drawn_for(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(drawing(sandbox))
    async with line(gateway.port) as caller:
        await caller.send(request("POST", GENERATIONS, GOOD, content_type=JSON, **H2C)[:-5])
        await asyncio.sleep(0.05)
    [told] = await gateway.request_lines()
    assert told["status"] != 200
    assert sandbox.world.journal.last(9) == []


# --- callers of HTTP/1.0 ---


def old(asked: bytes) -> bytes:
    return asked.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


async def told_to_the_end(gateway: Gateway, asked: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for a caller who knows no chunks: all that comes until the connection ends."""
    async with raw(gateway.port) as (reader, writer):
        writer.write(old(asked))
        said = await reader.read()
    top, _, body = said.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = dict(entry.split(": ", 1) for entry in lines)
    assert "transfer-encoding" not in headers, headers
    assert headers["connection"] == "close"
    assert int(headers.get("content-length", len(body))) == len(body)
    return int(first.split()[1]), headers, body


BODY = json.dumps({"model": "flux", "prompt": "a red fox"}).encode()


def generation(**fields: Any) -> bytes:
    body = json.dumps({"model": "flux", "prompt": "a red fox", **fields}).encode()
    return request("POST", GENERATIONS, body, content_type=JSON)


@pytest.mark.parametrize("length", [100, 3 * MEGABYTE])
async def test_json_for_http_1_0_ends_with_the_connection(start: Start, upstream: Scripted, length: int) -> None:
    picture = text(heavy(length))
    gateway = await showing(start, upstream, picture)
    status, _, body = await told_to_the_end(gateway, generation())
    assert (status, json.loads(body)["data"][0]["b64_json"]) == (200, picture)
    [told] = await gateway.request_lines()
    assert told["status"] == 200
    assert "error" not in told


async def test_events_for_http_1_0_end_with_the_connection(start: Start, upstream: Scripted) -> None:
    gateway = await showing(start, upstream, text(PNG))
    status, headers, body = await told_to_the_end(gateway, generation(stream=True))
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    [(name, document)] = events(body)
    assert (name, document["b64_json"]) == ("image_generation.completed", text(PNG))


async def test_a_picture_for_http_1_0_ends_with_the_connection(start: Start, upstream: Scripted) -> None:
    picture = heavy(MEGABYTE)
    gateway = await showing(start, upstream, text(picture))
    body = json.dumps({"model": "flux", "prompt": "a red fox"}).encode()
    asked = request("POST", GENERATIONS, body, content_type=JSON, accept="image/png")
    status, headers, said = await told_to_the_end(gateway, asked)
    assert (status, headers["content-type"], said) == (200, "image/png", picture)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (generation(model="nope"), 400),
        (request("POST", GENERATIONS, b"{", content_type=JSON), 400),
        (request("GET", "/nothing"), 404),
        (request("GET", "/v1/models"), 200),
        (request("GET", "/v1/models/flux", connection="keep-alive"), 200),
        (request("GET", "/healthz"), 200),
        (request("GET", "/v1/models", None, **H2C), 200),
        (generation().replace(b"\r\nhost", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\nhost"), 200),
    ],
)
async def test_what_is_short_is_told_to_http_1_0_too(
    start: Start, upstream: Scripted, asked: bytes, status: int
) -> None:
    gateway = await showing(start, upstream, text(PNG))
    found, _, body = await told_to_the_end(gateway, asked)
    assert found == status
    assert json.loads(body)


async def test_a_head_for_http_1_0_has_no_body(start: Start, upstream: Scripted) -> None:
    gateway = await showing(start, upstream, text(PNG))
    async with raw(gateway.port) as (reader, writer):
        writer.write(old(request("HEAD", "/nothing")))
        assert (await reader.read()).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
async def test_an_answer_that_breaks_off_for_http_1_0_is_no_whole_one(
    start: Start, upstream: Scripted, accept: str
) -> None:
    """Its end would be that of the connection, so the connection is reset."""
    whole = text(heavy(MEGABYTE))
    cut = b'{"created": 1, "data": [{"b64_json": "' + whole[: len(whole) // 2].encode()
    gateway = await scripted(start, upstream, head(), cut, End.CLOSE)
    asked = request("POST", GENERATIONS, BODY, content_type=JSON, accept=accept)
    with pytest.raises(ConnectionResetError):
        await told_to_the_end(gateway, asked)
    [told] = await gateway.request_lines()
    assert told["error"]


async def test_events_that_break_off_for_http_1_0_end_with_an_error_event(start: Start, upstream: Scripted) -> None:
    begun = event("image_generation.partial_image", b64_json=text(PNG), partial_image_index=0)
    gateway = await scripted(start, upstream, head(type="text/event-stream"), begun, End.CLOSE)
    _, _, body = await told_to_the_end(gateway, generation(stream=True, partial_images=1))
    assert [name for name, _ in events(body)] == ["image_generation.partial_image", "error"]


async def test_a_caller_of_http_1_0_is_never_told_to_go_on(start: Start, upstream: Scripted) -> None:
    gateway = await showing(start, upstream, text(PNG))
    asked = generation().replace(b"\r\nhost", b"\r\nexpect: 100-continue\r\nhost")
    status, _, body = await told_to_the_end(gateway, asked)
    assert (status, json.loads(body)["data"][0]["b64_json"]) == (200, text(PNG))


async def test_a_caller_of_http_1_1_still_gets_chunks(start: Start, upstream: Scripted) -> None:
    gateway = await showing(start, upstream, text(PNG))
    reply = await ask(gateway.port, generation())
    assert (reply.complete, reply.header("transfer-encoding"), reply.header("connection")) == (True, "chunked", None)


# --- what is no HTTP, and what does not end ---


@pytest.fixture(autouse=True)
def telling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.protocol.LINGER_SECONDS", 0.1)


def assert_refused(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.header("content-type"), reply.complete) == (status, JSON, True), reply
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


async def test_a_body_that_breaks_its_framing_is_a_400_with_an_id(start: Start, upstream: Scripted) -> None:
    gateway = await showing(start, upstream, text(PNG))
    whole = b"%x\r\n%b\r\n" % (len(GOOD), GOOD)  # all that a request needs, so far
    for begun in (b"5\r\n" + GOOD[:5] + b"\r\n", whole):
        async with line(gateway.port) as opened:
            await opened.send(request("POST", GENERATIONS, None, content_type=JSON, transfer_encoding="chunked"))
            await opened.send(begun)
            await asyncio.sleep(0.05)
            await opened.send(b"zz\r\nabc")
            reply = await opened.reply()
            assert_refused(reply, 400, "invalid_http")
            assert reply.header("x-request-id")
            assert reply.closed
    assert not upstream.received("a")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nno header\r\n\r\n",
        b"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, where none is spoken
    ],
)
async def test_a_head_that_cannot_be_read_is_refused_in_the_envelope(
    start: Start, upstream: Scripted, head: bytes
) -> None:
    gateway = await showing(start, upstream, text(PNG))
    async with raw(gateway.port) as (reader, writer):
        writer.write(head)
        said, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"application/json" in said
    assert json.loads(body)["error"]["code"] == "invalid_http"


@pytest.mark.parametrize("piece", [b"x-more: " + b"a" * 1000 + b"\r\n", b"a" * 1000])
async def test_a_head_that_does_not_end_is_a_431(start: Start, upstream: Scripted, piece: bytes) -> None:
    gateway = await showing(start, upstream, text(PNG))
    async with raw(gateway.port) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ")
        for _ in range(60):
            writer.write(piece)
        await asyncio.sleep(0.05)
        assert not reader.at_eof()
        for _ in range(40):
            writer.write(piece)
        said = await reader.read()
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b'"invalid_http"' in said


async def test_trailers_are_bounded_like_heads(start: Start, upstream: Scripted) -> None:
    gateway = await showing(start, upstream, text(PNG))
    async with line(gateway.port) as opened:
        await opened.send(request("POST", GENERATIONS, None, content_type=JSON, transfer_encoding="chunked"))
        await opened.send(b"%x\r\n%b\r\n0\r\n" % (len(GOOD), GOOD))
        for _ in range(100):
            await opened.send(b"x-more: " + b"a" * 1000 + b"\r\n")
        assert_refused(await opened.reply(), 400, "invalid_http")


async def test_what_follows_a_request_does_not_disturb_its_answer(start: Start, upstream: Scripted) -> None:
    gateway = await scripted(start, upstream, 0.2, answer(image_json(text(PNG))))
    async with line(gateway.port) as opened:
        await opened.send(request("POST", GENERATIONS, GOOD.replace(b"schnell", b"flux"), content_type=JSON))
        await asyncio.sleep(0.05)
        await opened.send(b"this is no request\r\n\r\n")
        assert_drawn(await opened.reply())


@pytest.mark.parametrize("begun", [b"", b"GET /healthz", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: b"])
async def test_who_does_not_ask_to_an_end_is_not_waited_for(
    start: Start, upstream: Scripted, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("app.server.protocol.HEAD_SECONDS", 0.3)
    gateway = await showing(start, upstream, text(PNG))
    async with raw(gateway.port) as (reader, writer):
        writer.write(begun)
        if begun:
            await asyncio.sleep(0.15)
            writer.write(b"x")  # drop by drop
        assert await reader.read() == b""
    assert (await ask(gateway.port, request("GET", "/healthz", None))).status == 200


async def test_who_falls_silent_while_sending_is_told(
    start: Start, upstream: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.patience.GRACE_SECONDS", 0.2)
    monkeypatch.setattr("app.api.responses.sending.DRAIN_SECONDS", 0.2)
    gateway = await showing(start, upstream, text(PNG))
    async with line(gateway.port) as opened:
        await opened.send(request("POST", GENERATIONS, GOOD, content_type=JSON)[:-5])
        reply = await opened.reply()
        assert_refused(reply, 408, "request_timeout")
        assert reply.header("connection") == "close"
    assert not upstream.received("a")


async def test_a_blank_line_is_no_request_to_wait_for(
    start: Start, upstream: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.server.protocol.HEAD_SECONDS", 0.3)
    gateway = await showing(start, upstream, text(PNG))
    async with raw(gateway.port) as (reader, writer):
        writer.write(b"\r\n")
        assert await reader.read() == b""


async def test_the_next_request_may_begin_while_one_is_drawn_for_long(
    start: Start, upstream: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.server.protocol.HEAD_SECONDS", 0.2)
    gateway = await scripted(start, upstream, 0.6, answer(image_json(text(PNG))))
    health = request("GET", "/healthz", None)
    async with raw(gateway.port) as (reader, writer):
        writer.write(request("POST", GENERATIONS, GOOD.replace(b"schnell", b"flux"), content_type=JSON))
        await asyncio.sleep(0.05)
        writer.write(health + health[:20])
        await asyncio.sleep(0.05)
        writer.write(health[20:])
        for end in (b"\r\n0\r\n\r\n", b'{"status":"ok"}', b'{"status":"ok"}'):
            said = await reader.readuntil(end)
            assert said.startswith(b"HTTP/1.1 200 OK")


async def test_what_does_not_end_behind_a_request_is_not_kept(start: Start, upstream: Scripted) -> None:
    gateway = await scripted(start, upstream, 0.5, answer(image_json(text(PNG))))
    async with line(gateway.port) as opened:
        await opened.send(request("POST", GENERATIONS, GOOD.replace(b"schnell", b"flux"), content_type=JSON))
        await asyncio.sleep(0.05)
        await opened.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ")
        for _ in range(400):
            await opened.send(b"a" * 10_000)
        assert_drawn(await opened.reply())


async def test_a_broken_body_is_not_blamed_on_the_request_before(start: Start, upstream: Scripted) -> None:
    gateway = await scripted(start, upstream, 0.1, answer(image_json(text(PNG))))
    broken = request("POST", GENERATIONS, None, content_type=JSON, transfer_encoding="chunked") + b"zz\r\n"
    async with raw(gateway.port) as (reader, writer):
        writer.write(request("POST", GENERATIONS, GOOD.replace(b"schnell", b"flux"), content_type=JSON) + broken)
        said = await reader.readuntil(b"\r\n0\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 200 OK")
