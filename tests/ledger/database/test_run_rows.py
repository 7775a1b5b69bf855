"""The table of stored runs, over both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database
from app.ledger.database.run_rows import RunRow, RunTable

pytestmark = pytest.mark.anyio

ROW = RunRow("file-1", "key_a", b"\x00\xff", None, "sent", ("fox-1",), None, 1_800_000_000_000_000, None)
ENDED = replace(
    ROW,
    fingerprint=b"\x01",
    state="finished",
    names=("fox-1", "füchse"),
    drawing_id="d",
    ended_at=1_800_000_001_000_000,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def database(url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(url, tmp_path)
    yield database
    await database.aclose()


def table_of(database: Database, replica: str = "one") -> RunTable:
    return RunTable(lambda: database, replica)


async def test_a_row_is_written_changed_and_removed(database: Database) -> None:
    table = table_of(database)
    other = replace(ROW, id="file-2", idempotency_digest=None)
    await table.write([ROW, other])
    assert await table.read() == {"file-1": ROW, "file-2": other}
    await table.write([ENDED])
    await table.write([ENDED])  # again changes nothing
    assert await table.read() == {"file-1": ENDED, "file-2": other}
    await table.write([], ["file-1", "never there"])
    assert await table.read() == {"file-2": other}


async def test_replacing_rows_leaves_those_of_other_replicas_alone(database: Database) -> None:
    one, two = table_of(database), table_of(database, "two")
    theirs = replace(ROW, id="file-3", key_id="key_b")
    await two.write([theirs])
    await one.write([ROW, replace(ROW, id="file-2", idempotency_digest=b"2")])
    await one.write([ENDED], replace=True)
    assert await one.read() == {"file-1": ENDED}
    assert await two.read() == {"file-3": theirs}


async def test_a_process_with_a_new_name_has_the_rows_of_the_files_that_it_has(database: Database) -> None:
    before, after = table_of(database), table_of(database, "renamed")
    await before.write([ROW])
    await after.write([ENDED], replace=True)
    assert await after.read() == {"file-1": ENDED}
    assert await before.read() == {}


async def test_of_two_runs_with_one_idempotency_key_the_table_keeps_the_first(database: Database) -> None:
    one, two = table_of(database), table_of(database, "two")
    await one.write([ROW])
    await two.write([replace(ROW, id="file-2"), replace(ROW, id="file-3", idempotency_digest=b"3")])
    assert list(await one.read()) == ["file-1"]
    assert list(await two.read()) == ["file-3"]


async def test_runs_of_two_keys_may_have_the_same_request_id(database: Database) -> None:
    table = table_of(database)
    await table.write([ROW, replace(ROW, id="file-2", key_id="key_b")])
    assert {row.names for row in (await table.read()).values()} == {("fox-1",)}
    assert len(await table.read()) == 2
