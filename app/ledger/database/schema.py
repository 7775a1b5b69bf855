"""Prepare the schema: make it, find it up to date, or upgrade it by Alembic's migrations, under a lock.

A new database gets the statements of `schema-sqlite.sql` or `schema-postgresql.sql`; tests compare these with the
tables and the migrations. So the usual start reads one number, and imports neither SQLAlchemy nor Alembic.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.ledger.database.protocol import DatabaseUnavailable, Dialect, SchemaError
from app.ledger.database.sqlite import open_writer

if TYPE_CHECKING:
    import asyncpg

HEAD = "0003"  # the newest migration
POSTGRES_LOCK = 0x696D6167  # any number, the same in every process

_FOLDER = Path(__file__).parent
_VERSION = "select version_num from alembic_version"
_VERSION_TABLE = (
    "create table alembic_version (version_num VARCHAR(32) not null, "
    "constraint alembic_version_pkc primary key (version_num))"
)
_OLD = (
    "The schema of the database is {found}, and this version needs {head}. Run `image-gateway db upgrade`, or let the "
    "gateway do it at its start: `database: {{migrate: true}}`."
)
_NEWER = (
    "The schema of the database ({found}) is newer than this version of the gateway ({head}). Start the version that "
    "made it, or restore a backup from before."
)


def schema_statements(dialect: Dialect) -> list[str]:
    """Return the statements that make the schema in an empty database."""
    text = (_FOLDER / f"schema-{dialect}.sql").read_text(encoding="utf-8")
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]


def function_statements() -> list[str]:
    """Return the statements that make the functions of Postgres."""
    text = (_FOLDER / "functions.sql").read_text(encoding="utf-8")
    return [f"{statement}\nend $$" for statement in text.split("\nend $$;\n") if statement.strip()]


def prepare_sqlite(path: Path, *, migrate: bool) -> None:
    """Bring the file's schema up to date, and make the file if it is missing. Raises SchemaError and
    DatabaseUnavailable."""
    with _locked(path), contextlib.closing(open_writer(path)) as db:
        found = _sqlite_version(db)
        if found is None:
            db.execute("begin immediate")
            for statement in [*schema_statements("sqlite"), _VERSION_TABLE]:
                db.execute(statement)
            db.execute("insert into alembic_version values (?)", (HEAD,))
            db.execute("commit")
            return
        if found == HEAD:
            return
        _refuse_newer(found)
        if not migrate:
            raise SchemaError(_OLD.format(found=found, head=HEAD))
    with _locked(path):
        from app.ledger.database import upgrades

        upgrades.upgrade_sqlite(path)


async def prepare_postgres(pool: asyncpg.Pool, url: str, *, migrate: bool) -> None:
    """Bring the schema up to date, and make it if the database is empty. Raises SchemaError and DatabaseUnavailable."""
    async with pool.acquire() as connection:
        if await _postgres_version(connection) == HEAD:
            return
        await connection.execute("select pg_advisory_lock($1)", POSTGRES_LOCK)
        try:
            found = await _postgres_version(connection)  # another process may have been faster
            if found is None:
                async with connection.transaction():
                    for statement in [*schema_statements("postgresql"), _VERSION_TABLE, *function_statements()]:
                        await connection.execute(statement)
                    await connection.execute("insert into alembic_version values ($1)", HEAD)
            elif found != HEAD:
                _refuse_newer(found)
                if not migrate:
                    raise SchemaError(_OLD.format(found=found, head=HEAD))
                from app.ledger.database import upgrades

                await upgrades.upgrade_postgres(url)
        finally:
            await connection.execute("select pg_advisory_unlock($1)", POSTGRES_LOCK)


def _sqlite_version(db: sqlite3.Connection) -> str | None:
    try:
        return _single(db.execute(_VERSION).fetchall())
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise DatabaseUnavailable(str(error)) from error


async def _postgres_version(connection: Any) -> str | None:
    if await connection.fetchval("select to_regclass('alembic_version')") is None:
        return None
    return _single(await connection.fetch(_VERSION))


def _single(rows: Any) -> str | None:
    return str(rows[0][0]) if rows else None


def _refuse_newer(found: str) -> None:
    if found > HEAD:  # migrations are numbered
        raise SchemaError(_NEWER.format(found=found, head=HEAD))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file's neighbour `….lock` for the block, so that only one process changes the schema."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseUnavailable(f"{str(path)!r} cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
