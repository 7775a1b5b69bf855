"""The statements that a process runs from time to time, without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.ledger.database.protocol import Database

MOST_DUE = 1000  # drawings at a time

# The words `state in (…)` are those of the index of open drawings, without which SQLite does not use it.
_DUE = """select id from drawing where state in ('held', 'sent', 'in_doubt') and state = 'in_doubt' and at < {}
    order by at, id limit {}"""
_USED = "update api_key set last_used_at = {} where id = {} and coalesce(last_used_at, 0) < {}"


def placeholders(database: Database, count: int) -> Sequence[str]:
    """Return the marks of a statement's parameters."""
    return ["?"] * count if database.dialect == "sqlite" else [f"${number}" for number in range(1, count + 1)]


async def read_due(database: Database, before: int) -> Sequence[str]:
    """Return the drawings that were admitted before that time and are in doubt, the oldest first."""
    sql = _DUE.format(*placeholders(database, 2))
    return [str(row[0]) for row in await database.query(sql, (before, MOST_DUE))]


async def write_uses(database: Database, uses: Mapping[str, int]) -> None:
    """Write down when keys were used last."""
    sql = _USED.format(*placeholders(database, 3))
    await database.execute([(sql, (at, key_id, at)) for key_id, at in uses.items()])
