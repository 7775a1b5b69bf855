"""Drawings and attempts are counted once, under the configured names, whatever order their ends come in."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import Failure, UpstreamError
from app.gateway.attempt import Outcome
from app.ledger.values import drawings
from app.ledger.values.drawings import Admission, AttemptResult, Settlement
from app.telemetry.metrics.drawings import Drawings, result_of
from app.telemetry.metrics.families import Metrics
from tests.ledger.conftest import Clock

ADMISSION = Admission("d1", "r1", "r1", "k", None, "generations", "quick", "flux", 1)
RESULT = AttemptResult(1, "openai", "openai/gpt", "gpt", "delivered", 1, cost=40_000_000)
SETTLED = Settlement(
    "d1",
    0,
    drawings.Outcome.DELIVERED,
    cost=40_000_000,
    cost_source="price",
    images=1,
    provider="openai",
    width=1000,
    height=500,
    attempts=(RESULT,),
)


class Scene:
    """One drawing, with a clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.metrics, self.clock = Metrics(), Clock(100.0)
        self.drawings = Drawings(self.metrics, "USD", self.clock, self.clock)

    def attempt(self, provider: str = "openai", *, first: int = 0, resumed: bool = False) -> Any:
        deployment = SimpleNamespace(name=f"{provider}/gpt", model="gpt", provider=SimpleNamespace(name=provider))
        request = SimpleNamespace(operation="generations", model="flux", n=1)
        key = SimpleNamespace(project=SimpleNamespace(name="design"))
        account = SimpleNamespace(drawing_id="d1")
        call: Any = SimpleNamespace(account=account, queued=0.0, trace_id=None, key=key, request=request)
        attempt: Any = SimpleNamespace(
            call=call, deployment=deployment, first=first, outcome=Outcome.UNDER_WAY, is_resumed=resumed, error=None
        )
        attempt.began, attempt.ended, attempt.is_committed = self.clock.now, None, False
        self.drawings.attempt_began(attempt)
        return attempt

    def end(self, attempt: Any, outcome: Outcome, failure: Failure | None = None) -> None:
        attempt.outcome, attempt.ended = outcome, self.clock.now
        attempt.error = UpstreamError(failure, "no") if failure else None
        self.drawings.attempt_ended(attempt)


def test_an_attempt_whose_connection_ends_after_the_settlement_has_the_models_own_name() -> None:
    scene = Scene()
    scene.drawings.admitted(ADMISSION)
    attempt = scene.attempt()
    scene.drawings.settled(SETTLED)
    assert scene.drawings.in_flight() == {}
    scene.end(attempt, Outcome.DELIVERED)
    assert scene.metrics.attempts.values == {("flux", "openai", "ok"): 1}
    assert len(scene.drawings) == 0


def test_a_settlement_counts_once() -> None:
    scene = Scene()
    scene.drawings.admitted(ADMISSION)
    assert scene.drawings.in_flight() == {"generations": 1}
    scene.end(scene.attempt(), Outcome.DELIVERED)
    scene.drawings.settled(SETTLED)
    scene.drawings.settled(SETTLED)
    assert scene.metrics.drawings.values == {("generations", "flux", "openai", "delivered"): 1}
    assert scene.metrics.cost.values == {("openai", "flux", "design", "USD"): 0.04}
    assert scene.metrics.megapixels.values == {("flux", "openai"): 0.5}
    assert scene.metrics.unpriced.values == {}


def test_what_no_attempt_explains_comes_in_doubt_at_the_last_provider() -> None:
    scene = Scene()
    scene.drawings.admitted(ADMISSION)
    lost = replace(
        SETTLED, outcome=drawings.Outcome.PERHAPS_PAID, cost=0, in_doubt=7_000_000_000, images=0, attempts=()
    )
    scene.drawings.settled(lost)
    assert scene.metrics.cost_in_doubt.values == {("openai", "USD"): 7.0}


def test_another_deployment_is_a_failover_and_the_same_one_a_retry() -> None:
    scene = Scene()
    scene.drawings.admitted(ADMISSION)
    scene.end(scene.attempt(), Outcome.NOT_SENT, Failure.NOT_SENT)
    scene.end(scene.attempt(), Outcome.FAILED, Failure.RATE_LIMITED)
    scene.end(scene.attempt("second"), Outcome.DELIVERED)
    scene.end(scene.attempt("second", first=1), Outcome.DELIVERED)  # of another image, so it follows no failure
    assert scene.metrics.retries.values == {("openai", "not_sent"): 1}
    assert scene.metrics.failovers.values == {("openai", "second", "rate_limited"): 1}


def test_the_gateways_own_part_is_what_no_attempt_and_no_queue_took() -> None:
    scene = Scene()
    scene.drawings.admitted(ADMISSION)
    scene.clock.now += 3.25  # three seconds of them in a queue
    attempt = scene.attempt()
    attempt.call.queued = 3.0
    scene.clock.now += 10
    scene.end(attempt, Outcome.FAILED, Failure.FAILED)
    attempt = scene.attempt("second")
    attempt.call.queued = 3.0
    scene.clock.now += 5
    scene.drawings.settled(SETTLED)
    [bins] = scene.metrics.overhead_seconds.values.values()
    assert bins.sum == pytest.approx(3.25)
    scene.end(attempt, Outcome.DELIVERED)


def test_a_drawing_of_an_earlier_process_is_known_from_its_attempt_on() -> None:
    scene = Scene()
    attempt = scene.attempt(resumed=True)
    scene.drawings.settled(SETTLED)
    scene.end(attempt, Outcome.DELIVERED)
    assert scene.metrics.drawings.values == {("generations", "flux", "openai", "delivered"): 1}
    assert scene.metrics.attempts.values == {("flux", "openai", "ok"): 1}
    assert len(scene.drawings) == 0


@pytest.mark.parametrize(
    ("outcome", "failure", "is_committed", "result"),
    [
        (Outcome.DELIVERED, None, True, "ok"),
        (Outcome.NOT_SENT, Failure.NOT_SENT, False, "not_sent"),
        (Outcome.FAILED, Failure.RATE_LIMITED, False, "rate_limited"),
        (Outcome.FAILED, Failure.CREDENTIAL, False, "account"),
        (Outcome.FAILED, Failure.UNAVAILABLE, False, "failed"),
        (Outcome.REFUSED, Failure.REFUSED, False, "refused"),
        (Outcome.UNCERTAIN, Failure.UNCERTAIN, False, "perhaps_paid"),
        (Outcome.UNCERTAIN, Failure.UNCERTAIN, True, "broken"),
        (Outcome.CANCELLED, None, False, "cancelled"),
        (Outcome.CRASHED, None, False, "crashed"),
    ],
)
def test_each_end_of_an_attempt_has_a_word(
    outcome: Outcome, failure: Failure | None, is_committed: bool, result: str
) -> None:
    error = UpstreamError(failure, "no") if failure else None
    attempt: Any = SimpleNamespace(outcome=outcome, error=error, is_committed=is_committed)
    assert result_of(attempt) == result
