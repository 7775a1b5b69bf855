"""How long a sender is waited for: in all, and for the next of its bytes. Knows neither what is sent nor how."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

GRACE_SECONDS = 30.0  # over which a rate is measured: a shorter stall is forgiven

T = TypeVar("T")


class Patience:
    """Seconds that may yet be spent waiting. The time in which the receiver does something else is not counted."""

    def __init__(self, seconds: float, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate`: bytes a second that have to come, over each `GRACE_SECONDS`; at 0, a byte. None: no matter."""
        self.left = seconds
        self._rate = rate
        self._clock = clock
        self._lap = math.inf  # seconds that are left for the bytes up to `_due`
        self._due = 0.0

    async def wait(self, work: Awaitable[T], count: int | None = None) -> T:
        """Raises TimeoutError when the seconds are used up, or the bytes come too slowly. `count`: bytes that have come
        before; None: `work` brings none."""
        began = self._clock()
        try:
            async with asyncio.timeout(max(0.0, self._most(count))):
                return await work
        finally:
            took = self._clock() - began
            self.left -= took
            self._lap -= took

    def _most(self, count: int | None) -> float:
        if count is None or self._rate is None:
            return self.left
        if count >= self._due:
            self._lap, self._due = GRACE_SECONDS, count + max(1.0, self._rate * GRACE_SECONDS)
        return min(self.left, self._lap)
