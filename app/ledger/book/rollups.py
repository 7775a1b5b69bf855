"""The rollups: usage by hour and by day, recomputed from `drawing` and never incremented. Writes no SQLAlchemy.

A rollup of an hour is deleted and written anew in one transaction, so doing it twice, or in two processes, changes
nothing. The table `revision` holds three numbers for it:

    rollup    the hours before this time are rolled up
    entry     the entries up to this one are in the rollups
    cleaned   the drawings before this time are cleaned away, or will be: their rollups are frozen

Every movement of money is an entry, so new entries name the hours that have to be recomputed, however old these are. A
drawing without a price moves none: hours are recomputed too as long as their rollups have drawings without an outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders
from app.microseconds import DAY, HOUR, SECOND

LATEST = 2 * DAY  # before the last rollup: drawings that began then may still be under way
COMMIT_SECONDS = 120  # that a transaction may take until its entries, which have older numbers, are seen

_DIMENSIONS = "project_id, key_id, model, provider, operation, size, outcome"
_SUMS = "requests, images, pixels, milliseconds, cost_nano, in_doubt_nano, saved_nano"
_HOUR = f"""insert into usage_hour (starts_at, {_DIMENSIONS}, {_SUMS})
    select at - at % {HOUR}, coalesce(project_id, ''), key_id, model, coalesce(provider, ''), operation,
    case when width is null then '' else cast(width as text) || 'x' || cast(height as text) end, coalesce(outcome, ''),
    count(*), sum(images), sum(cast(images as bigint) * coalesce(width, 0) * coalesce(height, 0)),
    sum(coalesce(total_ms, 0)), sum(cost_nano), sum(in_doubt_nano), sum(saved_nano)
    from drawing where at >= {{}} and at < {{}} group by 1, 2, 3, 4, 5, 6, 7, 8"""
_DAY = f"""insert into usage_day (starts_at, {_DIMENSIONS}, {_SUMS})
    select starts_at - starts_at % {DAY}, {_DIMENSIONS}, sum(requests), sum(images), sum(pixels), sum(milliseconds),
    sum(cost_nano), sum(in_doubt_nano), sum(saved_nano)
    from usage_hour where starts_at >= {{}} and starts_at < {{}} group by 1, 2, 3, 4, 5, 6, 7, 8"""
_NUMBER = (
    "insert into revision (name, number) values ({}, {}) on conflict (name) do update set number = excluded.number"
)
# Held until the transaction ends, so that the next statements see the changes of its last holder.
LOCK = (
    "insert into revision (name, number) values ('rollup', 0) on conflict (name) do update set number = revision.number"
)


def next_start(time: int, width: int) -> int:
    """Return the first time from this one on at which an hour or a day begins."""
    return time + -time % width


async def read_number(database: Database, name: str) -> int:
    """Return one of the numbers; 0: it was never written."""
    [mark] = placeholders(database, 1)
    rows = await database.query(f"select number from revision where name = {mark}", (name,))
    return int(rows[0][0]) if rows else 0


def number(database: Database, name: str, value: int) -> tuple[str, Sequence[Any]]:
    """Return the statement that writes one of the numbers."""
    return _NUMBER.format(*placeholders(database, 2)), (name, value)


async def read_mark(database: Database) -> int:
    """Return the time before which all hours are rolled up."""
    return await read_number(database, "rollup")


@dataclass(frozen=True, slots=True)
class Rollups:
    """Keeps the rollups right. `clock` gives microseconds since the epoch."""

    database: Database
    clock: Callable[[], int]

    async def refresh(self) -> int:
        """Recompute the hours that have ended or changed since the last time. Returns how many. Raises
        DatabaseUnavailable and, if another process does the same at this moment, DuplicateRow."""
        now = self.clock()
        end = now - now % HOUR
        frozen, mark, seen = [await read_number(self.database, name) for name in ("cleaned", "rollup", "entry")]
        first, second = placeholders(self.database, 2)
        settled = now - COMMIT_SECONDS * SECOND
        last = await self._single(f"select max(id) from entry where id > {first} and at < {second}", (seen, settled))
        start = mark - HOUR if mark else await self._single("select min(at) from drawing", ()) or end
        hours = set(range(max(start - start % HOUR, frozen), end, HOUR))
        rows = await self.database.query(
            f"select distinct d.at - d.at % {HOUR} from entry e join drawing d on d.id = e.drawing_id "
            f"where e.id > {first} and d.at < {second}",
            (seen, end),
        )
        hours |= {int(row[0]) for row in rows if int(row[0]) >= frozen}
        rows = await self.database.query(
            "select distinct starts_at from usage_hour "
            f"where outcome = '' and starts_at >= {first} and starts_at < {second}",
            (max(mark - LATEST, frozen), end),
        )
        hours |= {int(row[0]) for row in rows}
        await self.recompute(sorted(hours))
        await self.database.execute(
            [number(self.database, "rollup", end), number(self.database, "entry", last or seen)]
        )
        return len(hours)

    async def recompute(self, hours: Sequence[int]) -> None:
        """Write the rollups of these hours anew, and then those of their days. Each is a transaction of its own:
        admissions wait for no more than the drawings of an hour to be summed up."""
        for hour in hours:
            await self.database.execute(self._rewrite("usage_hour", _HOUR, hour, HOUR))
        for day in sorted({hour - hour % DAY for hour in hours}):
            await self.database.execute(self._rewrite("usage_day", _DAY, day, DAY))

    def _rewrite(self, table: str, insert: str, start: int, width: int) -> list[tuple[str, Sequence[Any]]]:
        marks, bounds = placeholders(self.database, 2), (start, start + width)
        delete = f"delete from {table} where starts_at >= {{}} and starts_at < {{}}"
        return [(LOCK, ()), (delete.format(*marks), bounds), (insert.format(*marks), bounds)]

    def freeze(self, before: int) -> tuple[str, Sequence[Any]]:
        """Return the statement that freezes the rollups of the hours before that time."""
        return number(self.database, "cleaned", before)

    async def _single(self, sql: str, parameters: Sequence[Any]) -> int | None:
        value = (await self.database.query(sql, parameters))[0][0]
        return None if value is None else int(value)
