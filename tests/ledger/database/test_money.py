"""The money path, over both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.ledger.book.verification import verify
from app.ledger.database.foresight import foresee
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database, Full
from app.ledger.values.drawings import (
    Beginning,
    BudgetRefusal,
    Foresight,
    Joined,
    LimitRefusal,
    Outcome,
    Settlement,
    State,
    Ticket,
)
from app.ledger.values.limits import Measure
from app.microseconds import MINUTE
from tests.ledger.samples import (
    ME,
    NOW,
    REPLICA,
    a_budget,
    a_settlement,
    an_admission,
    an_attempt,
    claims_of,
    count_of,
    drawings,
    key_limits,
    periods,
    project_limits,
    registry_of,
)

Test = Callable[[Database], Coroutine[Any, Any, None]]


@asynccontextmanager
async def opened(url: str | None, folder: Path) -> AsyncIterator[Database]:
    database = await open_database(url, folder, has_own_clock=False)
    try:
        yield database
    finally:
        await database.aclose()


@pytest.fixture
def over(url: str | None, tmp_path: Path) -> Callable[[Test], None]:
    """Runs a test with an open database, and asks at its end whether the book adds up."""

    def run(test: Test) -> None:
        async def running() -> None:
            async with opened(url, tmp_path) as database:
                await test(database)
                assert await verify(database) == []

        asyncio.run(running())

    return run


async def admit(database: Database, *budgets: Any, now: int = NOW, **fields: Any) -> Any:
    return await database.admit(an_admission(**fields), claims_of(*budgets, now=now), REPLICA, now)


def test_a_drawing_is_held_then_sent_then_settled(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await registry_of(database).add_budget(a_budget(), ME)
        ticket = await admit(database, a_budget())
        assert (ticket.held, await periods(database)) == (100, [("bud_1", 100, 0, 0)])
        assert await drawings(database) == [("held", 100, 0, 0)]
        assert await database.sent(an_attempt(ticket.drawing_id))
        assert await drawings(database) == [("sent", 100, 0, 0)]
        assert await database.settle(a_settlement(ticket.drawing_id, cost=70))
        assert await drawings(database) == [("settled", 0, 70, 0)]
        assert await periods(database) == [("bud_1", 0, 70, 0)]
        assert [tuple(row) for row in await database.query("select result, cost_nano from attempt")] == [("ok", 70)]

    over(test)


def test_a_second_settle_changes_nothing(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await registry_of(database).add_budget(a_budget(), ME)
        ticket = await admit(database, a_budget())
        assert await database.settle(a_settlement(ticket.drawing_id, cost=70))
        assert not await database.settle(a_settlement(ticket.drawing_id, cost=99))
        assert not await database.settle(a_settlement(ticket.drawing_id, in_doubt=99))
        assert not await database.sent(an_attempt(ticket.drawing_id))
        assert await periods(database) == [("bud_1", 0, 70, 0)]
        assert not await database.settle(a_settlement("unknown", cost=1))

    over(test)


def test_what_costs_nothing_is_released(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await registry_of(database).add_budget(a_budget(), ME)
        ticket = await admit(database, a_budget())
        await database.sent(an_attempt(ticket.drawing_id))
        assert await database.settle(a_settlement(ticket.drawing_id))
        assert await drawings(database) == [("released", 0, 0, 0)]
        assert await periods(database) == [("bud_1", 0, 0, 0)]

    over(test)


@pytest.mark.parametrize(("paid", "after"), [(True, ("settled", 0, 100, 0)), (False, ("released", 0, 0, 0))])
def test_what_is_in_doubt_counts_until_somebody_resolves_it(
    over: Callable[[Test], None], paid: bool, after: object
) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=150)
        await registry_of(database).add_budget(budget, ME)
        ticket = await admit(database, budget)
        await database.settle(a_settlement(ticket.drawing_id, in_doubt=100))
        assert await periods(database) == [("bud_1", 0, 0, 100)]
        assert isinstance(await admit(database, budget), BudgetRefusal)
        assert await database.resolve(ticket.drawing_id, NOW, "me", "the bill says so", paid=paid)
        assert not await database.resolve(ticket.drawing_id, NOW, "me", "again", paid=paid)
        assert await drawings(database) == [after]
        assert isinstance(await admit(database, budget), Ticket) is not paid

    over(test)


def test_a_drawing_that_recovery_left_in_doubt_can_still_be_settled_once(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await registry_of(database).add_budget(a_budget(), ME)
        ticket = await admit(database, a_budget())
        await database.sent(an_attempt(ticket.drawing_id))
        lost = a_settlement(ticket.drawing_id, in_doubt=100, outcome=Outcome.INTERRUPTED)
        assert await database.settle(lost)
        assert not await database.settle(lost)
        assert await database.settle(a_settlement(ticket.drawing_id, cost=60))
        assert not await database.settle(a_settlement(ticket.drawing_id, cost=60))
        assert await drawings(database) == [("settled", 0, 60, 0)]
        assert await periods(database) == [("bud_1", 0, 60, 0)]

    over(test)


def test_a_budget_admits_what_it_has_room_for_and_names_what_uses_it(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=250)
        await registry_of(database).add_budget(budget, ME)
        first, second = [await admit(database, budget) for _ in range(2)]
        refusal = await admit(database, budget)
        assert isinstance(refusal, BudgetRefusal)
        assert (refusal.amount, refusal.used, refusal.held, refusal.needed) == (250, 0, 200, 100)
        assert refusal.is_reserved, "the running requests may end without a cost"
        for ticket in (first, second):
            await database.settle(a_settlement(ticket.drawing_id, cost=100))
        refusal = await admit(database, budget)
        assert isinstance(refusal, BudgetRefusal)
        assert not refusal.is_reserved
        assert refusal.budget == budget
        assert await count_of(database, "drawing") == 2

    over(test)


def test_a_soft_budget_counts_and_refuses_nothing(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=10, hard=False)
        await registry_of(database).add_budget(budget, ME)
        assert isinstance(await admit(database, budget), Ticket)
        assert await periods(database) == [("bud_1", 100, 0, 0)]

    over(test)


def test_the_database_knows_the_newest_amount_of_a_budget(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry, budget = registry_of(database), a_budget(amount=1)
        await registry.add_budget(budget, ME)
        assert isinstance(await admit(database, budget), BudgetRefusal)
        await registry.update_budget(budget.id, ME, amount=1000)
        assert isinstance(await admit(database, budget), Ticket), "the caller still has the old amount"
        await registry.remove_budget(budget.id, ME)
        assert isinstance(await admit(database, budget, most=10_000), Ticket)

    over(test)


def test_a_drawing_counts_in_the_period_of_its_admission(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(window="day")
        await registry_of(database).add_budget(budget, ME)
        ticket = await admit(database, budget)
        tomorrow = NOW + 24 * 60 * MINUTE
        await admit(database, budget, now=tomorrow, most=7)
        await database.settle(a_settlement(ticket.drawing_id, cost=90, at=tomorrow))
        assert await periods(database) == [("bud_1", 0, 90, 0), ("bud_1", 7, 0, 0)]

    over(test)


def test_a_cost_beyond_the_reservation_is_booked_in_full(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=120)
        await registry_of(database).add_budget(budget, ME)
        ticket = await admit(database, budget)
        await database.settle(a_settlement(ticket.drawing_id, cost=500))
        assert await periods(database) == [("bud_1", 0, 500, 0)]
        assert isinstance(await admit(database, budget, most=0), BudgetRefusal)

    over(test)


def test_more_is_reserved_only_while_there_is_room(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=250)
        await registry_of(database).add_budget(budget, ME)
        ticket = await admit(database, budget)
        assert await database.reserve(ticket.drawing_id, 200, NOW) is True
        assert await database.reserve(ticket.drawing_id, 200, NOW) is True, "it is held already"
        full = await database.reserve(ticket.drawing_id, 300, NOW)
        assert isinstance(full, Full)
        assert (full.budget_id, full.amount, full.used, full.held, full.needed) == ("bud_1", 250, 0, 200, 100)
        await database.settle(a_settlement(ticket.drawing_id, cost=200))
        assert await database.reserve(ticket.drawing_id, 201, NOW) is False

    over(test)


def test_what_may_have_left_already_is_held_without_room_too(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=150)
        await registry_of(database).add_budget(budget, ME)
        ticket = await admit(database, budget)
        for _ in range(2):
            assert await database.reserve(ticket.drawing_id, 200, NOW, has_left=True) is True
        assert await drawings(database) == [("held", 200, 0, 0)]
        assert await periods(database) == [("bud_1", 200, 0, 0)]

    over(test)


@pytest.mark.parametrize(
    ("limits", "fields", "measure"),
    [
        ({"requests_per_minute": 2}, {}, Measure.REQUESTS),
        ({"images_per_minute": 9}, {"n": 4}, Measure.IMAGES),
        ({"megapixels_per_minute": 5}, {"pixels": 2_000_000}, Measure.MEGAPIXELS),
        ({"max_concurrency": 2}, {}, Measure.CONCURRENCY),
    ],
)
def test_each_limit_admits_two_and_refuses_the_third(
    over: Callable[[Test], None], limits: dict[str, int], fields: dict[str, int], measure: Measure
) -> None:
    async def test(database: Database) -> None:
        taken = [await admit(database, limits=key_limits(**limits), **fields) for _ in range(3)]
        assert [type(answer) for answer in taken] == [Ticket, Ticket, LimitRefusal]
        refusal = taken[2]
        assert (refusal.state.limit.measure, refusal.state.limit.owner.name) == (measure, "ci")
        assert refusal.retry_after is not None
        assert refusal.retry_after > 0
        assert await count_of(database, "drawing") == 2

    over(test)


def test_a_clock_that_was_ahead_for_a_moment_keeps_no_key_waiting(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        limits = key_limits(requests_per_minute=2)
        ahead = NOW + 10_000_000 * MINUTE
        for _ in range(2):
            assert isinstance(await database.admit(an_admission(limits=limits), (), REPLICA, ahead), Ticket)
        assert isinstance(await foresee(database, an_admission(limits=limits), (), NOW), Foresight)
        taken = [await database.admit(an_admission(limits=limits), (), REPLICA, NOW) for _ in range(3)]
        assert [type(answer) for answer in taken] == [Ticket, Ticket, LimitRefusal]

    over(test)


def test_a_clock_that_is_set_back_by_little_opens_no_second_burst(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        limits = key_limits(requests_per_minute=2)
        for _ in range(2):
            assert isinstance(await database.admit(an_admission(limits=limits), (), REPLICA, NOW), Ticket)
        refusal = await database.admit(an_admission(limits=limits), (), REPLICA, NOW - 10_000_000)
        assert isinstance(refusal, LimitRefusal)
        assert refusal.retry_after == 40.0

    over(test)


def test_a_limit_has_room_again_after_the_time_that_its_refusal_names(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        limits = key_limits(requests_per_minute=2)
        for _ in range(2):
            await admit(database, limits=limits)
        refusal = await admit(database, limits=limits)
        wait = round(refusal.retry_after * 1_000_000)
        assert isinstance(await admit(database, limits=limits, now=NOW + wait - 10), LimitRefusal)
        assert isinstance(await admit(database, limits=limits, now=NOW + wait), Ticket)

    over(test)


def test_a_request_above_the_whole_limit_is_told_that_it_never_passes(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        refusal = await admit(database, limits=key_limits(images_per_minute=3), n=4)
        assert isinstance(refusal, LimitRefusal)
        assert refusal.retry_after is None

    over(test)


def test_a_refused_request_has_used_up_nothing(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=50)
        await registry_of(database).add_budget(budget, ME)
        limits = key_limits(requests_per_minute=1, max_concurrency=1) + project_limits(images_per_minute=1)
        for fields in ({}, {"n": 2}, {"most": 51}):
            assert not isinstance(await admit(database, budget, limits=limits, **fields), Ticket)
        assert isinstance(await admit(database, budget, limits=limits, most=50), Ticket)

    over(test)


def test_a_place_is_free_again_when_its_drawing_has_ended(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        limits = key_limits(max_concurrency=1) + project_limits(max_concurrency=5)
        ticket = await admit(database, limits=limits)
        assert [state.remaining for state in ticket.limits] == [0, 4]
        assert isinstance(await admit(database, limits=limits), LimitRefusal)
        await database.settle(a_settlement(ticket.drawing_id))
        assert isinstance(await admit(database, limits=limits), Ticket)

    over(test)


def test_a_ticket_says_what_is_left_of_each_limit(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        limits = key_limits(requests_per_minute=60, images_per_minute=10)
        await admit(database, limits=limits, n=2)
        ticket = await admit(database, limits=limits, n=2)
        assert [(x.limit.measure, x.remaining, x.reset) for x in ticket.limits] == [
            (Measure.REQUESTS, 58, 2.0),
            (Measure.IMAGES, 6, 24.0),
        ]

    over(test)


def test_the_same_admission_again_takes_nothing_more(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget, limits = a_budget(), key_limits(requests_per_minute=5, max_concurrency=5)
        await registry_of(database).add_budget(budget, ME)
        admission = an_admission(limits=limits)
        first, second = [await database.admit(admission, claims_of(budget), REPLICA, NOW) for _ in range(2)]
        assert isinstance(first, Ticket)
        assert first == second
        assert await periods(database) == [("bud_1", 100, 0, 0)]

    over(test)


def test_many_callers_at_once_never_overshoot(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=3300)
        await registry_of(database).add_budget(budget, ME)
        answers = await asyncio.gather(*(admit(database, budget) for _ in range(100)))
        assert sum(isinstance(answer, Ticket) for answer in answers) == 33
        limits = key_limits(images_per_minute=50) + project_limits(max_concurrency=20)
        answers = await asyncio.gather(*(admit(database, limits=limits, n=2) for _ in range(100)))
        assert sum(isinstance(answer, Ticket) for answer in answers) == 20
        tickets = [answer for answer in answers if isinstance(answer, Ticket)]
        await asyncio.gather(*(database.settle(a_settlement(x.drawing_id, cost=1)) for x in tickets))
        answers = await asyncio.gather(*(admit(database, limits=limits, n=2) for _ in range(100)))
        assert sum(isinstance(answer, Ticket) for answer in answers) == 5

    over(test)


def test_a_threshold_is_told_once(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=1000, thresholds=(10, 50, 100))
        await registry_of(database).add_budget(budget, ME)
        for cost in (99, 1, 399, 1, 600):
            ticket = await admit(database, budget, most=0)
            await database.settle(a_settlement(ticket.drawing_id, cost=cost))
        told = await database.query("select threshold from budget_alert order by threshold")
        assert [row[0] for row in told] == [10, 50, 100]
        assert await count_of(database, "outbox") == 3

    over(test)


def test_a_joined_answer_is_a_row_without_a_cost(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        joined = Joined(
            "a",
            NOW,
            "req_2",
            "req_1",
            "k",
            None,
            "edits",
            "m",
            "m",
            1,
            1,
            saved=40,
            end_user="anna",
            tags='{"team": "blue"}',
        )
        await database.join(joined, REPLICA)
        await database.join(joined, REPLICA)
        rows = await database.query("select state, outcome, cost_nano, saved_nano, run_id, end_user, tags from drawing")
        assert [tuple(row) for row in rows] == [("settled", "joined", 0, 40, "req_1", "anna", '{"team": "blue"}')]

    over(test)


def test_a_deferred_drawing_is_written_once_whatever_room_there_is(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        budget = a_budget(amount=10)
        await registry_of(database).add_budget(budget, ME)
        admission = an_admission(tags={"team": "blue"})
        for _ in range(2):
            await database.defer(admission, claims_of(budget), REPLICA, NOW)
        assert await periods(database) == [("bud_1", 100, 0, 0)]
        assert [tuple(row) for row in await database.query("select tags from drawing")] == [('{"team": "blue"}',)]

    over(test)


def test_what_was_given_up_with_its_process_can_be_settled_once_until_a_person_has_spoken(
    over: Callable[[Test], None],
) -> None:
    async def test(database: Database) -> None:
        budget = a_budget()
        await registry_of(database).add_budget(budget, ME)
        held, sent, resolved = [await admit(database, budget) for _ in range(3)]
        for ticket in (sent, resolved):
            await database.sent(an_attempt(ticket.drawing_id))
        for ticket in (held, sent, resolved):
            stake = 0 if ticket is held else 100
            end = a_settlement(ticket.drawing_id, in_doubt=stake, outcome=Outcome.INTERRUPTED, attempts=())
            assert await database.settle(end)
            assert not await database.settle(end)
        assert await periods(database) == [("bud_1", 0, 0, 200)]
        await database.resolve(resolved.drawing_id, NOW, "me", "", paid=False)
        assert await database.settle(a_settlement(held.drawing_id, cost=40))
        assert await database.settle(a_settlement(sent.drawing_id, cost=50))
        for ticket in (held, sent, resolved):
            assert not await database.settle(a_settlement(ticket.drawing_id, cost=60))
        assert await periods(database) == [("bud_1", 0, 90, 0)]

    over(test)


def test_unfinished_drawings_are_those_of_the_replica_with_what_is_at_stake(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        held, sent, twice, other, ended = [an_admission() for _ in range(5)]
        for admission in (held, sent, twice, other, ended):
            replica = "other" if admission is other else REPLICA
            await database.admit(admission, (), replica, NOW)
        await database.sent(an_attempt(sent.id, most=60))
        for seq in (1, 2):
            await database.sent(an_attempt(twice.id, seq, most=80))
        await database.settle(a_settlement(ended.id))
        found = await database.unfinished(REPLICA)
        assert [(x.drawing_id, x.state, x.at_stake) for x in found] == [
            (held.id, State.HELD, 0),
            (sent.id, State.SENT, 60),
            (twice.id, State.SENT, 100),
        ]

    over(test)


def test_rows_come_in_chunks_and_as_of_one_moment(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        for _ in range(5):
            await admit(database)
        sizes = list[int]()
        async for rows in database.stream("select id from drawing order by id", (), 2):
            sizes.append(len(rows))
            await admit(database)
        assert sizes == [2, 2, 1]

    over(test)


# --- groups of drawings that count in no limit ---


def beginnings(count: int, **fields: Any) -> list[Beginning]:
    admissions = [an_admission(**fields) for _ in range(count)]
    return [Beginning(each, NOW, an_attempt(each.id, most=each.most or 0)) for each in admissions]


def ends_of(begun: Sequence[Beginning]) -> list[Settlement]:
    """All ends that there are, in turn."""
    kinds: list[dict[str, int]] = [{"cost": 100}, {"cost": 30}, {}, {"in_doubt": 100}, {"cost": 20, "in_doubt": 5}]
    return [a_settlement(each.admission.id, **kinds[number % len(kinds)]) for number, each in enumerate(begun)]


async def book_of(database: Database) -> list[list[tuple[Any, ...]]]:
    """The rows of a drawing, without their ids, in the order of the drawings."""
    wanted = ("state, outcome, n, reserved_nano, held_nano, cost_nano, in_doubt_nano, images, provider, http_status, "
              "total_ms, attempts, end_user, tags from drawing order by id",
              "seq, kind, held_nano, spent_nano, in_doubt_nano, at, made_by, note from entry order by drawing_id, seq",
              "seq, sent_at, provider, deployment, model, images, most_nano, result, http_status, ms, cost_nano, "
              "in_doubt_nano from attempt order by drawing_id, seq")  # fmt: skip
    return [[tuple(row) for row in await database.query(f"select {each}")] for each in wanted]


@pytest.mark.parametrize("most", [100, None], ids=["priced", "unpriced"])
def test_a_group_leaves_the_same_rows_as_its_drawings_one_by_one(
    over: Callable[[Test], None], most: int | None
) -> None:
    async def test(database: Database) -> None:
        group, alone = beginnings(45, most=most), beginnings(45, most=most)
        await database.record(group, [], REPLICA)
        begun = await book_of(database)
        assert {row[0] for row in begun[0]} == {"sent"}
        await database.record([], ends_of(group), REPLICA)
        together = await book_of(database)
        for each, end in zip(alone, ends_of(alone), strict=True):
            await database.defer(each.admission, (), REPLICA, NOW)
            await database.sent(each.attempt)
            await database.settle(end)
        both = await book_of(database)
        assert both == [rows + rows for rows in together]

    over(test)


def test_a_group_that_is_told_twice_changes_nothing(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        begun = beginnings(9)
        ends = ends_of(begun)
        await database.record(begun, ends, REPLICA)
        before = await book_of(database)
        await database.record(begun, [], REPLICA)
        await database.record(begun, [*ends, *(a_settlement(each.admission.id, cost=99) for each in begun)], REPLICA)
        await database.record([], [a_settlement("unknown", cost=1), *reversed(ends)], REPLICA)
        assert await book_of(database) == before

    over(test)


def test_an_end_moves_the_money_of_a_budget_that_was_made_meanwhile(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        begun = beginnings(6)
        await database.record(begun, [], REPLICA)
        await registry_of(database).add_budget(a_budget(), ME)
        assert await periods(database) == [("bud_1", 600, 0, 0)]
        later = beginnings(2)
        await database.record(later, [a_settlement(each.admission.id, cost=70) for each in begun + later], REPLICA)
        assert await periods(database) == [("bud_1", 0, 420, 0)]

    over(test)


def test_what_recovery_ended_can_be_settled_in_a_group_once(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        begun = beginnings(4)
        await database.record(begun, [], REPLICA)
        lost = begun[1].admission.id
        await database.settle(a_settlement(lost, in_doubt=100, outcome=Outcome.INTERRUPTED))
        for cost in (70, 80):
            await database.record([], [a_settlement(each.admission.id, cost=cost) for each in begun], REPLICA)
        assert await drawings(database) == [("settled", 0, 70, 0)] * 4

    over(test)
