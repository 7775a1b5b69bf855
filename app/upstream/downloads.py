"""Downloads pictures from addresses that somebody else named: from public hosts only, bounded in every way, and never
with a credential. Knows no provider and no request.

Through a proxy (`HTTPS_PROXY`) it is the proxy that looks names up, so it alone can keep to public addresses; what is
visibly private is refused here all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.request import getproxies, proxy_bypass

import aiohttp
import pybase64
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.errors import Failure, UpstreamError
from app.imaging.formats import media_type
from app.upstream.addresses import Address, FetchError, Reason, address_of, is_public, private, refuse_private
from app.upstream.patience import Patience

USER_AGENT = "image-gateway"
REDIRECTS = 3
PAUSES = (0.25, 1.0)  # seconds before each further attempt
_GLANCE = 64  # bytes that tell a picture from a page
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_OPAQUE = frozenset({"application/octet-stream", "binary/octet-stream"})

__all__ = ["Caps", "FetchError", "Fetched", "Fetcher", "Reason"]


@dataclass(frozen=True, slots=True)
class Caps:
    """What one download may take, over all redirects and attempts. `total` counts the seconds of waiting for the host,
    not those in which whoever reads here took its time."""

    max_bytes: int = 104_857_600
    connect: float = 10.0  # seconds, looking the name up among them
    idle: float = 30.0  # seconds without a byte
    total: float = 120.0


class Fetched:
    """A picture that is arriving."""

    def __init__(self, response: aiohttp.ClientResponse, head: bytes, patience: Patience, max_bytes: int) -> None:
        self._response = response
        self._head = head
        self._patience = patience
        self._max_bytes = max_bytes

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """To be read once. Raises FetchError when the connection fails, falls silent, or brings too much."""
        piece, count = self._head, 0
        while piece:
            count += len(piece)
            if count > self._max_bytes:
                raise _too_large(self._response.url, self._max_bytes)
            yield piece
            with _told(self._response.url):
                piece = await self._patience.wait(self._response.content.readany(), count)

    def release(self) -> None:
        """Gives the connection back, or closes it where something is left on it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Fetcher:
    """To be closed. `resolver` looks up the names of hosts that nobody vouches for; `sleep` waits seconds."""

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
        self._proxies = getproxies() if proxies is None else proxies
        self._clock = clock
        self._sleep = sleep
        tls = tls or ssl.create_default_context()
        # Apart, so that a connection to a provider's own host is never taken for a checked one.
        self._vouched = _session(aiohttp.TCPConnector(limit=0, ssl=tls))
        checking = _Checking(resolver or aiohttp.ThreadedResolver(), public)
        self._checked = _session(aiohttp.TCPConnector(limit=0, ssl=tls, resolver=checking, use_dns_cache=False))

    async def aclose(self) -> None:
        await self._vouched.close()
        await self._checked.close()

    async def __aenter__(self) -> Fetcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def open(
        self, url: str, *, origin: str | None = None, max_bytes: int | None = None, rate: int | None = None
    ) -> AsyncIterator[Fetched]:
        """The picture at `url`. `origin` is the base URL of the provider that named it: its own host is always allowed,
        and what is no full address is taken to lie there. `rate` is the bytes a second that the host has to send.
        Raises FetchError, after further attempts where they may help; never once a piece was handed out."""
        patience = Patience(self._caps.total, rate, self._clock)
        fetched = await self._persist(url, origin, max_bytes or self._caps.max_bytes, patience)
        try:
            yield fetched
        finally:
            fetched.release()

    async def as_base64(self, url: str, origin: str | None = None) -> AsyncGenerator[bytes, None]:
        """The picture at `url` as pieces of base64 text, which put together are one text. Raises UpstreamError
        (UNCERTAIN): a provider that gives a link has drawn the picture."""
        try:
            async with self.open(url, origin=origin) as fetched, aclosing(fetched.pieces()) as pieces:
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

    async def _persist(self, url: str, origin: str | None, max_bytes: int, patience: Patience) -> Fetched:
        for pause in PAUSES:
            try:
                return await self._follow(url, origin, max_bytes, patience)
            except FetchError as error:
                if not error.passing or patience.left <= pause:
                    raise
            patience.left -= pause
            await self._sleep(pause)
        return await self._follow(url, origin, max_bytes, patience)

    async def _follow(self, url: str, origin: str | None, max_bytes: int, patience: Patience) -> Fetched:
        home = address_of(origin) if origin else None
        target = address_of(url, origin or "")
        for _ in range(REDIRECTS + 1):
            response = await self._request(target, home, patience)
            try:
                if response.status not in _REDIRECTING:
                    return await _looked_at(response, patience, max_bytes)
                location = response.headers.get("Location", "")
            except BaseException:
                response.close()
                raise
            response.close()
            if not location:
                raise FetchError(Reason.REDIRECTS, f"at {target.host!r} has moved, it is not said where to")
            target = address_of(location, str(target))
        raise FetchError(Reason.REDIRECTS, f"at {target.host!r} is behind more than {REDIRECTS} redirects")

    async def _request(self, url: URL, home: URL | None, patience: Patience) -> aiohttp.ClientResponse:
        vouched = home is not None and (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)
        proxy = self._proxies.get(url.scheme)
        if proxy is not None and proxy_bypass(url.host or ""):
            proxy = None
        if not vouched:
            refuse_private(url, self._public, proxied=proxy is not None)
        session = self._vouched if vouched or proxy else self._checked  # the proxy itself may well be private
        timeout = aiohttp.ClientTimeout(None, connect=self._caps.connect, sock_read=self._caps.idle)
        with _told(url):
            return await patience.wait(session.get(url, allow_redirects=False, proxy=proxy, timeout=timeout))


class _Checking(AbstractResolver):
    """Looks a name up once, and gives only what was checked: an answer that changes afterwards helps nobody. A name
    with one private address among public ones is refused whole, since no honest host has such."""

    def __init__(self, resolver: AbstractResolver, public: Callable[[Address], bool]) -> None:
        self._resolver = resolver
        self._public = public

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(self._public(ip_address(one["host"])) for one in found):
            raise private(host)
        return found

    async def close(self) -> None:
        await self._resolver.close()


async def _looked_at(response: aiohttp.ClientResponse, patience: Patience, max_bytes: int) -> Fetched:
    """Its status, its length, and what it is. Raises FetchError."""
    url = response.url
    if response.status != 200:
        raise FetchError(Reason.STATUS, f"at {url.host!r} was refused with status {response.status}", response.status)
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchError(Reason.NO_IMAGE, f"at {url.host!r} came compressed, which nobody asked for")
    if (response.content_length or 0) > max_bytes:
        raise _too_large(url, max_bytes)
    head = b""
    with _told(url):
        while len(head) < _GLANCE and (piece := await patience.wait(response.content.readany())):
            head += piece
    if not head:
        raise FetchError(Reason.NO_IMAGE, f"at {url.host!r} is empty")
    said, seen = response.headers.get("Content-Type", "").partition(";")[0].strip().lower(), media_type(head)
    kind = seen or said or "application/octet-stream"
    if not kind.startswith("image/") and (seen or said not in _OPAQUE):
        raise FetchError(Reason.NO_IMAGE, f"at {url.host!r} is no image but {kind!r}")
    return Fetched(response, head, patience, max_bytes)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        auto_decompress=False,
        read_bufsize=65_536,
        trust_env=False,  # which would take credentials from ~/.netrc
    )


@contextlib.contextmanager
def _told(url: URL) -> Iterator[None]:
    """aiohttp's errors as ours."""
    try:
        yield
    except TimeoutError as error:
        raise FetchError(Reason.TIMED_OUT, f"at {url.host!r} did not arrive in time") from error
    except aiohttp.ClientConnectorDNSError as error:
        raise FetchError(Reason.LOST, f"cannot be fetched: the host {url.host!r} is not known") from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
        raise FetchError(Reason.LOST, f"cannot be fetched: no connection to {url.host!r}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise FetchError(Reason.LOST, f"at {url.host!r} broke off on its way") from error


def _too_large(url: URL, max_bytes: int) -> FetchError:
    return FetchError(Reason.TOO_LARGE, f"at {url.host!r} is larger than {max_bytes / 1_048_576:g} MB")
