from __future__ import annotations

from datetime import timedelta

import pytest

from app.commands.times import parse_since, parse_span, write_iso, write_time

NOW = 1_790_000_000_000_000  # 2026-09-21, 13:33:20 UTC


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90d", timedelta(days=90)),
        ("24h", timedelta(hours=24)),
        (" 2W ", timedelta(weeks=2)),
        ("30m", timedelta(minutes=30)),
        ("0s", timedelta()),
    ],
)
def test_a_span_is_a_number_and_a_unit(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "d", "90", "-1d", "1.5h", "1y", "9999999d"])
def test_what_is_no_span_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="like 90d or 24h"):
        parse_span(text)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("1d", NOW - 86_400_000_000),
        ("2026-09-21", 1_789_948_800_000_000),
        ("2026-09-21T02:00:00+02:00", 1_789_948_800_000_000),
    ],
)
def test_since_is_a_span_or_a_day(text: str, since: int) -> None:
    assert parse_since(text, NOW) == since


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a day like 2026-11-01"):
        parse_since("2026-13-01", NOW)


def test_times_are_written_in_utc() -> None:
    assert write_time(NOW) == "2026-09-21 14:13"
    assert write_iso(NOW) == "2026-09-21T14:13:20Z"
    assert (write_time(None), write_time(None, "never"), write_iso(None)) == ("-", "never", None)
