"""What admission would find, over both databases: the same as admission itself, and nothing is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.ledger.database.foresight import foresee
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database
from app.ledger.values.drawings import BudgetRefusal, Foresight, LimitRefusal, Ticket
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
    key_limits,
    project_limits,
    registry_of,
)

Test = Callable[[Database], Coroutine[Any, Any, None]]


@pytest.fixture
def over(url: str | None, tmp_path: Path) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def with_database() -> None:
            database = await open_database(url, tmp_path)
            try:
                await test(database)
            finally:
                await database.aclose()

        asyncio.run(with_database())

    return run


def timeless(found: Any) -> Any:
    """What was found, without times: Postgres has a clock of its own."""
    limits = tuple(replace(state, reset=0.0) for state in found.limits)
    if isinstance(found, LimitRefusal):
        wait = None if found.retry_after is None else round(found.retry_after)
        return replace(found, limits=limits, state=replace(found.state, reset=0.0), retry_after=wait)
    return replace(found, limits=limits)


def test_what_is_foreseen_is_what_admission_finds(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await registry_of(database).add_budget(a_budget(amount=250), ME)
        limits = (*key_limits(requests_per_minute=5, max_concurrency=2), *project_limits(megapixels_per_minute=3))
        claims = claims_of(a_budget(amount=250))
        for taken in range(4):
            admission = an_admission(limits=limits)
            foreseen = await foresee(database, admission, claims, NOW)
            again = await foresee(database, admission, claims, NOW)
            found = await database.admit(admission, claims, REPLICA, NOW)
            assert timeless(foreseen) == timeless(again)
            if isinstance(found, Ticket):
                assert isinstance(foreseen, Foresight)
                assert [state.remaining for state in foreseen.limits] == [5 - taken, 2 - taken, 3 - taken]
                [use] = foreseen.budgets
                assert (use.used, use.held, use.left) == (0, 100 * taken, 250 - 100 * taken)
            else:
                assert timeless(foreseen) == timeless(found)
        assert isinstance(found, LimitRefusal)

    over(test)


def test_a_budget_that_is_used_up_is_foreseen(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        await registry_of(database).add_budget(a_budget(amount=250), ME)
        claims = claims_of(a_budget(amount=250))
        first = an_admission()
        await database.admit(first, claims, REPLICA, NOW)
        await database.sent(an_attempt(first.id))
        await database.settle(a_settlement(first.id, cost=70, in_doubt=90))
        wanted = an_admission()
        foreseen = await foresee(database, wanted, claims, NOW)
        assert isinstance(foreseen, BudgetRefusal)
        assert foreseen == await database.admit(wanted, claims, REPLICA, NOW)
        fits = await foresee(database, an_admission(most=90), claims, NOW)
        assert isinstance(fits, Foresight)
        assert [(use.used, use.held, use.left) for use in fits.budgets] == [(160, 0, 90)]

    over(test)


def test_a_request_that_never_fits_is_foreseen(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        wanted = an_admission(n=4, limits=key_limits(images_per_minute=3))
        foreseen = await foresee(database, wanted, (), NOW + MINUTE)
        assert isinstance(foreseen, LimitRefusal)
        assert foreseen.retry_after is None
        assert timeless(foreseen) == timeless(await database.admit(wanted, (), REPLICA, NOW + MINUTE))

    over(test)
