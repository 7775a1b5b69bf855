"""How much of its limits each API key has used, by the key's name. Lives as long as the process and knows no
configuration: each call brings the key, and the key its limits, so a reload has nothing to carry over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.access.keyring import ANONYMOUS, Key
from app.errors import RateLimited

MOST_BODIES = 16  # that a key without `max_concurrency` may send at a time
SMALL_BODY = 65_536  # bytes: a connection holds as many anyway, so the gate would save nothing


class Rate:
    """GCRA: a number of requests a minute, with a burst of the same number. Times are a clock's, in seconds."""

    __slots__ = ("_full_at",)

    def __init__(self) -> None:
        self._full_at = 0.0  # when the whole burst is there again

    def wait(self, per_minute: int, now: float) -> float:
        """Return the seconds until one more request is within the limit; 0 if it is now."""
        burst = 60.0 - 60.0 / per_minute  # seconds by which a request may be ahead of its time
        seconds = max(self._full_at, now) - now - burst
        return seconds if seconds > 1e-9 else 0.0

    def count(self, per_minute: int, now: float) -> None:
        self._full_at = max(self._full_at, now) + 60.0 / per_minute


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """One key at one moment: requests that hold a place, and bodies that are being read."""

    running: int
    reading: int


@dataclass(slots=True)
class _Used:
    rate: Rate = field(default_factory=Rate)
    running: int = 0
    reading: int = 0


class Limits:
    """The usage of all keys. Belongs to one thread."""

    def __init__(self) -> None:
        self._used: defaultdict[str, _Used] = defaultdict(_Used)

    def take(self, key: Key, now: float) -> None:
        """Count a request against the key's rate and give it one of the key's places: both, or neither. Give the place
        back with `give_back`. Raises RateLimited."""
        used, rate, places = self._used[key.name], key.requests_per_minute, key.max_concurrency
        if rate is not None and (wait := used.rate.wait(rate, now)):
            message = f"Key {key.name!r} may make {rate} requests a minute. Try again in {wait:.1f} s."
            raise _rate_limited(message, wait)
        if places is not None and used.running >= places:
            raise _no_place(key, places)
        if rate is not None:
            used.rate.count(rate, now)
        used.running += 1

    def give_back(self, key: Key) -> None:
        """Free a place that `take` gave."""
        self._used[key.name].running -= 1

    @contextmanager
    def reading(self, key: Key, announced: int | None = None) -> Iterator[None]:
        """The gate for bodies. A key may send as many at a time as it has places, else `MOST_BODIES`; bodies that are
        announced as small (`announced`, in bytes) are counted only where the key has places. Callers without a key
        are not counted. Raises RateLimited."""
        places, is_small = key.max_concurrency, announced is not None and announced <= SMALL_BODY
        if places is None and (is_small or key is ANONYMOUS):
            yield
            return
        used = self._used[key.name]
        if used.reading >= (places or MOST_BODIES):
            raise _no_place(key, places) if places else _too_many_bodies(key)
        used.reading += 1
        try:
            yield
        finally:
            used.reading -= 1

    def snapshot(self) -> Mapping[str, KeyUsage]:
        """Return the usage of each key that has been used, by its name."""
        return {name: KeyUsage(used.running, used.reading) for name, used in self._used.items()}


def _no_place(key: Key, places: int) -> RateLimited:
    message = f"Key {key.name!r} may have {places} requests running at a time. Wait for one to finish."
    return _rate_limited(message, 1.0)


def _too_many_bodies(key: Key) -> RateLimited:
    message = f"Key {key.name!r} may send {MOST_BODIES} large requests at a time. Wait until one of them is complete."
    return _rate_limited(message, 1.0)


def _rate_limited(message: str, retry_after: float) -> RateLimited:
    return RateLimited(message, type="requests", code="rate_limit_exceeded", retry_after=retry_after)
