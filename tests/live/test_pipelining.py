"""Connections that ask for more than they read, and heads that hold what a head must not hold."""

import asyncio
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from app.server import progress, protocol
from tests.live.conftest import Start
from tests.live.servers import Config, sandbox_providers
from tests.live.wire import Reply, line
from tests.waiting import until

pytestmark = pytest.mark.anyio
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
DOCUMENT = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def serving(sandbox: Sandbox) -> Config:
    return {"providers": sandbox_providers(sandbox.base_url)}


async def everything(port: int, *pieces: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""
    finally:
        writer.close()


async def asked(port: int, request: bytes) -> Reply:
    async with line(port) as opened:
        await opened.send(request)
        return await opened.reply()


async def flooding(port: int) -> asyncio.StreamWriter:
    """A connection on which as many requests were sent as it takes, and no answer is read. The answers are long: it is
    soon full, also where the gateway is slow."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    for _ in range(60):
        writer.write(DOCUMENT * 5000)
        try:
            async with asyncio.timeout(0.05):
                await writer.drain()
        except (TimeoutError, ConnectionError):
            break
    return writer


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
async def test_each_pipelined_request_gets_one_answer_however_it_is_cut(
    start: Start, sandbox: Sandbox, size: int
) -> None:
    gateway = await start(serving(sandbox))
    count = 30 if size < 4096 else 2000
    sent = HEALTH * (count - 1) + LAST
    answers = await everything(gateway.port, *(sent[at : at + size] for at in range(0, len(sent), size)))
    assert answers.count(b"HTTP/1.1 200 OK") == count


async def test_requests_behind_a_body_are_answered_too(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(serving(sandbox))
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    body = head + b"Content-Length: 9000\r\n\r\n" + b"x" * 9000
    answers = await everything(gateway.port, body + HEALTH * 20 + LAST)
    assert (answers.count(b"HTTP/1.1 400"), answers.count(b"HTTP/1.1 200 OK")) == (1, 21)


async def test_a_connection_that_asks_and_does_not_read_holds_little(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(serving(sandbox))
    writer = await flooding(gateway.port)
    try:
        [connection] = [each for each in gateway.state.connections if isinstance(each, protocol.Protocol)]
        assert not connection.pipeline
        assert connection.held_bytes < 1_048_576
    finally:
        writer.transport.abort()


async def test_a_client_that_takes_nothing_is_let_go(
    start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STALLED_SECONDS", 0.2)
    gateway = await start(serving(sandbox))
    writer = await flooding(gateway.port)
    try:
        await until(lambda: not gateway.connections)
    finally:
        writer.transport.abort()


async def test_a_trailer_is_no_header(start: Start, sandbox: Sandbox) -> None:
    key = "a-key-of-some-length"
    gateway = await start(serving(sandbox) | {"keys": [{"name": "team", "key": key}]})
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    trailers = f"Authorization: Bearer {key}\r\nX-Request-Id: from-a-trailer\r\n".encode()
    reply = await asked(gateway.port, head + b"\r\n1\r\nx\r\n0\r\n" + trailers + b"\r\n")
    assert (reply.status, reply.header("x-request-id") == "from-a-trailer") == (401, False)
    reply = await asked(gateway.port, head + trailers + b"\r\n1\r\nx\r\n0\r\n\r\n")
    assert (reply.status, reply.header("x-request-id")) == (400, "from-a-trailer")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    ],
)
async def test_a_head_that_can_be_read_in_two_ways_is_refused(start: Start, sandbox: Sandbox, head: bytes) -> None:
    gateway = await start(serving(sandbox))
    reply = await asked(gateway.port, head)
    assert reply.status == 400
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}


async def test_an_http_1_0_request_needs_no_host(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(serving(sandbox))
    assert b" 200 OK" in await everything(gateway.port, b"GET /healthz HTTP/1.0\r\n\r\n")


async def test_a_head_is_bounded_also_when_it_comes_at_once(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(serving(sandbox))
    lines = b"".join(b"x-%d: y\r\n" % number for number in range(20_000))
    reply = await asked(gateway.port, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + lines + b"\r\n")
    assert reply.status == 431


@pytest.mark.parametrize("left", [65, 64, 33, 32, 0])
async def test_the_last_descriptors_are_kept_for_files_and_providers(
    start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Half of those are for callers who are told so: each holds one for a moment."""
    gateway = await start(serving(sandbox))
    monkeypatch.setattr(protocol, "count_descriptors", lambda _: (left, 64))
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.05)
    answer = await everything(gateway.port, LAST)
    if left > 64:
        assert b" 200 OK" in answer
    elif left > 32:
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 5\r\n" in answer
        assert b'"server_is_overloaded"' in answer
    else:
        assert answer == b""
