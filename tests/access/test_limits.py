from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.keyring import ANONYMOUS, Key
from app.access.limits import MOST_BODIES, SMALL_BODY, KeyUsage, Limits, Rate
from app.errors import RateLimited

NOW = 1000.0


def key(name: str = "team", requests_per_minute: int | None = None, max_concurrency: int | None = None) -> Key:
    return Key(name, b"", requests_per_minute=requests_per_minute, max_concurrency=max_concurrency)


# --- the rate ---


def take(rate: Rate, per_minute: int, now: float) -> float:
    wait = rate.wait(per_minute, now)
    if not wait:
        rate.count(per_minute, now)
    return wait


class Bucket:
    """The oracle: a bucket of `per_minute` drops that is full at first and fills evenly. Exact."""

    def __init__(self, per_minute: int) -> None:
        self._rate = Fraction(per_minute, 60)
        self._room = Fraction(per_minute)
        self._drops = self._room
        self._at: Fraction | None = None

    def take(self, now: Fraction) -> Fraction:
        self._drops = min(self._room, self._drops + (now - (now if self._at is None else self._at)) * self._rate)
        self._at = now
        if self._drops >= 1:
            self._drops -= 1
            return Fraction(0)
        return (1 - self._drops) / self._rate


limits = st.integers(1, 200)
# Binary fractions, so that the clock itself is exact.
gaps = st.lists(st.integers(0, 640).map(lambda ticks: ticks / 64), max_size=80)


@given(limits, gaps, st.sampled_from([0.0, 1.0, 1_000_000.0]))
def test_a_rate_is_a_bucket_of_the_limits_own_size(per_minute: int, gaps: list[float], now: float) -> None:
    rate, bucket = Rate(), Bucket(per_minute)
    for gap in gaps:
        now += gap
        assert take(rate, per_minute, now) == pytest.approx(float(bucket.take(Fraction(now))), abs=1e-6)


@given(limits, gaps)
def test_in_no_minute_pass_more_than_the_burst_and_what_flows_in_meanwhile(per_minute: int, gaps: list[float]) -> None:
    rate, now, passed = Rate(), NOW, []
    for gap in gaps:
        now += gap
        if not take(rate, per_minute, now):
            passed.append(now)
    for first, begin in enumerate(passed):
        for number, end in enumerate(passed[first:], start=1):
            assert number <= per_minute + (end - begin) * per_minute / 60 + 1e-6


@given(limits, gaps)
def test_a_caller_that_waits_as_long_as_it_must_is_let_in(per_minute: int, gaps: list[float]) -> None:
    rate, now = Rate(), NOW
    for gap in gaps:
        now += gap
        if wait := take(rate, per_minute, now):
            assert 0 < wait <= 60
            now += wait
            assert take(rate, per_minute, now) == 0


def test_a_burst_of_the_limit_passes_at_once_and_no_more() -> None:
    rate = Rate()
    assert [take(rate, 60, 5.0) for _ in range(60)] == [0.0] * 60
    assert take(rate, 60, 5.0) == pytest.approx(1.0)
    assert take(rate, 60, 6.0) == 0.0
    assert take(rate, 60, 6.0) == pytest.approx(1.0)


def test_to_ask_costs_nothing() -> None:
    rate = Rate()
    assert take(rate, 1, 0.0) == 0.0
    assert [take(rate, 1, float(now)) for now in range(1, 60)] == pytest.approx([60.0 - now for now in range(1, 60)])
    assert take(rate, 1, 60.0) == 0.0


@given(limits, limits, st.integers(0, 200))
def test_after_a_changed_limit_no_caller_waits_longer_than_a_minute(before: int, after: int, count: int) -> None:
    rate = Rate()
    for _ in range(count):
        take(rate, before, NOW)
    assert rate.wait(after, NOW) <= 60 + 1e-6


# --- a key's limits ---


@pytest.fixture
def used() -> Limits:
    return Limits()


def test_a_refusal_says_when_to_come_back(used: Limits) -> None:
    limited = key(requests_per_minute=2)
    used.take(limited, NOW)
    used.take(limited, NOW)
    with pytest.raises(RateLimited, match="Key 'team' may make 2 requests a minute") as caught:
        used.take(limited, NOW)
    refusal = caught.value
    assert (refusal.status, refusal.type, refusal.code, refusal.param) == (429, "requests", "rate_limit_exceeded", None)
    assert refusal.retry_after == 30.0
    used.take(limited, NOW + 30)


def test_each_key_has_limits_of_its_own_and_without_one_there_is_none(used: Limits) -> None:
    used.take(key(requests_per_minute=1, max_concurrency=1), NOW)
    for _ in range(100):
        used.take(key("free"), NOW)
    used.take(key("other", requests_per_minute=1, max_concurrency=1), NOW)
    assert used.snapshot()["free"].running == 100


def test_a_key_has_no_more_places_than_its_limit(used: Limits) -> None:
    limited = key(max_concurrency=2)
    used.take(limited, NOW)
    used.take(limited, NOW)
    with pytest.raises(RateLimited, match="may have 2 requests running at a time") as caught:
        used.take(limited, NOW)
    assert (caught.value.code, caught.value.retry_after) == ("rate_limit_exceeded", 1.0)
    used.give_back(limited)
    used.take(limited, NOW)


def test_a_request_that_finds_no_place_does_not_count_against_the_rate(used: Limits) -> None:
    limited = key(requests_per_minute=2, max_concurrency=1)
    used.take(limited, NOW)
    for _ in range(10):
        with pytest.raises(RateLimited, match="running at a time"):
            used.take(limited, NOW)
    used.give_back(limited)
    used.take(limited, NOW)


def test_a_request_over_the_rate_takes_no_place(used: Limits) -> None:
    limited = key(requests_per_minute=1, max_concurrency=2)
    used.take(limited, NOW)
    for _ in range(10):
        with pytest.raises(RateLimited, match="requests a minute"):
            used.take(limited, NOW)
    assert used.snapshot() == {"team": KeyUsage(running=1, reading=0)}


def test_a_changed_limit_holds_at_once_and_goes_on_from_what_was_used(used: Limits) -> None:
    for _ in range(4):
        used.take(key(requests_per_minute=4), NOW)
    with pytest.raises(RateLimited):
        used.take(key(requests_per_minute=8), NOW)
    used.take(key(requests_per_minute=8), NOW + 7.5)
    with pytest.raises(RateLimited, match="may have 1 requests"):
        used.take(key(max_concurrency=1), NOW)  # those that run already hold their places
    used.take(key(max_concurrency=6), NOW)


# --- the gate for bodies ---


def reading(used: Limits, key: Key, count: int, announced: int | None = None) -> ExitStack:
    stack = ExitStack()
    for _ in range(count):
        stack.enter_context(used.reading(key, announced))
    return stack


@pytest.mark.parametrize("announced", [None, 10, SMALL_BODY + 1])
def test_a_key_sends_as_many_bodies_at_a_time_as_it_has_places(used: Limits, announced: int | None) -> None:
    limited = key(max_concurrency=2)
    with reading(used, limited, 2, announced):
        with pytest.raises(RateLimited, match="may have 2 requests running at a time") as caught:
            reading(used, limited, 1, announced)
        assert (caught.value.code, caught.value.retry_after) == ("rate_limit_exceeded", 1.0)
        assert used.snapshot()["team"] == KeyUsage(running=0, reading=2)
    with reading(used, limited, 2, announced):
        pass
    assert used.snapshot()["team"] == KeyUsage(running=0, reading=0)


@pytest.mark.parametrize("announced", [None, SMALL_BODY + 1])
def test_a_key_without_places_sends_a_bounded_number_of_large_bodies(used: Limits, announced: int | None) -> None:
    with reading(used, key(), MOST_BODIES, announced):
        with pytest.raises(RateLimited, match=f"may send {MOST_BODIES} large requests at a time"):
            reading(used, key(), 1, announced)
        with reading(used, key("other"), MOST_BODIES, announced), reading(used, key(), 100, SMALL_BODY):
            pass


def test_callers_without_a_key_are_not_counted(used: Limits) -> None:
    with reading(used, ANONYMOUS, 100):
        pass


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_the_gate_opens_again_however_the_reading_ends(used: Limits, error: BaseException) -> None:
    with pytest.raises(type(error)), used.reading(key(max_concurrency=1)):
        raise error
    with reading(used, key(max_concurrency=1), 1):
        pass


def test_a_body_that_is_read_takes_no_place_of_those_that_run(used: Limits) -> None:
    limited = key(max_concurrency=1)
    with reading(used, limited, 1):
        used.take(limited, NOW)
