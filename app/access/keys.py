"""Virtual keys: who calls, what a key may use, and how much of it at a time. Knows no HTTP but the header's text."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from app.errors import RateLimited, Unauthenticated


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key. Without `models` it may use every model; without limits as often as it likes."""

    name: str
    sha256: bytes
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    max_concurrency: int | None = None
    default_response_format: Literal["b64_json", "url"] | None = None

    def may_use(self, *names: str) -> bool:
        """Whether one of a model's names is on the key's list."""
        return self.models in ((), ("*",)) or any(fnmatchcase(name, glob) for glob in self.models for name in names)


ANYBODY = Key("anonymous", b"")


class Limit:
    """GCRA: so many a minute, with a burst of the same number. The clock (seconds) is passed in."""

    __slots__ = ("_burst", "_full_at", "_interval")

    def __init__(self, per_minute: int) -> None:
        self._interval = 60.0 / per_minute
        self._burst = 60.0 - self._interval  # how far ahead of its time a request may come
        self._full_at = 0.0

    def take_over(self, other: Limit) -> None:
        """Goes on from what was used up under another limit."""
        self._full_at = other._full_at

    def take(self, now: float) -> float:
        """Seconds until the request would be within the limit; 0 means that it is, and that it was counted."""
        due = max(self._full_at, now)
        wait = due - now - self._burst
        if wait > 1e-9:
            return wait
        self._full_at = due + self._interval
        return 0.0


class Keys:
    """Looks keys up and holds each to its limits. Without any key everybody is let in. What keys have used up goes on
    counting from `before`."""

    def __init__(self, keys: Iterable[Key], clock: Callable[[], float], before: Keys | None = None) -> None:
        self._keys = tuple(keys)
        self._clock = clock
        self._limits = {key.name: Limit(key.requests_per_minute) for key in self._keys if key.requests_per_minute}
        self._running: dict[str, int] = before._running if before else {}
        self._coming_back: dict[str, int] = before._coming_back if before else {}
        for name, limit in (before._limits if before else {}).items():
            if name in self._limits:
                self._limits[name].take_over(limit)

    def authenticate(self, authorization: str | None) -> Key:
        """The key of an `Authorization` header. Raises Unauthenticated."""
        if not self._keys:
            return ANYBODY
        scheme, _, said = (authorization or "").partition(" ")
        said = said.strip()
        if scheme.lower() != "bearer" or not said:
            raise Unauthenticated(
                "You didn't provide an API key. Send the key that the gateway's operator gave you in the "
                "Authorization header: 'Authorization: Bearer YOUR_KEY'."
            )
        digest = hashlib.sha256(said.encode()).digest()
        found = None
        for key in self._keys:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            raise Unauthenticated(
                f"Incorrect API key provided: {_hint(said)}. Ask the gateway's operator for a key.",
                code="invalid_api_key",
            )
        return found

    def spend(self, key: Key) -> None:
        """Counts a request against the key's rate. Raises RateLimited."""
        limit = self._limits.get(key.name)
        wait = limit.take(self._clock()) if limit else 0.0
        if wait:
            raise RateLimited(
                f"Key {key.name!r} may make {key.requests_per_minute} requests a minute. Try again in {wait:.1f} s.",
                type="requests",
                code="rate_limit_exceeded",
                retry_after=wait,
            )

    @contextmanager
    def hold(self, key: Key) -> Iterator[None]:
        """One of the key's places, while its request runs. Raises RateLimited when all are taken."""
        with _place(key, self._running):
            yield

    @contextmanager
    def reading(self, key: Key) -> Iterator[None]:
        """Holds a place while a request is read that may join one that runs already: as many may be read as may run. A
        request that fails in here counts against the key's rate, for it joins nothing. Raises RateLimited."""
        with _place(key, self._coming_back):
            try:
                yield
            except Exception:
                self.spend(key)
                raise


@contextmanager
def _place(key: Key, taken: dict[str, int]) -> Iterator[None]:
    if key.max_concurrency is not None and taken.get(key.name, 0) >= key.max_concurrency:
        raise RateLimited(
            f"Key {key.name!r} may have {key.max_concurrency} requests running at a time. Wait for one to finish.",
            type="requests",
            code="rate_limit_exceeded",
            retry_after=1.0,
        )
    taken[key.name] = taken.get(key.name, 0) + 1
    try:
        yield
    finally:
        taken[key.name] -= 1


def _hint(said: str) -> str:
    """Enough of a wrong key to recognise it, not enough to use it."""
    return f"{said[:3]}…{said[-4:]}" if len(said) >= 12 else "…"
