"""The transport against raw sockets: what is nothing sent, what may have arrived, and what stays open."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.upstream.transport import AiohttpTransport
from tests.live.loops import bound
from tests.live.scripted import End, Scripted, answer, head

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


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


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


def unused() -> int:
    with bound() as listener:
        port: int = listener.getsockname()[1]
    return port


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


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_answer(server: Scripted, transport: AiohttpTransport, status: int) -> None:
    target = server.at("b", answer(b"never"))
    assert (await fetch(transport, server.at("a", answer(b"", status, location=target))))[0] == status
    assert server.received("b") == []


async def test_a_streamed_body_is_sent_in_its_pieces(server: Scripted, transport: AiohttpTransport) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 100_000

    await fetch(transport, server.at("a", answer(b"")), pieces(), 300_000)
    [received] = server.received("a")
    assert received.body == b"x" * 300_000
    assert "transfer-encoding" not in received.headers


async def test_a_body_that_ends_too_early_is_no_request(server: Scripted, transport: AiohttpTransport) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 100

    with pytest.raises(httpx.HTTPError):
        await fetch(transport, server.at("a", answer(b"")), pieces(), 200, read=0.2)


async def test_a_body_that_breaks_off_is_no_request(server: Scripted, transport: AiohttpTransport) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise OSError("the disk is gone")

    with pytest.raises(httpx.HTTPError):
        await fetch(transport, server.at("a", answer(b"")), pieces(), 200, read=0.2)
    await until(lambda: server.connections == 0)


# --- nothing was sent ---


async def test_a_refused_connection_is_no_connection(transport: AiohttpTransport) -> None:
    with pytest.raises(httpx.ConnectError):
        await fetch(transport, f"http://127.0.0.1:{unused()}/")


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


async def test_a_certificate_counts_only_if_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    async with listening(answering, ssl=context) as port:
        async with AiohttpTransport() as transport:
            with pytest.raises(httpx.ConnectError):
                await fetch(transport, f"https://127.0.0.1:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        async with AiohttpTransport() as transport:
            assert await fetch(transport, f"https://127.0.0.1:{port}/") == (200, b"said")


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
    url = server.at("a", head(200, "text/plain", content_length="99") + b"one", 0.05, b"two", End.CLOSE)
    request = httpx.Request("POST", url, content=b"", extensions={"timeout": TIMES})
    response = await transport.handle_async_request(request)
    await asyncio.sleep(0.3)
    found = []
    with pytest.raises(httpx.TransportError):
        async for piece in response.stream:  # type: ignore[union-attr]
            found.append(piece)  # noqa: PERF401 (the pieces before the error count)
    assert b"".join(found) == b"onetwo"
    await response.aclose()


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


async def test_a_long_upload_is_no_silence(transport: AiohttpTransport) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = 8_000_000
        while left:
            left -= len(await reader.read(100_000))
            await asyncio.sleep(0.025 if left > 6_000_000 else 0)
        writer.write(answer(b"said"))
        await writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b"x" * 100_000

    async with listening(slowly, limit=65_536) as port:
        began = asyncio.get_running_loop().time()
        assert await fetch(transport, f"http://127.0.0.1:{port}/", pieces(), 8_000_000, read=0.3) == (200, b"said")
        assert asyncio.get_running_loop().time() - began > 0.3


# --- answers that come early ---


@pytest.mark.parametrize("after", [(), (End.CLOSE,)])
async def test_an_answer_before_the_upload_is_over_is_heard(
    server: Scripted, transport: AiohttpTransport, after: tuple[Any, ...]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000
            await asyncio.sleep(0)

    url = server.at("a", answer(b"too large", 413, connection="close"), *after, early=True)
    assert await fetch(transport, url, pieces(), 10_000_000) == (413, b"too large")


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
    environ("http_proxy", f"http://127.0.0.1:{unused()}")
    environ("no_proxy", "other.test,127.0.0.1")
    async with AiohttpTransport() as transport:
        assert await fetch(transport, server.at("a", answer(b"direct"))) == (200, b"direct")


async def test_a_proxy_that_is_not_there_is_no_connection(environ: Callable[[str, str], None]) -> None:
    environ("http_proxy", f"http://127.0.0.1:{unused()}")
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
        listener.settimeout(5)
        working = asyncio.create_task(asyncio.to_thread(serve, listener))
        async with AiohttpTransport() as transport:
            for _ in range(3):
                assert await fetch(transport, f"http://127.0.0.1:{listener.getsockname()[1]}") == (200, b"ok")
                time.sleep(0.05)
        await working
    assert served == 3
