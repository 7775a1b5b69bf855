"""Connections to other hosts, by aiohttp: one pool for all that is sent, another for downloads; and an httpx transport
over the former. Pieces are passed on as they arrive, and nothing is lost on cancellation. Knows nothing of images. Why
not httpx's own transport: `docs/decisions/0002-httpx-over-aiohttp.md`."""

from __future__ import annotations

import asyncio
import contextlib
import select
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from yarl import URL

# 256 KiB, aiohttp's own, doubles the memory of slow readers; 1 MiB halves the throughput (measured).
READ_BUFFER = 65_536
# Shorter than common servers keep an idle connection (uvicorn 5 s), so that a request rarely meets a closing one: a
# request that is lost there cannot be told from a drawing that was paid for.
KEEP_ALIVE = 4.0


class Connector(aiohttp.TCPConnector):
    """Drops idle connections that the server closed silently. The kernel may know of the end before the event loop has
    noticed it, and a request that is sent on such a connection cannot be told from a drawing that was paid for."""

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
        self._session = aiohttp.ClientSession(
            connector=Connector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE,
                ssl=tls or ssl.create_default_context(),
                resolver=resolver,
                use_dns_cache=resolver is None,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
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

    async def aclose(self) -> None:
        await self._session.close()


def give_back(response: aiohttp.ClientResponse) -> None:
    """Return the connection to its pool, or close it if some of the answer was not read."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


@contextlib.contextmanager
def connection_errors(request: httpx.Request | None = None) -> Iterator[None]:
    """Raise aiohttp's errors under httpx's names. Only `ConnectError` and `ConnectTimeout` mean that nothing was
    sent."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        # aiohttp keeps the errors that it raises. With their tracebacks it would keep the frames and all they hold.
        raise _httpx_error(error, request) from error.with_traceback(None)


def _httpx_error(error: Exception, request: httpx.Request | None) -> httpx.TransportError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(str(error) or "no connection in time", request=request)
    if isinstance(error, aiohttp.ClientHttpProxyError):  # the library's message holds the proxy's password
        return httpx.ConnectError(f"the proxy answered {error.status}", request=request)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
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
        timeout = aiohttp.ClientTimeout(seconds.get("total"), sock_connect=seconds.get("connect"), sock_read=first)
        with connection_errors(request):
            response = await self._connections.request(
                request.method,
                _yarl_url(request.url),
                headers=[(name.decode(), value.decode()) for name, value in request.headers.raw],
                data=_body(request),
                timeout=timeout,
            )
        connection = response.connection
        if first != read and connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = read
            # The timer that runs already has the longer time. While reading pauses none runs.
            if connection.transport is not None and connection.transport.is_reading():
                connection.protocol.start_timeout()
        return httpx.Response(
            response.status, headers=list(response.raw_headers), stream=_Body(response, request), request=request
        )

    async def aclose(self) -> None:
        await self._connections.aclose()


@lru_cache(maxsize=256)
def _yarl_url(url: httpx.URL) -> URL:
    return URL(str(url), encoded=True)


def _body(request: httpx.Request) -> Any:
    stream = request.stream
    return b"".join(stream) or None if isinstance(stream, httpx.ByteStream) else stream


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        with connection_errors(self._request):
            try:
                while piece := await content.readany():
                    yield piece
            except (aiohttp.ClientError, OSError):
                # aiohttp raises before it hands out what had arrived; a whole image may be in it.
                if rest := content._read_nowait(-1):
                    yield rest
                raise

    async def aclose(self) -> None:
        give_back(self._response)
