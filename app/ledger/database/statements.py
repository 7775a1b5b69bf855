"""SQLAlchemy's statements, run by our own connections: it only writes the text. For everything but the money path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect as Spoken

from app.ledger.database.protocol import Database, Dialect

Record = Mapping[str, Any]


async def fetch(database: Database, statement: Executable) -> list[Record]:
    """Return the rows of a SELECT, by the names of their columns."""
    sql, parameters, names = _written(database, statement)
    return [dict(zip(names, row, strict=True)) for row in await database.query(sql, parameters)]


async def write(database: Database, *statements: Executable) -> Sequence[int]:
    """Run statements in one transaction. Returns how many rows each of them changed. Raises DuplicateRow."""
    return await database.execute([_written(database, statement)[:2] for statement in statements])


@lru_cache(maxsize=2)
def _spoken(dialect: Dialect) -> Spoken:
    if dialect == "sqlite":
        return sqlite.dialect(paramstyle="qmark")
    return postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


def _written(database: Database, statement: Any) -> tuple[str, list[Any], list[str]]:
    """Return the text of a statement, its parameters in their order, and the names of the columns that it returns."""
    compiled = statement.compile(dialect=_spoken(database.dialect), compile_kwargs={"render_postcompile": True})
    values = compiled.construct_params()
    parameters = [values[name] for name in compiled.positiontup]
    names = [column.name for column in getattr(statement, "selected_columns", ())]
    return str(compiled), parameters, names
