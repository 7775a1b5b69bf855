"""Connections to other hosts, by aiohttp: one pool for all that is sent, another for downloads; and an httpx transport
over the former. Pieces are passed on as they arrive, and nothing is lost on cancellation. Knows nothing of images. Why
not httpx's own transport: `docs/decisions/0002-httpx-over-aiohttp.md`."""

from __future__ import annotations

import asyncio
import contextlib
import select
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from aiohttp import EMPTY_PAYLOAD
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, StreamWriter
from yarl import URL

from app.upstream.sized_body import SizedBody

# 256 KiB, aiohttp's own, doubles the memory of slow readers; 1 MiB halves the throughput (measured).
READ_BUFFER = 65_536
# Bytes of one header: the sum of cookies and policies that hosts put before their answers goes beyond the usual 8 KB.
LONGEST_HEADER = 32_768
LONG_BODY = 65_536  # bytes: below, all of a body mostly comes with its head
# Shorter than common servers keep an idle connection (uvicorn 5 s), so that a request rarely meets a closing one: a
# request that is lost there looks like a drawing that was paid for.
KEEP_ALIVE = 4.0
# Seconds between the end of a timeout and the verdict. When the process stood still, as in a container that was paused,
# timers end before the loop reads what came meanwhile, and that may be an image that was paid for.
LAST_LOOK = 0.05


class _Handler(ResponseHandler):
    def _on_read_timeout(self) -> None:
        """Look once more. Bytes that have come cancel the verdict."""
        self._read_timeout_handle = self._loop.call_later(LAST_LOOK, super()._on_read_timeout)


class Connector(aiohttp.TCPConnector):
    """Drops idle connections that the server closed silently. The kernel may know of the end before the event loop
    notices it, and a request that is sent on such a connection looks like a drawing that was paid for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(_Handler, loop=self._loop)  # type: ignore[assignment]

    async def _get(self, key: Any, traces: Any) -> Any:
        while (found := await super()._get(key, traces)) is not None:
            if not _hung_up(found.transport):
                return found
            found.close()
        return None


def _hung_up(transport: asyncio.BaseTransport | None) -> bool:
    """True if there is something to read on an idle connection: its end, or bytes that belong to no request."""
    if transport is None:
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Connections:
    """A pool of connections. To be closed.

    Honours `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE`, or `proxies` (scheme → URL) in the place of the first. Adds
    no header, keeps no cookie, follows no redirect, and reads no credentials from `~/.netrc`. With a `resolver` of its
    own, each lookup asks it anew.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        resolver: AbstractResolver | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self._connector = Connector(
            limit=0,
            keepalive_timeout=KEEP_ALIVE,
            ssl=tls or True,  # True: the certificates that aiohttp read when it was imported, once for all
            resolver=resolver,
            use_dns_cache=resolver is None,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            max_field_size=LONGEST_HEADER,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # curl's habit of leaving `http://` out is common in company images.
        found = getproxies() if proxies is None else proxies
        self._proxies = {scheme: at if "://" in at else f"http://{at}" for scheme, at in found.items()}

    def proxy(self, url: URL) -> str | None:
        """Return the URL of the proxy that requests to `url` go through, or None."""
        proxy = self._proxies.get(url.scheme)
        return None if proxy is None or proxy_bypass(url.host or "") else proxy

    def request(self, method: str, url: URL, **options: Any) -> Awaitable[aiohttp.ClientResponse]:
        """Send a request, with aiohttp's `options`. Raises aiohttp's errors: see `connection_errors`."""
        return self._session.request(method, url, allow_redirects=False, proxy=self.proxy(url), **options)

    async def send(
        self,
        method: str,
        url: URL,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | Iterable[bytes],
        times: aiohttp.ClientTimeout,
    ) -> Response:
        """Send a request whose body is at hand, without a proxy. It does what `request` does, with a third of the work:
        aiohttp's own requests look for cookies, redirects and much else. Raises the same errors.

        Bytes leave in one write. Pieces are taken as the connection takes them, while the answer is waited for: it may
        come before the body has left.
        """
        try:
            connection = await self._connector.connect(_destination(url.origin()), [], times)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {url.host} in time") from error
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:  # it was lost in the same moment
            connection.close()
            raise _NothingSent("the connection was lost before the request was written")
        response = Response(connection, protocol)
        try:
            if times.total is not None:
                response.deadline.timer = asyncio.get_running_loop().call_later(times.total, response.expire)
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                read_timeout=times.sock_read,
                read_bufsize=READ_BUFFER,
                max_field_size=LONGEST_HEADER,
            )
            start = _head(method, url, headers)
            if isinstance(body, bytes):
                transport.write(start + body)
                protocol.start_timeout()
            else:
                pieces = iter(body)
                transport.write(start + next(pieces, b""))
                response.writing = asyncio.create_task(_write(pieces, protocol))
            await response.begin()
        except BaseException:
            response.close()
            raise
        return response

    async def aclose(self) -> None:
        await self._session.close()


class _NothingSent(aiohttp.ClientConnectionError):
    """The connection was lost before anything was written."""


class _Deadline:
    """What an answer's end cancels. To know the answer itself would make a cycle, which keeps its pieces."""

    __slots__ = ("timer",)

    def __init__(self) -> None:
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Response:
    """An answer that `Connections.send` began to read, as far as it is like aiohttp's own."""

    __slots__ = ("_protocol", "connection", "content", "deadline", "raw_headers", "status", "writing")
    content: aiohttp.StreamReader | SizedBody
    raw_headers: Sequence[tuple[bytes, bytes]]
    status: int

    def __init__(self, connection: aiohttp.connector.Connection, protocol: ResponseHandler) -> None:
        self._protocol = protocol
        self.connection = connection
        self.content = EMPTY_PAYLOAD
        self.deadline = _Deadline()
        self.writing: asyncio.Task[None] | None = None  # of the rest of the request

    async def begin(self) -> None:
        """Wait for the head."""
        try:
            head, self.content = await self._protocol.read()
            while head.code // 100 == 1 and head.code != HTTPStatus.SWITCHING_PROTOCOLS:
                head, self.content = await self._protocol.read()
        except HttpProcessingError as error:
            raise aiohttp.ClientPayloadError("the answer is no HTTP that can be read") from error.with_traceback(None)
        self.status, self.raw_headers = head.code, head.raw_headers
        length, transport = None if head.chunked else head.headers.get("Content-Length"), self._protocol.transport
        if length is not None and transport is not None and not transport.is_closing() and not self.content.is_eof():
            left = int(length) - self.content.total_bytes
            if left >= LONG_BODY:
                begun = self.content.read_nowait()
                self.content = SizedBody(self._protocol, transport, begun, left)
        self.content.on_eof(self.deadline.cancel)

    def expire(self) -> None:
        """Fail whatever waits for the rest of the answer: its time is up. The time in which the provider waited for the
        reader is not counted."""
        more = self.content.take_pause() if isinstance(self.content, SizedBody) else 0.0
        if more > 0:
            self.deadline.timer = asyncio.get_running_loop().call_later(more, self.expire)
            return
        self.deadline.timer = asyncio.get_running_loop().call_later(LAST_LOOK, self._give_up)

    def _give_up(self) -> None:
        error = aiohttp.SocketTimeoutError("the answer was not complete in time")
        self._protocol.set_exception(error)
        self.content.set_exception(error)

    def release(self) -> None:
        """Return the connection to its pool. It is closed if some of the request has not left, or of the answer not
        come."""
        is_written = self.writing is None or self.writing.done()
        if not is_written or self._count_unsent():
            self.close()
            return
        self.deadline.cancel()
        self._protocol.set_parser(None, None)
        self.connection.release()

    def close(self) -> None:
        self.deadline.cancel()
        if self.writing is not None:
            self.writing.cancel()
        if self._protocol.transport is not None and self._count_unsent():
            self._protocol.transport.abort()  # otherwise it stays open until the server takes the rest, perhaps never
        self.connection.close()

    def _count_unsent(self) -> int:
        """Return the bytes of the request that wait for the socket."""
        transport = self._protocol.transport
        return 0 if transport is None else transport.get_write_buffer_size()


async def _write(pieces: Iterator[bytes], protocol: ResponseHandler) -> None:
    """Write the rest of a body. The time for the answer begins afterwards. A failure goes to `protocol`, where the
    answer is waited for."""
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    try:
        for piece in pieces:
            transport = protocol.transport
            if transport is None or transport.is_closing():  # the protocol learns why
                return
            transport.write(piece)
            await asyncio.sleep(0)  # for others, and for an early answer
            await writer.drain()
    except Exception as error:
        protocol.set_exception(aiohttp.ClientConnectionError(f"the body of the request broke off: {error!r}"))
    else:
        protocol.start_timeout()


@lru_cache(maxsize=256)
def _destination(url: URL) -> aiohttp.ClientRequest:
    """Return what a connector has to know of a request: its host and port, and whether it wants TLS."""
    return aiohttp.ClientRequest("GET", url, loop=asyncio.get_running_loop())


def _head(method: str, url: URL, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the head of a request. Raises ValueError for a line break inside a line."""
    lines = [f"{method} {url.raw_path_qs} HTTP/1.1".encode()]
    if b"host" not in {name.lower() for name, _ in headers}:
        lines.append(f"Host: {url.host_port_subcomponent}".encode())
    lines += [b"%b: %b" % header for header in headers]
    head = b"\r\n".join(lines)
    if head.count(b"\n") + head.count(b"\r") != 2 * (len(lines) - 1):
        raise ValueError("a header of a request to a provider has a line break")
    return head + b"\r\n\r\n"


def give_back(response: aiohttp.ClientResponse | Response) -> None:
    """Return the connection to its pool, or close it if some of the answer was not read."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


@contextlib.contextmanager
def connection_errors() -> Iterator[None]:
    """Raise aiohttp's errors under httpx's names. Only `ConnectError` and `ConnectTimeout` mean that nothing was
    sent."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        # aiohttp keeps the errors that it raises. With their tracebacks it would keep the frames and all they hold.
        raise _httpx_error(error, None) from error.with_traceback(None)


def _httpx_error(error: Exception, request: httpx.Request | None) -> httpx.TransportError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(str(error) or "no connection in time", request=request)
    if isinstance(error, aiohttp.ClientHttpProxyError):  # the library's message holds the proxy's password
        return httpx.ConnectError(f"the proxy answered {error.status}", request=request)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL | _NothingSent):
        return httpx.ConnectError(str(error), request=request)
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(str(error) or "no answer in time", request=request)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return httpx.RemoteProtocolError(str(error), request=request)
    return httpx.ReadError(str(error), request=request)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through a pool of its own. Timeouts (seconds) come with each request, as
    `extensions["timeout"]`: connect, read, total, first_byte."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._connections = Connections(tls)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        seconds: dict[str, float | None] = request.extensions.get("timeout", {})
        read = seconds.get("read")
        first = seconds.get("first_byte") or read
        times = _times(seconds.get("connect"), first, seconds.get("total"))
        try:
            response = await self._send(request, times)
        except (aiohttp.ClientError, OSError) as error:
            raise _httpx_error(error, request) from error.with_traceback(None)
        connection = response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = None  # it would set a timer for each piece
            connection.protocol.start_timeout()
        body = _Body(response, request, read)
        return httpx.Response(response.status, headers=response.raw_headers, stream=body, request=request)

    async def _send(self, request: httpx.Request, times: aiohttp.ClientTimeout) -> aiohttp.ClientResponse | Response:
        """Send a request whose body is at hand by the short way, and one that takes a proxy by aiohttp's own."""
        method, url, headers = request.method, _yarl_url(str(request.url)), request.headers.raw
        body: Any = request.stream
        if isinstance(body, httpx.ByteStream):
            body = b"".join(body)
        if isinstance(body, bytes | httpx.SyncByteStream) and self._connections.proxy(url) is None:
            return await self._connections.send(method, url, headers, body, times)
        text = [(name.decode(), value.decode()) for name, value in headers]
        return await self._connections.request(method, url, headers=text, data=body or None, timeout=times)

    async def aclose(self) -> None:
        await self._connections.aclose()


@lru_cache(maxsize=256)
def _yarl_url(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=256)
def _times(connect: float | None, read: float | None, total: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total, total, read, connect)


class _Body(httpx.AsyncByteStream):
    """An iterator of its own: a generator would cost each piece another step. `patience` is how many seconds a read may
    take; None: for ever."""

    def __init__(
        self, response: aiohttp.ClientResponse | Response, request: httpx.Request, patience: float | None
    ) -> None:
        self._response = response
        self._content = response.content
        self._request = request
        self._patience = patience
        self._is_sized = any(name.lower() == b"content-length" for name, _ in response.raw_headers)
        self._errors: list[httpx.TransportError] = []  # to be raised by the next read
        self._loop = asyncio.get_running_loop()
        self._since = 0.0  # the loop's time at which the last read began
        self._is_waiting = self._is_last_look = False
        self._timer: asyncio.TimerHandle | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._errors:
            raise self._errors.pop()  # no name may keep it: it holds this frame
        content = self._content
        if not content.is_eof():  # all of a short answer mostly comes with its head
            self._since, self._is_waiting = self._loop.time(), True
            if self._timer is None and self._patience is not None:
                self._timer = self._loop.call_later(self._patience, self._look, self._patience)
        try:
            # A body in chunks may come in very small ones, which are joined.
            if self._is_sized and isinstance(content, aiohttp.StreamReader):
                piece = (await content.readchunk())[0]
            else:
                piece = await content.readany()
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp raises before it hands out the bytes that arrived, and they may hold a whole image.
            piece = b""
            if isinstance(content, aiohttp.StreamReader) and not isinstance(error, TimeoutError):
                piece = content._read_nowait(-1)
            if not piece:
                raise _httpx_error(error, self._request) from error.with_traceback(None)
            self._errors.append(_httpx_error(error, self._request))
        self._is_waiting = False
        if not piece:
            raise StopAsyncIteration
        return piece

    def _look(self, patience: float) -> None:
        """End a read that takes too long. There is one timer for all reads."""
        left = self._since + patience - self._loop.time() if self._is_waiting else patience
        if left > 0 or not self._is_last_look:
            self._is_last_look = left <= 0
            self._timer = self._loop.call_later(max(left, LAST_LOOK), self._look, patience)
        else:
            self._content.set_exception(aiohttp.SocketTimeoutError("no byte in time"))

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        give_back(self._response)
