from __future__ import annotations

import hmac
from fractions import Fraction
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.keys import ANYBODY, Key, Keys, Limit
from app.errors import RateLimited, Unauthenticated


def key(name: str, secret: str = "secret", **more: object) -> Key:
    return Key(name, sha256(secret.encode()).digest(), **more)  # type: ignore[arg-type]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- who ---


@pytest.mark.parametrize(
    "header", ["Bearer secret", "bearer secret", "BEARER secret", "Bearer  secret", "Bearer secret ", "Bearer \tsecret"]
)
def test_a_key_is_known_however_the_header_is_written(header: str) -> None:
    known = key("team")
    assert Keys([key("other", "other-secret"), known], Clock()).authenticate(header) is known


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer   ", "Basic secret", "secret", "Bearersecret"]
)
def test_without_a_key_the_caller_is_told_how_to_send_one(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Keys([key("team")], Clock()).authenticate(header)
    assert (caught.value.status, caught.value.code) == (401, None)
    assert "Authorization" in caught.value.message


@pytest.mark.parametrize("said", ["wrong", "Secret", "secret2", "secre", "sk-0123456789abcdef", "\xe9", "a" * 10_000])
def test_a_wrong_key_is_refused_and_not_repeated(said: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Keys([key("team")], Clock()).authenticate(f"Bearer {said}")
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert said not in caught.value.message


def test_enough_of_a_wrong_key_is_told_to_recognise_it() -> None:
    with pytest.raises(Unauthenticated, match=r"sk-…cdef\."):
        Keys([key("team")], Clock()).authenticate("Bearer sk-0123456789abcdef")


@pytest.mark.parametrize("header", [None, "", "Bearer x", "Basic y"])
def test_without_any_key_everybody_is_let_in(header: str | None) -> None:
    assert Keys([], Clock()).authenticate(header) is ANYBODY


def test_every_key_is_compared_in_constant_time_wherever_the_right_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def noting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    keys = [key(f"key {number}", f"secret {number}") for number in range(5)]
    looked = Keys(keys, Clock())
    monkeypatch.setattr("app.access.keys.hmac", type("Hmac", (), {"compare_digest": staticmethod(noting)}))
    for number in range(5):
        compared.clear()
        assert looked.authenticate(f"Bearer secret {number}") is keys[number]
        assert [a for a, _ in compared] == [each.sha256 for each in keys]
        assert {len(b) for _, b in compared} == {32}


# --- what ---


@pytest.mark.parametrize(
    ("globs", "names", "may"),
    [
        ((), ["any"], True),
        (("*",), ["any/thing"], True),
        (("black-forest-labs/*",), ["black-forest-labs/FLUX.1-schnell"], True),
        (("black-forest-labs/*",), ["stabilityai/sdxl"], False),
        (("flux",), ["black-forest-labs/FLUX.1-schnell", "flux"], True),
        (("FLUX",), ["flux"], False),
        (("flux",), ["flux-2"], False),
        (("flux-?",), ["flux-2"], True),
        (("a", "b*"), ["bc"], True),
        (("a", "*"), ["z"], True),
    ],
)
def test_a_key_may_use_what_its_globs_name(globs: tuple[str, ...], names: list[str], may: bool) -> None:
    assert key("team", models=globs).may_use(*names) is may


# --- how often ---


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
def test_a_limit_is_a_bucket_of_its_own_size(per_minute: int, gaps: list[float], now: float) -> None:
    limit, bucket = Limit(per_minute), Bucket(per_minute)
    for gap in gaps:
        now += gap
        assert limit.take(now) == pytest.approx(float(bucket.take(Fraction(now))), abs=1e-6)


@given(limits, gaps)
def test_in_no_minute_pass_more_than_the_burst_and_what_flows_in_meanwhile(per_minute: int, gaps: list[float]) -> None:
    limit, now, passed = Limit(per_minute), 1000.0, []
    for gap in gaps:
        now += gap
        if not limit.take(now):
            passed.append(now)
    for first, begin in enumerate(passed):
        for number, end in enumerate(passed[first:], start=1):
            assert number <= per_minute + (end - begin) * per_minute / 60 + 1e-6


@given(limits, gaps)
def test_who_waits_as_long_as_told_is_let_in(per_minute: int, gaps: list[float]) -> None:
    limit, now = Limit(per_minute), 1000.0
    for gap in gaps:
        now += gap
        if wait := limit.take(now):
            assert 0 < wait <= 60
            now += wait
            assert limit.take(now) == 0


def test_a_burst_of_the_limit_passes_at_once_and_no_more() -> None:
    limit = Limit(60)
    assert [limit.take(5.0) for _ in range(60)] == [0.0] * 60
    assert limit.take(5.0) == pytest.approx(1.0)
    assert limit.take(6.0) == 0.0
    assert limit.take(6.0) == pytest.approx(1.0)


def test_who_was_refused_pays_nothing_for_asking() -> None:
    limit = Limit(1)
    assert limit.take(0.0) == 0.0
    assert [limit.take(float(now)) for now in range(1, 60)] == pytest.approx([60.0 - now for now in range(1, 60)])
    assert limit.take(60.0) == 0.0


def test_over_its_rate_a_key_is_told_when_to_come_back() -> None:
    clock, limited, free = Clock(), key("team", requests_per_minute=2), key("free", "other")
    keys = Keys([limited, free], clock)
    keys.spend(limited)
    keys.spend(limited)
    with pytest.raises(RateLimited) as caught:
        keys.spend(limited)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "rate_limit_exceeded", 30.0)
    assert "'team'" in caught.value.message
    for _ in range(100):
        keys.spend(free)
    clock.now += 30
    keys.spend(limited)


# --- how many at a time ---


def test_a_key_holds_no_more_places_than_it_has() -> None:
    limited, other = key("team", max_concurrency=2), key("other", "other", max_concurrency=1)
    keys = Keys([limited, other], Clock())
    with keys.hold(limited), keys.hold(other):
        with keys.hold(limited), pytest.raises(RateLimited) as caught, keys.hold(limited):
            pass
        assert (caught.value.code, caught.value.retry_after) == ("rate_limit_exceeded", 1.0)
        with keys.hold(limited):
            pass


def test_a_place_is_given_back_however_its_request_ends() -> None:
    limited = key("team", max_concurrency=1)
    keys = Keys([limited], Clock())
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), keys.hold(limited):
            raise error
    with keys.hold(limited):
        pass


def test_a_key_without_a_limit_has_as_many_places_as_it_likes() -> None:
    keys = Keys([], Clock())
    held = [keys.hold(ANYBODY) for _ in range(100)]
    for each in held:
        each.__enter__()
    for each in held:
        each.__exit__(None, None, None)
