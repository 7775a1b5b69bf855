"""A process's connection to the database, which may be away, and the journal for that time.

The connection is away from the first call that finds it so until `look_for_it` finds it back. Meanwhile *use* fails at
once and *note* writes into the journal. *Catch up* tells the database all that was noted, in its order, before it is
told anything newer. Everything may be told twice. Knows neither budgets nor the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.database.replicas import Replica, beat, enter, leave
from app.ledger.journal import Journal
from app.ledger.values.drawings import AttemptSent, Joined
from app.ledger.values.text import admission_of, claims_of, settlement_of

RECORDS_AT_ONCE = 500  # of the journal, in memory

T = TypeVar("T")


class Connection:
    """`opening` opens the database; `warn` gets an event and its facts. `lost` is set when the database falls away, and
    the task that waits for that clears it."""

    def __init__(
        self, opening: Callable[[], Awaitable[Database]], journal: Journal, replica: Replica, warn: Callable[..., None]
    ) -> None:
        self.replica = replica
        self.is_away = False
        self.lost = asyncio.Event()
        self._opening = opening
        self._database: Database | None = None
        self._journal = journal
        self._journalling = asyncio.Lock()  # the journal is written, or replayed
        self._work = set[asyncio.Task[Any]]()  # on the journal
        self._warn = warn

    @property
    def database(self) -> Database:
        """The database itself, also while it is away. Raises DatabaseUnavailable if it was never reached."""
        if self._database is None:
            raise DatabaseUnavailable("the database has not been reached yet")
        return self._database

    @property
    def journal_records(self) -> int:
        return len(self._journal)

    async def open(self) -> None:
        """Open the database and enter as a replica, unless that was done. Raises DatabaseUnavailable, SchemaError and
        ForeignSecret."""
        if self._database is None:
            try:
                self._database = await self._enter()
            except DatabaseUnavailable as error:
                self._fall_away(error)
                raise

    async def aclose(self) -> None:
        """Leave the database, and close it and the journal."""
        await asyncio.gather(*self._work, return_exceptions=True)
        if self._database is not None:
            with contextlib.suppress(DatabaseUnavailable):
                await leave(self._database, self.replica)
            await self._database.aclose()
        self._journal.close()

    # --- the database ---

    async def use(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """Let `work` use the database. Raises DatabaseUnavailable, at once while the database is away."""
        database = self.database
        if self.is_away:
            raise DatabaseUnavailable("the database is away")
        try:
            return await work(database)
        except DatabaseUnavailable as error:
            self._fall_away(error)
            raise

    async def look_for_it(self) -> None:
        """Let a database that was away write something. Raises DatabaseUnavailable. Nobody else asks it meanwhile: each
        question may take seconds to fail, and callers would wait for one another."""
        if self.is_away and self._database is not None:
            await beat(self._database, self.replica)
        if self.is_away:
            self.is_away = False
            self._warn("the database is back")

    def _fall_away(self, error: DatabaseUnavailable) -> None:
        if not self.is_away:
            self.is_away = True
            self.lost.set()
            self._warn("the database cannot be used", reason=str(error))

    async def _enter(self) -> Database:
        database = await self._opening()
        try:
            await enter(database, self.replica)
        except BaseException:
            await database.aclose()
            raise
        return database

    # --- the journal ---

    async def note(self, kind: str, fields: dict[str, Any], spare: int = 0) -> bool:
        """Write a record into the journal, and leave `spare` bytes of room behind it. False: the journal has no room
        either."""
        return await self._apart(self._append(json.dumps({"kind": kind, **fields}), spare))

    async def catch_up(self) -> int:
        """Tell the database what the journal has, and clear it. A record that it cannot take, as of a newer version,
        keeps nothing from being served. Returns the number of records. Raises DatabaseUnavailable."""
        return await self._apart(self._replay_all()) if len(self._journal) else 0

    def _apart(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Do the work in a task of its own, which a cancelled caller does not end. A thread that writes a record goes
        on then, and the next record would be written over it."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return asyncio.shield(task)

    async def _append(self, text: str, spare: int) -> bool:
        async with self._journalling:
            try:
                await asyncio.to_thread(self._journal.append, text, spare)
            except OSError as error:
                self._warn("the journal cannot be written to", reason=error.strerror or str(error))
                return False
        return True

    async def _replay_all(self) -> int:
        async with self._journalling:
            count, records = len(self._journal), self._journal.read()
            while some := await asyncio.to_thread(list, islice(records, RECORDS_AT_ONCE)):
                for record in some:
                    await self._replay(json.loads(record))
            await asyncio.to_thread(self._journal.clear)
        return count

    async def _replay(self, fields: dict[str, Any]) -> None:
        drawing = fields.get("drawing_id") or fields.get("id")
        try:
            await self.use(partial(self._apply, fields.pop("kind"), fields))
        except DatabaseUnavailable:
            raise
        except Exception as error:
            self._warn("a record of the journal is no good", drawing=drawing, reason=repr(error))

    async def _apply(self, kind: str, fields: dict[str, Any], database: Database) -> None:
        match kind:
            case "defer":
                claims, at = claims_of(fields.pop("claims")), fields.pop("at")
                await database.defer(admission_of(fields), claims, self.replica.name, at)
            case "reserve":
                await database.reserve(fields["drawing_id"], fields["most"], fields["at"], has_left=True)
            case "sent":
                await database.sent(AttemptSent(**fields))
            case "settle":
                await database.settle(settlement_of(fields))
            case "join":
                await database.join(Joined(**fields), self.replica.name)
