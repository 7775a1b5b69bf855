"""The outbox: messages that are written in the transaction that they report, and leave later. One process at a time
takes a message, and delivers it at least once. Knows no recipient.

    due ──take──▶ next try written ──deliver──▶ done
     ▲                   │ the delivery failed, or the process died
     └───────────────────┘ until it has been tried often enough: then it is given up
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders
from app.microseconds import SECOND

WAITS = tuple(seconds * SECOND for seconds in (10, 30, 120, 600, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 24 * 3600))
MOST_TAKEN = 20  # messages at a time

_DUE = "select id, kind, body, tries, next_at from outbox where done_at is null and next_at <= {} order by id limit {}"
_TAKE = "update outbox set tries = tries + 1, next_at = {} where id = {} and next_at = {} and done_at is null"
_DONE = "update outbox set done_at = {} where id = {}"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that this process delivers. `tries` counts this one."""

    id: int
    kind: str
    body: str
    tries: int

    @property
    def is_last_try(self) -> bool:
        return self.tries > len(WAITS)


@dataclass(frozen=True, slots=True)
class Outbox:
    """`database` returns the one that is open, or raises DatabaseUnavailable, as every method does. `clock` gives
    microseconds since the epoch."""

    database: Callable[[], Database]
    clock: Callable[[], int]

    async def take(self) -> Sequence[Message]:
        """Return the messages that are due, each for this process alone until its next try."""
        database, now = self.database(), self.clock()
        rows = await database.query(_DUE.format(*placeholders(database, 2)), (now, MOST_TAKEN))
        taken = list[Message]()
        for id, kind, body, tries, next_at in rows:
            later = now + WAITS[min(tries, len(WAITS) - 1)]
            [count] = await database.execute([(_TAKE.format(*placeholders(database, 3)), (later, id, next_at))])
            if count:
                taken.append(Message(id, kind, str(body), tries + 1))
        return taken

    async def finish(self, message: Message) -> None:
        """Write down that a message was delivered, or is given up."""
        database = self.database()
        await database.execute([(_DONE.format(*placeholders(database, 2)), (self.clock(), message.id))])
