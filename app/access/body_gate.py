"""The gate for bodies: it bounds how many are read at a time for each API key, by the key's id. All other limits are
the ledger's. Lives as long as the process and knows no configuration: each call brings the key, and the key its limits,
so a reload has nothing to carry over."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from app.access.keyring import ANONYMOUS, Key
from app.errors import RateLimited

MOST_BODIES = 16  # read at a time for a key without `max_concurrency`; others wait
PATIENCE = 60.0  # seconds that a body waits for its turn
SMALL_BODY = 65_536  # bytes: a connection holds as many anyway, so the gate would save nothing
_OPEN = nullcontext()  # the gate for a body that is not counted


@dataclass(slots=True)
class _Used:
    reading: int = 0
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_BODIES))  # of large bodies


class BodyGate:
    """The bodies of all keys. Belongs to one thread."""

    def __init__(self) -> None:
        self._used: defaultdict[str, _Used] = defaultdict(_Used)

    def enter(self, key: Key, announced: int | None = None) -> AbstractAsyncContextManager[None]:
        """Return the gate for a body of `announced` bytes. For a key with `max_concurrency`, that many bodies are read
        at a time, and more are refused, since they would find no place to draw. For other keys `MOST_BODIES` are read
        at a time, and more wait; small bodies need no turn. Callers without a key are not counted. Raises
        RateLimited."""
        places, is_small = key.limits.max_concurrency, announced is not None and announced <= SMALL_BODY
        if places is None and (is_small or key is ANONYMOUS):
            return _OPEN
        return self._pass(key, places)

    @asynccontextmanager
    async def _pass(self, key: Key, places: int | None) -> AsyncIterator[None]:
        used = self._used[key.id]
        if places is None:
            await _take_turn(used.turns, key)
        elif used.reading >= places:
            raise _no_place(key, places)
        used.reading += 1
        try:
            yield
        finally:
            used.reading -= 1
            if places is None:
                used.turns.release()

    def reading(self, key_id: str) -> int:
        """Return how many bodies of a key are being read."""
        return self._used[key_id].reading if key_id in self._used else 0


def _no_place(key: Key, places: int) -> RateLimited:
    message = f"Key {key.name!r} may have {places} requests running at a time. Wait for one to finish."
    return _rate_limited(message, 1.0)


async def _take_turn(turns: asyncio.Semaphore, key: Key) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await turns.acquire()
    except TimeoutError:
        message = (
            f"Key {key.name!r} sends more large requests than can be read: {MOST_BODIES} are read at a time, and the "
            f"turn of this one did not come within {PATIENCE:g} s. Send fewer at a time."
        )
        raise _rate_limited(message, 1.0) from None


def _rate_limited(message: str, retry_after: float) -> RateLimited:
    return RateLimited(message, type="requests", code="rate_limit_exceeded", retry_after=retry_after)
