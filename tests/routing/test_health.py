from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.deployments import Deployment, Provider
from app.catalog.profiles import Profile
from app.errors import ApiError, Failure, UpstreamError
from app.routing.health import Cooling, Health

IN_A_ROW = [Failure.NOT_SENT, Failure.UNAVAILABLE, Failure.FAILED, Failure.UNCERTAIN]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def deployment(provider: str = "one", model: str = "flux") -> Deployment:
    return Deployment(Provider(provider, "openai", "http://localhost"), model, Profile())


ONE, SAME_ACCOUNT, OTHER = deployment(), deployment(model="fill"), deployment("two")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def failed(health: Health, failure: Failure, times: int = 1, **how: float | int | None) -> None:
    for _ in range(times):
        health.failed(ONE, UpstreamError(failure, "no", **how))  # type: ignore[arg-type]


def left(health: Health, of: Deployment = ONE) -> float | None:
    cooling = health.cooling(of)
    return None if cooling is None else round(cooling.left, 6)


def test_a_deployment_of_which_nothing_is_known_may_be_asked(health: Health) -> None:
    assert health.cooling(ONE) is None
    assert not health.in_doubt(ONE)


@pytest.mark.parametrize("failure", [Failure.CREDENTIAL, Failure.RATE_LIMITED, Failure.UNAVAILABLE])
def test_of_a_provider_whose_entry_has_changed_nothing_is_remembered(health: Health, failure: Failure) -> None:
    for each in (ONE, SAME_ACCOUNT, OTHER):
        for _ in range(3):
            health.failed(each, UpstreamError(failure, "no"))
    health.forget("one")
    assert health.cooling(ONE) is None
    assert health.cooling(SAME_ACCOUNT) is None
    assert not health.in_doubt(ONE)
    assert health.cooling(OTHER) is not None
    health.forget("unheard-of")


# 429


def test_a_429_cools_its_deployment_alone_for_its_retry_after(health: Health, clock: Clock) -> None:
    failed(health, Failure.RATE_LIMITED, retry_after=7.5)
    assert health.cooling(ONE) == Cooling("limited", 7.5)
    assert health.cooling(SAME_ACCOUNT) is None
    clock.now += 7.5
    assert health.cooling(ONE) is None


@pytest.mark.parametrize("told", [None, 0.0])
def test_a_429_that_does_not_say_for_how_long_cools_longer_each_time(
    health: Health, clock: Clock, told: float | None
) -> None:
    seen = []
    for _ in range(6):
        failed(health, Failure.RATE_LIMITED, retry_after=told)
        seen.append(left(health))
        clock.now += 60
    assert seen == [5, 10, 20, 40, 60, 60]
    health.succeeded(ONE)
    failed(health, Failure.RATE_LIMITED)
    assert left(health) == 5


def test_a_burst_of_429s_counts_once(health: Health) -> None:
    failed(health, Failure.RATE_LIMITED, times=50)
    assert left(health) == 5


def test_a_longer_retry_after_prolongs_the_pause_and_a_shorter_one_does_not_end_it(health: Health) -> None:
    for told, expected in [(20, 20), (30, 30), (3, 30)]:
        failed(health, Failure.RATE_LIMITED, retry_after=told)
        assert left(health) == expected


def test_no_retry_after_cools_for_more_than_a_day(health: Health) -> None:
    failed(health, Failure.RATE_LIMITED, retry_after=3600)
    assert left(health) == 3600
    failed(health, Failure.RATE_LIMITED, retry_after=1e9)
    assert left(health) == 86_400


def test_a_success_from_before_a_429_does_not_end_its_pause(health: Health) -> None:
    failed(health, Failure.RATE_LIMITED, retry_after=20)
    health.succeeded(ONE)
    assert health.cooling(ONE) == Cooling("limited", 20)


# accounts


@pytest.mark.parametrize("status", [401, 402, 429, None])
def test_a_refused_account_cools_all_of_its_provider_and_no_other(health: Health, status: int | None) -> None:
    failed(health, Failure.CREDENTIAL, status=status)
    assert health.cooling(ONE) == health.cooling(SAME_ACCOUNT) == Cooling("account", 60)
    assert health.cooling(OTHER) is None


def test_a_403_may_be_about_one_model_and_cools_that_deployment_alone(health: Health, clock: Clock) -> None:
    failed(health, Failure.CREDENTIAL, status=403)
    assert health.cooling(ONE) == Cooling("account", 60)
    assert health.cooling(SAME_ACCOUNT) is None
    clock.now += 60
    health.succeeded(ONE)
    failed(health, Failure.CREDENTIAL, status=403)
    assert left(health) == 60


def test_an_account_that_stays_refused_cools_twice_as_long_each_time_up_to_ten_minutes(
    health: Health, clock: Clock
) -> None:
    seen = []
    for _ in range(6):
        failed(health, Failure.CREDENTIAL, times=3)
        seen.append(left(health))
        clock.now += 600
    assert seen == [60, 120, 240, 480, 600, 600]
    health.succeeded(SAME_ACCOUNT)
    failed(health, Failure.CREDENTIAL)
    assert left(health) == 60


def test_a_success_from_before_does_not_end_the_pause_of_an_account(health: Health) -> None:
    failed(health, Failure.CREDENTIAL)
    health.succeeded(SAME_ACCOUNT)
    assert health.cooling(ONE) == Cooling("account", 60)


# failures in a row


@pytest.mark.parametrize("failure", IN_A_ROW)
def test_the_third_failure_in_a_row_cools_for_ten_seconds(health: Health, failure: Failure) -> None:
    failed(health, failure, times=2)
    assert health.cooling(ONE) is None
    assert health.in_doubt(ONE)
    failed(health, failure)
    assert health.cooling(ONE) == Cooling("failing", 10)
    assert health.cooling(SAME_ACCOUNT) is None


def test_a_success_or_a_refusal_ends_the_row(health: Health) -> None:
    failed(health, Failure.UNAVAILABLE, times=2)
    health.succeeded(ONE)
    failed(health, Failure.UNAVAILABLE, times=2)
    failed(health, Failure.REFUSED)
    failed(health, Failure.UNAVAILABLE, times=2)
    assert health.cooling(ONE) is None


def test_refusals_and_limits_are_no_failures_in_a_row(health: Health, clock: Clock) -> None:
    failed(health, Failure.REFUSED, times=10)
    failed(health, Failure.RATE_LIMITED, times=10)
    clock.now += 5
    assert health.cooling(ONE) is None
    assert not health.in_doubt(ONE)


def test_what_was_under_way_when_the_pause_began_makes_it_no_longer(health: Health, clock: Clock) -> None:
    failed(health, Failure.UNAVAILABLE, times=50)
    assert left(health) == 10
    clock.now += 4
    failed(health, Failure.UNAVAILABLE)
    assert left(health) == 6
    clock.now += 6
    failed(health, Failure.UNAVAILABLE)
    assert left(health) == 20


def test_after_the_pause_one_attempt_at_a_time_is_let_through(health: Health, clock: Clock) -> None:
    failed(health, Failure.UNAVAILABLE, times=3)
    clock.now += 10
    assert health.cooling(ONE) is None
    with health.watching(ONE):
        assert health.cooling(ONE) == Cooling("failing", 0)
        with pytest.raises(RuntimeError), health.watching(ONE):  # made all the same, but it is not the trial
            raise RuntimeError
        assert health.cooling(ONE) == Cooling("failing", 0)
    assert health.cooling(ONE) is None
    assert not health.in_doubt(ONE)


def test_a_trial_that_fails_cools_twice_as_long_up_to_two_minutes(health: Health, clock: Clock) -> None:
    failed(health, Failure.UNAVAILABLE, times=3)
    seen = [left(health)]
    for _ in range(5):
        clock.now += 120
        with pytest.raises(UpstreamError), health.watching(ONE):
            raise UpstreamError(Failure.UNAVAILABLE, "still down")
        seen.append(left(health))
    assert seen == [10, 20, 40, 80, 120, 120]


@pytest.mark.parametrize("end", [asyncio.CancelledError, GeneratorExit, ApiError("a full disk")])
def test_a_trial_that_shows_nothing_leaves_the_way_open_for_the_next(
    health: Health, clock: Clock, end: BaseException
) -> None:
    failed(health, Failure.UNAVAILABLE, times=3)
    clock.now += 10
    with pytest.raises(BaseException), health.watching(ONE):  # noqa: B017
        raise end
    assert health.cooling(ONE) is None
    assert health.in_doubt(ONE)


def test_a_client_that_leaves_blames_nobody(health: Health) -> None:
    for _ in range(10):
        with pytest.raises(asyncio.CancelledError), health.watching(ONE):
            raise asyncio.CancelledError
    assert health.cooling(ONE) is None
    assert not health.in_doubt(ONE)


def test_what_the_watched_block_raises_is_told(health: Health) -> None:
    for _ in range(3):
        with pytest.raises(UpstreamError), health.watching(ONE):
            raise UpstreamError(Failure.UNCERTAIN, "cut")
    assert health.cooling(ONE) == Cooling("failing", 10)


def test_the_strictest_reason_is_the_one_that_is_told(health: Health, clock: Clock) -> None:
    failed(health, Failure.UNAVAILABLE, times=3)
    failed(health, Failure.RATE_LIMITED, retry_after=100)
    failed(health, Failure.CREDENTIAL)
    assert health.cooling(ONE) == Cooling("account", 60)
    clock.now += 60
    assert health.cooling(ONE) == Cooling("limited", 40)
    clock.now += 40
    assert health.cooling(ONE) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ONE, SAME_ACCOUNT, OTHER]),
            st.sampled_from([*Failure, None]),
            st.one_of(st.none(), st.floats(0, 1e12)),
            st.floats(0, 1000),
        )
    )
)
def test_whatever_happens_pauses_are_bounded_and_end(
    history: list[tuple[Deployment, Failure | None, float | None, float]],
) -> None:
    clock = Clock()
    health = Health(clock)
    for which, failure, told, seconds in history:
        if failure is None:
            health.succeeded(which)
        else:
            health.failed(which, UpstreamError(failure, "no", retry_after=told))
        for each in (ONE, SAME_ACCOUNT, OTHER):
            cooling = health.cooling(each)
            assert cooling is None or 0 < cooling.left <= 86_400.001
        clock.now += seconds
    clock.now += 86_400.001
    assert all(health.cooling(each) is None for each in (ONE, SAME_ACCOUNT, OTHER))
    assert len(health.snapshot()) <= 3 + 5 + 3
    assert all(each.left == 0 for each in health.snapshot())
