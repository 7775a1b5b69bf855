"""Several processes over one database: who lives, who is dead, and what becomes of a dead one's drawings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.ledger.book.verification import verify
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database, ForeignSecret
from app.ledger.database.replicas import Replica, beat, enter, find_dead, leave
from app.ledger.journal import Journal
from app.ledger.ledger import Ledger, Policy
from app.ledger.values.drawings import Ticket
from tests.ledger.book.test_reports import Watched, fill
from tests.ledger.conftest import Clock
from tests.ledger.gateways import build
from tests.ledger.samples import NOW, a_settlement, an_admission, an_attempt, drawings, key_limits
from tests.waiting import PATIENCE

ONE, TWO = Replica("gw_one", "the same"), Replica("gw_two", "the same")
Test = Callable[[Database], Coroutine[None, None, None]]


@pytest.fixture
def over(url: str | None, tmp_path: Path) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def running() -> None:
            database = await open_database(url, tmp_path, has_own_clock=False)
            try:
                await test(database)
                assert await verify(database) == []
            finally:
                await database.aclose()

        asyncio.run(running())

    return run


async def is_silent(database: Database, name: str) -> None:
    """Let the last beat of a process be 16 seconds ago."""
    [count] = await database.execute([(f"update replica set beat_at = beat_at - 16000000 where name = '{name}'", ())])
    assert count == 1


@asynccontextmanager
async def living(
    database: Database, replica: Replica, folder: Path, resumed: tuple[str, ...] = ()
) -> AsyncIterator[Ledger]:
    """A process. Leaving the block is its crash."""
    (folder / replica.name).mkdir(exist_ok=True)
    journal = Journal(folder / replica.name / "journal", room=65_536)

    async def opening() -> Database:
        return database

    life, ledger = build(opening, journal, replica, Policy(), Clock(NOW / 1_000_000), lambda *_, **__: None)
    before = asyncio.all_tasks()
    await life.start(resumed)
    try:
        yield ledger
    finally:
        since = asyncio.all_tasks() - before  # also parts of the other process's tasks, which have other names
        names = {task: getattr(task.get_coro(), "__qualname__", "") for task in since}
        own = [task for task, name in names.items() if "Ledger." in name or "Life." in name]
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)
        journal.close()


async def admitted(ledger: Ledger, *, is_sent: bool) -> str:
    found = await ledger.admit(an_admission(limits=key_limits(max_concurrency=9)))
    assert isinstance(found, Ticket)
    if is_sent:
        assert await ledger.sent(an_attempt(found.drawing_id)) is None
    return found.drawing_id


def test_a_start_leaves_alone_what_another_living_process_draws(over: Callable[[Test], None], tmp_path: Path) -> None:
    async def test(database: Database) -> None:
        async with living(database, ONE, tmp_path) as one:
            sent, held = await admitted(one, is_sent=True), await admitted(one, is_sent=False)
            async with living(database, TWO, tmp_path):
                assert [row[0] for row in await drawings(database)] == ["sent", "held"]
            assert await one.sent(an_attempt(held)) is None
            for drawing_id in (sent, held):
                await one.settle(a_settlement(drawing_id, cost=10))
        assert [row[0] for row in await drawings(database)] == ["settled", "settled"]

    over(test)


def test_a_process_that_starts_again_ends_its_own_drawings_at_once(
    over: Callable[[Test], None], tmp_path: Path
) -> None:
    async def test(database: Database) -> None:
        async with living(database, ONE, tmp_path) as one:
            await admitted(one, is_sent=True)
            await admitted(one, is_sent=False)
            taken_up = await admitted(one, is_sent=True)
        async with living(database, ONE, tmp_path, (taken_up,)):
            assert [row[0] for row in await drawings(database)] == ["in_doubt", "released", "sent"]

    over(test)


def test_what_a_dead_process_left_is_ended_by_the_others(over: Callable[[Test], None], tmp_path: Path) -> None:
    async def test(database: Database) -> None:
        async with living(database, ONE, tmp_path) as one, living(database, TWO, tmp_path):
            sent, held = await admitted(one, is_sent=True), await admitted(one, is_sent=False)
            await beat(database, TWO)
            assert await find_dead(database, TWO.name) == []
            await is_silent(database, ONE.name)
            assert await find_dead(database, TWO.name) == [ONE.name]
            async with living(database, Replica("gw_three", "the same"), tmp_path):
                assert [row[0] for row in await drawings(database)] == ["in_doubt", "released"]
            assert await database.query("select count(*) from lease") in ([(0,)], [[0]])
            assert await one.sent(an_attempt(held)) is not None, "it was frozen, and must not draw"
            await one.settle(a_settlement(sent, cost=10))
            assert [row[:2] for row in await drawings(database)] == [("settled", 0), ("released", 0)]

    over(test)


def test_a_living_process_ends_what_a_dead_one_left(
    over: Callable[[Test], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.life.BEAT_SECONDS", 0.05)

    async def test(database: Database) -> None:
        async with living(database, TWO, tmp_path):
            async with living(database, ONE, tmp_path) as one:
                await admitted(one, is_sent=True)
            await is_silent(database, ONE.name)
            async with asyncio.timeout(PATIENCE):
                while [row[0] for row in await drawings(database)] != ["in_doubt"]:
                    await asyncio.sleep(0.01)

    over(test)


def test_another_secret_beside_a_living_process_is_refused_in_a_postgres(
    url: str | None, over: Callable[[Test], None]
) -> None:
    async def test(database: Database) -> None:
        await enter(database, ONE)
        await enter(database, TWO)
        stranger = Replica("gw_stranger", "another")
        if url is None:  # the file lies beside the secret
            await enter(database, stranger)
            return
        with pytest.raises(ForeignSecret, match="Let all of them state the same: `secret: "):
            await enter(database, stranger)
        assert [row[0] for row in await database.query("select name from replica order by name")] == [
            "gw_one",
            "gw_two",
        ]
        await enter(database, Replica("gw_one", "the same"))
        await leave(database, ONE)
        await is_silent(database, TWO.name)
        await enter(database, stranger)

    over(test)


def test_the_long_dead_are_forgotten(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await enter(database, ONE)
        await enter(database, TWO)
        await database.execute([("update replica set beat_at = beat_at - 90000000000 where name = 'gw_one'", ())])
        await beat(database, TWO)
        assert [row[0] for row in await database.query("select name from replica")] == ["gw_two"]

    over(test)


def test_the_dead_are_found_by_the_index_of_open_drawings(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await fill(database, 20_000)
        watched: Any = Watched(database)
        assert await find_dead(watched, ONE.name) == []
        assert "drawing_open" in await watched.plan()
        await database.execute([("delete from drawing", ())])  # which have no entries

    over(test)
