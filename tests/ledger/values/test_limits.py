"""Limits: what they need, and the arithmetic of rates."""

from hypothesis import given
from hypothesis import strategies as st

from app.ledger.values.limits import Limit, Limits, Measure, Owner, limits_of, rate_state, wait_for
from app.microseconds import MINUTE

KEY = Owner("key", "k1", "ci")


def test_a_limit_that_is_none_does_not_exist() -> None:
    found = limits_of(KEY, Limits(images_per_minute=5, max_concurrency=2))
    assert [(limit.measure, limit.amount, limit.scope) for limit in found] == [
        (Measure.IMAGES, 5, "key:k1:images"),
        (Measure.CONCURRENCY, 2, "key:k1:concurrency"),
    ]


def test_each_measure_counts_its_own() -> None:
    needed = [Limit(KEY, measure, 10).needed(n=3, pixels=2_000_000) for measure in Measure]
    assert needed == [1, 3, 6_000_000, 1]


def test_a_megapixel_is_a_million_pixels() -> None:
    assert Limit(KEY, Measure.MEGAPIXELS, 1).step(1_000_000) == MINUTE


@given(st.integers(1, 100_000), st.lists(st.integers(0, MINUTE), max_size=50))
def test_in_no_minute_more_passes_than_twice_the_limit_and_at_once_the_limit(amount: int, pauses: list[int]) -> None:
    limit, now, full_at, passed = Limit(KEY, Measure.IMAGES, amount), 0, 0, 0
    for pause in [0, *pauses]:
        now += pause
        step = limit.step(max(amount // 3, 1))
        while wait_for(step, full_at, now) == 0:
            full_at = max(full_at, now) + step
            passed += max(amount // 3, 1)
    assert passed <= amount + amount * now / MINUTE + 1
    assert passed >= amount // 3, "a fresh limit lets through what it holds"


@given(st.integers(1, 1000), st.integers(0, MINUTE))
def test_after_its_wait_a_request_passes(amount: int, behind: int) -> None:
    step = Limit(KEY, Measure.REQUESTS, amount).step(1)
    wait = wait_for(step, behind, 0)
    assert wait is not None
    assert wait_for(step, behind, wait) == 0


def test_the_state_of_a_rate_is_what_is_left_now() -> None:
    state = rate_state(Limit(KEY, Measure.IMAGES, 10), full_at=MINUTE // 2, now=0)
    assert (state.remaining, state.reset) == (5, 30.0)
