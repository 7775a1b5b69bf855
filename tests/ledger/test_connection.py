"""The connection to the database: the journal that is replayed when the database is back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.ledger.journal import Journal
from app.ledger.values.drawings import Ticket
from tests.ledger.gateways import Gateway, Test, run_in
from tests.ledger.samples import (
    a_settlement,
    an_admission,
    an_attempt,
    drawings,
    key_limits,
)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    return run_in(tmp_path)


def test_a_record_of_the_journal_that_the_database_cannot_take_keeps_nothing_from_being_served(
    run: Callable[[Test], None],
) -> None:
    async def test(gateway: Gateway) -> None:
        limits = key_limits(requests_per_minute=5)
        admission = an_admission(limits=limits)
        async with gateway.running() as ledger:
            assert isinstance(await ledger.admit(admission), Ticket)
            assert await ledger.sent(an_attempt(admission.id)) is None
            gateway.database.is_away = True
            await ledger.settle(a_settlement(admission.id, cost=10, note="\ud800"))
            await ledger.settle(a_settlement(admission.id, cost=10))
            gateway.database.is_away = False
        journal = Journal(gateway.folder / "journal", room=65_536)
        journal.append(json.dumps({"kind": "settle", "drawing_id": "of a newer version", "weather": "fine"}))
        journal.close()
        async with gateway.running() as ledger:
            assert await drawings(gateway.real) == [("settled", 0, 10, 0)]
            assert gateway.warnings.count("a record of the journal is no good") == 2
            assert isinstance(await ledger.admit(an_admission(limits=limits)), Ticket)

    run(test)
