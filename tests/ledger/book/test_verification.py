"""The verification finds what was tampered with, and the repair writes what the entries say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.ledger.book.verification import Discrepancy, repair, verify, write_down
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database
from app.telemetry.metrics.state import read_book
from tests.ledger.samples import (
    ME,
    NOW,
    REPLICA,
    a_budget,
    a_settlement,
    an_admission,
    an_attempt,
    claims_of,
    key_limits,
    registry_of,
)


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        ("update drawing set cost_nano = cost_nano + 1", ["drawing"]),
        ("update budget_period set held_nano = 5", ["budget"]),
        ("update entry set spent_nano = 60 where kind = 'settle'", ["drawing", "budget"]),
        ("update drawing set state = 'held'", ["state"]),
        ("insert into lease (scope, drawing_id, replica, at) values ('s', 'gone', 'gateway', 1)", ["lease"]),
    ],
)
def test_damage_is_found_and_repaired(url: str | None, tmp_path: Path, damage: str, kinds: list[str]) -> None:
    async def run() -> None:
        database = await open_database(url, tmp_path, has_own_clock=False)
        try:
            await registry_of(database).add_budget(a_budget(), ME)
            admission = an_admission(limits=key_limits(max_concurrency=1))
            await database.admit(admission, claims_of(a_budget()), REPLICA, NOW)
            await database.settle(a_settlement(admission.id, cost=70))
            assert await verify(database) == []
            await database.execute([(damage, ())])
            found = await verify(database)
            assert [fault.kind for fault in found] == kinds
            assert [fault.kind for fault in await repair(database)] == [kind for kind in kinds if kind != "state"]
            assert [fault.kind for fault in await verify(database)] == [kind for kind in kinds if kind == "state"]
        finally:
            await database.aclose()

    asyncio.run(run())


def test_a_fault_says_what_was_found_and_what_is_right(tmp_path: Path) -> None:
    async def run() -> None:
        database = await open_database(None, tmp_path)
        try:
            await registry_of(database).add_budget(a_budget(), ME)
            await database.admit(an_admission(), claims_of(a_budget()), REPLICA, NOW)
            await database.execute([("update budget_period set spent_nano = 9", ())])
            starts_at = claims_of(a_budget())[0].period.starts_at
            assert await verify(database) == [Discrepancy("budget", "bud_1", starts_at, (100, 9, 0), (100, 0, 0))]
        finally:
            await database.aclose()

    asyncio.run(run())


def test_drawings_that_begin_and_end_meanwhile_look_like_no_fault(url: str | None, tmp_path: Path) -> None:
    async def draw(database: Database) -> None:
        admission = an_admission(limits=key_limits(max_concurrency=100))
        await database.admit(admission, claims_of(a_budget(amount=10**9)), REPLICA, NOW)
        await database.sent(an_attempt(admission.id))
        await asyncio.sleep(0)
        await database.settle(a_settlement(admission.id, cost=70))

    async def run() -> None:
        database = await open_database(url, tmp_path, has_own_clock=False)
        try:
            await registry_of(database).add_budget(a_budget(amount=10**9), ME)
            for _ in range(20):
                drawing = asyncio.gather(*(draw(database) for _ in range(20)))
                while not drawing.done():
                    assert await verify(database) == []
                await drawing
        finally:
            await database.aclose()

    asyncio.run(run())


def test_what_was_found_is_written_down_until_the_next_proof(url: str | None, tmp_path: Path) -> None:
    async def run() -> None:
        database = await open_database(url, tmp_path, has_own_clock=False)
        try:
            assert (await read_book(database, [])).drift is None
            await write_down(database, len(await verify(database)), NOW)
            assert (await read_book(database, [])).drift == 0
            await database.execute(
                [("insert into lease (scope, drawing_id, replica, at) values ('s', 'gone', 'gateway', 1)", ())]
            )
            await write_down(database, len(await verify(database)), NOW)
            assert (await read_book(database, [])).drift == 1
            await repair(database)
            await write_down(database, len(await verify(database)), NOW)
            assert (await read_book(database, [])).drift == 0
        finally:
            await database.aclose()

    asyncio.run(run())
