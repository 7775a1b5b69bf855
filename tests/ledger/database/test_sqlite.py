"""The threads of SQLite: what they are handed at once, and what they end with."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from app.ledger.database.opening import open_database
from app.ledger.database.sqlite import SqliteDatabase, open_writer
from tests.ledger.samples import NOW, REPLICA, an_admission, count_of
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio

# In a process of its own: a connection that is closed while a thread is in it takes the process down.
CANCELLED = """
import asyncio, sys
from contextlib import suppress
from pathlib import Path
from app.ledger.database.opening import open_database

SLOW = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000000) select count(*) from n"

async def main():
    database = await open_database(None, Path(sys.argv[1]))
    async def read():
        async for _ in database.stream(SLOW):
            pass
    for seconds in (0, 0.001, 0.002, 0.003, 0.005, 0.01, 0.3):
        reading = asyncio.create_task(read())
        await asyncio.sleep(seconds)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    await database.aclose()

asyncio.run(main())
print("ended")
"""


async def opened(folder: Path) -> SqliteDatabase:
    database = await open_database(None, folder)
    assert isinstance(database, SqliteDatabase)
    return database


async def test_what_one_round_of_the_loop_asks_is_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = list[str]()

    def traced(path: Path) -> sqlite3.Connection:
        connection = open_writer(path)
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "commit" else None)
        return connection

    monkeypatch.setattr("app.ledger.database.sqlite.open_writer", traced)
    database = await opened(tmp_path)
    await asyncio.gather(*(database.defer(an_admission(), (), REPLICA, NOW) for _ in range(20)))
    assert commits == ["commit"]
    assert await count_of(database, "drawing") == 20
    await database.aclose()


async def test_closing_ends_after_everything_that_was_asked(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    asked = [asyncio.ensure_future(database.defer(an_admission(), (), REPLICA, NOW)) for _ in range(20)]
    await asyncio.sleep(0)
    await database.aclose()
    await asyncio.gather(*asked)
    again = await opened(tmp_path)
    assert await count_of(again, "drawing") == 20
    await again.aclose()


def test_a_reader_who_leaves_in_a_slow_statement_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CANCELLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
