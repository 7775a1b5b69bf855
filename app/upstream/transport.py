"""An httpx transport over aiohttp's connections: pieces are passed on as they arrive, and nothing is lost on
cancellation. Knows nothing of images. Why not httpx's own: `docs/decisions/0002-httpx-over-aiohttp.md`."""

from __future__ import annotations

import asyncio
import contextlib
import select
import ssl
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

# 256 KiB, aiohttp's own, doubles the memory of slow readers; 1 MiB halves the throughput (measured).
READ_BUFFER = 65_536
# Shorter than common servers keep an idle connection (uvicorn 5 s), so that a request rarely meets a closing one:
# what is lost then cannot be told from a drawing that was paid for.
KEEP_ALIVE = 4.0


class Connector(aiohttp.TCPConnector):
    """Many servers close an idle connection without a word. What the event loop has not noticed yet the kernel knows;
    a request that is sent on such a connection is lost, and cannot be told from a drawing that was paid for."""

    async def _get(self, key: Any, traces: Any) -> Any:
        while (found := await super()._get(key, traces)) is not None:
            if not _hung_up(found.transport):
                return found
            found.close()
        return None


def _hung_up(transport: asyncio.BaseTransport | None) -> bool:
    """An idle connection on which there is something to read, be it the end, is of no use."""
    if transport is None:
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Honours `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE`. Timeouts (seconds) come with each request, as
    `extensions["timeout"]`: connect, read, total, first_byte."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        tls = tls or ssl.create_default_context()
        connector = Connector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=tls)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # curl's habit of leaving `http://` out is common in company images.
        self._proxies = {for_: at if "://" in at else f"http://{at}" for for_, at in getproxies().items()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        said: dict[str, float | None] = request.extensions.get("timeout", {})
        read = said.get("read")
        first = said.get("first_byte") or read
        timeout = aiohttp.ClientTimeout(said.get("total"), sock_connect=said.get("connect"), sock_read=first)
        with _as_httpx(request):
            response = await self._session.request(
                request.method,
                _address(request.url),
                headers=[(name.decode(), value.decode()) for name, value in request.headers.raw],
                data=_body(request),
                allow_redirects=False,
                timeout=timeout,
                proxy=self._proxy(request.url),
            )
        connection = response.connection
        if first != read and connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = read
            # The time that already runs is the longer one. Where reading pauses, none runs until it goes on.
            if connection.transport is not None and connection.transport.is_reading():
                connection.protocol.start_timeout()
        return httpx.Response(
            response.status, headers=list(response.raw_headers), stream=_Body(response, request), request=request
        )

    async def aclose(self) -> None:
        await self._session.close()

    def _proxy(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.get(url.scheme)
        return None if proxy is None or proxy_bypass(url.host) else proxy


@lru_cache(maxsize=256)
def _address(url: httpx.URL) -> URL:
    return URL(str(url), encoded=True)


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        with _as_httpx(self._request):
            while piece := await content.readany():
                yield piece

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _body(request: httpx.Request) -> Any:
    stream = request.stream
    return b"".join(stream) or None if isinstance(stream, httpx.ByteStream) else stream


@contextlib.contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """aiohttp's errors under httpx's names; `ConnectError` and `ConnectTimeout` alone mean that nothing was sent."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        # aiohttp keeps what it raises: with its traceback, the frames and all they hold would stay until looked for.
        raise _named(error, request) from error.with_traceback(None)


def _named(error: Exception, request: httpx.Request) -> httpx.TransportError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(str(error) or "no connection in time", request=request)
    if isinstance(error, aiohttp.ClientHttpProxyError):  # the library's words hold the proxy's password
        return httpx.ConnectError(f"the proxy answered {error.status}", request=request)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return httpx.ConnectError(str(error), request=request)
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(str(error) or "no answer in time", request=request)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return httpx.RemoteProtocolError(str(error), request=request)
    return httpx.ReadError(str(error), request=request)
