"""The life of a process with the database: recovery, the copy of the directory, and all that it watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.ledger.book.registry import Registry
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.ledger import Policy, open_ledger
from app.ledger.life import Recovered
from app.ledger.values.drawings import Ticket, Unavailable
from tests.ledger.conftest import Clock
from tests.ledger.gateways import Gateway, Test, run_in
from tests.ledger.samples import (
    ME,
    NOW,
    a_budget,
    a_key,
    a_project,
    a_settlement,
    an_admission,
    an_attempt,
    drawings,
    periods,
)
from tests.waiting import until


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    return run_in(tmp_path)


def test_a_crash_releases_what_was_not_sent_and_leaves_the_rest_in_doubt(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_budget(a_budget(), ME)
        held, sent, resumed = an_admission(), an_admission(), an_admission()
        async with gateway.running() as ledger:
            for admission in (held, sent, resumed):
                await ledger.admit(admission)
            for admission in (sent, resumed):
                await ledger.sent(an_attempt(admission.id, most=60))
        async with gateway.running(resumed=(resumed.id,)) as ledger:
            assert gateway.recovered == Recovered(released=1, in_doubt=1)
            assert await drawings(gateway.real) == [
                ("released", 0, 0, 0),
                ("in_doubt", 0, 0, 60),
                ("sent", 100, 0, 0),
            ]
            await ledger.settle(a_settlement(resumed.id, cost=50))
        async with gateway.running():
            assert gateway.recovered == Recovered()
        assert await periods(gateway.real) == [("bud_1", 0, 50, 60)]

    run(test)


def test_a_database_that_takes_words_and_gives_none_is_tried_once_in_a_while(
    run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is when its file was deleted: each look at it finds it, and loses it again."""

    async def test(gateway: Gateway) -> None:
        async def fail(_: Database) -> int:
            raise DatabaseUnavailable("it cannot be read")

        async with gateway.running():
            monkeypatch.setattr("app.ledger.life.read_revision", fail)
            while "the database cannot be used" not in gateway.warnings:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            monkeypatch.undo()
        assert len(gateway.warnings) <= 4

    run(test)


def test_a_crash_while_the_database_is_away_is_recovered_when_it_is_back(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            await ledger.refresh()
            gateway.database.is_away = True
            lost = an_admission()
            await ledger.admit(lost)
            await ledger.sent(an_attempt(lost.id))
        async with gateway.running() as ledger:
            new = an_admission()
            assert isinstance(await ledger.admit(new), Ticket)
            gateway.database.is_away = False
            await ledger.refresh()
            assert await drawings(gateway.real) == [("in_doubt", 0, 0, 100), ("held", 100, 0, 0)]

    run(test)


def test_keys_are_known_from_the_copy_while_the_database_is_away(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_project(a_project(), ME)
        key = a_key(previous_digest=b"x" * 32, previous_until=5)
        await gateway.registry.add_key(key, ME)
        await gateway.registry.add_budget(a_budget(), ME)
        async with gateway.running() as ledger:
            known = ledger.directory
            assert known.find_key(bytes(32), NOW) == key
        gateway.database.is_away = True
        async with gateway.running() as ledger:
            assert ledger.directory == known
        (gateway.folder / "directory.json").write_text("{}")
        async with gateway.running() as ledger:
            assert not ledger.directory.keys
            assert isinstance(await ledger.admit(an_admission()), Unavailable), "there may be budgets"
        assert "the copy of the keys cannot be read" in gateway.warnings

    run(test)


def test_a_change_of_the_directory_is_seen(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            await gateway.registry.add_project(a_project(), ME)
            await gateway.registry.add_key(a_key(), ME)
            await until(lambda: ledger.directory.keys)

    run(test)


def test_a_budget_has_the_name_of_a_key_that_only_the_configuration_has(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_budget(a_budget(scope="key", scope_id="filekey1"), ME)
        async with gateway.running() as ledger:
            assert [budget.owner for budget in ledger.directory.budgets] == ["filekey1"]
            ledger.name_keys({"filekey1": "ci"})
            assert [budget.owner for budget in ledger.directory.budgets] == ["ci"]
            await gateway.registry.add_budget(a_budget(id="bud_2", scope="key", scope_id="filekey1", window="day"), ME)
            await until(lambda: [budget.owner for budget in ledger.directory.budgets] == ["ci", "ci"])

    run(test)


def test_what_is_in_doubt_for_too_long_counts_as_paid(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            admission = an_admission()
            await ledger.admit(admission)
            await ledger.settle(a_settlement(admission.id, in_doubt=100))
            assert await gateway.life.resolve_due() == 0
            gateway.clock.now += 31 * 86_400
            assert await gateway.life.resolve_due() == 1
        assert await drawings(gateway.real) == [("settled", 0, 100, 0)]

    run(test)


def test_the_use_of_a_key_is_written_down_by_the_hour(tmp_path: Path) -> None:
    async def test() -> None:
        clock = Clock(NOW / 1_000_000)
        settings: Any = {"policy": Policy(), "clock": clock, "warn": lambda *_, **__: None}
        async with open_ledger(None, tmp_path, **settings) as ledger:
            registry = Registry(ledger.database, lambda: clock.micros)
            await registry.add_project(a_project(), ME)
            await registry.add_key(a_key(), ME)
            await ledger.refresh()
            ledger.note_use("key00001")
            ledger.note_use("unknown")
        async with open_ledger(None, tmp_path, **settings) as ledger:
            assert ledger.directory.keys["key00001"] == replace(
                a_key(), last_used_at=NOW // 3_600_000_000 * 3_600_000_000
            )

    asyncio.run(test())


def test_the_loss_of_the_database_at_the_same_moment_does_not_keep_a_gateway_from_ending(
    run: Callable[[Test], None],
) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_budget(a_budget(), ME)
        async with gateway.running() as ledger:
            await asyncio.sleep(0)  # its tasks wait
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            gateway.database.is_away = True
            assert isinstance(await ledger.admit(an_admission()), Unavailable)
        _, going_on = await asyncio.wait(tasks, timeout=10)
        assert not going_on

    run(test)
