"""The exchanges of an attempt: send a request, read its answer, and make the next one that the answer asks for (poll a
job), all within one deadline. Knows no dialect; what does I/O comes in as a protocol.

A failure of the first exchange is the attempt's, as the decoder or the client says. From the second on a job may be
drawing, so a failure says nothing about the drawing unless it `is_final`:

    a later exchange fails ──┬─ final: moderated, failed ───────────▶ raised as it is
                             ├─ repeatable, and it may pass ────────▶ made again after a pause, until the deadline
                             └─ else, or the deadline has come ─────▶ UNCERTAIN: neither failed over nor drawn again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from app.catalog.deployments import Deployment, Provider
from app.catalog.profiles import Timeouts
from app.catalog.redaction import body_without_secrets, without_secrets
from app.dialects import Decoder, Exchange, ResponseHead, UpstreamRequest
from app.errors import Failure, Unavailable, UpstreamError
from app.events import Event, ImageData, ImageLink, Sink
from app.gateway.attempt import Attempt
from app.gateway.call import SubmittedJob
from app.gateway.inspection import Inspector

STEP, GLANCE = 4096, 512  # bytes of JSON that are read at a time; bytes that distinguish it from the text of an image
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, before a failed exchange is made again; the last one stays
LONGEST_PAUSE = 30.0  # seconds; a Retry-After above it is not waited for, since the result may expire meanwhile
SHORT_READ = 30.0  # seconds of silence after which a repeatable exchange has failed
Take = Callable[[Iterable[Event | Exchange]], Awaitable[None]]
_PASSING = {Failure.NOT_SENT, Failure.RATE_LIMITED, Failure.UNAVAILABLE, Failure.UNCERTAIN}


class UpstreamAnswer(Protocol):
    head: ResponseHead
    pieces: AsyncIterator[bytes]

    async def text(self) -> bytes: ...

    async def let_end(self) -> None:
        """Wait a moment for the end of an answer that has given all its images."""
        ...


class Sender(Protocol):
    def send(
        self, request: UpstreamRequest, deployment: Deployment, timeouts: Timeouts | None = None
    ) -> AbstractAsyncContextManager[UpstreamAnswer]:
        """Send a request. Raises UpstreamError, also for an answer that breaks while it is read in the block, and
        Unavailable if the gateway itself cannot send: then nothing was sent."""
        ...


class Fetcher(Protocol):
    def as_base64(self, url: str, origin: str | None = None) -> AsyncGenerator[bytes, None]:
        """Download the image at `url` as base64 text. Raises UpstreamError."""
        ...


@dataclass(frozen=True, slots=True)
class Exchanges:
    """`sleep` waits seconds. `turn` is for answers that are slow to read."""

    sender: Sender
    fetcher: Fetcher
    sleep: Callable[[float], Awaitable[None]]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def draw(self, attempt: Attempt, exchange: Exchange, sink: Sink, *, keeps_links: bool) -> None:
        """Push the events of all answers into `sink`. Raises UpstreamError, and Unavailable if nothing could be sent.

        `keeps_links`: pass links on instead of fetching their images.
        """
        deployment, request = attempt.deployment, attempt.fitted.request
        inspector = Inspector(request.parameters.get("seed"), request.n)
        is_first = not attempt.is_resumed
        timeouts = None if is_first else await self._wait(attempt, exchange)
        failures = 0  # in a row
        trace = (attempt.traceparent or attempt.call.traceparent) if deployment.profile.traceparent else None
        while True:
            failure: UpstreamError | None = None
            answer = _Inspected(self, deployment, inspector, sink, keeps_links)
            attempt.exchanges += 1
            try:
                async with self.sender.send(_traced(exchange.request, trace), deployment, timeouts) as sent:
                    if attempt.provider_request_id is None and (said := sent.head.headers.get("x-request-id")):
                        attempt.provider_request_id = without_secrets(said, deployment.provider)
                    await self._read(sent, exchange, deployment.provider, answer)
            except (UpstreamError, Unavailable) as error:
                if isinstance(error, UpstreamError):
                    error.message = without_secrets(error.message, deployment.provider)
                    failure = error.alone()
                elif answer.has_begun:  # a stage behind has no room
                    raise
                else:
                    failure = UpstreamError(Failure.NOT_SENT, error.message)
                if is_first:
                    attempt.exchanges -= failure.failure is Failure.NOT_SENT
                    raise
                if failure.is_final:
                    raise
                if answer.has_begun or not exchange.is_repeatable or failure.failure not in _PASSING:
                    raise replace(failure, failure=Failure.UNCERTAIN) from error
            following = answer.following
            if failure is not None:
                following, failures = replace(exchange, after=_pause(failure, failures)), failures + 1
            elif following is None:
                return
            else:
                failures = 0
                if following.job is not None:
                    attempt.provider_request_id = following.job.get("id") or attempt.provider_request_id
                    if attempt.call.remember is not None:
                        job = SubmittedJob(deployment.name, attempt.first, following.job, request.n)
                        await attempt.call.remember(job)
            is_first, exchange = False, following
            timeouts = await self._wait(attempt, exchange, failure)

    async def _read(self, answer: UpstreamAnswer, exchange: Exchange, provider: Provider, take: _Inspected) -> None:
        """Decode an answer piece by piece. This is the path of nearly every byte. Raises UpstreamError, also for a
        status that is not 2xx."""
        if answer.head.status // 100 != 2:
            raise exchange.error(answer.head, body_without_secrets(await answer.text(), provider))
        decoder = exchange.decoder(answer.head)
        async for piece in answer.pieces:
            if decoder.is_in_text and await take.text(piece):
                pass  # nearly every byte's path
            elif _is_slow(piece):
                await self._read_slowly(piece, decoder, take)
            else:
                await take(decoder.feed(piece))
            if decoder.done:
                break
            del piece  # waiting for the next one must not hold it: each slow answer would take memory
        await take(decoder.close())
        if decoder.done:
            await answer.let_end()

    async def _read_slowly(self, piece: bytes, decoder: Decoder, take: Take) -> None:
        """Read a long piece of JSON in short steps. After the first step, other tasks go first, and one answer is read
        at a time."""
        is_later = self.turn.locked()
        while _is_slow(piece) and not decoder.done:
            step, piece = piece[:STEP], piece[STEP:]
            if is_later:
                await self._read_in_turn(step, decoder, take)
            else:
                await take(decoder.feed(step))
            is_later = True
        if piece and not decoder.done:
            await take(decoder.feed(piece))

    async def _read_in_turn(self, step: bytes, decoder: Decoder, take: Take) -> None:
        events, fault = list[Event | Exchange](), None
        async with self.turn:
            await asyncio.sleep(0)
            try:
                events.extend(decoder.feed(step))
            except UpstreamError as error:
                fault = error  # the events before it are whole
        await take(events)
        if fault is not None:
            try:
                raise fault
            finally:
                del fault  # it holds this frame, which holds image data

    async def _wait(self, attempt: Attempt, exchange: Exchange, failure: UpstreamError | None = None) -> Timeouts:
        """Pause before a later exchange, and return its timeouts. Raises UpstreamError if the deadline would pass;
        `failure`: of the last exchange."""
        timeouts = attempt.deployment.profile.timeout
        left = attempt.began + timeouts.total - attempt.clock() - exchange.after
        if left <= 0:
            last = f"; the last status call failed: {failure.message}" if failure else ""
            message = f"the job had not ended after {timeouts.total:g} s{last}"
            raise UpstreamError(Failure.UNCERTAIN, message, timed_out=True) from failure
        if exchange.after:
            await self.sleep(exchange.after)
        if exchange.is_repeatable:
            return Timeouts(timeouts.connect, min(timeouts.read, SHORT_READ), left)
        return replace(timeouts, total=left)


class _Inspected:
    """Takes the events of one answer: inspects them and pushes them on, with the images behind its links. Keeps the
    exchange that the answer asks for."""

    def __init__(
        self, exchanges: Exchanges, deployment: Deployment, inspector: Inspector, sink: Sink, keeps_links: bool
    ) -> None:
        self.following: Exchange | None = None
        self.has_begun = False  # an event was pushed on
        self._exchanges = exchanges
        self._base_url = deployment.provider.base_url
        self._inspect = inspector
        self._sink = sink
        self._keeps_links = keeps_links

    async def __call__(self, events: Iterable[Event | Exchange]) -> None:
        for event in events:
            if isinstance(event, Exchange):
                self.following = event
                continue
            if (missing := self._inspect.missing_before(event)) is not None:
                await self._sink(missing)
            found = self._inspect(event)
            if found is None:
                continue
            self.has_begun = True
            if type(found) is ImageLink:
                await self._follow_link(found)
            else:
                await self._sink(found)

    async def text(self, piece: bytes) -> bool:
        """Push a piece on if it is nothing but the text of an image. Returns False, and does nothing, for another."""
        event = self._inspect.text(piece)
        if event is None:
            return False
        await self._sink(event)
        return True

    async def _follow_link(self, link: ImageLink) -> None:
        """Push the image behind a link as if it were inline; or the link, as a full address."""
        if self._keeps_links:
            await self._sink(ImageLink(join_url(link.url, self._base_url)))
            return
        async with aclosing(self._exchanges.fetcher.as_base64(link.url, self._base_url)) as pieces:
            async for piece in pieces:
                if (event := self._inspect(ImageData(piece))) is not None:
                    await self._sink(event)


def _is_slow(piece: bytes) -> bool:
    """True for a long piece that looks like JSON. It takes a thousand times as long to read as the text of an image,
    and several answers may come at once."""
    return len(piece) > STEP and (piece.find(b'"', 0, GLANCE) >= 0 or piece.find(b",", 0, GLANCE) >= 0)


def _traced(request: UpstreamRequest, traceparent: str | None) -> UpstreamRequest:
    """Return the request with the trace that it belongs to."""
    return replace(request, headers={**request.headers, "traceparent": traceparent}) if traceparent else request


def _pause(failure: UpstreamError, failures: int) -> float:
    """Return the seconds before an exchange that failed, after `failures` others in a row, is made again."""
    return max(PAUSES[min(failures, len(PAUSES) - 1)], min(failure.retry_after or 0.0, LONGEST_PAUSE))


def join_url(url: str, base_url: str) -> str:
    """Return `url`, read at `base_url` if it is no full address. One that cannot be read stays as it is."""
    try:
        return url if urlsplit(url).scheme else urljoin(base_url, url)
    except ValueError:
        return url
