"""Open the database that the configuration names: SQLite in the data directory, or Postgres by its URL."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.ledger.database.protocol import Database, SchemaError
from app.ledger.database.schema import prepare_postgres, prepare_sqlite
from app.ledger.database.sqlite import SqliteDatabase

FILE = "gateway.db"


async def open_database(url: str | None, folder: Path, *, migrate: bool = True, has_own_clock: bool = True) -> Database:
    """Open the database at `url`, or the file in `folder`, with its schema up to date. `has_own_clock`: False lets the
    caller's clock count in Postgres. Raises SchemaError and DatabaseUnavailable."""
    if url is None:
        path = folder / FILE
        await asyncio.to_thread(prepare_sqlite, path, migrate=migrate)
        return SqliteDatabase(path)
    try:
        from app.ledger.database.postgres import PostgresDatabase, open_pool

        pool = await open_pool(url)
    except ModuleNotFoundError as error:
        raise SchemaError(
            f"`database.url` names a Postgres, and the package {error.name!r} is not installed. Install the gateway "
            "with its extra: pip install 'image-gateway[postgres]'."
        ) from None
    try:
        await prepare_postgres(pool, url, migrate=migrate)
    except BaseException:
        pool.terminate()
        raise
    return PostgresDatabase(pool, has_own_clock=has_own_clock)
