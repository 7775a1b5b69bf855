"""Retention: drawings that are older than `ledger.retain_days` are cleaned away, and their sums stay.

Their hours are rolled up a last time and frozen. Then the rows go, in small steps with a pause after each, so that no
request waits for long. In the transaction of each step, closing entries take over the amounts of the rows in the
periods of budgets. So the book adds up at every moment, also if two processes clean at once. A drawing that has not
ended, or is in doubt, keeps its hour and all later ones. Messages of the outbox that were done so long ago go too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.ledger.book.rollups import LOCK, Rollups, read_number
from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders
from app.microseconds import DAY, HOUR

DRAWINGS_AT_ONCE = 100
PAUSE_SECONDS = 0.05

# Messages that were delivered or given up.
_FORGET = "delete from outbox where done_at < {at}"
_CLOSE = """insert into entry (seq, kind, held_nano, spent_nano, in_doubt_nano, at, made_by, budget_id, starts_at)
    select 0, 'close', sum(e.held_nano), sum(e.spent_nano), sum(e.in_doubt_nano), {at}, 'gateway', c.budget_id,
    c.starts_at from charge c join entry e on e.drawing_id = c.drawing_id where c.drawing_id in ({ids})
    group by c.budget_id, c.starts_at"""
_FOLD = """insert into entry (seq, kind, held_nano, spent_nano, in_doubt_nano, at, made_by, budget_id, starts_at)
    select 1, 'close', sum(held_nano), sum(spent_nano), sum(in_doubt_nano), {at}, 'gateway', budget_id, starts_at
    from entry where drawing_id is null and budget_id is not null group by budget_id, starts_at having count(*) > 1"""
# The newest closing entry of a period with the number 1 stands for those before it.
_UNFOLDED = """delete from entry where drawing_id is null and budget_id is not null and id < (
    select max(x.id) from entry x where x.drawing_id is null and x.seq = 1
    and x.budget_id = entry.budget_id and x.starts_at = entry.starts_at)"""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """`clock` gives microseconds since the epoch."""

    database: Database
    clock: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def clean(self, retain_days: int) -> int:
        """Clean away the drawings that are older than so many days, and return their number. Raises
        DatabaseUnavailable; the next call goes on from there."""
        before = await self._freeze(retain_days)
        count = 0
        [mark] = placeholders(self.database, 1)
        while rows := await self.database.query(
            f"select id from drawing where at < {mark} order by at, id limit {DRAWINGS_AT_ONCE}", (before,)
        ):
            await self.database.execute(self._remove([row[0] for row in rows]))
            count += len(rows)
            await self.sleep(PAUSE_SECONDS)
        if count:
            [at] = placeholders(self.database, 1)
            await self.database.execute([(LOCK, ()), (_FOLD.format(at=at), (self.clock(),)), (_UNFOLDED, ())])
        [at] = placeholders(self.database, 1)
        await self.database.execute([(_FORGET.format(at=at), (self.clock() - retain_days * DAY,))])
        return count

    async def _freeze(self, retain_days: int) -> int:
        """Roll up the hours to be removed a last time, and freeze them. Returns the time at which they end."""
        frozen = await read_number(self.database, "cleaned")
        before = self.clock() - retain_days * DAY
        rows = await self.database.query("select min(at) from drawing where state in ('held', 'sent', 'in_doubt')")
        before = min(before, before if rows[0][0] is None else int(rows[0][0]))
        before -= before % HOUR
        rows = await self.database.query("select min(at) from drawing")
        if before <= frozen or rows[0][0] is None:
            return frozen
        start = max(int(rows[0][0]), frozen)
        rollups = Rollups(self.database, self.clock)
        await rollups.recompute(range(start - start % HOUR, before, HOUR))  # of ended drawings: they change no more
        await self.database.execute([rollups.freeze(before)])
        return before

    def _remove(self, ids: Sequence[str]) -> list[tuple[str, Sequence[Any]]]:
        at, *marks = placeholders(self.database, len(ids) + 1)
        close = _CLOSE.format(at=at, ids=", ".join(marks))
        here = ", ".join(placeholders(self.database, len(ids)))
        removals = [
            f"delete from {table} where {column} in ({here})"
            for table, column in (
                ("charge", "drawing_id"),
                ("entry", "drawing_id"),
                ("attempt", "drawing_id"),
                ("drawing", "id"),
            )
        ]
        return [(LOCK, ()), (close, (self.clock(), *ids)), *((sql, tuple(ids)) for sql in removals)]
