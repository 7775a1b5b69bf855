"""Sums up the drawings since a time by one dimension, for the command line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from app.ledger.book.reports import Reports
from app.ledger.book.rollups import Rollups
from app.ledger.database.protocol import Database, DatabaseUnavailable, DuplicateRow
from app.ledger.values import records
from app.ledger.values.records import UsageQuery, UsageRecord
from app.microseconds import SECOND

Dimension = Literal["project", "key", "model", "provider", "day"]

_COLUMNS: Mapping[Dimension, records.Dimension] = {
    "project": "project_id",
    "key": "key_id",
    "model": "model",
    "provider": "provider",
}
_NAMES: Mapping[Dimension, str] = {"project": "project", "key": "api_key"}  # the table that has them
_END = 1 << 62  # later than any drawing


@dataclass(frozen=True, slots=True)
class Usage:
    """One line. `id` and `name` say what it is about; money is in nano-units."""

    id: str
    name: str
    requests: int
    images: int
    pixels: int
    cost: int
    in_doubt: int
    saved: int


async def read_usage(
    database: Database, by: Dimension, since: int, names: Mapping[str, str], now: int
) -> Sequence[Usage]:
    """Return a line for each project, key, model, provider or day (UTC), the dearest first, days in their order.
    `names` has the names of keys that are not in the database. Times are microseconds since the epoch. The rollups are
    refreshed first, if the database can be written to."""
    # Without them the drawings are read. DuplicateRow: another process refreshes them at this moment.
    with suppress(DuplicateRow, DatabaseUnavailable):
        await Rollups(database, lambda: now).refresh()
    columns = () if by == "day" else (_COLUMNS[by],)
    sums = defaultdict[str, tuple[int, ...]](lambda: (0,) * 6)
    for record in await Reports(database).usage(UsageQuery(since, _END, "day", columns)):
        id = record.values[columns[0]] if columns else _date(record.starts_at)
        sums[id] = tuple(one + other for one, other in zip(sums[id], _values(record), strict=True))
    known = dict(names)
    if by in _NAMES:
        known.update((id, name) for id, name in await database.query(f"select id, name from {_NAMES[by]}", ()))
    lines = [Usage(id, known.get(id) or id or "(none)", *line) for id, line in sums.items()]
    return sorted(lines, key=(lambda line: line.id) if by == "day" else (lambda line: (-line.cost, line.name)))


def _date(time: int) -> str:
    return datetime.fromtimestamp(time // SECOND, UTC).strftime("%Y-%m-%d")


def _values(record: UsageRecord) -> tuple[int, ...]:
    return record.requests, record.images, record.pixels, record.cost, record.in_doubt, record.saved
