"""Retention, over both databases: the rows go, and the book still adds up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.ledger.book.cleaning import DRAWINGS_AT_ONCE, Cleaning
from app.ledger.book.reports import Reports
from app.ledger.book.rollups import Rollups
from app.ledger.book.usage import Dimension, read_usage
from app.ledger.book.verification import verify
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database
from app.ledger.values.records import UsageQuery
from app.microseconds import DAY
from tests.ledger.samples import (
    ME,
    NOW,
    REPLICA,
    a_budget,
    a_settlement,
    an_admission,
    an_attempt,
    claims_of,
    count_of,
    periods,
    registry_of,
)

pytestmark = pytest.mark.anyio
LATER = NOW + 10 * DAY
DIMENSIONS: tuple[Dimension, ...] = ("project", "key", "model", "provider", "day")


@pytest.fixture
async def database(url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(url, tmp_path, has_own_clock=False)
    yield opened
    await opened.aclose()


async def no_pause(seconds: float) -> None:
    assert seconds > 0


def cleaning(database: Database) -> Cleaning:
    return Cleaning(database, lambda: LATER, no_pause)


async def draw(database: Database, at: int, cost: int = 10, in_doubt: int = 0) -> str:
    budget = a_budget(amount=1_000_000)
    admission = an_admission()
    await database.admit(admission, claims_of(budget, now=at), REPLICA, at)
    await database.sent(an_attempt(admission.id))
    await database.settle(a_settlement(admission.id, cost, in_doubt, at=at + 1))
    return admission.id


async def test_the_book_adds_up_after_rows_are_cleaned_away(database: Database) -> None:
    await registry_of(database).add_budget(a_budget(amount=1_000_000), ME)
    for number in range(DRAWINGS_AT_ONCE + 5):
        await draw(database, NOW + number)
    await draw(database, LATER - 1)
    before, query = await periods(database), UsageQuery(NOW - DAY, LATER, "day", ("model",))
    used = await Reports(database).usage(query)
    assert await cleaning(database).clean(5) == DRAWINGS_AT_ONCE + 5
    assert await count_of(database, "drawing") == await count_of(database, "charge") == 1
    assert await count_of(database, "attempt") == 1
    assert await periods(database) == before
    assert await verify(database) == []
    await Rollups(database, lambda: LATER).refresh()
    assert await Reports(database).usage(query) == used


async def test_one_closing_entry_stands_for_all_of_a_period(database: Database) -> None:
    await registry_of(database).add_budget(a_budget(amount=1_000_000), ME)
    for day in range(3):
        for number in range(DRAWINGS_AT_ONCE + 1):
            await draw(database, NOW + day * DAY + number)
        await Cleaning(database, lambda now=NOW + (day + 6) * DAY: now, no_pause).clean(5)  # type: ignore[misc]
    rows = await database.query("select spent_nano from entry where drawing_id is null")
    assert [int(row[0]) for row in rows] == [3 * (DRAWINGS_AT_ONCE + 1) * 10]
    assert await verify(database) == []


async def test_two_processes_that_clean_at_the_same_moment_count_nothing_twice(database: Database) -> None:
    await registry_of(database).add_budget(a_budget(amount=1_000_000), ME)
    for number in range(DRAWINGS_AT_ONCE + 5):
        await draw(database, NOW + number)
    before = await periods(database)
    await asyncio.gather(*(cleaning(database).clean(5) for _ in range(4)))
    assert await count_of(database, "drawing") == 0
    assert await periods(database) == before
    assert await verify(database) == []


async def test_messages_that_were_done_long_ago_go_and_open_ones_stay(database: Database) -> None:
    insert = "insert into outbox (kind, body, next_at, done_at) values ('test', '{}', 0, {})"
    messages = {"old": LATER - 5 * DAY - 1, "young": LATER - 5 * DAY, "open": "null"}
    await database.execute([(insert.format(body, done_at), ()) for body, done_at in messages.items()])
    await cleaning(database).clean(5)
    assert [row[0] for row in await database.query("select body from outbox order by id")] == ["young", "open"]


async def test_a_drawing_in_doubt_stays_and_so_does_all_that_is_newer(database: Database) -> None:
    await draw(database, NOW)
    doubtful = await draw(database, NOW + 2 * DAY, 0, 50)
    await draw(database, NOW + 3 * DAY)
    assert await cleaning(database).clean(1) == 1
    assert await count_of(database, "drawing") == 2
    await database.resolve(doubtful, LATER, "me", "", paid=True)
    assert await cleaning(database).clean(1) == 2


async def test_frozen_rollups_are_not_recomputed(database: Database) -> None:
    await draw(database, NOW)
    await cleaning(database).clean(5)
    await Rollups(database, lambda: LATER).refresh()
    await Rollups(database, lambda: LATER + DAY).refresh()
    [line] = await Reports(database).usage(UsageQuery(NOW - DAY, LATER, "day"))
    assert (line.requests, line.cost) == (1, 10)


async def test_to_clean_an_empty_book_does_nothing(database: Database) -> None:
    assert await cleaning(database).clean(5) == 0
    assert await count_of(database, "revision") == 1


async def test_usage_of_what_was_cleaned_away_comes_from_the_sums_of_its_hours(database: Database) -> None:
    for at, cost in ((NOW, 10), (NOW + DAY, 20), (NOW + 8 * DAY, 40), (LATER - DAY, 80)):
        await draw(database, at, cost)
    before = {by: await read_usage(database, by, NOW, {}, LATER) for by in DIMENSIONS}
    assert await cleaning(database).clean(5) == 2
    assert await count_of(database, "drawing") == 2
    assert {by: await read_usage(database, by, NOW, {}, LATER) for by in before} == before
    assert [line.cost for line in await read_usage(database, "project", NOW + DAY, {}, LATER)] == [140]
    assert [line.cost for line in await read_usage(database, "project", NOW + 9 * DAY, {}, LATER)] == [80]
    assert await verify(database) == []
