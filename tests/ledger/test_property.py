"""The property of the book: whatever happens in whatever order, it adds up, no budget is overshot, and what the
provider drew lies between what is settled and that with what is in doubt."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.ledger.book.registry import Registry
from app.ledger.book.verification import verify
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.journal import Journal
from app.ledger.ledger import ALONE, Policy
from app.ledger.values.directory import Budget
from app.ledger.values.drawings import Outcome, Settlement, Ticket
from tests.ledger.conftest import Clock, empty_postgres
from tests.ledger.gateways import Outage, build
from tests.ledger.samples import ME, NOW, a_settlement, an_admission, an_attempt, key_limits, project_limits

T = TypeVar("T")

BUDGETS = (
    Budget("everything", "all", None, 900, "day", "Europe/Prague"),
    Budget("project", "project", "proj_1", 500, "month", thresholds=(50, 100)),
    Budget("of-schnell", "key", "key00001", 300, "week", models=("*schnell",)),
    Budget("soft", "all", None, 100, "total", hard=False),
)
MEMORY = Path("/dev/shm")  # a disk would make each example slow
KEEPS_DOUBTS = Policy(in_doubt_days=100_000)  # or what was not drawn would count as paid after a jump of the clock
LIMITS = key_limits(requests_per_minute=30, max_concurrency=6) + project_limits(images_per_minute=40)


class Book(RuleBasedStateMachine):
    """A gateway and a provider. Each image costs what was reserved for it."""

    url: Callable[[], str | None] = staticmethod(lambda: None)
    budgets: tuple[Budget, ...] = BUDGETS

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="gateway-book-", dir=MEMORY if MEMORY.is_dir() else None)
        self.runner = asyncio.Runner()
        self.clock = Clock(NOW / 1_000_000)
        self.held = dict[str, int]()  # drawings of this process that have not left, and what they may cost
        self.sent = dict[str, int]()
        self.drawn = dict[str, int]()  # by the provider: what each drawing really cost
        self.ended = list[Settlement]()
        self.in_doubt = set[str]()
        self.lowest = dict.fromkeys((budget.id for budget in BUDGETS), 0)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # --- the beginning and the end ---

    @initialize()
    def begin(self) -> None:
        url = type(self).url()

        async def opened() -> None:
            self.real = await open_database(url, Path(self.folder.name), has_own_clock=False)
            self.database = Outage(self.real)
            self.registry = Registry(self.real, lambda: self.clock.micros)
            for budget in self.budgets:
                await self.registry.add_budget(replace(budget, since=self.clock.micros), ME)
            await self.start()

        self.run(opened())

    async def start(self) -> None:
        self.journal = Journal(Path(self.folder.name) / "journal", room=65_536)

        async def opening() -> Any:
            if self.database.is_away:
                raise DatabaseUnavailable("it is away")
            return self.database

        copy = Path(self.folder.name) / "directory.json"
        life, self.ledger = build(opening, self.journal, ALONE, KEEPS_DOUBTS, self.clock, lambda *_, **__: None, copy)
        await life.start()

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.database.is_away = False
            self.run(self.crash_now())
            self.check_the_provider()
            self.run(self.real.aclose())
        self.runner.close()
        self.folder.cleanup()

    # --- what a gateway does ---

    @rule(
        most=st.integers(0, 120),
        model=st.sampled_from(["flux/schnell", "flux/pro"]),
        key=st.sampled_from(["key00001", "key00002"]),
        n=st.integers(1, 4),
        limited=st.booleans(),
    )
    def admit(self, most: int, model: str, key: str, n: int, limited: bool) -> None:
        admission = an_admission(most=most, model=model, key_id=key, n=n, limits=LIMITS if limited else ())
        answer = self.run(self.ledger.admit(admission))
        if isinstance(answer, Ticket):
            assert not (answer.is_deferred and self.budgets), "there are hard budgets"
            self.held[admission.id] = most

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def send(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.held)))
        if self.run(self.ledger.sent(an_attempt(id, most=self.held[id]))) is None:
            self.sent[id] = self.held.pop(id)

    @rule(data=st.data())
    @precondition(lambda self: self.sent)
    def draw(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.sent)))
        self.drawn[id] = self.sent[id]

    @rule(data=st.data(), knows=st.booleans())
    @precondition(lambda self: self.sent or self.held)
    def settle(self, data: st.DataObject, knows: bool) -> None:
        id = data.draw(st.sampled_from(sorted([*self.sent, *self.held])))
        self.end(id, knows, self.ledger.settle)

    def end(self, id: str, knows: bool, settle: Callable[[Settlement], Coroutine[Any, Any, None]]) -> None:
        most = self.sent.pop(id, None)
        if most is None:
            self.held.pop(id)
            settlement = a_settlement(id, at=self.clock.micros)
        elif knows:
            settlement = a_settlement(id, cost=self.drawn.get(id, 0), at=self.clock.micros)
        else:
            settlement = a_settlement(id, in_doubt=most, at=self.clock.micros)
            self.in_doubt.add(id)
        self.ended.append(settlement)
        self.run(settle(settlement))

    @rule(data=st.data(), cost=st.integers(0, 50), in_doubt=st.integers(0, 50))
    @precondition(lambda self: self.ended)
    def settle_again(self, data: st.DataObject, cost: int, in_doubt: int) -> None:
        before, is_quiet = self.run(self.money()), not len(self.journal)
        id = data.draw(st.sampled_from(sorted({end.drawing_id for end in self.ended})))
        [[outcome]] = self.run(self.real.query(f"select outcome from drawing where id = '{id}'")) or [[None]]
        if outcome == Outcome.INTERRUPTED:  # a crash came before its end, and gives way to a real one
            return
        self.run(self.ledger.settle(a_settlement(id, cost, in_doubt)))
        if is_quiet and not len(self.journal):  # else other ends may have come to the database meanwhile
            assert self.run(self.money()) == before

    @rule(data=st.data())
    @precondition(lambda self: self.in_doubt and not self.database.is_away)
    def resolve(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.in_doubt)))
        self.run(self.ledger.resolve(id, paid=id in self.drawn, by="me"))

    @rule(data=st.data(), more=st.integers(1, 60))
    @precondition(lambda self: self.held)
    def reserve_again(self, data: st.DataObject, more: int) -> None:
        id = data.draw(st.sampled_from(sorted(self.held)))
        if self.run(self.ledger.reserve(id, self.held[id] + more)) is None:
            self.held[id] += more

    # --- what happens to it ---

    @rule(steps=st.integers(0, 12), seed=st.integers(0, 3), knows=st.booleans())
    def crash_in_the_middle(self, steps: int, seed: int, knows: bool) -> None:
        """Kill the process while it admits, sends or settles, at any await."""

        async def crash(work: Awaitable[Any] | None) -> None:
            if work is not None:
                task = asyncio.ensure_future(work)
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
            await self.crash_now()

        chosen = random.Random(seed)
        if self.sent and seed != 1:
            self.end(chosen.choice(sorted(self.sent)), knows, partial(self.settle_and_crash, crash))
        elif self.held:
            id = chosen.choice(sorted(self.held))
            self.run(crash(self.ledger.sent(an_attempt(id, most=self.held[id]))))
        else:
            self.run(crash(self.ledger.admit(an_admission(most=50))))
        self.held.clear()
        self.sent.clear()
        if not self.budgets:
            self.ended.clear()  # nobody waits for such ends, so the crash may have taken some along

    async def settle_and_crash(self, crash: Callable[[Any], Coroutine[Any, Any, None]], end: Settlement) -> None:
        await crash(self.ledger.settle(end))

    async def crash_now(self) -> None:
        """End every task of the process. What the database was asked for may still be done."""
        doomed = asyncio.all_tasks() - {asyncio.current_task()}
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        await self.database_is_at_rest()
        self.journal.close()
        await self.start()

    async def database_is_at_rest(self) -> None:
        """Wait for what was asked of the database before a crash, or the next look at it would not see it yet."""
        if self.real.dialect == "sqlite":
            await self.real.execute([])  # the writer keeps the order
            return
        busy = """select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle'
            and pid <> pg_backend_pid() and backend_type = 'client backend'"""
        while (await self.real.query(busy))[0][0]:
            await asyncio.sleep(0.001)

    @rule(seconds=st.sampled_from([1, 20, 61, 3600, 86_400, 40 * 86_400, -30, -86_400]))
    def jump(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(away=st.booleans(), done=st.booleans())
    def lose_the_database(self, away: bool, done: bool) -> None:
        self.database.is_away, self.database.is_done_all_the_same = away, done
        if not away:
            self.run(self.ledger.refresh())

    @rule(budget=st.sampled_from(BUDGETS), amount=st.integers(0, 1000))
    @precondition(lambda self: self.budgets)
    def change_a_budget(self, budget: Budget, amount: int) -> None:
        self.run(self.registry.update_budget(budget.id, ME, amount=amount))
        if not self.database.is_away:
            self.run(self.ledger.refresh())

    # --- what always holds ---

    @invariant()
    def the_book_adds_up(self) -> None:
        if hasattr(self, "real"):
            assert self.run(verify(self.real)) == []

    @invariant()
    def no_budget_has_been_overshot(self) -> None:
        """A budget may be lowered below what is used; nothing is admitted then, so its use never grows."""
        if not hasattr(self, "real"):
            return
        sql = """select b.id, p.starts_at, b.amount_nano, p.spent_nano + p.held_nano + p.in_doubt_nano from budget b
            join budget_period p on p.budget_id = b.id where b.hard = 1"""
        for id, starts_at, amount, used in self.run(self.real.query(sql)):
            key = f"{id} {starts_at}"
            assert used <= max(amount, self.lowest.get(key, 0))
            self.lowest[key] = used

    async def money(self) -> Any:
        while self.ledger.snapshot().open_drawings > len(self.held) + len(self.sent):
            await asyncio.sleep(0.001)  # nobody waits for the ends of drawings that count in nothing
        return await self.real.query("select id, held_nano, cost_nano, in_doubt_nano from drawing order by id")

    def check_the_provider(self) -> None:
        rows = self.run(self.real.query("select cost_nano, in_doubt_nano, held_nano from drawing"))
        settled, in_doubt, held = [sum(row[i] for row in rows) for i in range(3)]
        assert held == 0, "nothing is held when no process works on it"
        assert settled <= sum(self.drawn.values()) <= settled + in_doubt


def run_book(url: Callable[[], str | None], examples: int, budgets: tuple[Budget, ...] = BUDGETS) -> None:
    class Over(Book):
        pass

    Over.url, Over.budgets = staticmethod(url), budgets
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Over,
        settings=settings(max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=slow),
    )


def test_the_book_is_right_through_anything() -> None:
    run_book(lambda: None, examples=15)


def test_the_book_is_right_without_budgets_too() -> None:
    run_book(lambda: None, examples=15, budgets=())


@pytest.mark.slow
def test_the_book_is_right_through_anything_for_longer() -> None:
    run_book(lambda: None, examples=300)
    run_book(lambda: None, examples=100, budgets=())


@pytest.mark.slow
def test_the_book_is_right_through_anything_over_postgres(postgres_url: str) -> None:
    def emptied() -> str:
        empty_postgres(postgres_url)
        return postgres_url

    run_book(emptied, examples=40)
    run_book(emptied, examples=20, budgets=())
