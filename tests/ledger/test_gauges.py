"""What metrics read of the ledger, from both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.ledger.book.rollups import Rollups
from app.ledger.database.opening import open_database
from app.ledger.ledger import Policy, open_ledger
from app.ledger.values.changes import Actor
from app.ledger.values.drawings import Ticket
from app.microseconds import HOUR
from app.telemetry.metrics.state import AT_A_TIME, IN_DOUBT, read_book
from tests.ledger.conftest import Clock
from tests.ledger.samples import a_budget, a_settlement, an_admission, an_attempt, claims_of, registry_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_budgets_doubts_and_messages_are_read_as_they_are(url: str | None, tmp_path: Path, clock: Clock) -> None:
    ledger_of = open_ledger(url, tmp_path, policy=Policy(), clock=clock, warn=lambda *_, **__: None)
    async with ledger_of as ledger:
        database, now = ledger.database, clock.micros
        registry = registry_of(database, now)
        budgets = [a_budget(id=f"bud_{number}", amount=10_000, since=now) for number in range(AT_A_TIME + 2)]
        for budget in budgets:
            await registry.add_budget(budget, Actor("gateway", "test"))
        await ledger.refresh()
        for number, (cost, in_doubt) in enumerate(((300, 0), (0, 200), (None, 0))):
            admission = an_admission(id=f"{number:032x}", most=500)
            assert isinstance(await ledger.admit(admission), Ticket)
            assert await ledger.sent(an_attempt(admission.id, most=500)) is None
            if cost is not None:
                await ledger.settle(a_settlement(admission.id, cost, in_doubt))
        periods = [(claim.budget, claim.period) for claim in claims_of(*budgets, now=now)]
        found = await read_book(database, periods)
        assert (found.in_doubt, found.pending, found.rolled_up) == (1, 0, 0)
        await Rollups(database, lambda: now).refresh()
        assert (await read_book(database, [])).rolled_up == now - now % HOUR
        assert found.used == {budget.id: (300, 500, 200) for budget in budgets}
        assert (await read_book(database, [])).used == {}


async def test_doubts_are_counted_by_an_index(tmp_path: Path) -> None:
    database = await open_database(None, tmp_path)
    plan = await database.query(f"explain query plan {IN_DOUBT}")
    assert "USING COVERING INDEX drawing_open" in str(plan) or "USING INDEX drawing_open" in str(plan), plan
    await database.aclose()
