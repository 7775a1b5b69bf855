"""The transport against raw sockets: what is nothing sent, what may have arrived, and what stays open."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import sys
import time
import weakref
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from aiohttp.connector import Connection

from app.upstream.sized_body import SizedBody
from app.upstream.transport import AiohttpTransport
from tests.live.loops import bound, dead_port
from tests.live.scripted import End, Scripted, answer, head
from tests.waiting import PATIENCE, until

T = TypeVar("T")
CERTIFICATE = Path(__file__).parent / "loopback.pem"
TIMES = {"connect": 5.0, "read": 5.0, "total": 10.0, "first_byte": None}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the gateway itself runs


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    async with AiohttpTransport() as running:
        yield running


async def fetch(
    transport: AiohttpTransport, url: str, content: Any = b"body", length: int = 4, **times: Any
) -> tuple[int, bytes]:
    headers = {"content-length": str(length)}
    request = httpx.Request("POST", url, content=content, headers=headers, extensions={"timeout": TIMES | times})
    response = await transport.handle_async_request(request)
    try:
        return response.status_code, b"".join([piece async for piece in response.stream])  # type: ignore[union-attr]
    finally:
        await response.aclose()


class AtHand(httpx.SyncByteStream):
    """A body in pieces that takes the short way."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


async def by_and_by(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A body in pieces that takes aiohttp's own way, as it does through a proxy."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


both_ways = pytest.mark.parametrize("stream", [AtHand, by_and_by], ids=["short", "long"])
Stream = Callable[[Iterable[bytes]], Any]


@asynccontextmanager
async def listening(serve: Any, **options: Any) -> AsyncIterator[int]:
    """A server of one function per connection; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    listener = bound()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # what the kernel holds counts as sent
    running = await asyncio.start_server(accept, sock=listener, **options)
    try:
        yield listener.getsockname()[1]
    finally:
        running.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def open_sockets() -> int:
    links = Path("/proc/self/fd")
    return sum("socket" in os.readlink(each) for each in links.iterdir() if each.is_symlink())


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


# --- what is sent ---


async def test_a_request_and_its_answer_pass(server: Scripted, transport: AiohttpTransport) -> None:
    url = server.at("a", answer(b"said"))
    assert await fetch(transport, url) == (200, b"said")
    [received] = server.received("a")
    assert (received.method, received.body) == ("POST", b"body")


async def test_nothing_is_added_to_the_headers(server: Scripted, transport: AiohttpTransport) -> None:
    url = server.at("a", answer(b"", set_cookie="a=b"))
    for _ in range(2):
        await fetch(transport, url)
    assert set(server.received("a")[1].headers) == {"host", "content-length"}


async def test_a_path_is_sent_as_it_is_spelt(server: Scripted, transport: AiohttpTransport) -> None:
    url = server.at("a", answer(b""))
    await fetch(transport, url + "/x%2Fy/%41?q=%20+%C3%A9")
    assert server.received("a")[0].target == "/a/v1/x%2Fy/%41?q=%20+%C3%A9"


@pytest.mark.parametrize("value", ["a\r\nx-other: b", "a\nb", "a\rb"])
async def test_a_header_with_a_line_break_is_not_sent(
    server: Scripted, transport: AiohttpTransport, value: str
) -> None:
    url = server.at("a", answer(b"never"))
    request = httpx.Request("POST", url, content=b"", headers={"x-one": value}, extensions={"timeout": TIMES})
    with pytest.raises(ValueError, match="line break"):
        await transport.handle_async_request(request)
    assert not server.received("a")


async def test_an_answer_that_says_to_go_on_is_not_the_answer(server: Scripted, transport: AiohttpTransport) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    assert await fetch(transport, server.at("a", interim, 0.02, answer(b"said"))) == (200, b"said")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_answer(server: Scripted, transport: AiohttpTransport, status: int) -> None:
    target = server.at("b", answer(b"never"))
    assert (await fetch(transport, server.at("a", answer(b"", status, location=target))))[0] == status
    assert server.received("b") == []


@both_ways
async def test_a_streamed_body_is_sent_in_its_pieces(
    server: Scripted, transport: AiohttpTransport, stream: Stream
) -> None:
    url = server.at("a", answer(b""))
    for _ in range(2):
        await fetch(transport, url, stream([b"a" * 100_000, b"b" * 100_000, b"c"]), 200_001)
    for received in server.received("a"):
        assert received.body == b"a" * 100_000 + b"b" * 100_000 + b"c"
        assert set(received.headers) == {"host", "content-length"}
    assert server.connections == 1


@both_ways
async def test_a_body_that_ends_too_early_is_no_request(
    server: Scripted, transport: AiohttpTransport, stream: Stream
) -> None:
    with pytest.raises(httpx.HTTPError):
        await fetch(transport, server.at("a", answer(b"")), stream([b"x" * 100]), 200, read=0.2)


@both_ways
@pytest.mark.parametrize("fault", [OSError("the disk is gone"), ValueError("the spool is closed")], ids=["os", "value"])
async def test_a_body_that_breaks_off_is_no_request(
    server: Scripted, transport: AiohttpTransport, stream: Stream, fault: Exception
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * 100
        raise fault

    with pytest.raises(httpx.ReadError):
        await fetch(transport, server.at("a", answer(b"")), stream(pieces()), 200)
    await until(lambda: server.connections == 0)


# --- nothing was sent ---


async def test_a_refused_connection_is_no_connection(transport: AiohttpTransport) -> None:
    with pytest.raises(httpx.ConnectError):
        await fetch(transport, f"http://127.0.0.1:{dead_port()}/")


async def test_an_unknown_name_is_no_connection(transport: AiohttpTransport) -> None:
    with pytest.raises(httpx.ConnectError):
        await fetch(transport, "http://no-such-host.invalid/")


async def test_a_handshake_that_never_ends_is_no_connection_in_time(transport: AiohttpTransport) -> None:
    async with listening(silent) as port:
        with pytest.raises(httpx.ConnectTimeout):
            await fetch(transport, f"https://127.0.0.1:{port}/", connect=0.1)


async def test_a_server_without_tls_is_no_connection(transport: AiohttpTransport) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"no TLS here", 400))
        await writer.drain()

    async with listening(plain) as port:
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, f"https://127.0.0.1:{port}/")


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"body")
    writer.write(answer(b"said"))
    await writer.drain()


FETCH = """
import asyncio, sys
from tests.upstream.test_transport import AiohttpTransport, fetch
async def main():
    async with AiohttpTransport() as transport:
        print(await fetch(transport, sys.argv[1]))
asyncio.run(main())
"""


async def test_a_certificate_counts_only_if_it_is_trusted() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    async with listening(answering, ssl=context) as port:
        url = f"https://127.0.0.1:{port}/"
        async with AiohttpTransport() as transport:
            with pytest.raises(httpx.ConnectError):
                await fetch(transport, url)
        trusting = {**os.environ, "SSL_CERT_FILE": str(CERTIFICATE)}
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", FETCH, url, env=trusting, stdout=PIPE)
        assert (await other.communicate())[0] == b"(200, b'said')\n"


# --- it may have arrived ---


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ((End.CLOSE,), httpx.RemoteProtocolError),
        ((End.RESET,), httpx.NetworkError),
        ((b"HTTP/1.1 200 OK\r\ncontent-le", End.CLOSE), httpx.TransportError),
        ((b"nonsense\r\n\r\n", End.CLOSE), httpx.TransportError),
        ((head(content_length="10") + b"12345", End.CLOSE), httpx.RemoteProtocolError),
        ((head(content_length="10") + b"12345", 0.05, End.RESET), httpx.TransportError),
        ((head(transfer_encoding="chunked") + b"5\r\n12345\r\n", End.CLOSE), httpx.RemoteProtocolError),
        ((head(transfer_encoding="chunked") + b"5\r\n12345\r\nzz\r\n", End.CLOSE), httpx.TransportError),
    ],
)
async def test_a_connection_lost_after_sending_is_not_called_unsent(
    server: Scripted, transport: AiohttpTransport, steps: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        await fetch(transport, server.at("a", *steps))
    assert not isinstance(caught.value, httpx.ConnectError | httpx.TimeoutException)
    assert len(server.received("a")) == 1, "a POST must not be sent again"


async def test_an_answer_that_is_ended_by_closing_is_whole(server: Scripted, transport: AiohttpTransport) -> None:
    assert await fetch(transport, server.at("a", head() + b"until the end", End.CLOSE)) == (200, b"until the end")


async def test_bytes_that_arrived_before_the_connection_broke_are_read(
    server: Scripted, transport: AiohttpTransport
) -> None:
    """Also by a reader that was busy meanwhile: the image that they hold has been paid for."""
    url = server.at("a", head(200, "text/plain", content_length="99") + b"one", b"two", End.CLOSE)
    request = httpx.Request("POST", url, content=b"", extensions={"timeout": TIMES})
    response = await transport.handle_async_request(request)
    await until(lambda: not server.connections)
    found = []
    with pytest.raises(httpx.TransportError):
        async for piece in response.stream:  # type: ignore[union-attr]
            found.append(piece)  # noqa: PERF401 (the pieces before the error count)
    assert b"".join(found) == b"onetwo"
    await response.aclose()


# --- long bodies ---

LONG = bytes(range(256)) * 4096  # as many bytes as four blocks have


async def read_all(response: httpx.Response) -> tuple[bytes, httpx.TransportError | None]:
    """The bytes of an answer, and the error that ended it."""
    found = bytearray()
    try:
        async for piece in response.stream:  # type: ignore[union-attr]
            found += piece
    except httpx.TransportError as error:
        return bytes(found), error
    finally:
        await response.aclose()
    return bytes(found), None


async def ask(transport: AiohttpTransport, url: str) -> httpx.Response:
    request = httpx.Request("POST", url, content=b"body", extensions={"timeout": TIMES})
    return await transport.handle_async_request(request)


@pytest.mark.parametrize("cuts", [(), (1,), (70_000,), (1, 2, 3, 65_536, 65_537, 262_144, 600_000)])
async def test_a_long_body_passes_and_its_connection_is_used_again(
    server: Scripted, transport: AiohttpTransport, cuts: tuple[int, ...]
) -> None:
    steps: list[Any] = [head(content_length=str(len(LONG)))]
    for start, end in zip((0, *cuts), (*cuts, len(LONG)), strict=True):
        steps += [0.01, LONG[start:end]]
    url = server.at("a", *steps)
    for _ in range(3):
        assert await fetch(transport, url) == (200, LONG)
    assert server.connections == 1


async def test_a_long_body_passes_through_tls() -> None:
    async def answering_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"body")
            writer.write(answer(LONG))
            await writer.drain()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with listening(answering_twice, ssl=context) as port, AiohttpTransport(trusting) as transport:
        for _ in range(2):
            assert await fetch(transport, f"https://127.0.0.1:{port}/") == (200, LONG)


async def test_bytes_behind_a_long_body_belong_to_no_answer(server: Scripted, transport: AiohttpTransport) -> None:
    url = server.at("a", answer(LONG) + answer(b"of nobody"))
    assert await fetch(transport, url) == (200, LONG)
    await until(lambda: server.connections == 0)
    assert await fetch(transport, server.at("b", answer(b"said"))) == (200, b"said")


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_long_body_that_is_cut_is_read_up_to_the_cut(
    server: Scripted, transport: AiohttpTransport, end: End
) -> None:
    url = server.at("a", head(content_length=str(len(LONG))), LONG[:500_000], 0.2, end)
    found, error = await read_all(await ask(transport, url))
    assert isinstance(error, httpx.RemoteProtocolError)
    assert found == LONG[:500_000]


async def test_silence_inside_a_long_body_is_bounded(server: Scripted, transport: AiohttpTransport) -> None:
    url = server.at("a", head(content_length=str(len(LONG))) + LONG[:500_000], End.HANG)
    with pytest.raises(httpx.ReadTimeout):
        await fetch(transport, url, read=0.1)
    await until(lambda: server.connections == 0)


async def test_a_long_body_waits_in_the_socket_for_its_reader(transport: AiohttpTransport) -> None:
    pieces = 1000
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"body")
        writer.write(head(content_length=str(pieces * len(LONG))))
        for _ in range(pieces):
            writer.write(LONG)
            await writer.drain()
            sent += 1

    async with listening(serve) as port:
        response = await ask(transport, f"http://127.0.0.1:{port}/")
        async for _ in response.stream:  # type: ignore[union-attr]
            break
        before = -1
        while before != sent:  # it is sent as long as something takes it
            before = sent
            await asyncio.sleep(0.1)
        assert sent < pieces // 10  # what the kernel holds
        async for _ in response.stream:  # type: ignore[union-attr]
            if sent > before:  # the reader goes on, and so does the sender
                break
        await response.aclose()


def living(kind: type[T]) -> list[T]:
    return [each for each in gc.get_objects() if isinstance(each, kind)]


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_long_body_goes_without_the_garbage_collector(
    server: Scripted, transport: AiohttpTransport, is_whole: bool
) -> None:
    response = await ask(transport, server.at("a", answer(LONG)))
    async for _ in response.stream:  # type: ignore[union-attr]
        if not is_whole:
            break
    bodies = weakref.WeakSet(living(SizedBody))
    assert bodies
    gc.disable()
    try:
        await response.aclose()
        del response, _
        await until(lambda: not bodies)  # once the connection of an answer that was not read has ended
    finally:
        gc.enable()


# --- silence ---


@pytest.mark.parametrize("times", [{"read": 0.1}, {"first_byte": 0.1}, {"total": 0.1}])
async def test_silence_before_the_answer_is_bounded(
    server: Scripted, transport: AiohttpTransport, times: dict[str, Any]
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await fetch(transport, server.at("a", End.HANG), **times)


@pytest.mark.parametrize("times", [{"read": 0.1}, {"read": 0.1, "first_byte": 5.0}, {"total": 0.2}])
async def test_silence_inside_the_answer_is_bounded(
    server: Scripted, transport: AiohttpTransport, times: dict[str, Any]
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await fetch(transport, server.at("a", head(content_length="10") + b"12345", End.HANG), **times)


async def test_the_first_byte_may_take_longer_than_the_rest_and_the_rest_than_the_first_byte(
    server: Scripted, transport: AiohttpTransport
) -> None:
    late = server.at("late", 0.3, answer(b"said"))
    assert await fetch(transport, late, first_byte=5.0, read=0.1) == (200, b"said")
    slow = server.at("slow", head(content_length="4") + b"s", 0.3, b"aid")
    assert await fetch(transport, slow, first_byte=0.1, read=5.0) == (200, b"said")


async def test_the_time_for_the_first_byte_holds_for_each_request_of_a_connection(
    server: Scripted, transport: AiohttpTransport
) -> None:
    url = server.at("a", answer(b"1"), 0.0)
    assert await fetch(transport, url, first_byte=0.1, read=5.0) == (200, b"1")
    slow = server.at("slow", End.HANG)
    with pytest.raises(httpx.ReadTimeout):
        await fetch(transport, slow, first_byte=0.1, read=5.0)


async def test_drops_of_an_answer_are_no_silence(server: Scripted, transport: AiohttpTransport) -> None:
    drops = [step for _ in range(6) for step in (0.05, b"x")]
    assert await fetch(transport, server.at("a", head(content_length="6"), *drops), read=0.2) == (200, b"xxxxxx")


@both_ways
async def test_a_long_upload_is_no_silence(transport: AiohttpTransport, stream: Stream) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = 8_000_000
        while left:
            left -= len(await reader.read(100_000))
            await asyncio.sleep(0.025 if left > 6_000_000 else 0)
        writer.write(answer(b"said"))
        await writer.drain()

    async with listening(slowly, limit=65_536) as port:
        began = asyncio.get_running_loop().time()
        body = stream([b"x" * 100_000] * 80)
        assert await fetch(transport, f"http://127.0.0.1:{port}/", body, 8_000_000, read=0.3) == (200, b"said")
        assert asyncio.get_running_loop().time() - began > 0.3


@both_ways
async def test_silence_after_an_upload_is_bounded(
    server: Scripted, transport: AiohttpTransport, stream: Stream
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await fetch(transport, server.at("a", End.HANG), stream([b"x" * 100_000] * 2), 200_000, read=0.1)
    await until(lambda: server.connections == 0)


async def test_an_upload_that_is_not_taken_is_given_up_with_its_connection(transport: AiohttpTransport) -> None:
    ended = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()

    async with listening(never, limit=1024) as port:
        before, url = open_sockets(), f"http://127.0.0.1:{port}/"
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                await fetch(transport, url, AtHand([b"x" * 1_000_000] * 20), 20_000_000, total=0.2)
        await until(lambda: open_sockets() - before <= 3)  # the server's own ends
        ended.set()


# --- answers that come early ---


@both_ways
@pytest.mark.parametrize("after", [(), (End.CLOSE,)])
async def test_an_answer_before_the_upload_is_over_is_heard(
    server: Scripted, transport: AiohttpTransport, after: tuple[Any, ...], stream: Stream
) -> None:
    url = server.at("a", answer(b"too large", 413, connection="close"), *after, early=True)
    assert await fetch(transport, url, stream([b"x" * 100_000] * 100), 10_000_000) == (413, b"too large")


@both_ways
async def test_a_connection_whose_upload_has_not_left_is_not_used_again(
    server: Scripted, transport: AiohttpTransport, stream: Stream
) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"too large", 413))
        await asyncio.Event().wait()

    async with listening(early, limit=1024) as port:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(2):
            assert await fetch(transport, url, stream([b"x" * 1_000_000] * 20), 20_000_000) == (413, b"too large")


async def test_a_connection_whose_upload_waits_for_the_socket_is_not_used_again(transport: AiohttpTransport) -> None:
    has_written = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await has_written.wait()
        writer.write(answer(b"too many", 429))
        await asyncio.Event().wait()

    def until_the_socket_is_full() -> Iterator[bytes]:
        yield b"x"
        transports = [each.transport for each in living(Connection) if each.transport is not None]
        while not any(each.get_write_buffer_size() for each in transports):
            yield bytes(16_384)
        has_written.set()

    async with listening(deaf, limit=1024) as port:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(2):
            has_written.clear()
            assert await fetch(transport, url, AtHand(until_the_socket_is_full()), 10**9) == (429, b"too many")


@both_ways
@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_connection_that_is_lost_during_an_upload_is_not_called_unsent(
    server: Scripted, transport: AiohttpTransport, stream: Stream, end: End
) -> None:
    url = server.at("a", 0.05, end, early=True)
    with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)) as failed:
        await fetch(transport, url, stream([b"x" * 100_000] * 1000), 100_000_000)
    assert not isinstance(failed.value, httpx.ConnectError)
    await until(lambda: server.connections == 0)


# --- connections ---


async def test_a_connection_is_used_again(server: Scripted, transport: AiohttpTransport) -> None:
    url = server.at("a", answer(b"said"))
    for _ in range(5):
        await fetch(transport, url)
    assert server.connections == 1


async def test_a_connection_whose_answer_was_not_read_is_not_used_again(
    server: Scripted, transport: AiohttpTransport
) -> None:
    request = httpx.Request(
        "POST", server.at("a", answer(b"x" * 10_000_000)), content=b"", extensions={"timeout": TIMES}
    )
    response = await transport.handle_async_request(request)
    async for _ in response.stream:  # type: ignore[union-attr]
        break
    await response.aclose()
    await until(lambda: server.connections == 0)
    assert await fetch(transport, server.at("b", answer(b"said"))) == (200, b"said")


async def test_closing_leaves_no_connection(server: Scripted) -> None:
    async with AiohttpTransport() as transport:
        await fetch(transport, server.at("a", answer(b"said")))
    await until(lambda: server.connections == 0)


@pytest.mark.parametrize("steps", [(End.HANG,), (head(content_length="9") + b"1", End.HANG)], ids=["head", "body"])
async def test_a_cancelled_request_leaves_no_connection(
    server: Scripted, transport: AiohttpTransport, steps: tuple[Any, ...]
) -> None:
    task = asyncio.create_task(fetch(transport, server.at("a", *steps)))
    await until(lambda: len(server.received("a")) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.connections == 0)


async def test_after_many_cancelled_requests_the_next_ones_are_served(
    server: Scripted, transport: AiohttpTransport
) -> None:
    slow, quick = server.at("slow", End.HANG), server.at("quick", answer(b"said"))
    for wave in range(12):
        tasks = [asyncio.create_task(fetch(transport, slow)) for _ in range(40)]
        for _ in range(wave % 4):  # cancelled while connecting, while sending, while waiting
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await asyncio.gather(*(fetch(transport, quick) for _ in range(10))) == [(200, b"said")] * 10
    await until(lambda: server.connections <= 10)


async def test_two_hundred_requests_at_a_time_wait_for_no_place(server: Scripted, transport: AiohttpTransport) -> None:
    url = server.at("a", 0.2, answer(b"said"))
    assert await asyncio.gather(*(fetch(transport, url) for _ in range(200))) == [(200, b"said")] * 200
    assert server.connections == 200


# --- proxies ---


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    yield lambda name, value: monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_a_proxy_of_the_environment_is_asked(
    server: Scripted, environ: Callable[[str, str], None], name: str, scheme: str
) -> None:
    environ(name, server.at("", answer(b"by proxy")).removesuffix("//v1").replace("http://", scheme))
    async with AiohttpTransport() as transport:
        assert await fetch(transport, "http://images.test/v1") == (200, b"by proxy")
    assert server.received("")[0].target == "http://images.test/v1"


async def test_a_proxy_gets_the_credentials_of_its_own_address(
    server: Scripted, environ: Callable[[str, str], None]
) -> None:
    environ("http_proxy", server.at("", answer(b"by proxy")).removesuffix("//v1").replace("//", "//me:secret@"))
    async with AiohttpTransport() as transport:
        await fetch(transport, "http://images.test/v1")
    assert server.received("")[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"


async def test_no_proxy_is_asked_where_the_environment_says_so(
    server: Scripted, environ: Callable[[str, str], None]
) -> None:
    environ("http_proxy", f"http://127.0.0.1:{dead_port()}")
    environ("no_proxy", "other.test,127.0.0.1")
    async with AiohttpTransport() as transport:
        assert await fetch(transport, server.at("a", answer(b"direct"))) == (200, b"direct")


async def test_a_proxy_that_is_not_there_is_no_connection(environ: Callable[[str, str], None]) -> None:
    environ("http_proxy", f"http://127.0.0.1:{dead_port()}")
    async with AiohttpTransport() as transport:
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, "http://images.test/v1")


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 407 No\r\n\r\n", b"HTTP/1.1 502 Bad\r\n\r\n"]
)
async def test_a_proxy_that_makes_no_tunnel_is_no_connection(environ: Callable[[str, str], None], said: bytes) -> None:
    asked_for: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(said)
        await writer.drain()

    async with listening(proxy) as port:
        environ("https_proxy", f"http://me:secret@127.0.0.1:{port}")
        async with AiohttpTransport() as transport:
            with pytest.raises(httpx.ConnectError) as caught:
                await fetch(transport, "https://images.test/v1")
    assert "secret" not in str(caught.value)
    assert asked_for[0].startswith(b"CONNECT images.test:443 ")


async def test_a_connection_that_was_closed_without_a_word_is_not_used_again() -> None:
    """The loop is busy elsewhere when the end arrives, and so has not noticed it."""
    served = 0

    def serve(listener: socket.socket) -> None:
        nonlocal served
        for _ in range(3):
            connection, _ = listener.accept()
            with connection:
                while b"body" not in connection.recv(65_536):
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                served += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        working = asyncio.create_task(asyncio.to_thread(serve, listener))
        async with AiohttpTransport() as transport:
            for _ in range(3):
                assert await fetch(transport, f"http://127.0.0.1:{listener.getsockname()[1]}") == (200, b"ok")
                time.sleep(0.05)
        await working
    assert served == 3
