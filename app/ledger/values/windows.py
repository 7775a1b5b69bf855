"""The windows of budgets, computed from the clock: no job resets a budget. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from app.microseconds import SECOND

Window = Literal["day", "week", "month", "total"]


@dataclass(frozen=True, slots=True)
class Period:
    """A window at one time, in microseconds since the epoch. `ends_at` belongs to the next period; None: it does not
    end."""

    starts_at: int
    ends_at: int | None


def period_at(window: Window, timezone: str, now: int, since: int = 0) -> Period:
    """Return the period of `window` that holds `now`. Days begin at midnight of the time zone, weeks on Monday; `total`
    begins at `since`. Raises ZoneInfoNotFoundError."""
    if window == "total":
        return Period(since, None)
    zone = ZoneInfo(timezone)
    today = datetime.fromtimestamp(now / SECOND, zone).date()
    first = _first_day(window, today)
    return Period(_midnight(first, zone), _midnight(_next_first_day(window, first), zone))


def _first_day(window: Window, day: date) -> date:
    if window == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if window == "month" else day


def _next_first_day(window: Window, first: date) -> date:
    if window == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if window == "week" else 1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Return the beginning of a day. If the clock skips midnight, it is the moment of the skip."""
    midnight = datetime.combine(day, time(), zone)
    return int(midnight.astimezone(UTC).timestamp()) * SECOND
