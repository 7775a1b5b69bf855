"""The limits of keys and projects, and the arithmetic of rates (GCRA). Pure; the databases hold the use.

A rate is one number: the time at which its whole burst is there again. That is its use; the use of the others is the
number of places that are taken. Times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from app.microseconds import MINUTE, SECOND

MEGAPIXEL = 1_000_000  # pixels
PLACE_SECONDS = 1.0  # until another try for a place: one may come free at any moment


class Measure(StrEnum):
    REQUESTS = "requests"
    IMAGES = "images"
    MEGAPIXELS = "megapixels"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class Owner:
    """The key or project that has a limit."""

    kind: Literal["key", "project"]
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a key or a project. One that is None does not exist."""

    requests_per_minute: int | None = None
    images_per_minute: int | None = None
    megapixels_per_minute: int | None = None
    max_concurrency: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of one owner: so many a minute, or so many at a time."""

    owner: Owner
    measure: Measure
    amount: int

    @property
    def scope(self) -> str:
        """The name under which a database counts its use."""
        return f"{self.owner.kind}:{self.owner.id}:{self.measure}"

    @property
    def is_rate(self) -> bool:
        return self.measure is not Measure.CONCURRENCY

    def needed(self, n: int, pixels: int) -> int:
        """Return how much a request for `n` images of `pixels` uses: megapixels are counted in pixels."""
        match self.measure:
            case Measure.IMAGES:
                return n
            case Measure.MEGAPIXELS:
                return n * pixels
        return 1

    def step(self, needed: int) -> int:
        """Return the microseconds in which so much becomes free again."""
        return needed * MINUTE // (self.amount * (MEGAPIXEL if self.measure is Measure.MEGAPIXELS else 1))


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit and what is left of it. `reset`: seconds until all of it is there again."""

    limit: Limit
    remaining: int
    reset: float


def limits_of(owner: Owner, limits: Limits) -> tuple[Limit, ...]:
    """Return the limits that exist."""
    return tuple(Limit(owner, measure, amount) for measure, amount in _amounts(limits) if amount is not None)


def states_of(limits: Sequence[Limit], uses: Sequence[int], now: int) -> tuple[LimitState, ...]:
    """Return what is left of each limit."""
    return tuple(state_of(limit, use, now) for limit, use in zip(limits, uses, strict=True))


def state_of(limit: Limit, use: int, now: int) -> LimitState:
    """Return what is left of a limit."""
    return rate_state(limit, use, now) if limit.is_rate else LimitState(limit, max(limit.amount - use, 0), 0.0)


def retry_after(limit: Limit, needed: int, use: int, now: int) -> float | None:
    """Return the seconds until so much is within the limit: 0.0 if it is now, None if it is never."""
    if not limit.is_rate:
        return 0.0 if use < limit.amount else PLACE_SECONDS
    wait = wait_for(limit.step(needed), use, now)
    return None if wait is None else wait / SECOND


def credible(full_at: int, now: int) -> int:
    """Return the time at which a burst is there again; 0 for one that lies further ahead than a burst takes. The clock
    was set back since, and callers would wait until it gets there again. A minute more is allowed, so that a clock that
    is put right by little opens no second burst."""
    return full_at if full_at <= now + 2 * MINUTE else 0


def wait_for(step: int, full_at: int, now: int) -> int | None:
    """Return the microseconds until a request of `step` is within its rate: 0 if it is now, None if it is never."""
    if step > MINUTE:
        return None
    return max(max(full_at, now) + step - now - MINUTE, 0)


def rate_state(limit: Limit, full_at: int, now: int) -> LimitState:
    """Return what is left of a rate."""
    behind = max(full_at - now, 0)
    return LimitState(limit, max(MINUTE - behind, 0) * limit.amount // MINUTE, behind / SECOND)


def _amounts(limits: Limits) -> Iterator[tuple[Measure, int | None]]:
    yield Measure.REQUESTS, limits.requests_per_minute
    yield Measure.IMAGES, limits.images_per_minute
    yield Measure.MEGAPIXELS, limits.megapixels_per_minute
    yield Measure.CONCURRENCY, limits.max_concurrency
