"""The ledger: the money path, also while the database is away, and what is told of refusals."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.ledger import Policy
from app.ledger.values.directory import Budget
from app.ledger.values.drawings import BudgetRefusal, Joined, Ticket, Unavailable, Unpriced
from tests.ledger.gateways import Gateway, Test, run_in
from tests.ledger.samples import (
    ME,
    NOW,
    a_budget,
    a_project,
    a_settlement,
    an_admission,
    an_attempt,
    drawings,
    key_limits,
    periods,
)
from tests.waiting import PATIENCE, until


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    return run_in(tmp_path)


def test_a_request_counts_in_every_budget_of_its_scope(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        budgets = [
            a_budget(),
            Budget("b2", "project", "proj_1", 1000, "day"),
            Budget("b3", "key", "key00001", 1000, "total"),
            Budget("b4", "key", "other", 1000, "day"),
            Budget("b5", "all", None, 1000, "day", models=("*pro",)),
        ]
        for budget in budgets:
            await gateway.registry.add_budget(budget, ME)
        async with gateway.running() as ledger:
            assert isinstance(await ledger.admit(an_admission()), Ticket)
        assert [row[0] for row in await periods(gateway.real)] == ["b2", "b3", "bud_1"]

    run(test)


def test_a_refusal_names_the_budget_and_when_it_begins_anew(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_project(a_project(), ME)
        budget = a_budget(scope="project", scope_id="proj_1", amount=99, timezone="Europe/Prague")
        await gateway.registry.add_budget(budget, ME)
        async with gateway.running() as ledger:
            refusal = await ledger.admit(an_admission())
        assert isinstance(refusal, BudgetRefusal)
        assert (refusal.budget.owner, refusal.budget.window, refusal.amount) == ("design", "month", 99)
        assert refusal.period.ends_at == 1_790_805_600_000_000, "midnight of October 1 in Prague"

    run(test)


def test_what_has_no_price_is_refused_under_a_hard_budget_alone(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            assert isinstance(await ledger.admit(an_admission(most=None)), Ticket)
            await gateway.registry.add_budget(a_budget(), ME)
            await ledger.refresh()
            refusal = await ledger.admit(an_admission(most=None))
            assert refusal == Unpriced(a_budget())
        async with gateway.running(Policy(unpriced="serve")) as ledger:
            assert isinstance(await ledger.admit(an_admission(most=None)), Ticket)

    run(test)


def test_without_the_database_a_drawing_goes_to_the_journal_and_is_told_later(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_budget(a_budget(hard=False), ME)
        async with gateway.running() as ledger:
            gateway.database.is_away = True
            admission = an_admission()
            ticket = await ledger.admit(admission)
            assert isinstance(ticket, Ticket)
            assert ticket.is_deferred
            assert await ledger.sent(an_attempt(admission.id)) is None
            await ledger.settle(a_settlement(admission.id, cost=70))
            await ledger.record_joined(Joined("j", NOW, "r", "r", "k", None, "edits", "m", "m", 1, 1, 9))
            assert ledger.snapshot().journal_records == 4
            gateway.database.is_away = False
            await ledger.refresh()
            assert ledger.snapshot().journal_records == 0
        assert await drawings(gateway.real) == [("settled", 0, 70, 0), ("settled", 0, 0, 0)]
        assert await periods(gateway.real) == [("bud_1", 0, 70, 0)]
        assert gateway.warnings == ["the database cannot be used", "the database is back"]

    run(test)


def test_on_a_full_disk_nothing_begins_of_which_the_end_could_not_be_written_down(
    run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def test(gateway: Gateway) -> None:
        sent = list[str]()
        async with gateway.running() as ledger:
            gateway.database.is_away = True  # as SQLite is on such a disk
            monkeypatch.setattr(os, "posix_fallocate", full)
            while True:
                admission = an_admission()
                if not isinstance(await ledger.admit(admission), Ticket):
                    break
                if await ledger.sent(an_attempt(admission.id)) is not None:
                    break
                sent.append(admission.id)
            assert "the journal cannot be written to" in gateway.warnings
            for id in sent:
                await ledger.settle(a_settlement(id, cost=70))
            assert "the ledger could not write down the end of a drawing" not in gateway.warnings
            gateway.database.is_away = False
            await ledger.refresh()
        found = [row for row in await drawings(gateway.real) if row[0] != "held"]
        assert found == [("settled", 0, 70, 0)] * len(sent) and len(sent) > 2

    run(test)


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done, and the answer lost"])
def test_an_outage_in_the_middle_of_a_drawing_charges_it_once(run: Callable[[Test], None], done: bool) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_budget(a_budget(), ME)
        async with gateway.running() as ledger:
            admission = an_admission()
            await ledger.admit(admission)
            assert await ledger.sent(an_attempt(admission.id)) is None
            gateway.database.is_away, gateway.database.is_done_all_the_same = True, done
            await ledger.settle(a_settlement(admission.id, cost=70))
            gateway.database.is_away = False
            await ledger.refresh()
        assert await periods(gateway.real) == [("bud_1", 0, 70, 0)]

    run(test)


@pytest.mark.parametrize("limits", [(), key_limits(requests_per_minute=9)])
def test_without_the_database_a_hard_budget_or_a_limit_cannot_be_kept(
    run: Callable[[Test], None], limits: tuple[Any, ...]
) -> None:
    async def test(gateway: Gateway) -> None:
        if not limits:
            await gateway.registry.add_budget(a_budget(), ME)
        async with gateway.running() as ledger:
            known = an_admission(limits=limits)
            assert isinstance(await ledger.admit(known), Ticket)
            gateway.database.is_away = True
            assert isinstance(await ledger.admit(an_admission(limits=limits)), Unavailable)
            refused = await ledger.sent(an_attempt(known.id))
            assert (refused is None) is bool(limits), "a limit was kept when the request was admitted"
        async with gateway.running(Policy(when_down="serve")) as ledger:
            assert isinstance(await ledger.admit(an_admission(limits=limits)), Ticket)

    run(test)


def test_what_is_left_of_limits_is_told_while_the_database_is_there_and_answers(
    run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.ledger.GLANCE_SECONDS", PATIENCE)

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            limits = key_limits(requests_per_minute=9)
            await ledger.admit(an_admission(limits=limits))
            for _ in range(2):
                assert [state.remaining for state in await ledger.limit_states(limits)] == [8]
            with monkeypatch.context() as patch:
                patch.setattr("app.ledger.ledger.GLANCE_SECONDS", 0.01)
                patch.setattr(type(gateway.real), "query", never)
                assert await ledger.limit_states(limits) == ()
            gateway.database.is_away = True
            assert await ledger.limit_states(limits) == ()

    run(test)


def test_a_settlement_goes_on_when_its_caller_is_cancelled(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            admission = an_admission()
            await ledger.admit(admission)
            settling = asyncio.create_task(ledger.settle(a_settlement(admission.id, cost=5)))
            await asyncio.sleep(0)
            settling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await settling
            while ledger.snapshot().open_drawings:
                await asyncio.sleep(0.01)
        assert await drawings(gateway.real) == [("settled", 0, 5, 0)]

    run(test)


def test_an_end_that_cannot_be_written_down_takes_no_other_with_it(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            admissions = [an_admission(), an_admission(), an_admission()]
            for admission in admissions:
                assert isinstance(await ledger.admit(admission), Ticket)
                assert await ledger.sent(an_attempt(admission.id)) is None
            first, broken, last = (admission.id for admission in admissions)
            await ledger.settle(a_settlement(first, cost=100))
            await ledger.settle(a_settlement(broken, note="\ud800", cost=100))
            await ledger.settle(a_settlement(last, cost=100))
            async with asyncio.timeout(PATIENCE):
                while [state for state, *_ in await drawings(gateway.real)] != ["settled", "sent", "settled"]:
                    await asyncio.sleep(0.01)
            assert gateway.warnings == ["the ledger could not write down the end of a drawing"]

    run(test)


@pytest.mark.parametrize("is_written", [False, True])
def test_while_the_database_is_away_a_drawing_without_a_budget_may_be_repeated(
    run: Callable[[Test], None], is_written: bool
) -> None:
    async def test(gateway: Gateway) -> None:
        admission = an_admission()
        async with gateway.running() as ledger:
            assert isinstance(await ledger.admit(admission), Ticket)
            if is_written:
                assert await ledger.sent(an_attempt(admission.id)) is None
            gateway.database.is_away = True
            assert await ledger.reserve(admission.id, 200) is None
            assert await ledger.sent(an_attempt(admission.id, seq=2)) is None
            await ledger.settle(a_settlement(admission.id, cost=150))
            gateway.database.is_away = False
            await ledger.refresh()
            assert await drawings(gateway.real) == [("settled", 0, 150, 0)]

    run(test)


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done, and the answer lost"])
@pytest.mark.parametrize("is_written", [False, True])
def test_what_a_repeat_may_cost_is_in_doubt_after_a_crash_although_the_database_was_away(
    run: Callable[[Test], None], is_written: bool, done: bool
) -> None:
    async def test(gateway: Gateway) -> None:
        admission = an_admission()
        async with gateway.running() as ledger:
            assert isinstance(await ledger.admit(admission), Ticket)
            if is_written:
                assert await ledger.sent(an_attempt(admission.id)) is None
            gateway.database.is_away, gateway.database.is_done_all_the_same = True, done
            assert await ledger.reserve(admission.id, 200) is None
            assert await ledger.sent(an_attempt(admission.id, seq=2, most=200 - 100 * is_written)) is None
        gateway.database.is_away = False
        async with gateway.running():
            assert await drawings(gateway.real) == [("in_doubt", 0, 0, 200)]

    run(test)


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done, and the answer lost"])
def test_a_reservation_of_the_journal_is_held_once_however_often_it_is_told_and_without_room_too(
    run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_budget(a_budget(amount=150), ME)
        async with gateway.running(Policy(when_down="serve")) as ledger:
            admission = an_admission()
            assert isinstance(await ledger.admit(admission), Ticket)
            assert await ledger.sent(an_attempt(admission.id)) is None
            gateway.database.is_away, gateway.database.is_done_all_the_same = True, done
            assert await ledger.reserve(admission.id, 200) is None
            assert await ledger.sent(an_attempt(admission.id, seq=2)) is None
            gateway.database.is_away = False
            with monkeypatch.context() as patch:  # the database falls away in the middle of the journal
                patch.setattr(type(gateway.real), "sent", away)
                with pytest.raises(DatabaseUnavailable):
                    await ledger.refresh()
            await ledger.refresh()
            assert await drawings(gateway.real) == [("sent", 200, 0, 0)]
            assert await periods(gateway.real) == [("bud_1", 200, 0, 0)]
            await ledger.settle(a_settlement(admission.id, cost=150))

    run(test)


async def away(*_: Any) -> bool:
    raise DatabaseUnavailable("it is away")


def test_while_the_database_is_away_a_drawing_with_a_hard_budget_is_not_repeated(run: Callable[[Test], None]) -> None:
    async def test(gateway: Gateway) -> None:
        await gateway.registry.add_budget(a_budget(), ME)
        async with gateway.running() as ledger:
            admission = an_admission()
            assert isinstance(await ledger.admit(admission), Ticket)
            assert await ledger.sent(an_attempt(admission.id)) is None
            gateway.database.is_away = True
            assert isinstance(await ledger.reserve(admission.id, 200), Unavailable)
            gateway.database.is_away = False
            await ledger.settle(a_settlement(admission.id, cost=50))

    run(test)


def test_a_caller_that_is_cancelled_while_the_journal_is_written_spoils_no_record(
    run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fdatasync, begun, done = os.fdatasync, threading.Event(), threading.Event()

    def slowly(file: int) -> None:
        begun.set()
        done.wait(PATIENCE)
        fdatasync(file)

    async def test(gateway: Gateway) -> None:
        async with gateway.running() as ledger:
            gone, *others = [an_admission() for _ in range(4)]
            for admission in (gone, *others):
                assert isinstance(await ledger.admit(admission), Ticket)
            for admission in others:
                assert await ledger.sent(an_attempt(admission.id)) is None
            gateway.database.is_away = True
            monkeypatch.setattr(os, "fdatasync", slowly)
            leaving = asyncio.create_task(ledger.sent(an_attempt(gone.id)))
            await until(begun.is_set)
            leaving.cancel()
            await asyncio.wait([leaving])
            ends = [asyncio.create_task(ledger.settle(a_settlement(each.id, cost=70))) for each in others]
            await asyncio.sleep(0.05)  # long enough for a thread to begin
            done.set()
            await asyncio.gather(*ends)
            gateway.database.is_away = False
            await ledger.refresh()
        found = [row for row in await drawings(gateway.real) if row[0] != "held"]
        assert found == [("settled", 0, 70, 0)] * 3

    run(test)
