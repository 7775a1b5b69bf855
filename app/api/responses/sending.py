"""Send an encoded answer: the status line at the commit point, comments while the upstream draws, and a broken
connection or a nested error if something fails after it. Knows no provider."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self

from starlette.types import Receive, Scope, Send

from app.api.connection import connection
from app.api.requests.body import ClientGone, Watched, drain
from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder, compact
from app.errors import ApiError
from app.events import Done, Event, ImageEnds, Served

Headers = list[tuple[bytes, bytes]]
# The gateway's headers that a page in a browser may read.
HEADERS_FOR_BROWSERS = [
    "x-request-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-gateway-provider",
    "x-gateway-model",
    "x-gateway-attempts",
    "x-gateway-dropped",
    "x-gateway-mapped",
]
_STREAM_HEADERS: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
DRAIN_BYTES = 256 * 1_048_576
DRAIN_SECONDS = 10.0
SLOW_SECONDS = 0.02


@dataclass(slots=True)
class RequestLog:
    """The facts of one request for its log line, collected while the request is served. Times are the clock's, in
    seconds."""

    began: float
    status: int = 0
    bytes: int = 0
    images: int = 0
    first_byte: float | None = None
    key: str | None = None
    operation: str | None = None
    model: str | None = None
    prompt: str | None = None
    served: Served | None = None
    failed_attempts: int = 0  # of a request that no provider served
    error: str | None = None

    def fail(self, error: ApiError) -> None:
        self.error, self.failed_attempts = error.code or error.type, error.attempts

    @property
    def attempts(self) -> int | None:
        """The number that `x-gateway-attempts` has."""
        return (self.served.attempts if self.served else self.failed_attempts) or None


class Answer:
    """One response to a client. It calls `detach` once its reader is slow: when sending has waited for the socket for
    `SLOW_SECONDS` in all."""

    def __init__(self, scope: Scope, send: Send, detach: Callable[[], None] = lambda: None) -> None:
        self._send = send
        self._connection = connection(scope)
        self._detach: Callable[[], None] | None = detach
        self._waited = 0.0
        self._sending_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.log: RequestLog = scope["state"]["log"]
        self.started = self.finished = self.gone = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()

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
        self._sending_since = began = time.perf_counter()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._look)
        if more and self._connection is not None and await self._connection.write(text):
            self.log.bytes += len(text)
        else:
            await self._send({"type": "http.response.body", "body": text, "more_body": more})
        self._sending_since = None
        self._waited += time.perf_counter() - began
        if self._waited > SLOW_SECONDS:
            self._slow()
        if self.gone:
            raise ClientGone

    async def end(self, text: bytes) -> None:
        """Send the last piece and return when the socket has taken all. Raises ClientGone if it did not."""
        await self.body(text, more=False)
        self._sending_since = time.perf_counter()
        whole = self._connection is None or await self._connection.flush()
        self._sending_since = None
        if not whole:
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

    def _look(self) -> None:
        """Detach a reader that is so slow that a single `send` does not return."""
        self._timer = None
        if self._sending_since is None:
            return  # until the next piece is sent
        if time.perf_counter() - self._sending_since > SLOW_SECONDS:
            self._slow()
        else:
            self._timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._look)

    def _slow(self) -> None:
        if self._detach is not None:
            self._detach()
            self._detach = None


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


async def send_json(
    answer: Answer,
    events: AsyncGenerator[Event, None],
    encoder: JsonEncoder,
    first: float | None,
    between: float,
) -> None:
    """Send a JSON answer. Raises ApiError while nothing was sent; after that a failure leaves the answer visibly
    incomplete. With `first`, send white space after so many seconds of silence, and then after each `between`."""
    speaking = contextlib.nullcontext() if first is None else _kept_alive(answer, encoder, [], first, between)
    async with speaking:
        held = b""  # the end of an image: the rest is there already
        async for event in events:
            text = held + encoder.encode(event)
            held = b""
            answer.note(event)
            if type(event) is Served:
                if answer.started:
                    encoder.tell(event)
                else:
                    await answer.start(200, encoder.content_type, gateway_headers(event))
            if type(event) is Done:
                await answer.end(text)
            elif type(event) is ImageEnds:
                held = text
            elif text:
                await answer.body(text)


async def send_raw(answer: Answer, events: AsyncGenerator[Event, None], encoder: RawEncoder) -> None:
    """Send one image. Raises ApiError while nothing was sent; after that a failure leaves the image visibly
    incomplete."""
    headers: Headers = [(b"vary", b"Accept"), (b"x-content-type-options", b"nosniff")]
    async for event in events:
        text = encoder.encode(event)
        answer.note(event)
        if type(event) is Served:
            headers += gateway_headers(event)
        if text:
            if not answer.started:
                await answer.start(200, encoder.content_type, headers)
            await answer.body(text)
    await answer.end(b"")


async def send_sse(answer: Answer, events: AsyncGenerator[Event, None], encoder: SseEncoder, keepalive: float) -> None:
    """Send an event stream. Raises ApiError while nothing was sent; after that a failure becomes a nested error
    event."""
    async with _kept_alive(answer, encoder, _STREAM_HEADERS, keepalive, keepalive):
        try:
            async for event in events:
                text = encoder.encode(event)
                answer.note(event)
                if type(event) is Served and not answer.started:
                    await answer.start(200, encoder.content_type, _STREAM_HEADERS + gateway_headers(event))
                if text:
                    await answer.body(text)
        except ApiError as error:
            if not answer.started:
                raise
            answer.log.error = error.code or error.type
            await answer.body(encoder.error(error))
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
