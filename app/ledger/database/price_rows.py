"""The rows of prices, in plain statements: a gateway that only draws records them too, and needs no SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.catalog.prices import Price, to_json
from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders

Which = tuple[str, str]  # a provider, and its name for a model

_CURRENT = "select id, provider, model, price from price where valid_to is null order by id"
_END = "update price set valid_to = {} where id = {} and valid_to is null"
_BEGIN = """insert into price (provider, model, price, valid_from, source)
    select cast({} as text), cast({} as text), cast({} as text), cast({} as bigint), cast({} as text)
    where not exists (select 1 from price where provider = {} and model = {} and valid_to is null)"""
_LOCK = "lock table price in share row exclusive mode"  # two replicas begin at once


async def record_prices(
    database: Database, prices: Mapping[Which, tuple[Price, str]], now: int, *, only_these: bool = False
) -> Mapping[Which, int]:
    """Record each price that differs from the known one, with its source, from now on. `only_these`: all others hold no
    more. Returns the ids of the rows that hold. A price is missing if another process stated a different one at the
    same moment."""
    current = await _read_current(database)
    wanted = {which: to_json(price) for which, (price, _) in prices.items()}
    ended = [id for which, (id, text) in current.items() if wanted.get(which, text if not only_these else "") != text]
    begun = [which for which, text in wanted.items() if current.get(which, (0, ""))[1] != text]
    end, begin = _END.format(*placeholders(database, 2)), _BEGIN.format(*placeholders(database, 7))
    statements: list[tuple[str, Sequence[Any]]] = [(end, (now, id)) for id in ended]
    statements += [(begin, (*which, wanted[which], now, prices[which][1], *which)) for which in begun]
    if statements:
        lock: list[tuple[str, Sequence[Any]]] = [(_LOCK, ())] if database.dialect == "postgresql" else []
        await database.execute(lock + statements)
        current = await _read_current(database)
    return {which: id for which, text in wanted.items() if (id := _id_of(current.get(which), text)) is not None}


def _id_of(found: tuple[int, str] | None, text: str) -> int | None:
    return found[0] if found is not None and found[1] == text else None


async def _read_current(database: Database) -> dict[Which, tuple[int, str]]:
    rows = await database.query(_CURRENT)
    return {(provider, model): (id, text) for id, provider, model, text in rows}
