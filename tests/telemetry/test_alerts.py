"""Budgets that reach thresholds, over a real database: what is logged, and what the webhook gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.catalog.money import to_nano
from app.ledger.book.outbox import WAITS, Outbox
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database
from app.ledger.values.directory import Directory
from app.telemetry.alerts import BudgetAlerts
from tests.ledger.samples import ME, NOW, REPLICA, a_budget, a_settlement, an_admission, claims_of, registry_of

pytestmark = pytest.mark.anyio

BUDGET = a_budget(amount=to_nano(1), thresholds=(50, 100), owner="", timezone="Europe/Prague")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(None, tmp_path)
    await registry_of(opened).add_budget(BUDGET, ME)
    yield opened
    await opened.aclose()


class Desk:
    """Alerts whose clock is set by hand, with what they logged and sent."""

    def __init__(self, database: Database, *, has_webhook: bool = True) -> None:
        self.now = NOW + 10
        self.reason: str | None = None
        self.warned = list[tuple[str, dict[str, object]]]()
        self.sent = list[dict[str, Any]]()
        directory = Directory(budgets=(BUDGET,))
        self.alerts = BudgetAlerts(
            Outbox(lambda: database, lambda: self.now),
            lambda: directory,
            "USD",
            lambda what, **facts: self.warned.append((what, facts)),
            self.send if has_webhook else None,
        )

    async def send(self, id: str, body: str) -> str | None:
        event = json.loads(body)
        assert event["id"] == id
        self.sent.append(event)
        return self.reason


async def draw(database: Database, cost: str) -> None:
    admission = an_admission(most=to_nano(cost))
    await database.admit(admission, claims_of(BUDGET), REPLICA, NOW)
    await database.settle(a_settlement(admission.id, to_nano(cost)))


async def test_each_threshold_is_told_once(database: Database) -> None:
    desk = Desk(database)
    await draw(database, "0.4")
    assert await desk.alerts.deliver() == 0
    await draw(database, "0.25")
    assert await desk.alerts.deliver() == 1
    await draw(database, "0.1")
    assert await desk.alerts.deliver() == 0
    await draw(database, "0.25")
    assert await desk.alerts.deliver() == 1
    [half, whole] = desk.sent
    assert half == {
        "id": f"evt_bud_1_{half['data']['starts_at']}_50",
        "object": "event",
        "type": "budget.threshold_reached",
        "created_at": desk.now // 1_000_000,
        "data": {
            "budget_id": "bud_1",
            "threshold": 50,
            "used": "0.650000",
            "amount": "1.000000",
            "currency": "USD",
            "starts_at": half["data"]["starts_at"],
            "ends_at": half["data"]["ends_at"],
            "owner": None,
            "scope": "all",
            "scope_id": None,
            "window": "month",
            "hard": True,
        },
    }
    assert half["data"]["starts_at"] < NOW // 1_000_000 < half["data"]["ends_at"]
    assert whole["data"]["threshold"] == 100
    assert [facts["threshold"] for what, facts in desk.warned] == [50, 100]


async def test_what_the_webhook_does_not_accept_is_sent_again_and_logged_once(database: Database) -> None:
    desk = Desk(database)
    desk.reason = "status 500"
    await draw(database, "0.5")
    await desk.alerts.deliver()
    await desk.alerts.deliver()
    assert len(desk.sent) == 1
    desk.now += WAITS[0]
    desk.reason = None
    await desk.alerts.deliver()
    desk.now += 10 * WAITS[-1]
    await desk.alerts.deliver()
    assert [event["id"] for event in desk.sent] == [desk.sent[0]["id"]] * 2
    assert [what for what, _ in desk.warned] == [
        "budget has reached a threshold",
        "webhook failed, it is tried again",
    ]


async def test_a_webhook_that_never_accepts_is_given_up(database: Database) -> None:
    desk = Desk(database)
    desk.reason = "status 500"
    await draw(database, "0.5")
    for _ in range(len(WAITS) + 5):
        await desk.alerts.deliver()
        desk.now += WAITS[-1]
    assert len(desk.sent) == len(WAITS) + 1
    assert desk.warned[-1][0] == "webhook failed for good"


async def test_without_a_webhook_the_log_tells(database: Database) -> None:
    desk = Desk(database, has_webhook=False)
    await draw(database, "0.5")
    assert await desk.alerts.deliver() == 1
    desk.now += 10 * WAITS[-1]
    assert await desk.alerts.deliver() == 0
    [(what, facts)] = desk.warned
    assert what == "budget has reached a threshold"
    assert facts == {
        "budget_id": "bud_1",
        "owner": None,
        "threshold": 50,
        "used": "0.500000",
        "amount": "1.000000",
        "currency": "USD",
    }
