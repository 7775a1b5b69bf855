"""The book outside of the money path: reports, changes of the directory, and its upkeep, over a process's ledger.

SQLAlchemy is imported at the first question, in a thread: a gateway that only draws needs none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from app.ledger.book.cleaning import Cleaning
from app.ledger.book.rollups import Rollups, read_number
from app.ledger.book.verification import verify, write_down
from app.ledger.database.protocol import DatabaseUnavailable, DuplicateRow
from app.ledger.ledger import Ledger
from app.ledger.values.directory import Directory
from app.microseconds import SECOND, to_microseconds

if TYPE_CHECKING:
    from app.ledger.book.registry import Registry
    from app.ledger.book.reports import Reports

ROLLUP_SECONDS = 60.0
CLEANING_SECONDS = 6 * 3600.0
PROOF_SECONDS = 24 * 3600.0
FIRST_PROOF_SECONDS = 600.0  # after the start, and after a failure: a large ledger keeps a core busy for some seconds
MOST_TOLD = 20  # discrepancies in the log; `image-gateway ledger verify` lists all


class Book:
    """`clock` gives seconds since the epoch; `warn` gets an event and its facts."""

    def __init__(self, ledger: Ledger, currency: str, clock: Callable[[], float], warn: Callable[..., None]) -> None:
        self.currency = currency
        self._ledger = ledger
        self._clock = clock
        self._warn = warn

    @property
    def directory(self) -> Directory:
        """The newest projects, keys and budgets that this process knows."""
        return self._ledger.directory

    async def reports(self) -> Reports:
        """Raises DatabaseUnavailable."""
        await asyncio.to_thread(import_module, "app.ledger.book.reports")
        from app.ledger.book.reports import Reports

        return Reports(self._ledger.database)

    async def registry(self) -> Registry:
        """Raises DatabaseUnavailable."""
        await asyncio.to_thread(import_module, "app.ledger.book.registry")
        from app.ledger.book.registry import Registry

        return Registry(self._ledger.database, self._now, self._ledger.key_names)

    async def refresh(self) -> None:
        """Load a change into this process at once. Others learn of it within a second."""
        await self._ledger.refresh()

    async def resolve(self, drawing_id: str, *, paid: bool, by: str, note: str) -> bool:
        """Count a drawing that is in doubt as paid or as unpaid. False: it is not in doubt."""
        return await self._ledger.resolve(drawing_id, paid=paid, by=by, note=note)

    async def look_after(self, retain_days: int) -> None:
        """Bring the rollups up to date again and again, clean old drawings away, and prove that the book adds up. Ends
        when it is cancelled."""
        clean_at, prove_at = self._clock(), self._clock() + FIRST_PROOF_SECONDS
        while True:
            try:
                await Rollups(self._ledger.database, self._now).refresh()
                if self._clock() >= clean_at:
                    clean_at = self._clock() + CLEANING_SECONDS
                    await Cleaning(self._ledger.database, self._now).clean(retain_days)
                if self._clock() >= prove_at:
                    prove_at = self._clock() + await self._prove()
            except (DatabaseUnavailable, DuplicateRow):
                pass  # the ledger has said it, or another process does the same: next time
            except Exception as error:
                self._warn("the ledger could not be looked after", reason=repr(error))
            await asyncio.sleep(ROLLUP_SECONDS)

    async def _prove(self) -> float:
        """Verify the ledger, if no process did so of late. Returns the seconds until the next look."""
        database = self._ledger.database
        age = self._clock() - await read_number(database, "verified") / SECOND
        if 0 <= age < PROOF_SECONDS:
            return PROOF_SECONDS - age
        try:
            found = await verify(database)
        except Exception as error:
            self._warn("the ledger could not be verified", reason=str(error) or repr(error))
            return FIRST_PROOF_SECONDS
        for fault in found[:MOST_TOLD]:
            self._warn("the ledger does not add up", kind=fault.kind, id=fault.id, differing=len(found))
        await write_down(database, len(found), self._now())
        return PROOF_SECONDS

    def _now(self) -> int:
        return to_microseconds(self._clock())
