"""The registry of the stored runs: keeps the table `run` in step with their files, in the background. The next process
learns from it how long ago a run ended and whether a caller has it; all else is in the files."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import islice

from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.database.run_rows import RunRow, RunTable

MOMENT = 0.05  # seconds, in which changes are collected
RETRY_SECONDS = 1.0  # until the database is tried again
ROWS_AT_ONCE = 200  # in one transaction, so that no request waits for long


class RunRegistry:
    """Replaces the rows of an earlier process by its own, so an error in those does not last."""

    def __init__(self, table: RunTable, pepper: bytes, found: Mapping[str, RunRow] | None) -> None:
        """`found` are the rows that an earlier process left; None: the database is away."""
        self._table = table
        self._pepper = pepper
        self._found = found or {}
        self._rows = dict[str, RunRow]()  # as they should be
        self._changes = dict[str, RunRow | None]()  # None: the row goes
        self._is_right = found == {}  # False: all rows have to be written anew
        self._has_work = asyncio.Event()
        if not self._is_right:
            self._has_work.set()

    def take_found(self) -> Mapping[str, RunRow]:
        """Return the rows that an earlier process left, by their ids, and forget them."""
        found, self._found = self._found, {}
        return found

    def digest(self, value: bytes) -> bytes:
        """Return the digest under which the table stores a caller's text. Without the gateway's secret no guess can be
        checked."""
        return hmac.digest(self._pepper, value, "sha256")

    def put(self, row: RunRow) -> None:
        """Schedule the writing of a row, if it has changed."""
        if self._rows.get(row.id) != row:
            self._rows[row.id] = self._changes[row.id] = row
            self._has_work.set()

    def remove(self, id: str) -> None:
        """Schedule the removal of a row, if there is one."""
        if self._rows.pop(id, None) is not None:
            self._changes[id] = None
            self._has_work.set()

    async def write(self) -> None:
        """Write the changes, or everything if the table may be wrong. Raises DatabaseUnavailable: then the next call
        writes everything."""
        self._has_work.clear()
        replace = not self._is_right
        if replace:
            self._changes = dict(self._rows)
        self._is_right = False  # until it is done
        while replace or self._changes:
            batch = dict(islice(self._changes.items(), ROWS_AT_ONCE))
            for id in batch:
                del self._changes[id]
            rows = [row for row in batch.values() if row is not None]
            await self._table.write(rows, [id for id, row in batch.items() if row is None], replace=replace)
            replace = False
        self._is_right = True

    async def look_after(self, warn: Callable[..., None]) -> None:
        """Write changes whenever there are any. Ends when it is cancelled. `warn` gets an event and its facts."""
        while True:
            await self._has_work.wait()
            await asyncio.sleep(MOMENT)
            if not await self.try_to_write(warn):
                self._has_work.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def try_to_write(self, warn: Callable[..., None]) -> bool:
        """Write, and return True if that worked. Does not report an outage: the ledger does."""
        try:
            await self.write()
        except DatabaseUnavailable:
            return False
        except Exception as error:
            warn("the registry of runs could not be written", reason=repr(error))
            return False
        return True


@asynccontextmanager
async def open_registry(table: RunTable, pepper: bytes, warn: Callable[..., None]) -> AsyncIterator[RunRegistry]:
    """Read the rows that an earlier process left, and keep the table in step until the block is left."""
    try:
        registry = RunRegistry(table, pepper, await table.read())
    except DatabaseUnavailable:
        registry = RunRegistry(table, pepper, None)
    work = asyncio.create_task(registry.look_after(warn))
    try:
        yield registry
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await registry.try_to_write(warn)
