"""Bound the time of waiting for a sender: in all, and for its next bytes. Knows nothing of what it sends."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

GRACE_SECONDS = 30.0  # over which a rate is measured: a shorter stall is forgiven

T = TypeVar("T")


class Patience:
    """The seconds that are left for waiting. The receiver's own time does not count."""

    def __init__(self, seconds: float, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate`: the bytes a second that have to come, over each `GRACE_SECONDS`; at 0, one byte. None: any."""
        self.left = seconds
        self._rate = rate
        self._clock = clock
        self.lap = math.inf  # seconds that are left for the bytes up to `_due`
        self._due = 0.0

    async def wait(self, work: Awaitable[T], count: int | None = None) -> T:
        """Await `work`. Raises TimeoutError when the seconds are used up, or the bytes come too slowly. `count`: the
        bytes that came before; None: `work` brings none."""
        began = self._clock()
        try:
            async with asyncio.timeout(max(0.0, self._most(count))):
                return await work
        finally:
            took = self._clock() - began
            self.left -= took
            self.lap -= took

    def _most(self, count: int | None) -> float:
        if count is None or self._rate is None:
            return self.left
        if count >= self._due:
            self.lap, self._due = GRACE_SECONDS, count + max(1.0, self._rate * GRACE_SECONDS)
        return min(self.left, self.lap)
