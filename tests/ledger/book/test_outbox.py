from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.ledger.book.outbox import WAITS, Message, Outbox
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    now = 1_790_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def database(url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(url, tmp_path)
    yield opened
    await opened.aclose()


async def write(database: Database, body: str, next_at: int = 0) -> None:
    await database.execute([(f"insert into outbox (kind, body, next_at) values ('test', '{body}', {next_at})", ())])


async def test_a_message_is_taken_when_it_is_due_and_no_more_once_it_is_done(database: Database) -> None:
    clock = Clock()
    outbox = Outbox(lambda: database, clock)
    await write(database, "now")
    await write(database, "later", clock.now + 1)
    [message] = await outbox.take()
    assert (message.kind, message.body, message.tries) == ("test", "now", 1)
    await outbox.finish(message)
    clock.now += 1
    [later] = await outbox.take()
    assert later.body == "later"
    clock.now += 10 * WAITS[-1]
    await outbox.finish(later)
    assert await outbox.take() == []


async def test_a_message_that_was_not_delivered_comes_again_later_and_later(database: Database) -> None:
    clock = Clock()
    outbox = Outbox(lambda: database, clock)
    await write(database, "again")
    taken = list[Message]()
    for wait in WAITS:
        taken += await outbox.take()
        clock.now += wait - 1
        assert await outbox.take() == []
        clock.now += 1
    taken += await outbox.take()
    assert [message.tries for message in taken] == list(range(1, len(WAITS) + 2))
    assert [message.is_last_try for message in taken] == [False] * len(WAITS) + [True]


async def test_a_message_is_taken_by_one_process_alone(database: Database) -> None:
    clock = Clock()
    one, other = (Outbox(lambda: database, clock) for _ in range(2))
    for number in range(5):
        await write(database, f"message {number}")
    taken = [*await one.take(), *await other.take()]
    assert sorted(message.body for message in taken) == [f"message {number}" for number in range(5)]
