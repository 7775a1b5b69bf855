"""Downloads images from URLs that a caller or a provider named: from public hosts only, bounded in every way, and never
with a credential. Knows no provider and no request.

Through a proxy (`HTTPS_PROXY`) the proxy looks names up, so only the proxy can keep to public addresses. Hosts that are
private by their names are refused here all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp
import httpx
import pybase64
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.errors import Failure, FetchError, Reason, UpstreamError
from app.imaging.formats import media_type
from app.patience import Patience
from app.upstream.addresses import Address, is_public, parse_url, private_host, refuse_private
from app.upstream.transport import Connections, connection_errors, give_back

HEADERS = {"User-Agent": "image-gateway", "Accept": "*/*", "Accept-Encoding": "identity"}
REDIRECTS = 3
PAUSES = (0.25, 1.0)  # seconds before each further attempt
_HEAD = 64  # bytes that distinguish an image from a page
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_OPAQUE = frozenset({"application/octet-stream", "binary/octet-stream"})


@dataclass(frozen=True, slots=True)
class Caps:
    """The bounds of one download, over all its redirects and attempts. `total` counts the seconds of waiting for the
    host, not those that the reader takes."""

    max_bytes: int = 104_857_600
    connect: float = 10.0  # seconds, the lookup of the name included
    idle: float = 30.0  # seconds without a byte
    total: float = 120.0


class Fetcher(contextlib.AbstractAsyncContextManager["Fetcher"]):
    """Downloads images. To be closed. `resolver` looks up the hosts that must be public; `sleep` waits seconds."""

    def __init__(
        self,
        caps: Caps = Caps(),
        *,
        public: Callable[[Address], bool] = is_public,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        proxies: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._caps = caps
        self._public = public
        self._clock = clock
        self._sleep = sleep
        # Two pools, so that a connection to a provider's own host is never taken for a checked one.
        self._unchecked = Connections(tls, proxies=proxies)
        checking = _CheckingResolver(resolver or aiohttp.ThreadedResolver(), public)
        self._checked = Connections(tls, resolver=checking, proxies=proxies)

    async def aclose(self) -> None:
        await self._unchecked.aclose()
        await self._checked.aclose()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def fetch(
        self, url: str, *, origin: str | None = None, max_bytes: int | None = None, rate: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the image at `url` in pieces. `origin` is the base URL of the provider that named it: its own host is
        always allowed, and a relative `url` is read there. `rate` is the bytes a second that the host has to send.
        Raises FetchError, after further attempts where they may help, but never after a piece was yielded."""
        patience = Patience(self._caps.total, rate, self._clock)
        max_bytes = max_bytes or self._caps.max_bytes
        response, piece = await self._persist(url, origin, max_bytes, patience)
        try:
            count = 0
            while piece:
                count += len(piece)
                if count > max_bytes:
                    raise _too_large(response.url, max_bytes)
                yield piece
                with _fetch_errors(response.url):
                    piece = await patience.wait(response.content.readany(), count)
        finally:
            give_back(response)

    async def as_base64(self, url: str, origin: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the image at `url` as base64 text in pieces that join to one text. Raises UpstreamError (UNCERTAIN): a
        provider that gives a link has drawn the image."""
        try:
            async with aclosing(self.fetch(url, origin=origin)) as pieces:
                carry = b""
                async for piece in pieces:
                    data = carry + piece if carry else piece
                    whole = len(data) - len(data) % 3
                    carry = data[whole:]
                    if whole:
                        yield pybase64.b64encode(memoryview(data)[:whole])
                if carry:
                    yield pybase64.b64encode(carry)
        except FetchError as error:
            raise UpstreamError(Failure.UNCERTAIN, f"the image behind its link could not be had: {error}") from error

    async def _persist(
        self, url: str, origin: str | None, max_bytes: int, patience: Patience
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        for pause in PAUSES:
            try:
                return await self._follow(url, origin, max_bytes, patience)
            except FetchError as error:
                if not error.may_pass or patience.left <= pause:
                    raise
            patience.left -= pause
            await self._sleep(pause)
        return await self._follow(url, origin, max_bytes, patience)

    async def _follow(
        self, url: str, origin: str | None, max_bytes: int, patience: Patience
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Follow redirects to an image. Returns the response and its first bytes. Raises FetchError."""
        home = parse_url(origin) if origin else None
        target = parse_url(url, origin or "")
        for _ in range(REDIRECTS + 1):
            response = await self._request(target, home, patience)
            try:
                if response.status not in _REDIRECTING:
                    return response, await _check(response, patience, max_bytes)
                location = response.headers.get("Location", "")
            except BaseException:
                response.close()
                raise
            response.close()
            if not location:
                raise FetchError(Reason.REDIRECTS, f"at {target.host!r} has moved, but the answer does not say where")
            target = parse_url(location, str(target))
        raise FetchError(Reason.REDIRECTS, f"at {target.host!r} is behind more than {REDIRECTS} redirects")

    async def _request(self, url: URL, home: URL | None, patience: Patience) -> aiohttp.ClientResponse:
        is_home = home is not None and (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)
        is_proxied = self._unchecked.proxy(url) is not None
        if not is_home:
            refuse_private(url, self._public, proxied=is_proxied)
        connections = self._unchecked if is_home or is_proxied else self._checked  # the proxy may well be private
        timeout = aiohttp.ClientTimeout(None, connect=self._caps.connect, sock_read=self._caps.idle)
        with _fetch_errors(url):
            return await patience.wait(connections.request("GET", url, headers=HEADERS, timeout=timeout))


class _CheckingResolver(AbstractResolver):
    """Looks each name up once and returns only checked addresses, so the connection goes where the check looked. A name
    with one private address among public ones is refused: no honest host has such."""

    def __init__(self, resolver: AbstractResolver, public: Callable[[Address], bool]) -> None:
        self._resolver = resolver
        self._public = public

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(self._public(ip_address(one["host"])) for one in found):
            raise private_host(host)
        return found

    async def close(self) -> None:
        await self._resolver.close()


async def _check(response: aiohttp.ClientResponse, patience: Patience, max_bytes: int) -> bytes:
    """Check the status, the length and the type, and return the first bytes. Raises FetchError."""
    url = response.url
    if response.status != 200:
        raise FetchError(Reason.STATUS, f"at {url.host!r} was refused with status {response.status}", response.status)
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchError(Reason.NO_IMAGE, f"at {url.host!r} came compressed, although that was not allowed")
    if (response.content_length or 0) > max_bytes:
        raise _too_large(url, max_bytes)
    head = b""
    with _fetch_errors(url):
        while len(head) < _HEAD and (piece := await patience.wait(response.content.readany())):
            head += piece
    if not head:
        raise FetchError(Reason.NO_IMAGE, f"at {url.host!r} is empty")
    declared, seen = response.headers.get("Content-Type", "").partition(";")[0].strip().lower(), media_type(head)
    kind = seen or declared or "application/octet-stream"
    if not kind.startswith("image/") and (seen or declared not in _OPAQUE):
        raise FetchError(Reason.NO_IMAGE, f"at {url.host!r} is no image but {kind!r}")
    return head


@contextlib.contextmanager
def _fetch_errors(url: URL) -> Iterator[None]:
    """Raise the transport's errors as FetchError."""
    try:
        with connection_errors():
            yield
    except httpx.TimeoutException as error:
        raise FetchError(Reason.TIMED_OUT, f"at {url.host!r} did not arrive in time") from error
    except httpx.ConnectError as error:
        if isinstance(error.__cause__, aiohttp.ClientConnectorDNSError):
            raise FetchError(Reason.LOST, f"cannot be fetched: the host {url.host!r} is not known") from error
        raise FetchError(Reason.LOST, f"cannot be fetched: no connection to {url.host!r}") from error
    except httpx.TransportError as error:
        raise FetchError(Reason.LOST, f"at {url.host!r} broke off on its way") from error


def _too_large(url: URL, max_bytes: int) -> FetchError:
    return FetchError(Reason.TOO_LARGE, f"at {url.host!r} is larger than {max_bytes / 1_048_576:g} MB")
