"""THE path of a request, in the order things happen: candidates, attempts, the upstream's answer as events.

Knows no HTTP and no provider: what does I/O comes in as a protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from app.access.keyring import Key
from app.catalog.deployments import Deployment
from app.catalog.fitting import CONVERTIBLE, Fitted
from app.catalog.models import Catalog
from app.dialects import Dialect, Exchange, JobDialect
from app.errors import ApiError, Unavailable, UpstreamError, UpstreamFailed
from app.events import Event
from app.gateway import fanout
from app.gateway.attempt import Attempt, AttemptAccount, AttemptObserver, Outcome
from app.gateway.call import Call, SubmittedJob
from app.gateway.conversion import Wanted, reformat
from app.gateway.delivery import Delivery
from app.gateway.exchanges import Exchanges
from app.images import ImageRequest
from app.imaging.workers import Workers
from app.routing import failover
from app.routing.failover import RetryBudget
from app.routing.health import Health
from app.routing.queues import Slots
from app.routing.verdict import verdict
from app.storage.recording import Recording


@dataclass(frozen=True, slots=True)
class Policy:
    """Failover's knowledge and limits, one of each for all requests. `random` gives a number from 0 up to 1."""

    health: Health
    slots: Slots
    budget: RetryBudget
    random: Callable[[], float]


class Gateway:
    """`nonce` gives random text, `clock` seconds; `sleep` waits seconds. `observers` hear of every attempt."""

    def __init__(
        self,
        catalog: Catalog,
        exchanges: Exchanges,
        dialect: Callable[[str], Dialect],
        policy: Policy,
        delivery: Delivery,
        workers: Workers,
        *,
        recording: Callable[[], Recording],
        nonce: Callable[[], str],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        observers: Sequence[AttemptObserver] = (),
    ) -> None:
        self._catalog = catalog
        self._exchanges = exchanges
        self._dialect = dialect
        self._policy = policy
        self._delivery = delivery
        self._workers = workers
        self._recording = recording
        self._nonce = nonce
        self._clock = clock
        self._sleep = sleep
        self._observers = tuple(observers)

    def candidates(self, request: ImageRequest, key: Key) -> list[Fitted]:
        """The deployments that can serve the request, in order. Raises ApiError if there is no such model, or none."""
        return self._catalog.candidates(request, key)

    def draw(self, call: Call, candidates: list[Fitted]) -> AsyncGenerator[Event, None]:
        """The images as events. Raises ApiError, here or on the way; until the first image data comes it is clean."""
        call.result = self._delivery.result(call, candidates)
        if call.result == "url" and call.request.response_format is None:
            candidates = [fitted.with_link() for fitted in candidates]
        return self._delivery.deliver(call, self._images(call, candidates))

    def resume(self, call: Call, jobs: Sequence[SubmittedJob]) -> AsyncGenerator[Event, None]:
        """Return the images of jobs that an earlier process submitted. They draw nothing anew: they raise ApiError
        (perhaps paid) if an image has no job, or its deployment is not configured any more."""
        return self._delivery.deliver(call, self._resumed_images(call, jobs))

    def _resumed_images(self, call: Call, jobs: Sequence[SubmittedJob]) -> AsyncGenerator[Event, None]:
        found = {job.first: job for job in jobs}
        if call.request.n == 1:
            return self._resumed(call, found.get(0))
        return fanout.draw_together(
            call.request.n,
            max((job.count for job in jobs), default=1),
            lambda first, _: self._resumed(call, found.get(first)),
            self._recording,
            call.drawn,
            at_once=call.request.n,
            as_they_land=call.request.stream,
        )

    def _images(self, call: Call, candidates: list[Fitted]) -> AsyncGenerator[Event, None]:
        """As many images as were asked for, however many a deployment draws at a time."""
        n, at_a_time = call.request.n, min(fitted.request.n for fitted in candidates)
        if n == 1:
            return self._attempts(call, candidates)

        def part(first: int, count: int) -> AsyncGenerator[Event, None]:
            return self._attempts(call, [fitted.part(first, count) for fitted in candidates], first)

        if at_a_time == n and not call.drawn.recordings:
            return fanout.draw_in_a_row(n, part)
        at_once = max(_places(fitted.deployment) or n for fitted in candidates)
        return fanout.draw_together(
            n, at_a_time, part, self._recording, call.drawn, at_once=at_once, as_they_land=call.request.stream
        )

    async def _attempts(self, call: Call, candidates: list[Fitted], first: int = 0) -> AsyncGenerator[Event, None]:
        """One attempt after the other until one delivers. One that is committed is never abandoned."""
        policy = self._policy
        plan = failover.plan(candidates, policy.health, policy.slots, policy.budget, policy.random)
        failure: UpstreamError | None = None
        with AttemptAccount() as account:
            while True:
                choice = plan.send(failure)
                if choice.wait:
                    await self._sleep(choice.wait)
                deployment, failure = choice.candidate.deployment, None
                async with policy.slots.hold(deployment, call.key.name):
                    if not choice.regardless and policy.health.cooling(deployment):
                        continue
                    fitted = await _prepared(call, choice.candidate)
                    if call.announce is not None:
                        await call.announce()
                    attempt = Attempt(call, fitted, first, choice.number, self._clock, self._observers)
                    account.attempts.append(attempt)
                    try:
                        with attempt, policy.health.watching(deployment):
                            async with aclosing(self._drawn(attempt, self._submit(fitted))) as events:
                                async for event in events:
                                    for passed in attempt.take(event):
                                        yield passed
                        return
                    except UpstreamError as error:
                        if attempt.is_committed:
                            raise _broken_off(attempt, error) from error
                        failure = error.alone()
                    if attempt.outcome is Outcome.NOT_SENT:
                        _refuse_the_absent(call)

    async def _resumed(self, call: Call, job: SubmittedJob | None) -> AsyncGenerator[Event, None]:
        """The attempt that submitted the job, from there on. It takes no place in a queue: the job is under way."""
        await self._sleep(0)  # parts that have a job begin, so that this one's failure does not stop them
        deployment = self._catalog.deployment(job.deployment) if job else None
        if job is None or deployment is None:
            raise _not_resumable()
        dialect = self._dialect(deployment.provider.dialect)
        if not isinstance(dialect, JobDialect):
            raise _not_resumable()
        fitted = Fitted(deployment, replace(call.request, n=job.count))
        attempt = Attempt(call, fitted, job.first, 1, self._clock, self._observers, is_resumed=True)
        with AttemptAccount([attempt]):
            try:
                with attempt, self._policy.health.watching(deployment):
                    async with aclosing(self._drawn(attempt, dialect.resume(job.job, fitted.request))) as events:
                        async for event in events:
                            for passed in attempt.take(event):
                                yield passed
            except UpstreamError as error:
                raise (_broken_off(attempt, error) if attempt.is_committed else verdict([(fitted, error)])) from error

    def _submit(self, fitted: Fitted) -> Exchange:
        """The first exchange of an attempt."""
        deployment, request = fitted.deployment, fitted.request
        dialect = self._dialect(deployment.provider.dialect)
        sent = dialect.encode(request, deployment, self._nonce())
        return Exchange(sent, partial(dialect.decoder, request), dialect.error)

    def _drawn(self, attempt: Attempt, exchange: Exchange) -> AsyncGenerator[Event, None]:
        """The attempt's images in the format that was asked for, converted here if need be."""
        call, fitted = attempt.call, attempt.fitted
        passes = call.result == "url" and fitted.deployment.provider.urls == "pass"
        keeps_links = passes and _gives_format(call, fitted.request)
        events = self._exchanges.draw(attempt, exchange, keeps_links=keeps_links)
        if (wanted := _wanted(call.request)) is None:
            return events
        recompress = "output_compression" not in fitted.request.parameters
        return reformat(events, wanted, self._workers, key=call.key.name, recompress=recompress)


def _places(deployment: Deployment) -> int | None:
    bounds = (deployment.max_concurrency, deployment.provider.max_concurrency)
    return min((bound for bound in bounds if bound is not None), default=None)


def _wanted(request: ImageRequest) -> Wanted | None:
    format = request.parameters.get("output_format")
    return Wanted(format, request.parameters.get("output_compression")) if format in CONVERTIBLE else None


def _gives_format(call: Call, request: ImageRequest) -> bool:
    """True if the upstream's pictures need no conversion, as far as the gateway can know without seeing them."""
    return _wanted(call.request) is None or "output_format" in request.parameters


def _broken_off(attempt: Attempt, error: UpstreamError) -> ApiError:
    """A failure after the commit point. Some of the image has arrived, so it was drawn."""
    return verdict([(attempt.fitted, error)]).paid()


def _not_resumable() -> ApiError:
    return UpstreamFailed(
        "The gateway was stopped while the images were drawn, and they cannot be found again. They may have been paid "
        "for, so they are not drawn again.",
        status=504,
        code="run_interrupted",
    ).paid()


def _refuse_the_absent(call: Call) -> None:
    """Stop failing over when the caller has left and nothing was sent. Raises Unavailable."""
    if not call.sent and not call.is_awaited():
        raise Unavailable("The caller left before anything was sent.")


async def _prepared(call: Call, candidate: Fitted) -> Fitted:
    """Raises InvalidRequest for pictures that cannot be used, Unavailable when there is no room to work on them."""
    return candidate if call.preparation is None else await call.preparation.prepare(candidate)
