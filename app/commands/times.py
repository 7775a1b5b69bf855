"""Times and spans of time as people write and read them on the command line. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from app.microseconds import SECOND, to_microseconds

_SPAN = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_span(text: str) -> timedelta:
    """Read `90d`, `24h`, `30m`, `45s` or `2w`. Raises ValueError."""
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no span of time: write a number and s, m, h, d or w, like 90d or 24h")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_since(text: str, now: int) -> int:
    """Read a span before `now`, or a day like `2026-11-01` (UTC). Returns microseconds. Raises ValueError."""
    try:
        day = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return now - to_microseconds(parse_span(text).total_seconds())
        except ValueError:
            raise ValueError(f"{text!r} is no time: write a span like 30d, or a day like 2026-11-01") from None
    return int((day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp()) * SECOND


def write_time(micros: int | None, none: str = "-") -> str:
    """Write a time in UTC, to the minute."""
    return none if micros is None else _utc(micros).strftime("%Y-%m-%d %H:%M")


def write_iso(micros: int | None) -> str | None:
    return None if micros is None else _utc(micros).isoformat(timespec="seconds").replace("+00:00", "Z")


def _utc(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / SECOND, UTC)
