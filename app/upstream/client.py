"""The only file that asks providers to draw: renders the recipe of a body in pieces, and distinguishes a request that
never left from one that may have been drawn. Knows no dialect."""

from __future__ import annotations

import asyncio
import errno
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from email.utils import formatdate
from functools import lru_cache

import httpx
import pybase64

from app.catalog.deployments import Deployment, Provider
from app.catalog.profiles import Timeouts
from app.dialects import Base64, Credential, Ingredient, ResponseHead, UpstreamRequest
from app.errors import Failure, Unavailable, UpstreamError
from app.upstream.own_addresses import own_address

USER_AGENT = "image-gateway"
# A multiple of 3, so that pieces of base64 can be put together. Twice as much takes a little less time for an upload,
# and 5 MiB more memory for 32 at once.
PIECE = 3 * 65_536
LONGEST_ERROR = 65_536
LINGER_SECONDS = 0.5  # for the end of an answer of which all is known
ERROR_SECONDS = 5.0  # for the body of an error: the next deployment waits for it


_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


class UpstreamAnswer:
    """An upstream's answer: its head, and the pieces of its body as they arrive."""

    def __init__(self, response: httpx.Response) -> None:
        """Reading the pieces raises httpx's errors, which the block of `Upstream.send` translates, and UpstreamError
        for an encoding that cannot be read."""
        self.head = ResponseHead(response.status_code, _plain(response.headers))
        self.pieces: AsyncIterator[bytes] = aiter(response.stream)  # type: ignore[arg-type]
        encoding = self.head.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", ""):
            self.pieces = _inflate(self.pieces, encoding)

    async def text(self) -> bytes:
        """Return the first 64 KiB of the body; less if a few seconds pass or the connection fails."""
        body = bytearray()
        try:
            async with asyncio.timeout(ERROR_SECONDS):
                async for piece in self.pieces:
                    body += piece
                    if len(body) >= LONGEST_ERROR:
                        break
        except (UpstreamError, TimeoutError, httpx.HTTPError):
            pass  # the status says enough
        return bytes(body[:LONGEST_ERROR])

    async def let_end(self) -> None:
        """Wait a moment for the end: mostly it is on its way, and then the connection can be used again."""
        with suppress(UpstreamError, TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(LINGER_SECONDS):
                async for _ in self.pieces:
                    pass


class Upstream:
    """Sends requests through one pool of connections, which the transport keeps."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    def send(self, request: UpstreamRequest, deployment: Deployment, timeouts: Timeouts | None = None) -> Sending:
        """Send a request, and read its answer in the block. `timeouts`: the profile's by default. Entering raises
        UpstreamError: NOT_SENT if the request never left, UNCERTAIN if it may have arrived, also while the answer is
        read; Unavailable if the gateway has no descriptor left, so that nothing left."""
        return Sending(self._transport, request, deployment, timeouts or deployment.profile.timeout)


class Sending(AbstractAsyncContextManager[UpstreamAnswer]):
    """A request that is sent, and its answer, which is given back at the end of the block."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        request: UpstreamRequest,
        deployment: Deployment,
        timeouts: Timeouts,
    ) -> None:
        self._transport = transport
        self._request = request
        self._provider = deployment.provider
        self._timeouts = timeouts
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> UpstreamAnswer:
        try:
            url = await _url(self._request.target, self._provider)
            sent = _render(self._request, url, self._provider, self._timeouts)
            self._response = response = await self._transport.handle_async_request(sent)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if any(isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTORS for cause in _causes(error)):
                raise _no_descriptors() from error
            raise _failure(error, "before the answer began") from error
        return UpstreamAnswer(response)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._response is not None:
            await self._response.stream.aclose()  # type: ignore[union-attr]
        if isinstance(error, httpx.HTTPError):
            raise _failure(error, "in the middle of the answer") from error


def _plain(response_headers: httpx.Headers) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response_headers.raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "retry-after" in headers:  # it may be a date, and its readers know no clock
        headers.setdefault("date", formatdate(usegmt=True))
    return headers


async def _url(target: str, provider: Provider) -> httpx.URL:
    """Return the URL of a request. Raises UpstreamError for an address from an answer that is not the provider's
    own."""
    if not target or target.startswith("/"):
        return _address(provider.base_url + target)
    address = await own_address(target, provider.base_url)
    if address is None:
        message = "the answer names an address that is not the provider's own"
        raise UpstreamError(Failure.UNCERTAIN, message, is_final=True)
    return httpx.URL(str(address))


def _render(request: UpstreamRequest, url: httpx.URL, provider: Provider, timeout: Timeouts) -> httpx.Request:
    length = sum(map(_length, request.body))
    text = request.body[0] if len(request.body) == 1 else b"" if not request.body else None
    headers = dict(_headers(provider.api_key, request.credential, tuple(provider.headers.items())))
    if request.body:
        headers[b"content-type"] = request.content_type.encode()
        headers[b"content-length"] = b"%d" % length
    for name, value in request.headers.items():
        headers[name.encode()] = value.encode()
    return httpx.Request(
        request.method,
        url,
        headers=list(headers.items()),
        # As a stream nothing is added to the headers, and nothing looked for in them.
        stream=httpx.ByteStream(text) if isinstance(text, bytes) else _Rendering(request.body),
        extensions={
            "timeout": {
                "connect": timeout.connect,
                "read": timeout.read,
                "total": timeout.total,
                "first_byte": timeout.first_byte,
            }
        },
    )


@lru_cache(maxsize=256)
def _address(url: str) -> httpx.URL:
    """Parse an address once: it costs more than the rest of a small request's head, and there are few."""
    return httpx.URL(url)


@lru_cache(maxsize=256)
def _headers(
    api_key: str | None, credential: Credential, stated: tuple[tuple[str, str], ...]
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that all requests to a provider have. Those that its entry has `stated` come before others."""
    headers = {
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
    }
    if api_key:
        headers[credential.header] = f"{credential.scheme} {api_key}".lstrip()
    headers |= {name.lower(): value for name, value in stated}
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def _length(ingredient: Ingredient) -> int:
    if isinstance(ingredient, bytes):
        return len(ingredient)
    if isinstance(ingredient, Base64):
        return (ingredient.blob.size + 2) // 3 * 4
    return ingredient.size


class _Rendering(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces. Reading a piece of a file that was just written does not leave the page cache, so it is
    not worth a thread."""

    def __init__(self, body: Iterable[Ingredient]) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for ingredient in self._body:
            if isinstance(ingredient, bytes):
                yield ingredient
            elif isinstance(ingredient, Base64):
                for offset in range(0, ingredient.blob.size, PIECE):
                    yield pybase64.b64encode(ingredient.blob.read(offset, PIECE))
            else:
                for offset in range(0, ingredient.size, PIECE):
                    yield ingredient.read(offset, PIECE)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


async def _inflate(stream: AsyncIterator[bytes], encoding: str) -> AsyncGenerator[bytes, None]:
    """Yield the inflated bytes in bounded pieces, so that a bomb cannot grow. Some hosts compress although they were
    asked not to. Raises UpstreamError."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UpstreamError(Failure.UNCERTAIN, f"the answer's Content-Encoding is {encoding!r}, which nobody asked for")
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        async for piece in stream:
            data = inflate.decompress(piece, PIECE)
            while data:
                yield data
                await asyncio.sleep(0)  # a small piece may hold very much, and others wait meanwhile
                data = inflate.decompress(inflate.unconsumed_tail, PIECE)
    except zlib.error as error:
        raise UpstreamError(Failure.UNCERTAIN, f"the compressed answer is garbled: {error}") from None
    if not inflate.eof:
        raise UpstreamError(Failure.UNCERTAIN, "the compressed answer is cut")


def _no_descriptors() -> Unavailable:
    """Return the error of the gateway's own fault, which must make no provider cool down."""
    return Unavailable(
        "The gateway has as many connections open as it can. Try again in a moment.",
        code="server_is_overloaded",
        retry_after=5.0,
    )


def _failure(error: Exception, when: str) -> UpstreamError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return UpstreamError(
            Failure.NOT_SENT, "it could not be reached", timed_out=isinstance(error, httpx.ConnectTimeout)
        )
    if isinstance(error, httpx.TimeoutException):
        return UpstreamError(Failure.UNCERTAIN, f"it fell silent {when}", timed_out=True)
    return UpstreamError(Failure.UNCERTAIN, f"the connection was lost {when}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
