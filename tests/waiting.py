"""Waiting for what a test expects, however slow the machine is."""

import asyncio
from collections.abc import Callable

PATIENCE = 120  # seconds: only a test that fails waits so long


async def until(happened: Callable[[], object], report: Callable[[], object] = lambda: "") -> None:
    """Wait for a condition. Raises AssertionError, with a report, when it does not come true."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not happened():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it did not come to that: {report()}") from None
