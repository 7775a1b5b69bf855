"""THE path of a request, in the order things happen: candidates, attempts, the upstream's answer as events.

Knows no HTTP and no provider: what does I/O comes in as a protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from app.catalog.deployments import Deployment
from app.catalog.fitting import CONVERTIBLE, Fitted
from app.catalog.models import Catalog
from app.dialects import Decoder, Dialect, ResponseHead, UpstreamRequest
from app.errors import ApiError, Failure, Unavailable, UpstreamError
from app.events import Event, ImageData, ImageLink, Served
from app.gateway import fanout
from app.gateway.call import Call
from app.gateway.conversion import Wanted, reformat
from app.gateway.delivery import Delivery
from app.gateway.inspection import Inspector
from app.images import ImageRequest
from app.imaging.workers import Workers
from app.routing import failover
from app.routing.failover import Attempt, RetryBudget
from app.routing.health import Health
from app.routing.queues import Slots
from app.routing.verdict import verdict
from app.storage.recording import Recording
from app.telemetry.redaction import body_without_secrets, without_secrets
from app.upstream.addresses import FetchError

LINGER = 0.5  # seconds, for an answer to end that has given all its images


class UpstreamAnswer(Protocol):
    head: ResponseHead

    def pieces(self) -> AsyncGenerator[bytes, None]: ...

    async def text(self) -> bytes: ...


class Fetcher(Protocol):
    def as_base64(self, url: str, origin: str | None = None) -> AsyncGenerator[bytes, None]: ...


class Sender(Protocol):
    def send(self, request: UpstreamRequest, deployment: Deployment) -> AbstractAsyncContextManager[UpstreamAnswer]: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What failover goes by, one of each for all requests. `random` gives a number from 0 up to 1."""

    health: Health
    slots: Slots
    budget: RetryBudget
    random: Callable[[], float]


class Gateway:
    """`nonce` gives random text, `sleep` waits seconds, `report` is told of every attempt that failed."""

    def __init__(
        self,
        catalog: Catalog,
        sender: Sender,
        dialect: Callable[[str], Dialect],
        policy: Policy,
        delivery: Delivery,
        fetcher: Fetcher,
        workers: Workers,
        *,
        recording: Callable[[], Recording],
        nonce: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]],
        report: Callable[[Deployment, UpstreamError, ImageRequest], None],
    ) -> None:
        self._catalog = catalog
        self._sender = sender
        self._dialect = dialect
        self._policy = policy
        self._delivery = delivery
        self._fetcher = fetcher
        self._workers = workers
        self._recording = recording
        self._nonce = nonce
        self._sleep = sleep
        self._report = report

    def draw(self, call: Call) -> AsyncGenerator[Event, None]:
        """The images as events. Raises ApiError, here or on the way; until the first image data comes it is clean."""
        candidates = self._catalog.candidates(call.request, call.key)
        call.result = self._delivery.result(call, candidates)
        if call.result == "url" and call.request.response_format is None:
            candidates = [fitted.linked() for fitted in candidates]
        return self._delivery.deliver(call, self._images(call, candidates))

    def _images(self, call: Call, candidates: list[Fitted]) -> AsyncGenerator[Event, None]:
        """As many images as were asked for, however many a deployment draws at a time."""
        n, at_a_time = call.request.n, min(fitted.request.n for fitted in candidates)
        if n == 1:
            return self._attempts(call, candidates)

        def part(first: int, count: int) -> AsyncGenerator[Event, None]:
            return self._attempts(call, [fitted.part(first, count) for fitted in candidates])

        if at_a_time == n and not call.drawn.recordings:
            return fanout.in_a_row(n, part)
        at_once = max(_places(fitted.deployment) or n for fitted in candidates)
        return fanout.together(
            n, at_a_time, part, self._recording, call.drawn, at_once=at_once, as_they_land=call.request.stream
        )

    async def _attempts(self, call: Call, candidates: list[Fitted]) -> AsyncGenerator[Event, None]:
        """One attempt after the other until one delivers. One that has given image data is never abandoned."""
        policy = self._policy
        plan = failover.plan(candidates, policy.health, policy.slots, policy.budget, policy.random)
        failure: UpstreamError | None = None
        with Tally() as tally:
            while True:
                attempt = plan.send(failure)
                if attempt.wait:
                    await self._sleep(attempt.wait)
                deployment, failure = attempt.candidate.deployment, None
                async with policy.slots.hold(deployment, call.key.name):
                    if not attempt.regardless and policy.health.cooling(deployment):
                        continue
                    candidate = await _prepared(call, attempt.candidate)
                    tally.sent, commit = attempt.number, Commit(_served(candidate, attempt.number))
                    try:
                        with policy.health.watching(deployment):
                            async with aclosing(commit.after(self._delivered(call, candidate))) as events:
                                async for event in events:
                                    yield event
                        return
                    except UpstreamError as error:
                        error.message = without_secrets(error.message, deployment.provider)
                        self._report(deployment, error, call.request)
                        if commit.reached:
                            raise _broken_off(attempt, error) from error
                        failure = error.alone()
                        if failure.failure is Failure.NOT_SENT:
                            call.sent -= 1
                            _refuse_the_absent(call)
                        tally.perhaps_paid |= error.is_uncertain

    def _delivered(self, call: Call, candidate: Fitted) -> AsyncGenerator[Event, None]:
        """An attempt's images in the format that was asked for, whoever makes it."""
        events, wanted = self._attempt(call, candidate), _wanted(call.request)
        if wanted is None:
            return events
        recompress = "output_compression" not in candidate.request.parameters
        return reformat(events, wanted, self._workers, key=call.key.name, recompress=recompress)

    async def _attempt(self, call: Call, candidate: Fitted) -> AsyncGenerator[Event, None]:
        """One request to one deployment, and its answer. Raises UpstreamError."""
        deployment, request = candidate.deployment, candidate.request
        dialect = self._dialect(deployment.provider.dialect)
        if call.announce is not None:
            await call.announce()
        call.sent += 1
        async with self._sender.send(dialect.encode(request, deployment, self._nonce()), deployment) as answer:
            if answer.head.status // 100 != 2:
                raise dialect.error(answer.head, body_without_secrets(await answer.text(), deployment.provider))
            decoder = dialect.decoder(request, answer.head)
            inspect = Inspector(request.parameters.get("seed"), request.n, deployment.provider.base_url)
            keeps_links = call.result == "url" and deployment.provider.urls == "pass" and _gives_format(call, request)
            async with aclosing(answer.pieces()) as pieces, aclosing(_decoded(pieces, decoder)) as decoded:
                async for events in decoded:
                    for event in inspect(events):
                        if type(event) is ImageLink and not keeps_links:
                            async for fetched in self._fetched(event, inspect, deployment):
                                yield fetched
                        else:
                            yield event

    async def _fetched(
        self, link: ImageLink, inspect: Inspector, deployment: Deployment
    ) -> AsyncGenerator[Event, None]:
        """The image behind an upstream's link, as if it had been in the answer. Was it drawn, it was paid for."""
        try:
            async with aclosing(self._fetcher.as_base64(link.url, deployment.provider.base_url)) as pieces:
                async for piece in pieces:
                    for event in inspect((ImageData(piece),)):
                        yield event
        except FetchError as error:
            raise UpstreamError(Failure.UNCERTAIN, f"the image behind its link could not be had: {error}") from error


async def _decoded(pieces: AsyncGenerator[bytes, None], decoder: Decoder) -> AsyncGenerator[Iterable[Event], None]:
    async for piece in pieces:
        yield decoder.feed(piece)
        if decoder.done:
            break
    yield decoder.close()
    if decoder.done:
        await _ended(pieces)


async def _ended(pieces: AsyncGenerator[bytes, None]) -> None:
    """Mostly the end is on its way: then the connection can be used again. A host that keeps it open loses it."""
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(LINGER):
            async for _ in pieces:
                pass


def _places(deployment: Deployment) -> int | None:
    bounds = (deployment.max_concurrency, deployment.provider.max_concurrency)
    return min((bound for bound in bounds if bound is not None), default=None)


def _wanted(request: ImageRequest) -> Wanted | None:
    format = request.parameters.get("output_format")
    return Wanted(format, request.parameters.get("output_compression")) if format in CONVERTIBLE else None


def _gives_format(call: Call, request: ImageRequest) -> bool:
    """Whether the upstream's pictures need no conversion, as far as can be known without seeing them."""
    return _wanted(call.request) is None or "output_format" in request.parameters


class Commit:
    """The commit point of an attempt: until its first image data nothing of it is told, so it can be abandoned."""

    def __init__(self, served: Served) -> None:
        self._held: list[Event] = [served]
        self.reached = False

    async def after(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        async with aclosing(events):
            async for event in events:
                if self.reached:
                    yield event
                    continue
                self._held.append(event)
                if isinstance(event, ImageData | ImageLink):
                    self.reached = True
                    for held in self._held:
                        yield held


@dataclass(slots=True)
class Tally:
    """What has been sent for an image so far. Whatever ApiError then ends it, be it a full queue, tells of it."""

    sent: int = 0
    perhaps_paid: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ApiError):
            error.attempts = self.sent
            if self.perhaps_paid:
                error.paid()


def _broken_off(attempt: Attempt[Fitted], error: UpstreamError) -> ApiError:
    """A failure after the commit point. Some of the image has arrived, so it was drawn."""
    return verdict([(attempt.candidate, error)]).paid()


def _refuse_the_absent(call: Call) -> None:
    """Who leaves while nothing was sent does not have the next deployment draw. Raises Unavailable."""
    if call.left and not call.sent:
        raise Unavailable("The caller left before anything was sent.")


async def _prepared(call: Call, candidate: Fitted) -> Fitted:
    """Raises InvalidRequest for pictures that cannot be used, Unavailable when there is no room to work on them."""
    return candidate if call.preparation is None else await call.preparation.prepare(candidate)


def _served(fitted: Fitted, attempts: int) -> Served:
    deployment = fitted.deployment
    return Served(deployment.provider.name, deployment.model, attempts, fitted.dropped, fitted.mapped)
