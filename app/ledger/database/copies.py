"""Back up the whole database into a file, restore it, and move it into Postgres. No copy is partial: it takes its name,
or commits its transaction, when it is whole.

A backup is a file of SQLite, made while others read and write. A restore and a move need the database for themselves:
the caller holds the lock of the data directory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.ledger.database.postgres import open_pool
from app.ledger.database.protocol import Database
from app.ledger.database.schema import HEAD, prepare_postgres
from app.ledger.database.tables import metadata

CHUNK = 5000  # rows
TABLE_SECONDS = 3600.0  # for a table to arrive: longer than any command of a request may take
BEFORE_RESTORE = ".before-restore"  # behind the name of the file that a restore replaces

_TABLES: Mapping[str, Sequence[str]] = {
    table.name: tuple(column.name for column in table.columns) for table in metadata.sorted_tables
}


class CopyError(Exception):
    """A copy cannot be made. The message names the remedy."""


def back_up(path: Path, to: Path) -> None:
    """Write the database of one moment into a new file, readable by its user alone. Raises CopyError."""
    if to.exists():
        raise CopyError(f"{str(to)!r} exists. Name a new file, or take it away.")
    half = to.with_name(f"{to.name}.half")
    try:
        half.unlink(missing_ok=True)
        os.close(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source:
            _copy(source, half)
        half.rename(to)
    except (OSError, sqlite3.Error) as error:
        half.unlink(missing_ok=True)
        raise CopyError(f"The backup {str(to)!r} could not be written: {error}.") from None


def restore(file: Path, path: Path) -> Path | None:
    """Put a backup in the place of the database at `path`. Returns the file that keeps the previous one. Raises
    CopyError."""
    if not file.is_file():
        raise CopyError(f"There is no file {str(file)!r}.")
    half = path.with_name(f"{path.name}.half")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as source:
            _check(source, file)
            half.unlink(missing_ok=True)
            os.close(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            _copy(source, half)
        before = _put_aside(path)
        half.rename(path)
    except (OSError, sqlite3.Error) as error:
        half.unlink(missing_ok=True)
        raise CopyError(f"The backup {str(file)!r} could not be restored: {error}.") from None
    return before


async def move(source: Database, url: str) -> int:
    """Copy everything into an empty Postgres, in one transaction, and compare counts and sums before it ends. Returns
    the number of rows. Raises CopyError, SchemaError and DatabaseUnavailable."""
    pool = await open_pool(url)
    try:
        await prepare_postgres(pool, url, migrate=True)
        async with pool.acquire() as connection, connection.transaction():
            for name in ("drawing", "api_key", "project", "budget"):
                if await connection.fetchval(f"select count(*) from {name}"):
                    raise CopyError("The database to move to is not empty. Name one that is.")
            await connection.execute("delete from revision")
            for name, columns in _TABLES.items():
                await _copy_table(source, connection, name, columns)
            rows = 0
            for name, columns in _TABLES.items():
                question = _sums(columns).format(name)
                [found], right = (
                    await source.query(question),
                    await connection.fetchrow(question, timeout=TABLE_SECONDS),
                )
                if [int(value) for value in found] != [int(value) for value in right]:
                    raise CopyError(f"The table {name!r} did not arrive whole. Nothing was moved.")
                rows += int(right[0])
    finally:
        pool.terminate()
    return rows


async def _copy_table(source: Database, connection: Any, name: str, columns: Sequence[str]) -> None:
    quoted = ", ".join(f'"{column}"' for column in columns)

    async def records() -> AsyncIterator[Sequence[Any]]:
        async for rows in source.stream(f"select {quoted} from {name}", (), CHUNK):
            for row in rows:
                yield tuple(row)

    await connection.copy_records_to_table(name, records=records(), columns=columns, timeout=TABLE_SECONDS)
    sequence = await connection.fetchval("select pg_get_serial_sequence($1, $2)", name, columns[0])
    if sequence is not None:
        await connection.execute(f"select setval('{sequence}', greatest((select max({columns[0]}) from {name}), 1))")


def _sums(columns: Sequence[str]) -> str:
    """Return the query for the number of rows and the sums of money of a table."""
    money = [f"coalesce(sum({column}), 0)" for column in columns if column.endswith("_nano")]
    return f"select {', '.join(('count(*)', *money))} from {{}}"


def _copy(source: sqlite3.Connection, to: Path) -> None:
    """Copy one moment of a database into an empty file, and wait for the disk."""
    with contextlib.closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("pragma journal_mode = delete")
    descriptor = os.open(to, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(db: sqlite3.Connection, file: Path) -> None:
    """Raise CopyError unless a file is a whole backup of a gateway."""
    try:
        [found] = db.execute("select version_num from alembic_version").fetchone() or [None]
        is_whole = db.execute("pragma integrity_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        raise CopyError(f"{str(file)!r} is no backup of a gateway: {error}.") from None
    if not is_whole:
        raise CopyError(f"{str(file)!r} is damaged. Restore another backup.")
    if found is None or found > HEAD:
        raise CopyError(f"{str(file)!r} has a schema ({found}) that is newer than this version's ({HEAD}).")


def _put_aside(path: Path) -> Path | None:
    """Keep the present database under another name, with the contents of its log."""
    if not path.exists():
        return None
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    before = path.with_name(path.name + BEFORE_RESTORE)
    path.rename(before)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return before
