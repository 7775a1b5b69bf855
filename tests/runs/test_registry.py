"""The registry of stored runs: nobody waits for the table, and it is right again soon after anything."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.database.run_rows import RunRow, RunTable
from app.runs import registry as module
from app.runs.registry import RunRegistry, open_registry
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOMENT", 0.0)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)


def row(id: str, state: str = "sent") -> RunRow:
    return RunRow(id, "key_a", id.encode(), None, state, (id,), None, 0, None)


def no_database() -> Database:
    raise AssertionError("the table answers by itself")


class Table(RunTable):
    """A table in memory. While it has a `failure`, it does nothing."""

    def __init__(self, *rows: RunRow) -> None:
        super().__init__(no_database, "one")
        object.__setattr__(self, "rows", {row.id: row for row in rows})
        object.__setattr__(self, "writes", [])
        object.__setattr__(self, "failures", [])

    rows: dict[str, RunRow]
    writes: list[tuple[int, int, bool]]  # rows, removed, replace
    failures: list[Exception]  # the first is raised as long as it is there

    async def read(self) -> dict[str, RunRow]:
        self._fail()
        return dict(self.rows)

    async def write(self, rows: Collection[RunRow], removed: Collection[str] = (), *, replace: bool = False) -> None:
        await asyncio.sleep(0)
        self._fail()
        self.writes.append((len(rows), len(removed), replace))
        if replace:
            self.rows.clear()
        for id in removed:
            self.rows.pop(id, None)
        self.rows.update({row.id: row for row in rows})

    def _fail(self) -> None:
        if self.failures:
            raise self.failures[0]


def away() -> DatabaseUnavailable:
    return DatabaseUnavailable("gone")


def warn(event: str, **facts: Any) -> None:
    raise AssertionError((event, facts))


async def test_changes_of_a_moment_are_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    async with open_registry(table, b"pepper", warn) as registry:
        for id in "abc":
            registry.put(row(id))
        registry.put(row("a", "finished"))
        registry.put(row("a", "finished"))
        registry.remove("c")
        registry.remove("unknown")
        assert table.writes == []
        await until(lambda: len(table.writes) == 1)
        registry.put(row("a", "finished"))  # no news
        await asyncio.sleep(0.01)
    assert table.rows == {"a": row("a", "finished"), "b": row("b")}
    assert table.writes == [(2, 1, False)]


async def test_a_process_that_leaves_nothing_and_finds_nothing_writes_nothing() -> None:
    table = Table()
    async with open_registry(table, b"pepper", warn):
        await asyncio.sleep(0.01)
    assert table.writes == []


async def test_rows_of_an_earlier_process_are_told_and_then_replaced() -> None:
    table = Table(row("file is gone"), row("a"))
    async with open_registry(table, b"pepper", warn) as registry:
        assert registry.take_found() == {"file is gone": row("file is gone"), "a": row("a")}
        registry.put(row("a", "finished"))
        await until(lambda: bool(table.writes))
    assert table.rows == {"a": row("a", "finished")}


async def test_what_was_put_last_is_written_when_the_process_ends() -> None:
    table = Table()
    async with open_registry(table, b"pepper", warn) as registry:
        registry.put(row("a"))
    assert table.rows == {"a": row("a")}


@pytest.mark.parametrize("at_start", [True, False])
async def test_after_an_outage_the_table_is_as_if_there_had_been_none(at_start: bool) -> None:
    table = Table(row("left over"))
    if at_start:
        table.failures.append(away())
    async with open_registry(table, b"pepper", warn) as registry:
        registry.put(row("before"))
        if not at_start:
            await until(lambda: "before" in table.rows)
            table.failures.append(away())
        registry.put(row("during"))
        await asyncio.sleep(0.01)
        registry.remove("before")
        registry.put(row("during", "finished"))
        await asyncio.sleep(0.01)
        assert "during" not in table.rows
        table.failures.clear()
        await until(lambda: table.rows == {"during": row("during", "finished")})


async def test_an_outage_takes_no_more_memory_than_there_are_stored_runs() -> None:
    table = Table()
    table.failures.append(away())
    registry = RunRegistry(table, b"pepper", {})
    for number in range(1000):
        registry.put(row(str(number)))
        registry.remove(str(number))
        if number % 10 == 0:
            with pytest.raises(DatabaseUnavailable):
                await registry.write()
    table.failures.clear()
    registry.put(row("last"))
    await registry.write()
    assert table.writes == [(1, 0, True)]  # of the thousand runs that came and went, nothing is left to say


async def test_a_transaction_that_may_have_been_lost_is_made_good() -> None:
    table, told = Table(), list[str]()
    async with open_registry(table, b"pepper", lambda event, **_: told.append(event)) as registry:
        table.failures.append(OSError("a fault of ours"))
        registry.put(row("a"))
        await until(lambda: bool(told))
        table.failures.clear()
        await until(lambda: "a" in table.rows)
        assert table.writes[-1] == (1, 0, True)
    assert set(told) == {"the registry of runs could not be written"}


async def test_an_end_in_the_middle_of_a_transaction_loses_nothing() -> None:
    table = Table()
    async with open_registry(table, b"pepper", warn) as registry:
        registry.put(row("a"))
        for _ in range(3):  # the writing has begun, or not
            await asyncio.sleep(0)
    assert table.rows == {"a": row("a")}


async def test_many_rows_are_written_in_steps() -> None:
    table = Table(row("left over"))
    async with open_registry(table, b"pepper", warn) as registry:
        for number in range(450):
            registry.put(row(str(number)))
    assert len(table.rows) == 450
    assert table.writes == [(200, 0, True), (200, 0, False), (50, 0, False)]


async def test_an_end_while_the_database_is_away_is_an_end_all_the_same() -> None:
    table = Table()
    async with open_registry(table, b"pepper", warn) as registry:
        table.failures.append(away())
        registry.put(row("a"))
    assert table.rows == {}
