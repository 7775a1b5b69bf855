"""Prove that the book adds up, and repair sums that differ.

    entries ──sum──▶ a drawing's held, cost and in doubt ──sum by charge──▶ a budget's period

The entries are the truth. A drawing or a period that differs is reported, and a repair writes the sum over it. Each
question is one statement, so that drawings that end meanwhile differ in nothing; a ledger of millions may take minutes
for it.

The table `revision` holds two numbers for it: `verified`, the time of the last proof, and `drift`, what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.ledger.book.rollups import number
from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders

# A closing entry stands for drawings that were cleaned away: it has a budget and no drawing.
_DRAWINGS = """select d.id, d.held_nano, d.cost_nano, d.in_doubt_nano, coalesce(e.held, 0), coalesce(e.spent, 0),
    coalesce(e.in_doubt, 0) from drawing d left join (
        select drawing_id, sum(held_nano) as held, sum(spent_nano) as spent, sum(in_doubt_nano) as in_doubt
        from entry where drawing_id is not null group by drawing_id
    ) e on e.drawing_id = d.id
    where d.held_nano <> coalesce(e.held, 0) or d.cost_nano <> coalesce(e.spent, 0)
    or d.in_doubt_nano <> coalesce(e.in_doubt, 0) order by d.id"""
_PERIODS = """select p.budget_id, p.starts_at, p.held_nano, p.spent_nano, p.in_doubt_nano, coalesce(s.held, 0),
    coalesce(s.spent, 0), coalesce(s.in_doubt, 0) from budget_period p left join (
        select budget_id, starts_at, sum(held) as held, sum(spent) as spent, sum(in_doubt) as in_doubt from (
            select c.budget_id, c.starts_at, e.held_nano as held, e.spent_nano as spent, e.in_doubt_nano as in_doubt
            from charge c join entry e on e.drawing_id = c.drawing_id
            union all
            select budget_id, starts_at, held_nano, spent_nano, in_doubt_nano from entry
            where drawing_id is null and budget_id is not null
        ) x group by budget_id, starts_at
    ) s on s.budget_id = p.budget_id and s.starts_at = p.starts_at
    where p.held_nano <> coalesce(s.held, 0) or p.spent_nano <> coalesce(s.spent, 0)
    or p.in_doubt_nano <> coalesce(s.in_doubt, 0) order by p.budget_id, p.starts_at"""
_STATES = """select id, state from drawing where (state in ('held', 'sent')) <> (ended_at is null)
    or (state <> 'in_doubt' and in_doubt_nano <> 0) or (state not in ('held', 'sent') and held_nano <> 0) order by id"""
_LEASES = """select l.scope, l.drawing_id from lease l left join drawing d on d.id = l.drawing_id
    where d.id is null or d.ended_at is not null order by l.scope, l.drawing_id"""


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """Something that does not add up. `found` and `right` are held, spent and in doubt, where it is about money."""

    kind: Literal["drawing", "budget", "state", "lease"]
    id: str
    starts_at: int | None = None
    found: tuple[int, int, int] | None = None
    right: tuple[int, int, int] | None = None
    note: str = ""


async def verify(database: Database) -> Sequence[Discrepancy]:
    """Return everything that does not add up."""
    found = list[Discrepancy]()
    async for rows in database.stream(_DRAWINGS):
        found += [Discrepancy("drawing", id, None, _sums(sums[:3]), _sums(sums[3:])) for id, *sums in rows]
    async for rows in database.stream(_PERIODS):
        found += [Discrepancy("budget", id, at, _sums(sums[:3]), _sums(sums[3:])) for id, at, *sums in rows]
    async for rows in database.stream(_STATES):
        note = "its state is {!r}, and its columns say otherwise"
        found += [Discrepancy("state", id, note=note.format(state)) for id, state in rows]
    async for rows in database.stream(_LEASES):
        note = "it holds a place of {!r} and has ended"
        found += [Discrepancy("lease", id, note=note.format(scope)) for scope, id in rows]
    return found


async def write_down(database: Database, found: int, now: int) -> None:
    """Keep for the metrics how much was found, and when. Raises DatabaseUnavailable."""
    await database.execute([number(database, "verified", now), number(database, "drift", found)])


async def repair(database: Database) -> Sequence[Discrepancy]:
    """Overwrite differing amounts with the sums of the entries, and free places that no running drawing holds. Returns
    the repaired discrepancies; a state that contradicts its columns is left to a person."""
    broken = await verify(database)
    marks = placeholders(database, 5)
    drawing = "update drawing set held_nano = {}, cost_nano = {}, in_doubt_nano = {} where id = {}".format(*marks)
    period = (
        "update budget_period set held_nano = {}, spent_nano = {}, in_doubt_nano = {} "
        "where budget_id = {} and starts_at = {}"
    ).format(*marks)
    lease = "delete from lease where drawing_id = {}".format(*marks)
    for fault in broken:
        if fault.kind == "drawing" and fault.right is not None:
            await database.execute([(drawing, (*fault.right, fault.id))])
        elif fault.kind == "budget" and fault.right is not None:
            await database.execute([(period, (*fault.right, fault.id, fault.starts_at))])
        elif fault.kind == "lease":
            await database.execute([(lease, (fault.id,))])
    return [fault for fault in broken if fault.kind != "state"]


def _sums(sums: Sequence[int]) -> tuple[int, int, int]:
    held, spent, in_doubt = map(int, sums)  # Postgres gives sums as decimals
    return held, spent, in_doubt
