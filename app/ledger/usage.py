"""Sums up the drawings since a time by one dimension, for the command line. It reads the drawings themselves, so that
no rollup has to be refreshed before, and the sums of hours whose drawings were cleaned away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders
from app.ledger.rollups import DAY, HOUR, read_number

Dimension = Literal["project", "key", "model", "provider", "day"]

_COLUMNS: Mapping[Dimension, tuple[str, str]] = {  # the column to group by, and its name
    "project": ("coalesce(d.project_id, '')", "coalesce(min(p.name), '')"),
    "key": ("d.key_id", "coalesce(min(k.name), '')"),
    "model": ("d.model", "d.model"),
    "provider": ("coalesce(d.provider, '')", "coalesce(d.provider, '')"),
    "day": (f"d.at / {DAY}", "''"),
}
_DRAWN = """select project_id, key_id, model, provider, at, 1 as requests, images,
    cast(images as bigint) * coalesce(width, 0) * coalesce(height, 0) as pixels, cost_nano, in_doubt_nano, saved_nano
    from drawing where at >= {}"""
_CLEANED = """ union all
    select project_id, key_id, model, provider, starts_at, requests, images, pixels, cost_nano, in_doubt_nano,
    saved_nano from usage_hour where starts_at >= {} and starts_at < {}"""
_SUMS = "sum(d.requests), sum(d.images), sum(d.pixels), sum(d.cost_nano), sum(d.in_doubt_nano), sum(d.saved_nano)"
_JOINS: Mapping[Dimension, str] = {
    "project": "left join project p on p.id = d.project_id",
    "key": "left join api_key k on k.id = d.key_id",
}


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


async def read_usage(database: Database, by: Dimension, since: int, names: Mapping[str, str]) -> Sequence[Usage]:
    """Return a line for each project, key, model, provider or day (UTC), the dearest first, days in their order.
    `names` has the names of keys that are not in the database. Where drawings were cleaned away, `since` is the
    beginning of its hour."""
    column, name = _COLUMNS[by]
    cleaned = await read_number(database, "cleaned")
    first, *others = placeholders(database, 3)
    source, parameters = _DRAWN.format(first), [max(since, cleaned)]
    if since < cleaned:
        source += _CLEANED.format(*others)
        parameters += since - since % HOUR, cleaned
    sql = f"select {column}, {name}, {_SUMS} from ({source}) d {_JOINS.get(by, '')} group by {column}"
    lines = [_usage(by, names, *row) for row in await database.query(sql, parameters)]
    return sorted(lines, key=(lambda line: line.id) if by == "day" else (lambda line: (-line.cost, line.name)))


def _usage(by: Dimension, names: Mapping[str, str], which: str | int, name: str, *sums: int) -> Usage:
    id = str(which)
    if by == "day":
        id = datetime.fromtimestamp(int(which) * DAY // 1_000_000, UTC).strftime("%Y-%m-%d")
    requests, images, pixels, cost, in_doubt, saved = (int(value or 0) for value in sums)
    return Usage(id, name or names.get(id) or id or "(none)", requests, images, pixels, cost, in_doubt, saved)
