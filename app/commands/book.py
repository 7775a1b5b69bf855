"""The book for commands: its database is opened beside a gateway that may be running, and its errors become a line on
the terminal. Imports the database's code only when a command runs."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from app.commands.options import CommandError, note, read_settings
from app.microseconds import to_microseconds

if TYPE_CHECKING:
    from app.config.loading import Settings
    from app.ledger.book.registry import Registry
    from app.ledger.values.changes import Actor
    from app.storage.secret import Secret

T = TypeVar("T")


def now() -> int:
    """Return microseconds since the epoch."""
    return to_microseconds(time.time())


def run(config: Path | None, work: Callable[[Settings, Registry], Awaitable[T]], *, migrate: bool | None = None) -> T:
    """Do the work with the database of a configuration. `migrate` goes over its `database.migrate`. Prints what went
    wrong, and exits with status 1."""
    settings = read_settings(config)
    if settings.sandbox and settings.database_url is None:
        note("no provider is configured: a gateway that serves the sandbox keeps a book of its own, not this one")

    async def all_of_it() -> T:
        async with open_registry(settings, migrate) as registry:
            return await work(settings, registry)

    with told():
        return asyncio.run(all_of_it())


@contextmanager
def told(*others: type[Exception]) -> Iterator[None]:
    """Print what goes wrong with the database, or one of the `others`, as a line, and exit with status 1."""
    from app.ledger.database.protocol import DatabaseUnavailable, SchemaError
    from app.storage.data_dir import DataDirError

    expected: tuple[type[Exception], ...] = (CommandError, DatabaseUnavailable, SchemaError, DataDirError, *others)
    try:
        yield
    except expected as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Keep a gateway from starting on the same data directory, and refuse where one runs. Raises DataDirError."""
    from app.storage.data_dir import open_data_dir

    with open_data_dir(settings.data_dir, settings.stated_secret):
        yield


@asynccontextmanager
async def open_registry(settings: Settings, migrate: bool | None = None) -> AsyncIterator[Registry]:
    """Open the database, made if it is missing. Raises SchemaError, DatabaseUnavailable and DataDirError."""
    from app.config.inventory import key_names
    from app.ledger.book.registry import Registry
    from app.ledger.database.opening import open_database

    _make_folder(settings.data_dir)
    may_migrate = settings.database.migrate if migrate is None else migrate
    database = await open_database(settings.database_url, settings.data_dir, migrate=may_migrate)
    try:
        yield Registry(database, now, key_names(settings))
    finally:
        await database.aclose()


def master_secret(settings: Settings) -> Secret:
    """Return the secret that a running gateway uses, too. Raises DataDirError."""
    from app.storage.data_dir import DataDirError
    from app.storage.secret import SecretFileError, read_secret

    try:
        return read_secret(settings.data_dir, settings.stated_secret)
    except (OSError, SecretFileError) as error:
        raise DataDirError(str(error)) from None


def me() -> Actor:
    """Return the author of changes, for the audit log: the user who is logged in."""
    from app.ledger.values.changes import Actor

    try:
        return Actor("command", getpass.getuser())
    except (KeyError, OSError):  # a container's user may have no name
        return Actor("command", "image-gateway")


def has_issued_keys(settings: Settings) -> bool:
    """True if a key was ever issued: callers then need one. False if there is no database yet. Changes nothing, not
    even an old schema, and works also in the thread of an event loop."""
    from app.ledger.database.directory_rows import has_had_keys
    from app.ledger.database.opening import FILE
    from app.ledger.database.protocol import DatabaseUnavailable, SchemaError

    if settings.database_url is None and not (settings.data_dir / FILE).exists():
        return False

    async def ask() -> bool:
        async with open_registry(settings, migrate=False) as registry:
            return await has_had_keys(registry.database)

    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(asyncio.run, ask()).result()
        except (DatabaseUnavailable, SchemaError):
            return _copy_has_keys(settings.data_dir)


def _copy_has_keys(folder: Path) -> bool:
    """Look into the copy of the directory, which a gateway keeps for the time when the database cannot be used."""
    from app.ledger.values.directory import decode

    try:
        return decode((folder / "directory.json").read_text(encoding="utf-8")).has_had_keys
    except (OSError, ValueError):
        return False


def _make_folder(path: Path) -> None:
    from app.storage.data_dir import DataDirError

    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirError(f"The data directory {str(path)!r} cannot be used ({error.strerror}).") from None
