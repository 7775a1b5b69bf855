"""Ledgers for tests, over a database that a test can take away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.ledger.book.registry import Registry
from app.ledger.book.verification import verify
from app.ledger.connection import Connection
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.database.replicas import Replica
from app.ledger.journal import Journal
from app.ledger.ledger import ALONE, Ledger, Policy
from app.ledger.life import Life
from tests.ledger.conftest import Clock
from tests.ledger.samples import NOW

DEFAULTS = Policy()


def build(
    opening: Callable[[], Awaitable[Database]],
    journal: Journal,
    replica: Replica,
    policy: Policy,
    clock: Clock,
    warn: Callable[..., None],
    copy: Path | None = None,
) -> tuple[Life, Ledger]:
    """Make what `open_ledger` makes. The life has not been started."""
    connection = Connection(opening, journal, replica, warn)
    life = Life(connection, policy.in_doubt_days, clock, warn, copy)
    return life, Ledger(connection, life, policy, clock, warn)


class Outage:
    """A database that a test can take away. While it is away, a call may still have been done."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_away = False
        self.is_done_all_the_same = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._database, name)
        if name in ("dialect", "stream", "aclose"):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_away:
                if self.is_done_all_the_same:
                    await found(*args, **kwargs)
                raise DatabaseUnavailable("it is away")
            return await found(*args, **kwargs)

        return call


class Gateway:
    """A ledger over a database that can be taken away; what it warns of is in `warnings`."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.real = database
        self.database = Outage(database)
        self.clock = Clock(NOW / 1_000_000)
        self.registry = Registry(database, lambda: self.clock.micros)
        self.warnings = list[str]()

    @asynccontextmanager
    async def running(self, policy: Policy = DEFAULTS, resumed: tuple[str, ...] = ()) -> AsyncIterator[Ledger]:
        """Run a process. Leaving the block is its crash."""
        journal = Journal(self.folder / "journal", room=65_536)

        async def opening() -> Any:
            if self.database.is_away:
                raise DatabaseUnavailable("it is away")
            return self.database

        def warn(event: str, **_: object) -> None:
            self.warnings.append(event)

        copy = self.folder / "directory.json"
        self.life, ledger = build(opening, journal, ALONE, policy, self.clock, warn, copy)
        self.recovered = await self.life.start(resumed)
        before = asyncio.all_tasks() - {asyncio.current_task()}
        try:
            yield ledger
        finally:
            for task in before:
                task.cancel()
            journal.close()


Test = Callable[[Gateway], Any]


def run_in(folder: Path) -> Callable[[Test], None]:
    """Return what runs a test over a new database in `folder`, and verifies the book after it."""

    def run(test: Test) -> None:
        async def running() -> None:
            database = await open_database(None, folder)
            gateway = Gateway(folder, database)
            try:
                await test(gateway)
                assert await verify(database) == []
            finally:
                await database.aclose()

        asyncio.run(running())

    return run
