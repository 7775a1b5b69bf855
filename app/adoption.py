"""Brings the projects and budgets of the configuration into the database. It tries again while the database is away:
until it succeeds, they bound nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from app.config import inventory
from app.config.loading import Settings
from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.ledger import Ledger
from app.ledger.values.changes import Taken

RETRY_SECONDS = 1.0  # between two tries


@dataclass(slots=True, eq=False)
class Adoption:
    """`now` gives microseconds since the epoch; `warn` gets an event and its facts."""

    ledger: Ledger
    now: Callable[[], int]
    warn: Callable[..., None]
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _trying: asyncio.Task[None] | None = None

    async def adopt(self, settings: Settings) -> None:
        """Take the projects and budgets of `settings`, instead of any before. Waits for the first try only."""
        async with self._one_at_a_time:
            self.stop()
            try:
                await self._adopt(settings)
            except (DatabaseUnavailable, Taken) as error:
                self.warn("projects and budgets of the configuration wait for the database", reason=str(error))
                self._trying = asyncio.create_task(self._try_again(settings))

    def stop(self) -> None:
        if self._trying is not None:
            self._trying.cancel()

    async def _try_again(self, settings: Settings) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                return await self._adopt(settings)
            except (DatabaseUnavailable, Taken):  # Taken: another process did the same at this moment
                continue
            except Exception as error:
                return self.warn("projects and budgets of the configuration cannot be kept", reason=repr(error))

    async def _adopt(self, settings: Settings) -> None:
        known = self.ledger.directory
        if not known.revision:
            raise DatabaseUnavailable("the database has not been reached yet")
        sources = {each.source for each in known.projects.values()} | {each.source for each in known.budgets}
        if not (settings.projects or settings.budgets or "file" in sources):
            return  # as nearly everywhere: the registry is not even imported
        from app.ledger.book.registry import Registry

        registry = Registry(self.ledger.database, self.now)
        ids = {project.name: project.id for project in (await registry.directory()).projects.values()}
        now = self.now()
        projects, budgets = inventory.projects(settings, ids, now), inventory.budgets(settings, ids, now)
        for is_last in (False, False, True):
            try:
                await registry.adopt(projects, budgets)
                break
            except Taken:  # another process did the same at this moment, and the next look finds it
                if is_last:
                    raise
        await self.ledger.refresh()  # from the first request on they hold
