"""The windows of budgets: time zones, summer time, leap days."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.values.windows import Period, Window, period_at

ZONES = [
    "UTC",
    "Europe/Prague",
    "America/New_York",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/Santiago",
    "Africa/Cairo",
]


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("window", "zone", "now", "starts", "ends"),
    [
        ("day", "UTC", "2026-11-29 23:59:59", "2026-11-29", "2026-11-30"),
        ("day", "Europe/Prague", "2026-11-30 00:00", "2026-11-30", "2026-12-01"),
        ("week", "UTC", "2026-11-29 12:00", "2026-11-23", "2026-11-30"),
        ("week", "UTC", "2026-11-30 00:00", "2026-11-30", "2026-12-07"),
        ("month", "UTC", "2028-02-29 10:00", "2028-02-01", "2028-03-01"),
        ("month", "Europe/Prague", "2026-12-31 23:30", "2026-12-01", "2027-01-01"),
        ("month", "Europe/Prague", "2026-03-29 02:30", "2026-03-01", "2026-04-01"),
    ],
)
def test_a_period_begins_and_ends_at_midnight_of_its_zone(
    window: Window, zone: str, now: str, starts: str, ends: str
) -> None:
    assert period_at(window, zone, at(now, zone)) == Period(at(starts, zone), at(ends, zone))


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_has_as_many_hours_as_its_clock_says(day: str, hours: int) -> None:
    period = period_at("day", "Europe/Prague", at(f"{day} 12:00", "Europe/Prague"))
    assert (period.ends_at or 0) - period.starts_at == hours * 3600 * 1_000_000


def test_total_begins_when_the_budget_was_made_and_does_not_end() -> None:
    assert period_at("total", "UTC", at("2026-11-29"), since=5) == Period(5, None)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)),
    st.sampled_from(ZONES),
    st.sampled_from(["day", "week", "month"]),
)
def test_periods_hold_their_moment_and_follow_each_other(moment: datetime, zone: str, window: Window) -> None:
    now = int(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000
    period = period_at(window, zone, now)
    assert period.ends_at is not None
    assert period.starts_at <= now < period.ends_at
    assert period_at(window, zone, period.starts_at) == period
    assert period_at(window, zone, period.ends_at - 1) == period
    assert period_at(window, zone, period.ends_at).starts_at == period.ends_at
