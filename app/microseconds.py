"""The ledger's unit of time: whole microseconds, as dates since the epoch (UTC)."""

from __future__ import annotations

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def to_microseconds(seconds: float) -> int:
    return int(seconds * SECOND)
