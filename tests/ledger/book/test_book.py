"""The book outside of the money path: its upkeep, and what it imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.ledger.book import book as upkeep
from app.ledger.book.book import FIRST_PROOF_SECONDS, Book
from app.ledger.book.rollups import read_number
from app.ledger.book.verification import Discrepancy, verify
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.ledger import Policy, open_ledger
from app.ledger.values.records import UsageQuery
from app.microseconds import DAY
from tests.ledger.conftest import Clock
from tests.ledger.samples import NOW, REPLICA, a_settlement, an_admission, count_of
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio

LIGHT = """
import sys
import app.ledger.book.book
print([name for name in ("sqlalchemy", "alembic", "asyncpg") if name in sys.modules])
"""


async def test_the_book_looks_after_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ROLLUP_SECONDS", 0.01)
    clock, warnings = Clock((NOW + 10 * DAY) / 1_000_000), list[str]()
    async with open_ledger(
        None, tmp_path, policy=Policy(), clock=clock, warn=lambda event, **_: warnings.append(event)
    ) as ledger:
        for at in (NOW, NOW + 9 * DAY):
            admission = an_admission()
            await ledger.database.admit(admission, (), REPLICA, at)
            await ledger.database.settle(a_settlement(admission.id, 10, at=at + 1))
        book = Book(ledger, "USD", clock, lambda event, **_: warnings.append(event))
        care = asyncio.create_task(book.look_after(5))
        async with asyncio.timeout(PATIENCE):
            while await count_of(ledger.database, "drawing") > 1:
                await asyncio.sleep(0.01)
            assert not await read_number(ledger.database, "verified")
            clock.now += FIRST_PROOF_SECONDS
            while not await read_number(ledger.database, "verified"):
                await asyncio.sleep(0.01)
        care.cancel()
        used = await (await book.reports()).usage(UsageQuery(NOW - DAY, NOW + 10 * DAY, "day"))
    assert [line.requests for line in used] == [1, 1]
    assert warnings == []


async def test_a_proof_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ROLLUP_SECONDS", 0.01)
    clock, warnings = Clock(NOW / 1_000_000), list[str]()
    tries = list[int]()

    async def fail_once(database: Database) -> Sequence[Discrepancy]:
        tries.append(1)
        if len(tries) == 1:
            raise DatabaseUnavailable("a statement took too long")
        return await verify(database)

    monkeypatch.setattr(upkeep, "verify", fail_once)
    async with open_ledger(None, tmp_path, policy=Policy(), clock=clock, warn=lambda *_, **__: None) as ledger:
        book = Book(ledger, "USD", clock, lambda event, **_: warnings.append(event))
        care = asyncio.create_task(book.look_after(5))
        async with asyncio.timeout(PATIENCE):
            while not await read_number(ledger.database, "verified"):
                clock.now += FIRST_PROOF_SECONDS
                await asyncio.sleep(0.02)
        care.cancel()
    assert warnings == ["the ledger could not be verified"]


def test_the_book_imports_no_sqlalchemy_before_it_is_asked() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
