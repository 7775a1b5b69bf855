"""THE path of a request, in the order things happen: candidates, attempts, the upstream's answer as events.

Knows no HTTP and no provider: what does I/O comes in as a protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from app.access.keyring import Key
from app.catalog.fitting import CONVERTIBLE, Fitted
from app.catalog.models import Catalog
from app.dialects import Dialect, Exchange, JobDialect
from app.errors import ApiError, Unavailable, UpstreamError, UpstreamFailed
from app.events import Sink
from app.gateway import fanout
from app.gateway.attempt import Attempt, AttemptObserver, Outcome, account_for
from app.gateway.call import Call, SubmittedJob
from app.gateway.conversion import Wanted, reformatting
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


@dataclass(frozen=True, slots=True)
class Gateway:
    """`nonce` gives random text, `clock` seconds; `sleep` waits seconds. `observers` observe every attempt."""

    catalog: Catalog
    exchanges: Exchanges
    dialect: Callable[[str], Dialect]
    policy: Policy
    delivery: Delivery
    workers: Workers
    recording: Callable[[], Recording]
    nonce: Callable[[], str]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    observers: Sequence[AttemptObserver]

    def candidates(self, request: ImageRequest, key: Key) -> list[Fitted]:
        """Return the deployments that can serve the request, in order. Raises ApiError if there is none."""
        return self.catalog.candidates(request, key)

    def place_of(self, run: str, key: str) -> int | None:
        """Return the place of a key's run in a queue, from 1; None: it waits for no place."""
        return self.policy.slots.place_of(run, key)

    async def draw(self, call: Call, candidates: list[Fitted], sink: Sink) -> None:
        """Push the images as events. Raises ApiError; until the first image data it is clean."""
        call.result = self.delivery.result(call, candidates)
        if call.result == "url" and call.request.response_format is None:
            candidates = [fitted.with_link() for fitted in candidates]
        async with self.delivery.deliver(call, sink) as form:
            await self._draw_images(call, candidates, form)

    async def resume(self, call: Call, jobs: Sequence[SubmittedJob], sink: Sink) -> None:
        """Push the images of jobs that an earlier process submitted. They draw nothing anew: raises ApiError (perhaps
        paid) if an image has no job, or its deployment is not configured any more."""
        found = {job.first: job for job in jobs}
        async with self.delivery.deliver(call, sink) as form:
            if call.request.n == 1:
                await self._resume_part(call, found.get(0), form)
                return
            await fanout.draw_together(
                call.request.n,
                max((job.count for job in jobs), default=1),
                lambda first, _, part: self._resume_part(call, found.get(first), part),
                form,
                self.recording,
                call.drawn,
                at_once=call.request.n,
                as_they_land=call.request.stream,
            )

    async def _draw_images(self, call: Call, candidates: list[Fitted], sink: Sink) -> None:
        """Draw as many images as were asked for, however many a deployment draws at a time."""
        n = call.request.n
        if n == 1:
            await self._draw_part(call, candidates, sink)
            return

        def draw(first: int, count: int, part: Sink) -> Awaitable[None]:
            return self._draw_part(call, [fitted.part(first, count) for fitted in candidates], part, first)

        at_a_time = min(fitted.request.n for fitted in candidates)
        if at_a_time == n and not call.drawn.recordings:
            await fanout.draw_in_a_row(n, draw, sink)
            return
        at_once = max(fitted.deployment.places or n for fitted in candidates)
        await fanout.draw_together(
            n, at_a_time, draw, sink, self.recording, call.drawn, at_once=at_once, as_they_land=call.request.stream
        )

    async def _draw_part(self, call: Call, candidates: list[Fitted], sink: Sink, first: int = 0) -> None:
        """Make one attempt after the other until one delivers. One that is committed is never abandoned."""
        policy = self.policy
        plan = failover.plan(candidates, policy.health, policy.slots, policy.budget, policy.random)
        failure: UpstreamError | None = None
        attempts: list[Attempt] = []
        try:
            while True:
                choice = plan.send(failure)
                if choice.wait:
                    await self.sleep(choice.wait)
                deployment, failure = choice.candidate.deployment, None
                async with policy.slots.hold(deployment, call.key.id, call.id) as waited:
                    call.queued += waited
                    if not choice.regardless and policy.health.cooling(deployment):
                        continue
                    fitted = choice.candidate
                    if call.preparation is not None:
                        fitted = await call.preparation.prepare(fitted)
                    if call.announce is not None:
                        await call.announce()
                    if call.account is not None:
                        await call.account.sent(fitted)
                    attempt = Attempt(call, fitted, first, choice.number, self.clock, self.observers, sink)
                    attempts.append(attempt)
                    try:
                        with attempt, policy.health.watching(deployment):
                            await self._draw(attempt, self._submit(fitted))
                        return
                    except UpstreamError as error:
                        if attempt.is_committed:  # some of the image has arrived, so it was drawn
                            raise verdict([(fitted, error)]).paid() from error
                        failure = error.alone()
                    if attempt.outcome is Outcome.NOT_SENT and not call.sent and not call.is_awaited():
                        raise Unavailable("The caller left before anything was sent.")
        except ApiError as error:
            account_for(error, attempts)
            raise

    async def _resume_part(self, call: Call, job: SubmittedJob | None, sink: Sink) -> None:
        """Go on with the attempt that submitted the job. It takes no place in a queue: the job is under way."""
        await self.sleep(0)  # parts that have a job begin, so that this one's failure does not stop them
        deployment = self.catalog.deployment(job.deployment) if job else None
        dialect = self.dialect(deployment.provider.dialect) if deployment else None
        if job is None or deployment is None or not isinstance(dialect, JobDialect):
            raise UpstreamFailed(
                "The gateway was stopped while the images were drawn, and they cannot be found again. They may have "
                "been paid for, so they are not drawn again.",
                status=504,
                code="run_interrupted",
            ).paid()
        fitted = Fitted(deployment, replace(call.request, n=job.count))
        attempt = Attempt(call, fitted, job.first, 1, self.clock, self.observers, sink, is_resumed=True)
        try:
            with attempt, self.policy.health.watching(deployment):
                await self._draw(attempt, dialect.resume(job.job, fitted.request))
        except UpstreamError as error:
            answer = verdict([(fitted, error)])
            if attempt.is_committed:
                answer.paid()
            account_for(answer, [attempt])
            raise answer from error
        except ApiError as error:
            account_for(error, [attempt])
            raise

    def _submit(self, fitted: Fitted) -> Exchange:
        """Return the first exchange of an attempt."""
        deployment, request = fitted.deployment, fitted.request
        dialect = self.dialect(deployment.provider.dialect)
        sent = dialect.encode(request, deployment, self.nonce())
        return Exchange(sent, partial(dialect.decoder, request), dialect.error)

    async def _draw(self, attempt: Attempt, exchange: Exchange) -> None:
        """Draw the attempt's images in the format that was asked for, converted here if need be."""
        call, fitted = attempt.call, attempt.fitted
        asked, sent = call.request.parameters, fitted.request.parameters
        is_converted = asked.get("output_format") in CONVERTIBLE
        gives_format = not is_converted or "output_format" in sent  # as far as is known without seeing the image
        keeps_links = call.result == "url" and fitted.deployment.provider.urls == "pass" and gives_format
        if not is_converted:
            await self.exchanges.draw(attempt, exchange, attempt.push, keeps_links=keeps_links)
            return
        wanted = Wanted(asked["output_format"], asked.get("output_compression"))
        recompress = "output_compression" not in sent
        with reformatting(attempt.push, wanted, self.workers, key=call.key.id, recompress=recompress) as sink:
            await self.exchanges.draw(attempt, exchange, sink, keeps_links=keeps_links)
