"""Send an encoded answer: the status line at the commit point, comments while the upstream draws, and a broken
connection or a nested error if something fails after it. Knows no provider."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from starlette.types import Receive, Scope, Send

from app.api.connection import connection
from app.api.requests.body import ClientGone, Watched, drain
from app.api.responses.bill import Bill
from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder, compact
from app.errors import ApiError, UpstreamError, shortened
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, Served
from app.gateway.inspection import Picture
from app.images import Size
from app.storage.recording import Reader

Headers = list[tuple[bytes, bytes]]
# The gateway's headers that a page in a browser may read.
HEADERS_FOR_BROWSERS = [
    "x-request-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-images",
    "x-ratelimit-remaining-images",
    "x-ratelimit-reset-images",
    "x-gateway-provider",
    "x-gateway-model",
    "x-gateway-attempts",
    "x-gateway-dropped",
    "x-gateway-mapped",
    "x-gateway-cost",
    "x-gateway-currency",
]
_STREAM_HEADERS: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
DRAIN_BYTES = 256 * 1_048_576
DRAIN_SECONDS = 10.0
LONGEST_LOOK = 262_144  # characters of base64: the size of a JPEG stands behind its EXIF and its colour profile
LONGEST_LOGGED = 300  # characters of an error's message


@dataclass(slots=True)
class RequestLog:
    """The facts of one request for its log line, collected while the request is served. Times are the clock's, in
    seconds."""

    began: float
    status: int = 0
    bytes: int = 0
    received: int = 0  # bytes of the request's body
    images: int = 0
    first_byte: float | None = None
    key: str | None = None
    operation: str | None = None
    model: str | None = None
    prompt: str | None = None
    trace_id: str | None = None
    is_admitted: bool = False  # the ledger has a drawing of this request
    joined: str | None = None  # how the request came to the answer of another one
    served: Served | None = None
    failed_attempts: int = 0  # of a request that no provider served
    error: str | None = None
    param: str | None = None
    message: str | None = None
    cost: float | None = None  # of the answer, in the ledger's currency
    cost_in_doubt: float | None = None

    def fail(self, error: ApiError) -> None:
        """Note an error. After an attempt its message may be the provider's, which may quote the prompt: note that one
        only if the prompt is logged too."""
        self.error, self.failed_attempts = error.code or error.type, error.attempts
        self.param = error.param
        if not error.attempts or self.prompt is not None:
            self.message = shortened(error.message, LONGEST_LOGGED)

    @property
    def attempts(self) -> int | None:
        """The number that `x-gateway-attempts` has."""
        return (self.served.attempts if self.served else self.failed_attempts) or None


class Answer:
    """One response to a client."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._connection = connection(scope)
        self.log: RequestLog = scope["state"]["log"]
        self.started = self.finished = self.gone = False

    async def start(self, status: int, content_type: bytes, headers: Headers) -> None:
        """Send the status line. Raises ClientGone if the client has disconnected."""
        if self.gone:
            raise ClientGone
        self.started = True
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content_type), *headers],
        }
        await self._send(start)

    async def body(self, text: bytes, *, more: bool = True) -> None:
        """Send a piece. Raises ClientGone once the client is known to have disconnected."""
        self.finished = not more
        if more and self._connection is not None and self._connection.write(text):
            self.log.bytes += len(text)
            if self._connection.is_full:
                await self._connection.drain()
        else:
            await self._send({"type": "http.response.body", "body": text, "more_body": more})
        if self.gone:
            raise ClientGone

    async def end(self, text: bytes) -> None:
        """Send the last piece and return when the socket has taken all. Raises ClientGone if it did not."""
        await self.body(text, more=False)
        if self._connection is not None and not await self._connection.flush():
            raise ClientGone

    @property
    def lost(self) -> bool:
        """True if the connection is known to be broken."""
        return self._connection is not None and self._connection.is_closing

    def note(self, event: Event) -> None:
        if type(event) is Served:
            self.log.served = event
        elif type(event) is ImageEnds:
            self.log.images += 1


async def send_error(answer: Answer, error: ApiError, receive: Receive) -> None:
    """Send OpenAI's envelope, with the headers that the SDKs' retries obey. Drain the rest of the request for a while,
    since a reset of the connection would destroy the answer."""
    text = compact(error.envelope()).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
        headers.append((b"retry-after-ms", str(max(1, round(error.retry_after * 1000))).encode()))
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    if error.attempts:
        headers.append((b"x-gateway-attempts", str(error.attempts).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(receive, Watched) and receive.complete:
        await answer.start(error.status, b"application/json", headers)
        await answer.body(text, more=False)
        return
    await answer.start(error.status, b"application/json", [*headers, (b"connection", b"close")])
    await answer.body(text)
    await drain(receive, max_bytes=DRAIN_BYTES, seconds=DRAIN_SECONDS)
    await answer.body(b"", more=False)


def gateway_headers(served: Served) -> Headers:
    said = {
        b"x-gateway-provider": served.provider,
        b"x-gateway-model": served.model,
        b"x-gateway-attempts": str(served.attempts),
        b"x-gateway-dropped": ",".join(served.dropped),
        b"x-gateway-mapped": ",".join(served.mapped),
    }
    return [(name, value.encode("ascii", "replace")) for name, value in said.items() if value]


@dataclass(slots=True)
class _Head:
    """The headers of an answer with images, which leave with its first text: the beginning of a picture may show its
    size, and so its cost."""

    answer: Answer
    bill: Bill | None
    others: Headers
    served: Served | None = None

    async def start(self, content_type: bytes, picture: bytes = b"") -> None:
        """Send the head. `picture`: the base64 text of the first picture, as far as it is there."""
        headers = list(self.others)
        if self.served is not None:
            headers += gateway_headers(self.served)
            if self.bill is not None:
                headers += self.bill.headers(partial(_size_of, picture))
        await self.answer.start(200, content_type, headers)


def _size_of(picture: bytes) -> Size | None:
    """Return the size of a picture from the beginning of its base64 text, if that shows it."""
    found = Picture()
    with contextlib.suppress(UpstreamError):  # a cut group, say
        found.piece(picture[: LONGEST_LOOK // 4 * 4])
    return found.size


async def send_json(
    answer: Answer,
    reader: Reader,
    encoder: JsonEncoder,
    bill: Bill | None,
    first: float | None,
    between: float,
) -> None:
    """Send a JSON answer. Raises ApiError while nothing was sent; after that a failure leaves the answer visibly
    incomplete. With `first`, send white space after so many seconds of silence, and then after each `between`."""
    speaking = contextlib.nullcontext() if first is None else _kept_alive(answer, encoder, [], first, between)
    async with speaking:
        head: _Head | None = _Head(answer, bill, [])
        held = b""  # the end of an image: the rest is there already
        while events := await reader.read():
            for event in events:
                if head is not None and not isinstance(event, Served | ImageBegins):
                    if not answer.started:
                        await head.start(encoder.content_type, event.base64 if type(event) is ImageData else b"")
                    elif head.served is not None:
                        encoder.tell(head.served)
                    head = None
                text = encoder.encode(event)
                if type(event) is ImageData:  # nearly every byte's path
                    if text:
                        await answer.body(text)
                    continue
                text, held = held + text, b""
                answer.note(event)
                if type(event) is Served:
                    if head is not None:
                        head.served = event
                    else:
                        encoder.tell(event)
                if type(event) is Done:
                    await answer.end(text)
                elif type(event) is ImageEnds:
                    held = text
                elif text:
                    await answer.body(text)


async def send_raw(answer: Answer, reader: Reader, encoder: RawEncoder, bill: Bill | None = None) -> None:
    """Send one image. Raises ApiError while nothing was sent; after that a failure leaves the image visibly
    incomplete."""
    head = _Head(answer, bill, [(b"vary", b"Accept"), (b"x-content-type-options", b"nosniff")])
    picture = b""
    while events := await reader.read():
        for event in events:
            text = encoder.encode(event)
            answer.note(event)
            if type(event) is Served:
                head.served = event
            elif type(event) is ImageData and not answer.started:
                picture += event.base64
            if text:
                if not answer.started:
                    await head.start(encoder.content_type, picture)
                await answer.body(text)
    await answer.end(b"")


async def send_sse(
    answer: Answer, reader: Reader, encoder: SseEncoder, keepalive: float, bill: Bill | None = None
) -> None:
    """Send an event stream. Raises ApiError while nothing was sent; after that a failure becomes a nested error event.

    The end of an image whose cost is not known yet waits for the next event, which may bring it."""
    async with _kept_alive(answer, encoder, _STREAM_HEADERS, keepalive, keepalive):
        head, waiting = _Head(answer, bill, _STREAM_HEADERS), None
        try:
            while events := await reader.read():
                for event in events:
                    if waiting is not None:
                        await answer.body(encoder.encode(waiting))
                        waiting = None
                    answer.note(event)
                    if type(event) is ImageEnds and encoder.awaits_cost(event):
                        waiting = event
                        continue
                    text = encoder.encode(event)
                    if type(event) is Served:
                        head.served = event
                    if text:
                        if not answer.started:
                            await head.start(encoder.content_type, event.base64 if type(event) is ImageData else b"")
                        await answer.body(text)
        except ApiError as error:
            if not answer.started:
                raise
            answer.log.fail(error)
            ended = encoder.encode(waiting) if waiting is not None else b""
            await answer.body(ended + encoder.error(error))
    await answer.end(b"")  # without comments, which would come after the end if the reader is slow


@contextlib.asynccontextmanager
async def _kept_alive(
    answer: Answer, encoder: JsonEncoder | SseEncoder, headers: Headers, first: float, between: float
) -> AsyncIterator[None]:
    """Send a comment after `first` seconds of silence, and then after each `between`, where the encoder has one."""

    async def speak() -> None:
        seconds = first
        while True:
            sent = answer.log.bytes
            await asyncio.sleep(seconds)
            if answer.log.bytes == sent and (text := encoder.comment()):
                if not answer.started:
                    await answer.start(200, encoder.content_type, headers)
                await answer.body(text)
            seconds = between

    speaker = asyncio.create_task(speak())
    try:
        yield
    finally:
        speaker.cancel()
        await asyncio.gather(speaker, return_exceptions=True)
