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
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from app.catalog.deployments import Deployment, Provider
from app.catalog.profiles import Timeouts
from app.catalog.redaction import body_without_secrets, without_secrets
from app.dialects import Decoder, Exchange, ResponseHead, UpstreamRequest
from app.errors import Failure, Unavailable, UpstreamError
from app.events import Event, ImageData, ImageLink
from app.gateway.attempt import Attempt
from app.gateway.call import SubmittedJob
from app.gateway.inspection import Inspector

LINGER = 0.5  # seconds, for an answer to end that has given all its images
STEP, GLANCE = 4096, 512  # bytes of JSON that are read at a time; bytes that tell it from the text of an image
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, before a failed exchange is made again; the last one stays
LONGEST_PAUSE = 30.0  # seconds; a Retry-After above it is not waited for, since the result may expire meanwhile
SHORT_READ = 30.0  # seconds of silence after which a repeatable exchange has failed
_PASSING = {Failure.NOT_SENT, Failure.RATE_LIMITED, Failure.UNAVAILABLE, Failure.UNCERTAIN}


class UpstreamAnswer(Protocol):
    head: ResponseHead

    def pieces(self) -> AsyncGenerator[bytes, None]: ...

    async def text(self) -> bytes: ...


class Sender(Protocol):
    def send(
        self, request: UpstreamRequest, deployment: Deployment, timeouts: Timeouts | None = None
    ) -> AbstractAsyncContextManager[UpstreamAnswer]:
        """Raises UpstreamError, and Unavailable if the gateway itself cannot send, so that nothing was sent."""
        ...


class Fetcher(Protocol):
    def as_base64(self, url: str, origin: str | None = None) -> AsyncGenerator[bytes, None]:
        """Raises UpstreamError."""
        ...


@dataclass(frozen=True, slots=True)
class Exchanges:
    """`sleep` waits seconds. `turn` is for answers that are slow to read."""

    sender: Sender
    fetcher: Fetcher
    sleep: Callable[[float], Awaitable[None]]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def draw(self, attempt: Attempt, exchange: Exchange, *, keeps_links: bool) -> AsyncGenerator[Event, None]:
        """The events of all answers as one stream. Raises UpstreamError, and Unavailable if nothing could be sent.

        `keeps_links`: pass links on instead of fetching their images.
        """
        deployment, request = attempt.deployment, attempt.fitted.request
        inspect = Inspector(request.parameters.get("seed"), request.n)
        is_first = not attempt.is_resumed
        timeouts = None if is_first else await self._wait(attempt, exchange)
        failures = 0  # in a row
        while True:
            following: Exchange | None = None
            failure: UpstreamError | None = None
            has_passed = False  # an event of this exchange
            attempt.exchanges += 1
            try:
                async with (
                    self.sender.send(exchange.request, deployment, timeouts) as answer,
                    aclosing(DecodedAnswer(answer, exchange, deployment.provider, self.turn)) as decoded,
                ):
                    while (events := await decoded.read()) is not None:
                        for event in inspect(events):
                            if isinstance(event, Exchange):
                                following = event
                                continue
                            has_passed = True
                            if type(event) is ImageLink:
                                linked = self._follow_link(event, inspect, deployment, keeps_links=keeps_links)
                                async with aclosing(linked) as image:
                                    async for part in image:
                                        yield part
                            else:
                                yield event
            except (UpstreamError, Unavailable) as error:
                if isinstance(error, UpstreamError):
                    error.message = without_secrets(error.message, deployment.provider)
                    failure = error.alone()
                else:  # the gateway's own
                    failure = UpstreamError(Failure.NOT_SENT, error.message)
                if is_first:
                    attempt.exchanges -= failure.failure is Failure.NOT_SENT
                    raise
                if failure.is_final:
                    raise
                if has_passed or not exchange.is_repeatable or failure.failure not in _PASSING:
                    raise replace(failure, failure=Failure.UNCERTAIN) from error
            if failure is not None:
                following, failures = replace(exchange, after=_pause(failure, failures)), failures + 1
            elif following is None:
                return
            else:
                failures = 0
                if following.job is not None and attempt.call.remember is not None:
                    job = SubmittedJob(deployment.name, attempt.first, following.job, request.n)
                    await attempt.call.remember(job)
            is_first, exchange = False, following
            timeouts = await self._wait(attempt, exchange, failure)

    async def _follow_link(
        self, link: ImageLink, inspect: Inspector, deployment: Deployment, *, keeps_links: bool
    ) -> AsyncGenerator[Event, None]:
        """Yield the image behind a link, as if it had been in the answer; or the link, as a full address."""
        base_url = deployment.provider.base_url
        if keeps_links:
            yield ImageLink(join_url(link.url, base_url))
            return
        async with aclosing(self.fetcher.as_base64(link.url, base_url)) as pieces:
            async for piece in pieces:
                for event in inspect((ImageData(piece),)):
                    yield event

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


class DecodedAnswer:
    """One exchange's answer as events, decoded piece by piece."""

    def __init__(self, answer: UpstreamAnswer, exchange: Exchange, provider: Provider, turn: asyncio.Lock) -> None:
        """`turn` is shared by all answers, so that the loop is never busy with more than one that is slow to read."""
        self._turn = turn
        self._rest = b""  # of a piece that is read in steps
        self._fault: UpstreamError | None = None
        self._answer = answer
        self._exchange = exchange
        self._provider = provider
        self._pieces = answer.pieces()
        self._decoder: Decoder | None = None
        self._has_ended = False

    async def read(self) -> Iterable[Event | Exchange] | None:
        """The events of the next piece, to be read before the next call; None at the end. Raises UpstreamError, also
        for a status that is not 2xx."""
        decoder = self._decoder or await self._begin()
        if self._fault:
            raise self._fault
        if self._has_ended:
            if decoder.done:
                await _let_end(self._pieces)
            return None
        if self._rest and not decoder.done:
            return await self._read_in_turn(decoder, self._next_step())
        piece = None if decoder.done else await anext(self._pieces, None)
        if piece is None:
            self._has_ended = True
            return decoder.close()
        if not _is_slow(piece):
            return decoder.feed(piece)
        self._rest = piece
        step = self._next_step()
        return await self._read_in_turn(decoder, step) if self._turn.locked() else decoder.feed(step)

    def _next_step(self) -> bytes:
        """Take a short step of the rest, or all of it if it looks like the text of an image."""
        cut = STEP if _is_slow(self._rest) else len(self._rest)
        step, self._rest = self._rest[:cut], self._rest[cut:]
        return step

    async def _read_in_turn(self, decoder: Decoder, step: bytes) -> Iterable[Event | Exchange]:
        """Let everything else that waits go first, and read one answer at a time. The events before a fault are whole:
        the next call raises it."""
        events = list[Event | Exchange]()
        async with self._turn:
            await asyncio.sleep(0)
            try:
                events.extend(decoder.feed(step))
            except UpstreamError as error:
                self._fault = error
        return events

    async def aclose(self) -> None:
        await self._pieces.aclose()

    async def _begin(self) -> Decoder:
        head = self._answer.head
        if head.status // 100 != 2:
            body = body_without_secrets(await self._answer.text(), self._provider)
            raise self._exchange.error(head, body)
        self._decoder = self._exchange.decoder(head)
        return self._decoder


def _is_slow(piece: bytes) -> bool:
    """True for a long piece that looks like JSON. It takes a thousand times as long to read as the text of an image,
    and several answers may come at once."""
    return len(piece) > STEP and (piece.find(b'"', 0, GLANCE) >= 0 or piece.find(b",", 0, GLANCE) >= 0)


async def _let_end(pieces: AsyncGenerator[bytes, None]) -> None:
    """Mostly the end is on its way: then the connection can be used again. A host that keeps it open loses it."""
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(LINGER):
            async for _ in pieces:
                pass


def _pause(failure: UpstreamError, failures: int) -> float:
    """Return the seconds before an exchange that failed, after `failures` others in a row, is made again."""
    return max(PAUSES[min(failures, len(PAUSES) - 1)], min(failure.retry_after or 0.0, LONGEST_PAUSE))


def join_url(url: str, base_url: str) -> str:
    """Return `url`, read at `base_url` if it is no full address. One that cannot be read stays as it is."""
    try:
        return url if urlsplit(url).scheme else urljoin(base_url, url)
    except ValueError:
        return url
