"""Counts drawings and attempts at the ledger's own calls, so that the counters add up with its rows.

A drawing is known from its admission to its settlement. Requests that were refused before are counted in `requests`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from app.catalog.deployments import Deployment
from app.catalog.money import NANO
from app.errors import Failure, UpstreamError
from app.gateway.attempt import Attempt, Outcome
from app.ledger.values import drawings
from app.ledger.values.drawings import Admission, AttemptResult, Joined, Settlement
from app.ledger.values.limits import MEGAPIXEL
from app.runs.run import Run
from app.telemetry.metrics.families import Metrics
from app.telemetry.metrics.series import NONE, Exemplar

OUTCOMES = {  # the ledger's words, and the metrics'
    drawings.Outcome.DELIVERED: "delivered",
    drawings.Outcome.UNDELIVERED: "undelivered",
    drawings.Outcome.REFUSED: "refused_provider",
    drawings.Outcome.FAILED: "failed_unpaid",
    drawings.Outcome.PERHAPS_PAID: "perhaps_paid",
    drawings.Outcome.CANCELLED: "cancelled",
    drawings.Outcome.INTERRUPTED: "interrupted",
    drawings.Outcome.JOINED: "joined",
}


@dataclass(slots=True)
class OpenDrawing:
    """A drawing that has not ended. Times are the clock's, in seconds."""

    operation: str
    model: str
    began: float
    team: str = NONE  # the project's name; from its first attempt on, since before nothing costs anything
    trace_id: str | None = None
    n: int = 1
    busy: int = 0  # attempts under way
    busy_since: float = 0.0
    busy_seconds: float = 0.0  # in which an attempt was under way
    queued: float = 0.0  # seconds
    has_attempt: bool = False
    has_image: bool = False
    failed: dict[int, tuple[Deployment, str]] = field(default_factory=dict)  # the last failure, by the first index
    is_settled: bool = False  # only its attempts' connections have to end


class Drawings:
    """An observer of attempts and runs. `MeteredLedger` passes the ledger's calls on to it. `clock` is the one of the
    attempts, in seconds."""

    def __init__(
        self,
        metrics: Metrics,
        currency: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._currency = currency
        self._clock = clock
        self._wall = wall
        self._open = dict[str, OpenDrawing]()  # by the drawing's id

    def __len__(self) -> int:
        """Return the number of drawings that are remembered: in flight, or settled while their attempts end."""
        return len(self._open)

    def in_flight(self) -> Counter[str]:
        """Return the number of drawings that have not ended, by operation."""
        return Counter(each.operation for each in self._open.values() if not each.is_settled)

    # --- from the ledger ---

    def admitted(self, admission: Admission) -> None:
        model = self._metrics.models(admission.model)
        self._open[admission.id] = OpenDrawing(admission.operation, model, self._clock(), n=admission.n)

    def settled(self, settlement: Settlement) -> None:
        """Count a drawing that ended. Does nothing with one that ended before."""
        drawing = self._open.get(settlement.drawing_id)
        if drawing is None or drawing.is_settled:
            return
        drawing.is_settled = True
        if not drawing.busy:
            del self._open[settlement.drawing_id]
        metrics, now = self._metrics, self._clock()
        outcome = OUTCOMES[settlement.outcome]
        labels = drawing.operation, drawing.model, self._provider(settlement.provider)
        exemplar = self._exemplar(drawing.trace_id, now - drawing.began)
        metrics.drawings.add(*labels, outcome)
        metrics.drawing_seconds.observe(now - drawing.began, *labels, outcome, exemplar=exemplar)
        if drawing.has_attempt and drawing.n == 1:
            busy = drawing.busy_seconds + (now - drawing.busy_since if drawing.busy else 0.0)
            spent = now - drawing.began - busy - drawing.queued
            metrics.overhead_seconds.observe(max(spent, 0.0), drawing.operation)
        self._add_money(drawing, settlement)

    def joined(self, joined: Joined) -> None:
        """Count an answer from an existing run: it is a drawing of its own, which no provider drew."""
        self._metrics.drawings.add(joined.operation, self._metrics.models(joined.model), NONE, "joined")
        if joined.saved:
            self._metrics.cost_saved.add("joined", self._currency, amount=joined.saved / NANO)

    def _add_money(self, drawing: OpenDrawing, settlement: Settlement) -> None:
        metrics, currency = self._metrics, self._currency
        for result in settlement.attempts:
            self._add_result(drawing, result)
        provider = self._provider(settlement.provider)
        in_doubt = settlement.in_doubt - sum(result.in_doubt for result in settlement.attempts)
        if in_doubt:
            metrics.cost_in_doubt.add(provider, currency, amount=in_doubt / NANO)
        if settlement.images and settlement.width and settlement.height:
            pixels = settlement.images * settlement.width * settlement.height
            metrics.megapixels.add(drawing.model, provider, amount=pixels / MEGAPIXEL)
        if settlement.images and settlement.cost_source == "none":
            metrics.unpriced.add(provider, drawing.model)

    def _add_result(self, drawing: OpenDrawing, result: AttemptResult) -> None:
        metrics, provider = self._metrics, self._provider(result.provider)
        if result.images:
            metrics.images.add(drawing.operation, drawing.model, provider, amount=result.images)
        if result.cost:
            metrics.cost.add(provider, drawing.model, drawing.team, self._currency, amount=result.cost / NANO)
        if result.in_doubt:
            metrics.cost_in_doubt.add(provider, self._currency, amount=result.in_doubt / NANO)

    # --- from the gateway ---

    def attempt_began(self, attempt: Attempt) -> None:
        if (drawing := self._drawing(attempt)) is None:
            return
        drawing.has_attempt, drawing.queued, drawing.trace_id = True, attempt.call.queued, attempt.call.trace_id
        if (project := attempt.call.key.project) is not None:
            drawing.team = self._metrics.projects(project.name)
        if not drawing.busy:
            drawing.busy_since = self._clock()
        drawing.busy += 1
        if (failed := drawing.failed.pop(attempt.first, None)) is not None:
            before, why = failed
            provider, former = self._provider(attempt.deployment.provider.name), self._provider(before.provider.name)
            if before.name == attempt.deployment.name:
                self._metrics.retries.add(provider, why)
            else:
                self._metrics.failovers.add(former, provider, why)

    def first_image(self, attempt: Attempt) -> None:
        drawing = self._drawing(attempt)
        if drawing is None or drawing.has_image:
            return
        drawing.has_image = True
        seconds = self._clock() - drawing.began
        provider = self._provider(attempt.deployment.provider.name)
        exemplar = self._exemplar(attempt.call.trace_id, seconds)
        self._metrics.first_image_seconds.observe(
            seconds, drawing.operation, drawing.model, provider, exemplar=exemplar
        )

    def attempt_ended(self, attempt: Attempt) -> None:
        drawing, now, result = self._drawing(attempt), self._clock(), result_of(attempt)
        if drawing is not None:
            drawing.busy -= 1
            if not drawing.busy:
                drawing.busy_seconds += now - drawing.busy_since
                if drawing.is_settled and attempt.call.account is not None:
                    del self._open[attempt.call.account.drawing_id]
            if result != "ok":
                drawing.failed[attempt.first] = attempt.deployment, result
        provider = self._provider(attempt.deployment.provider.name)
        model = drawing.model if drawing else self._metrics.models(attempt.deployment.model)
        seconds = (attempt.ended or now) - attempt.began
        self._metrics.attempts.add(model, provider, result)
        exemplar = self._exemplar(attempt.call.trace_id, seconds)
        self._metrics.attempt_seconds.observe(seconds, model, provider, result, exemplar=exemplar)

    def run_ended(self, run: Run) -> None:
        pass

    def run_crashed(self, run: Run, error: Exception) -> None:  # noqa: ARG002 (the protocol's)
        self._metrics.runs_lost.add("crashed")

    # --- from the queues ---

    def waited(self, deployment: Deployment, seconds: float) -> None:
        self._metrics.queue_seconds.observe(seconds, self._provider(deployment.provider.name))

    def refused(self, deployment: Deployment, why: str) -> None:
        self._metrics.queue_refused.add(self._provider(deployment.provider.name), why)

    # --- inside ---

    def _drawing(self, attempt: Attempt) -> OpenDrawing | None:
        """Return the drawing of an attempt. One that an earlier process admitted is known from its attempt on."""
        call = attempt.call
        if call.account is None:
            return None
        found = self._open.get(call.account.drawing_id)
        if found is None and attempt.is_resumed and attempt.outcome is Outcome.UNDER_WAY:
            request = call.request
            found = OpenDrawing(str(request.operation), self._metrics.models(request.model), self._clock(), n=request.n)
            self._open[call.account.drawing_id] = found
        return found

    def _provider(self, name: str | None) -> str:
        return NONE if name is None else self._metrics.providers(name)

    def _exemplar(self, trace_id: str | None, value: float) -> Exemplar | None:
        return Exemplar(trace_id, value, self._wall()) if trace_id else None


def result_of(attempt: Attempt) -> str:
    """Return the result of an attempt that ended, in the words of the metrics."""
    match attempt.outcome:
        case Outcome.DELIVERED:
            return "ok"
        case Outcome.UNCERTAIN:
            return "broken" if attempt.is_committed else "perhaps_paid"
        case Outcome.FAILED if isinstance(attempt.error, UpstreamError):
            return {Failure.RATE_LIMITED: "rate_limited", Failure.CREDENTIAL: "account"}.get(
                attempt.error.failure, "failed"
            )
        case outcome:
            return outcome.name.lower()
