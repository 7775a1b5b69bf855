"""Reports over both databases: pages, exports, usage, and the indexes that they use."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.ledger.book.reports import Reports
from app.ledger.book.rollups import Rollups
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database
from app.ledger.database.sqlite_money import UNFINISHED
from app.ledger.database.upkeep import read_due
from app.ledger.values.drawings import Beginning, Joined, Outcome
from app.ledger.values.records import DrawingFilter, EventFilter, UnknownRow, UsageQuery
from app.microseconds import DAY, HOUR
from tests.ledger.samples import (
    ME,
    NOW,
    REPLICA,
    a_project,
    a_settlement,
    an_admission,
    an_attempt,
    registry_of,
)

pytestmark = pytest.mark.anyio
START = NOW - NOW % DAY - 3 * DAY


@pytest.fixture
async def database(url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(url, tmp_path, has_own_clock=False)
    yield opened
    await opened.aclose()


async def draw(database: Database, at: int, cost: int = 10, **fields: Any) -> str:
    """Draw and settle, as the money path does it."""
    settled = {name: fields.pop(name) for name in ("in_doubt", "provider", "width", "height") if name in fields}
    admission = an_admission(**fields)
    await database.admit(admission, (), REPLICA, at)
    await database.sent(an_attempt(admission.id))
    await database.settle(a_settlement(admission.id, cost, at=at + 1_000_000, **settled))
    return admission.id


async def join(database: Database, at: int) -> None:
    """Answer from an existing run, which saves 7."""
    id = an_admission().id
    joined = Joined(id, at, "req_j", "req_0", "key00001", "proj_1", "generations", "schnell", "flux/schnell", 2, 2, 7)
    await database.join(joined, REPLICA)


class Watched:
    """A database that remembers what it was asked."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.asked: list[tuple[str, Sequence[Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        self.asked.append((sql, parameters))
        return await self.database.query(sql, parameters)

    async def plan(self) -> str:
        """How the database runs the last statement that it was asked."""
        sql, parameters = self.asked[-1]
        word = "explain query plan" if self.database.dialect == "sqlite" else "explain"
        return "\n".join(str(row[-1]) for row in await self.database.query(f"{word} {sql}", parameters))


async def test_pages_are_the_newest_first_and_go_on_after_the_last_row(database: Database) -> None:
    ids = [await draw(database, NOW + second // 2) for second in range(7)]  # pairs of the same moment
    reports = Reports(database)
    first = await reports.drawings(DrawingFilter(), limit=3)
    second = await reports.drawings(DrawingFilter(), first.items[-1].id, limit=3)
    third = await reports.drawings(DrawingFilter(), second.items[-1].id, limit=3)
    assert [row.id for page in (first, second, third) for row in page.items] == ids[::-1]
    assert (first.has_more, second.has_more, third.has_more) == (True, True, False)


async def test_pages_neither_skip_nor_repeat_while_rows_arrive(database: Database) -> None:
    ids = [await draw(database, NOW + second) for second in range(6)]
    reports, found, after = Reports(database), list[str](), None
    while True:
        page = await reports.drawings(DrawingFilter(), after, limit=2)
        found += [row.id for row in page.items]
        if not page.has_more:
            break
        after = page.items[-1].id
        await draw(database, NOW + 100)
    assert found == ids[::-1]


async def test_a_page_after_a_drawing_that_is_not_there_is_refused(database: Database) -> None:
    with pytest.raises(UnknownRow):
        await Reports(database).drawings(DrawingFilter(), "0" * 32)


@pytest.mark.parametrize(
    ("which", "found"),
    [
        ({"project_id": "p2"}, "project"),
        ({"key_id": "k2"}, "key"),
        ({"model": "other"}, "model"),
        ({"provider": "netmind"}, "provider"),
        ({"operation": "edits"}, "operation"),
        ({"state": "in_doubt"}, "doubt"),
        ({"outcome": "perhaps_paid"}, "doubt"),
        ({"until": NOW}, "old"),
        ({"since": NOW + 50}, "new"),
        ({"model": "other", "state": "in_doubt"}, None),
    ],
)
async def test_a_filter_leaves_what_has_all_of_it(database: Database, which: dict[str, Any], found: str | None) -> None:
    ids = {
        "project": await draw(database, NOW, project_id="p2"),
        "key": await draw(database, NOW, key_id="k2"),
        "model": await draw(database, NOW, model="other"),
        "provider": await draw(database, NOW, provider="netmind"),
        "operation": await draw(database, NOW, operation="edits"),
        "doubt": await draw(database, NOW, 0, in_doubt=50),
        "old": await draw(database, NOW - 1),
        "new": await draw(database, NOW + 50),
    }
    page = await Reports(database).drawings(DrawingFilter(**which))
    assert [row.id for row in page.items] == ([ids[found]] if found else [])


async def test_a_drawing_has_its_attempts_and_entries(database: Database) -> None:
    id = await draw(database, NOW, 10, provider="nebula")
    detail = await Reports(database).drawing(id)
    assert (detail.drawing.state, detail.drawing.cost_nano, detail.drawing.provider) == ("settled", 10, "nebula")
    assert [(attempt.seq, attempt.result, attempt.provider_request_id) for attempt in detail.attempts] == [
        (1, "ok", "up-1")
    ]
    assert [(entry.kind, entry.held_nano, entry.spent_nano) for entry in detail.entries] == [
        ("reserve", 100, 0),
        ("settle", -100, 10),
    ]


@pytest.mark.parametrize("is_together", [False, True], ids=["one by one", "in a group"])
async def test_a_drawing_keeps_what_was_asked_dropped_and_mapped(database: Database, is_together: bool) -> None:
    admission = an_admission(asked='{"size": "512x512"}')
    attempt = an_attempt(admission.id, dropped="style,quality", mapped="size=512x512")
    end = a_settlement(admission.id, 10)
    if is_together:
        await database.record([Beginning(admission, NOW, attempt)], [end], REPLICA)
    else:
        await database.admit(admission, (), REPLICA, NOW)
        await database.sent(attempt)
        await database.settle(end)
    detail = await Reports(database).drawing(admission.id)
    assert detail.drawing.asked == '{"size": "512x512"}'
    assert [(each.dropped, each.mapped) for each in detail.attempts] == [("style,quality", "size=512x512")]


async def test_an_export_has_every_row_in_bounded_chunks(database: Database) -> None:
    await fill(database, 2500)
    chunks = [chunk async for chunk in Reports(database).export(DrawingFilter())]
    assert [len(chunk) for chunk in chunks] == [500] * 5
    ids = [row.id for chunk in chunks for row in chunk]
    assert len(set(ids)) == 2500


async def test_usage_is_the_same_before_and_after_it_was_rolled_up(database: Database) -> None:
    for hour in range(0, 60, 7):
        await draw(database, START + hour * HOUR, 10 + hour, model=f"m{hour % 2}", width=100, height=50)
    await draw(database, START + 5, 0, in_doubt=50)
    await join(database, START + 9)
    for ragged in (HOUR // 4, 30 * HOUR + HOUR // 2):
        await draw(database, START + ragged, 0)
    reports = Reports(database)
    queries = [
        UsageQuery(START, NOW, "day"),
        UsageQuery(START, NOW, "hour", ("model", "size")),
        UsageQuery(START, NOW, "day", ("outcome", "provider")),
        UsageQuery(START + DAY, START + 2 * DAY, "hour", ("project_id",), {"model": ("m1",)}),
        UsageQuery(START + HOUR // 2, START + 30 * HOUR + 7, "day", ("model",)),
        UsageQuery(START + HOUR // 2, START + 30 * HOUR + HOUR // 2 + 1, "hour"),
        UsageQuery(START + HOUR // 8, START + HOUR // 2, "day"),
        UsageQuery(START + DAY - 1, START + 2 * DAY + 1, "day"),
    ]
    before = [await reports.usage(query) for query in queries]
    assert await Rollups(database, lambda: START + 40 * HOUR + 5).refresh() == 40
    assert [await reports.usage(query) for query in queries] == before
    assert await Rollups(database, lambda: NOW).refresh() > 0
    assert [await reports.usage(query) for query in queries] == before
    assert sum(line.cost for line in before[0]) == sum(10 + hour for hour in range(0, 60, 7))
    assert sum(line.pixels for line in before[1]) == 9 * 5000


@pytest.mark.parametrize("is_rolled_up", [False, True])
async def test_answers_of_existing_runs_count_as_joined_and_saved_alone(database: Database, is_rolled_up: bool) -> None:
    await draw(database, START, 10, width=100, height=50)
    for second in range(2):
        await join(database, START + second)
    if is_rolled_up:
        await Rollups(database, lambda: NOW).refresh()
    [line] = await Reports(database).usage(UsageQuery(START, NOW, "day"))
    assert (line.requests, line.joined, line.images, line.pixels, line.cost, line.saved) == (1, 2, 1, 5000, 10, 14)
    by_outcome = await Reports(database).usage(UsageQuery(START, NOW, "day", ("outcome",)))
    assert [(each.values["outcome"], each.requests, each.joined, each.saved) for each in by_outcome] == [
        ("delivered", 1, 0, 0),
        ("joined", 0, 2, 14),
    ]


async def test_a_rollup_is_recomputed_when_a_drawing_of_its_hour_changes(database: Database) -> None:
    id = await draw(database, START, 0, in_doubt=50)
    now = START + 2 * DAY
    rollups, query = Rollups(database, lambda: now), UsageQuery(START, NOW, "day")
    await rollups.refresh()
    await rollups.refresh()
    await database.resolve(id, now, "me", "", paid=True)
    assert [(line.cost, line.in_doubt) for line in await Reports(database).usage(query)] == [(0, 50)]
    await rollups.refresh()
    assert [(line.cost, line.in_doubt) for line in await Reports(database).usage(query)] == [(50, 0)]


async def test_a_rollup_is_recomputed_when_a_drawing_without_a_price_ends_hours_later(database: Database) -> None:
    admission = an_admission(most=None)
    await database.admit(admission, (), REPLICA, START)
    await database.sent(an_attempt(admission.id, most=0))
    query, later = UsageQuery(START, NOW, "day", ("outcome",)), START + 5 * HOUR
    await Rollups(database, lambda: START + 2 * HOUR).refresh()
    await Rollups(database, lambda: START + 4 * HOUR).refresh()
    await database.settle(a_settlement(admission.id, images=1, at=later, outcome=Outcome.DELIVERED))
    for _ in range(2):
        await Rollups(database, lambda: later).refresh()
        found = await Reports(database).usage(query)
        assert [(line.values["outcome"], line.requests, line.images) for line in found] == [("delivered", 1, 1)]


async def test_two_processes_may_roll_up_at_once(database: Database) -> None:
    for hour in range(30):
        await draw(database, START + hour * HOUR)
    await asyncio.gather(*(Rollups(database, lambda: START + 2 * DAY).refresh() for _ in range(3)))
    [first, second] = await Reports(database).usage(UsageQuery(START, START + 2 * DAY, "day"))
    assert (first.requests, second.requests) == (24, 6)


async def test_usage_by_minute_comes_from_the_drawings(database: Database) -> None:
    await draw(database, START + 61_000_000)
    [line] = await Reports(database).usage(UsageQuery(START, NOW, "minute", ("operation",)))
    assert (line.starts_at, line.values, line.requests) == (START + 60_000_000, {"operation": "generations"}, 1)


async def test_the_audit_log_is_read_from_its_end_and_filtered(database: Database) -> None:
    registry, reports = registry_of(database), Reports(database)
    for number in range(5):
        await registry.add_project(a_project(id=f"p{number}", name=f"n{number}"), ME)
    await registry.archive_project("p0", ME)
    page = await reports.events(EventFilter(), limit=4)
    assert [(line.action, line.object_id) for line in page.items] == [
        ("archive", "p0"), ("create", "p4"), ("create", "p3"), ("create", "p2"),
    ]  # fmt: skip
    rest = await reports.events(EventFilter(), after=page.items[-1].id, limit=4)
    assert [line.object_id for line in rest.items] == ["p1", "p0"]
    back = await reports.events(EventFilter(), before=rest.items[0].id, limit=2)
    assert [line.object_id for line in back.items] == ["p3", "p2"]
    found = await reports.events(EventFilter(actions=(("project", "archive"),), object_ids=("p0",)))
    assert len(found.items) == 1


async def fill(database: Database, count: int, days: int = 3, request: str = "'r'", *, analyzed: bool = True) -> None:
    """Many settled drawings, all at once."""
    rows = (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {0}) select"
        if (database.dialect == "sqlite")
        else "select"
    )
    source = "n" if database.dialect == "sqlite" else "generate_series(1, {0}) as n(i)"
    number = "printf('%032d', i)" if database.dialect == "sqlite" else "lpad(i::text, 32, '0')"
    columns = "id, request_id, run_id, at, ended_at, replica, key_id, project_id, operation, asked_model, model, "
    columns += "provider, state, outcome, n, images, cost_nano"
    values = f"{number}, {request}, 'r', {START} + i * ({days * DAY} / {{0}}), {START}, 'g', 'k' || (i % 50), "
    values += "'p' || (i % 20), 'generations', 'm', 'm' || (i % 30), 'v' || (i % 10), "
    values += "case when i % 500 = 0 then 'in_doubt' else 'settled' end, 'delivered', 1, 1, 10"
    await database.execute([(f"insert into drawing ({columns}) {rows} {values} from {source}".format(count), ())])
    if analyzed:
        await database.execute([("analyze", ())])


@pytest.mark.parametrize(
    ("which", "index"),
    [
        ({}, "drawing_by_time"),
        ({"until": START + DAY}, "drawing_by_time"),
        ({"key_id": "k1"}, "drawing_by_key"),
        ({"project_id": "p1"}, "drawing_by_project"),
        ({"model": "m1"}, "drawing_by_model"),
        ({"provider": "v1"}, "drawing_by_provider"),
        ({"state": "in_doubt"}, "drawing_open"),
        ({"state": "settled"}, "drawing_by_time"),
    ],
)
async def test_a_page_of_drawings_uses_an_index(database: Database, which: dict[str, Any], index: str) -> None:
    await fill(database, 20_000)
    watched: Any = Watched(database)
    first = await Reports(watched).drawings(DrawingFilter(**which), limit=20)
    assert index in await watched.plan()
    await Reports(watched).drawings(DrawingFilter(**which), first.items[-1].id, limit=20)
    plan = await watched.plan()
    assert index in plan
    assert not re.search("SCAN drawing$|Seq Scan", plan, re.MULTILINE)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_what_is_asked_again_and_again_does_not_look_through_the_table(
    database: Database, analyzed: bool
) -> None:
    await fill(database, 20_000, request="'req_' || i", analyzed=analyzed)
    watched: Any = Watched(database)
    await Reports(watched).drawings(DrawingFilter(request_id="req_1", key_id="k1"), limit=1)  # the status of a run
    assert "drawing_by_request" in await watched.plan()
    await read_due(watched, START + DAY)
    assert "drawing_open" in await watched.plan()
    if database.dialect == "sqlite":
        await watched.query(UNFINISHED, (REPLICA,))
        assert "drawing_open" in await watched.plan()


async def test_usage_of_closed_hours_uses_the_rollups(database: Database) -> None:
    await fill(database, 20_000)
    await Rollups(database, lambda: NOW).refresh()
    await database.execute([("analyze", ())])
    watched: Any = Watched(database)
    await Reports(watched).usage(UsageQuery(START, NOW - NOW % HOUR, "day", ("project_id",)))
    plan = await watched.plan()
    assert "usage_day" in plan
    assert not re.search("(SCAN|on) drawing", plan)
    await Reports(watched).usage(UsageQuery(START, NOW, "day", ("project_id",)))
    assert "drawing_by_time" in await watched.plan()
