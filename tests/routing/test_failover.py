from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted
from app.catalog.profiles import Profile
from app.errors import ApiError, Failure, UpstreamError
from app.images import ImageRequest, Operation
from app.routing.failover import Choice, RetryBudget, plan
from app.routing.health import Health
from app.routing.verdict import pass_refusal_on, verdict

ELSEWHERE = [Failure.RATE_LIMITED, Failure.CREDENTIAL, Failure.UNAVAILABLE, Failure.FAILED]
Tell = Callable[[Choice], UpstreamError | None]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Busy:
    """Places; full where a test says so, by provider."""

    without_place: set[str] = field(default_factory=set)

    def in_flight(self, deployment: Deployment) -> int:
        return 0

    waiting = in_flight

    def full(self, deployment: Deployment) -> bool:
        return deployment.provider.name in self.without_place

    def crowded(self, deployment: Deployment) -> bool:
        return False


class World:
    """Everything that a plan is told, and what came of it."""

    def __init__(
        self, names: str = "abc", retries: int = 1, *, retry_timeouts: bool = False, extra: int = 1000
    ) -> None:
        self.clock = Clock()
        self.health = Health(self.clock)
        self.busy = Busy()
        self.budget = RetryBudget(self.clock, least=extra)
        self.ways = [
            Fitted(
                Deployment(
                    Provider(name, "openai", "http://localhost", retries=retries, retry_timeouts=retry_timeouts),
                    "flux",
                    Profile(),
                    priority=priority,
                ),
                ImageRequest(Operation.GENERATIONS, "flux"),
            )
            for priority, name in enumerate(names, start=1)
        ]

    def way(self, name: str) -> Fitted:
        return next(way for way in self.ways if way.deployment.provider.name == name)

    def fails(self, name: str, failure: Failure, times: int = 1, **how: Any) -> None:
        for _ in range(times):
            self.health.failed(self.way(name).deployment, UpstreamError(failure, "no", **how))

    def run(self, tell: Tell) -> tuple[list[Choice], ApiError]:
        """Runs a plan to its end, every attempt failing as told."""
        made: list[Choice] = []
        attempts = plan(self.ways, self.health, self.busy, self.budget, lambda: 0.5)
        error: UpstreamError | None = None
        while True:
            try:
                attempt = attempts.send(error)
            except ApiError as told:
                return made, told
            made.append(attempt)
            assert len(made) <= 50
            error = tell(attempt)
            if error is not None:
                self.health.failed(attempt.candidate.deployment, error)

    def play(self, *script: UpstreamError | Failure) -> tuple[str, ApiError]:
        """The providers asked, in order, when attempts fail as the script says; at its end, as its last line does."""
        steps = [UpstreamError(step, "no") if isinstance(step, Failure) else step for step in script]
        made, told = self.run(lambda attempt: steps[min(attempt.number, len(steps)) - 1])
        return names(made), told


def names(attempts: Sequence[Choice]) -> str:
    return "".join(attempt.candidate.deployment.provider.name for attempt in attempts)


# the table, row by row


def test_nothing_was_sent_once_more_here_then_the_next_deployment() -> None:
    world = World("ab")
    made, told = world.run(lambda attempt: UpstreamError(Failure.NOT_SENT, "no connection"))
    assert names(made) == "aabb"
    assert [attempt.number for attempt in made] == [1, 2, 3, 4]
    assert [attempt.wait for attempt in made] == [0, pytest.approx(0.1875), 0, pytest.approx(0.1875)]
    assert (told.status, told.code, told.should_retry) == (502, "upstream_unavailable", None)


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_it_is_tried_here_as_often_as_the_provider_says(retries: int) -> None:
    assert World("a", retries).play(Failure.NOT_SENT)[0] == "a" * (1 + retries)


@pytest.mark.parametrize("failure", ELSEWHERE)
def test_what_another_may_do_is_tried_there_and_never_again_here(failure: Failure) -> None:
    assert World("abc").play(failure)[0] == "abc"


def test_when_all_answer_429_it_is_a_429_with_the_shortest_time_left() -> None:
    script = [UpstreamError(Failure.RATE_LIMITED, "slow down", 429, retry_after=wait) for wait in (30.0, None, 20.0)]
    asked, told = World("abc").play(*script)
    assert asked == "abc"
    assert (told.status, told.code, told.retry_after) == (429, "rate_limit_exceeded", 5)  # what the second cools for


def test_when_all_cool_down_by_429_nothing_is_sent() -> None:
    world = World("ab")
    world.fails("a", Failure.RATE_LIMITED, retry_after=30)
    world.fails("b", Failure.RATE_LIMITED, retry_after=20)
    world.clock.now += 5
    made, told = world.run(lambda attempt: None)
    assert made == []
    assert told.status == 429
    assert told.retry_after == pytest.approx(15)


def test_a_429_that_follows_those_that_cool_down_is_told_with_the_shortest_of_all_times() -> None:
    world = World("ab")
    world.fails("a", Failure.RATE_LIMITED, retry_after=7)
    asked, told = world.play(UpstreamError(Failure.RATE_LIMITED, "slow down", 429, retry_after=30))
    assert asked == "b"
    assert (told.status, told.retry_after) == (429, 7)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_is_pass_refusal_on_and_never_tried_again(status: int) -> None:
    refusal = UpstreamError(
        Failure.REFUSED, "too large", status, "image_generation_user_error", "invalid_value", "size"
    )
    asked, told = World("abc").play(refusal)
    assert asked == "a"
    assert (told.status, told.should_retry) == (status, False)
    assert told.envelope() == {
        "error": {
            "message": "too large",
            "type": "image_generation_user_error",
            "code": "invalid_value",
            "param": "size",
        }
    }


@pytest.mark.parametrize("status", [None, 403, 500])
def test_moderation_is_a_400_with_its_details_however_the_upstream_said_it(status: int | None) -> None:
    details = {"moderation_details": {"moderation_stage": "input"}}
    told = pass_refusal_on(UpstreamError(Failure.REFUSED, "no", status, None, "moderation_blocked", details=details))
    assert (told.status, told.code, told.type, told.should_retry) == (
        400,
        "moderation_blocked",
        "invalid_request_error",
        False,
    )
    assert told.envelope()["error"]["moderation_details"] == {"moderation_stage": "input"}


def test_a_refusal_elsewhere_is_told_after_a_failure_here() -> None:
    asked, told = World("abc").play(Failure.UNAVAILABLE, UpstreamError(Failure.REFUSED, "too large", 413))
    assert asked == "ab"
    assert told.status == 413


def test_when_every_account_is_refused_it_is_a_502_that_nobody_need_repeat() -> None:
    world = World("ab")
    asked, told = world.play(UpstreamError(Failure.CREDENTIAL, "Incorrect API key sk-1", 401))
    assert asked == "ab"
    assert (told.status, told.code, told.should_retry) == (502, "upstream_account_refused", False)
    assert "sk-1" not in told.message
    made, told = world.run(lambda attempt: None)  # and now both cool down
    assert made == []
    assert (told.status, told.code, told.should_retry) == (502, "upstream_account_refused", False)


def test_with_a_limit_beside_a_refused_account_it_is_worth_coming_back() -> None:
    world = World("ab")
    limited = UpstreamError(Failure.RATE_LIMITED, "slow down", 429, retry_after=20)
    for expected in ("ab", ""):
        asked, told = world.play(limited, Failure.CREDENTIAL)
        assert asked == expected
        assert (told.status, told.should_retry, told.retry_after) == (502, None, 20)


def test_a_failure_that_passes_is_told_rather_than_an_account_that_does_not() -> None:
    asked, told = World("ab").play(Failure.UNAVAILABLE, Failure.CREDENTIAL)
    assert asked == "ab"
    assert (told.status, told.code, told.should_retry) == (502, "upstream_unavailable", None)


@pytest.mark.parametrize(("status", "expected"), [(500, 502), (502, 502), (503, 503), (None, 502)])
def test_a_failure_of_the_last_is_a_502_or_503_that_may_be_tried_again(status: int | None, expected: int) -> None:
    _, told = World("ab").play(UpstreamError(Failure.UNAVAILABLE, "down", status, retry_after=3))
    assert (told.status, told.should_retry, told.retry_after, told.perhaps_paid) == (expected, None, 3, False)


@pytest.mark.parametrize("failure", [Failure.UNAVAILABLE, Failure.RATE_LIMITED])
@pytest.mark.parametrize("seconds", [601, 999_999, float("9" * 300)])
def test_nobody_is_sent_away_for_longer_than_a_day(failure: Failure, seconds: float) -> None:
    _, told = World("a").play(UpstreamError(failure, "down", 503, retry_after=seconds))
    assert told.retry_after == min(seconds, 86_400)
    candidate = World("a").way("a")
    alone = verdict([(candidate, UpstreamError(failure, "down", 503, retry_after=seconds))])
    assert alone.retry_after == min(seconds, 86_400)


def test_when_all_cool_down_for_failures_the_one_that_ends_first_is_tried() -> None:
    world = World("abc")
    world.fails("b", Failure.UNAVAILABLE, 3)
    world.clock.now += 1
    world.fails("a", Failure.UNAVAILABLE, 3)
    world.fails("c", Failure.RATE_LIMITED, retry_after=1)
    made, told = world.run(lambda attempt: UpstreamError(Failure.UNAVAILABLE, "down", 500))
    assert [(names([attempt]), attempt.regardless) for attempt in made] == [("b", True)]
    assert told.status == 502


@pytest.mark.parametrize(("timed_out", "status"), [(True, 504), (False, 502)])
def test_what_was_perhaps_drawn_is_not_tried_again_and_says_so(timed_out: bool, status: int) -> None:
    asked, told = World("abc").play(UpstreamError(Failure.UNCERTAIN, "it fell silent", timed_out=timed_out))
    assert asked == "a"
    assert (told.status, told.should_retry, told.perhaps_paid) == (status, False, True)
    assert "not tried again" in told.message


def test_with_retry_timeouts_it_is_tried_again_here_and_elsewhere() -> None:
    asked, told = World("ab", retry_timeouts=True).play(Failure.UNCERTAIN)
    assert asked == "aabb"
    assert (told.status, told.should_retry) == (502, False)
    assert "not tried again" not in told.message


@pytest.mark.parametrize("last", [*ELSEWHERE, Failure.NOT_SENT])
def test_after_a_drawing_that_was_perhaps_paid_for_no_later_failure_invites_to_another(last: Failure) -> None:
    _, told = World("ab", retries=0, retry_timeouts=True).play(Failure.UNCERTAIN, last)
    assert (told.should_retry, told.perhaps_paid) == (False, True)


def test_a_verdict_can_be_had_for_one_failure() -> None:
    told = verdict([(World("a").ways[0], UpstreamError(Failure.UNCERTAIN, "the answer is cut"))])
    assert (told.status, told.code) == (502, "upstream_broken_answer")


# health, as it is at each step


def test_those_that_cool_down_are_passed_over() -> None:
    world = World("abcd")
    world.fails("a", Failure.RATE_LIMITED)
    world.fails("b", Failure.CREDENTIAL)
    world.fails("c", Failure.UNAVAILABLE, 3)
    assert world.play(Failure.REFUSED)[0] == "d"


def test_after_those_that_may_be_asked_one_that_cools_down_for_failures_is_tried() -> None:
    world = World("abcd")
    world.fails("a", Failure.UNAVAILABLE, 3)
    world.fails("b", Failure.RATE_LIMITED)
    world.fails("c", Failure.UNAVAILABLE, 3)
    assert world.play(UpstreamError(Failure.UNAVAILABLE, "down", 503))[0] == "da"


def test_one_that_began_to_cool_down_meanwhile_is_passed_over() -> None:
    world = World("abc")

    def tell(attempt: Choice) -> UpstreamError:
        if attempt.number == 1:
            world.fails("b", Failure.RATE_LIMITED)
        return UpstreamError(Failure.UNAVAILABLE, "down", 500)

    assert names(world.run(tell)[0]) == "ac"


def test_a_retry_here_is_not_made_once_the_deployment_cools_down() -> None:
    world = World("ab")
    world.fails("a", Failure.UNAVAILABLE, 2)
    assert world.play(Failure.NOT_SENT)[0] == "abb"


def test_an_attempt_that_was_not_made_is_not_counted_and_leads_to_another() -> None:
    """While a request waited for its place, the deployment began to cool down."""
    world = World("ab")

    def tell(attempt: Choice) -> UpstreamError | None:
        if names([attempt]) == "a":
            world.fails("a", Failure.RATE_LIMITED, retry_after=9)
            return None
        return UpstreamError(Failure.UNAVAILABLE, "down", 500)

    made, told = world.run(tell)
    assert [(names([attempt]), attempt.number) for attempt in made] == [("a", 1), ("b", 1)]
    assert told.status == 502


def test_when_the_only_one_began_to_cool_down_by_429_meanwhile_that_is_told() -> None:
    world = World("a")

    def tell(attempt: Choice) -> None:
        world.fails("a", Failure.RATE_LIMITED, retry_after=9)

    made, told = world.run(tell)
    assert (names(made), told.status, told.retry_after) == ("a", 429, 9)


def test_when_the_only_one_began_to_cool_down_for_failures_meanwhile_it_is_tried_all_the_same() -> None:
    world = World("a")

    def tell(attempt: Choice) -> UpstreamError | None:
        if not attempt.regardless:
            world.fails("a", Failure.UNAVAILABLE, 3)
            return None
        return UpstreamError(Failure.UNAVAILABLE, "down", 500)

    made, _ = world.run(tell)
    assert [attempt.regardless for attempt in made] == [False, True]


def test_a_retry_that_was_not_made_does_not_start_its_deployment_afresh() -> None:
    world = World("a")

    def tell(attempt: Choice) -> UpstreamError | None:
        if attempt.number == 1:
            return UpstreamError(Failure.NOT_SENT, "no connection")
        world.fails("a", Failure.UNAVAILABLE, 2)
        return None

    made, told = world.run(tell)
    assert names(made) == "aa"
    assert "no connection" in told.message


def test_what_an_attempt_found_counts_and_not_why_its_deployment_was_left_to_the_last() -> None:
    world = World("a")
    world.fails("a", Failure.UNAVAILABLE, 3)
    _, told = world.play(UpstreamError(Failure.CREDENTIAL, "Incorrect API key", 401))
    assert (told.code, told.should_retry) == ("upstream_account_refused", False)


def test_one_with_a_free_place_is_preferred_and_the_full_one_is_left_for_later() -> None:
    world = World("abc")
    world.busy.without_place = {"a", "c"}
    assert world.play(UpstreamError(Failure.UNAVAILABLE, "down", 500))[0] == "bac"


# the budget


def test_the_budget_is_a_share_of_the_requests_of_the_last_seconds_and_a_few_in_any_case() -> None:
    clock = Clock()
    budget = RetryBudget(clock, share=0.2, least=3, seconds=10)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    for _ in range(50):
        budget.count_request()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]
    clock.now += 9
    assert not budget.take()
    clock.now += 1
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 4)), max_size=60))
def test_no_window_has_more_attempts_than_its_share(steps: list[tuple[int, int, float]]) -> None:
    clock = Clock()
    budget = RetryBudget(clock, share=0.5, least=2, seconds=10)
    asked: list[float] = []
    taken: list[float] = []
    for requests, wanted, seconds in steps:
        for _ in range(requests):
            budget.count_request()
            asked.append(clock.now)
        for _ in range(wanted):
            if budget.take():
                taken.append(clock.now)
                lately = sum(when > clock.now - 9 for when in taken)
                assert lately <= 2 + 0.5 * sum(when > clock.now - 11 for when in asked)
        now = budget.snapshot()
        assert now.ticks <= 10
        assert (
            sum(when > clock.now - 9 for when in asked) <= now.requests <= sum(when > clock.now - 11 for when in asked)
        )
        assert (
            sum(when > clock.now - 9 for when in taken) <= now.attempts <= sum(when > clock.now - 11 for when in taken)
        )
        clock.now += seconds


def test_in_an_outage_of_all_attempts_stay_near_the_number_of_requests() -> None:
    world = World("abc", retries=3, extra=10)
    made = 0
    for _ in range(200):
        world.clock.now += 0.01
        made += len(world.run(lambda attempt: UpstreamError(Failure.NOT_SENT, "no connection"))[0])
    assert made <= 200 * 1.2 + 10 + 3


def test_a_deployment_of_which_nothing_bad_is_known_takes_over_whatever_the_budget() -> None:
    world = World("ab", extra=0)
    assert world.play(Failure.NOT_SENT)[0] == "ab"  # the retry here is what there is no budget for
    assert world.play(Failure.NOT_SENT)[0] == "a"  # by now something is known of both


def test_when_the_budget_is_used_up_the_verdict_so_far_is_told() -> None:
    world = World("ab", extra=0)
    world.fails("b", Failure.UNAVAILABLE)
    asked, told = world.play(UpstreamError(Failure.UNAVAILABLE, "down", 503))
    assert (asked, told.status) == ("a", 503)


# whatever happens

ends = st.one_of(
    st.none(),
    st.builds(
        UpstreamError,
        st.sampled_from(list(Failure)),
        st.just("no"),
        st.sampled_from([None, 200, 400, 403, 429, 500, 503]),
        retry_after=st.one_of(st.none(), st.floats(0, 1e6)),
        timed_out=st.booleans(),
    ),
)


@given(
    st.lists(ends, min_size=40, max_size=40),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(list(Failure))), max_size=12),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 20),
    st.floats(0, 30),
)
def test_whatever_happens_attempts_are_bounded_and_nothing_is_paid_for_twice(
    script: list[UpstreamError | None],
    before: list[tuple[int, Failure]],
    count: int,
    retries: int,
    retry_timeouts: bool,
    extra: int,
    seconds: float,
) -> None:
    world = World("abcd"[:count], retries, retry_timeouts=retry_timeouts, extra=extra)
    for which, failure in before:
        world.fails("abcd"[which % count], failure)
    failures: list[UpstreamError] = []
    steps = iter(script)

    def tell(attempt: Choice) -> UpstreamError | None:
        assert attempt.number == len(failures) + 1
        if attempt.wait:
            assert failures[-1].failure in (Failure.NOT_SENT, Failure.UNCERTAIN)
        for earlier in failures:
            assert earlier.failure is not Failure.REFUSED
            assert earlier.failure is not Failure.UNCERTAIN or retry_timeouts
        world.clock.now += seconds
        error = next(steps)
        if error is None and not attempt.regardless and attempt.number % 2:
            return None
        made_up = error or UpstreamError(Failure.UNAVAILABLE, "no")
        failures.append(made_up)
        return made_up

    made, told = world.run(tell)
    assert len(failures) <= count * (1 + retries)
    assert len(made) - len(failures) <= count
    assert told.status in (400, 404, 413, 422, 429, 502, 503, 504)
    assert told.message
    paid = any(error.failure is Failure.UNCERTAIN for error in failures)
    assert told.perhaps_paid == paid
    if paid or (failures and failures[-1].failure is Failure.REFUSED):
        assert told.should_retry is False
    if told.status == 429:
        assert all(error.failure is Failure.RATE_LIMITED for error in failures)
        assert told.retry_after is not None
