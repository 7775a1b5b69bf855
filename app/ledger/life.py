"""The life of a process with the database. It opens the database, ends what earlier and dead processes left, tells the
others that it lives, and looks again and again at what changes. It keeps the newest directory, and a copy on the disk
for a start while the database is away. Knows nothing of admission.

    start ──▶ opened ──▶ recovered ──▶ beats every 5 seconds, watches every second ──▶ aclose
      │                      ▲
      └──▶ the copy is read ─┘ as soon as the database is back
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.ledger.connection import Connection
from app.ledger.database.directory_rows import read_directory, read_revision
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.database.replicas import BEAT_SECONDS, beat, find_dead
from app.ledger.database.upkeep import read_due, write_uses
from app.ledger.values.directory import Directory, decode, encode
from app.ledger.values.drawings import Outcome, Settlement, State, Unfinished
from app.microseconds import DAY, HOUR, to_microseconds

WATCH_SECONDS = 1.0  # until a change of the directory is seen, and until the database is tried again
USE_SECONDS = 60.0  # until the time at which keys were used is written down
DUE_SECONDS = 3600.0  # until what has been in doubt for too long is looked for again


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found of the process that used the database before: the number of drawings of each kind."""

    released: int = 0
    in_doubt: int = 0
    replayed: int = 0


class Life:
    """`directory` is the newest that this process knows. `key_names` are the names of the configuration's keys, by
    their ids. `open_drawings` are those that it works on, which recovery leaves alone, and whether a hard budget is in
    scope: admission adds them, and their end removes them.

    `clock` gives seconds since the epoch; `warn` gets an event and its facts. `copy` is the directory's file."""

    def __init__(
        self,
        connection: Connection,
        in_doubt_days: int,
        clock: Callable[[], float],
        warn: Callable[..., None],
        copy: Path | None = None,
    ) -> None:
        self.directory = Directory()
        self.key_names: Mapping[str, str] = {}
        self.open_drawings = dict[str, bool]()
        self._connection = connection
        self._in_doubt_days = in_doubt_days
        self._clock = clock
        self._warn = warn
        self._copy = copy
        self._resumed = frozenset[str]()
        self._is_recovered = False
        self._uses = dict[str, int]()  # keys, and the hour of their last use
        self._watching = list[asyncio.Task[None]]()

    async def start(self, resumed: Collection[str] = ()) -> Recovered:
        """Open the database, replay the journal, and end what an earlier process left: what it had not sent is
        released, what it had sent is in doubt. `resumed` are the drawings whose jobs are taken up again. If the
        database is away, that follows when it is back, and the directory comes from its copy. Raises SchemaError and
        ForeignSecret."""
        self._resumed = frozenset(resumed)
        try:
            recovered = await self._open()
        except DatabaseUnavailable:
            self.directory = await asyncio.to_thread(self._read_copy)
            recovered = Recovered()
        self._watching = [asyncio.create_task(self._watch()), asyncio.create_task(self._beat())]
        return recovered

    async def aclose(self) -> None:
        """Stop watching, and write down when keys were used."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._flush_uses()

    async def refresh(self) -> None:
        """Catch up with the database: open it if it was never reached, replay the journal, and read the directory anew
        if it has changed. Raises DatabaseUnavailable."""
        if not self._is_recovered:
            await self._open()
            return
        await self._connection.look_for_it()
        await self._connection.catch_up()
        await self._read_directory()

    def name_keys(self, names: Mapping[str, str]) -> None:
        """Know the names of the configuration's keys, by their ids."""
        self.key_names = names
        self.directory = self.directory.naming(names)

    def note_use(self, key_id: str) -> None:
        """Remember that a key was used, to the hour. It is written down within a minute."""
        key = self.directory.keys.get(key_id)
        hour = self._now() // HOUR * HOUR
        if key is not None and (key.last_used_at or 0) < hour:
            self._uses[key_id] = hour

    async def resolve_due(self) -> int:
        """Count as paid what has been in doubt for longer than `in_doubt_days`. Returns the number of drawings."""
        now = self._now()
        note = f"in doubt for {self._in_doubt_days} days"
        before = now - self._in_doubt_days * DAY
        due = await self._connection.use(lambda database: read_due(database, before))
        for drawing_id in due:
            await self._connection.use(partial(_count_as_paid, drawing_id, now, note))
        return len(due)

    def _now(self) -> int:
        return to_microseconds(self._clock())

    # --- recovery ---

    async def _open(self) -> Recovered:
        await self._connection.open()
        await self._connection.look_for_it()
        replayed = await self._connection.catch_up()
        recovered = await self._recover()
        await self._read_directory()
        self._is_recovered = True
        return Recovered(recovered.released, recovered.in_doubt, replayed)

    async def _recover(self) -> Recovered:
        """End the drawings of this replica, and of dead ones, that no process works on."""
        found = await self._connection.use(partial(_unfinished, self._connection.replica.name))
        self.open_drawings.update(dict.fromkeys(self._resumed & {drawing.drawing_id for drawing in found}, True))
        left = await self._end(found) + await self._end_dead()
        in_doubt = sum(drawing.state is State.SENT for drawing in left)
        return Recovered(len(left) - in_doubt, in_doubt)

    async def _end_dead(self) -> list[Unfinished]:
        """End the drawings of processes that have no beat any more."""
        ended = list[Unfinished]()
        for name in await self._connection.use(lambda database: find_dead(database, self._connection.replica.name)):
            ended += await self._end(await self._connection.use(partial(_unfinished, name)))
        return ended

    async def _end(self, found: Sequence[Unfinished]) -> list[Unfinished]:
        left = [drawing for drawing in found if drawing.drawing_id not in self._resumed | self.open_drawings.keys()]
        for drawing in left:
            await self._connection.use(partial(_interrupt, drawing, self._now()))
        return left

    # --- what has to be looked at again and again ---

    async def _beat(self) -> None:
        """Tell the other processes of the database again and again that this one lives, and end what dead ones left."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if not self._is_recovered:
                continue
            try:
                await self._connection.use(lambda database: beat(database, self._connection.replica))
                if ended := await self._end_dead():
                    self._warn("another gateway is dead, and its drawings were ended", drawings=len(ended))
            except DatabaseUnavailable:
                pass  # said already
            except Exception as error:
                self._warn("the ledger could not tell that it lives", reason=repr(error))

    async def _watch(self) -> None:
        """Look again and again: at the database, the journal, the directory, the keys' use, and what is in doubt."""
        uses_at = due_at = self._clock()
        lost = self._connection.lost
        while True:
            # A connection may be lost, and the next one be good. Python 3.11's `wait_for` could lose a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await lost.wait()
            try:
                await self.refresh()
                if self._clock() >= uses_at:
                    uses_at = self._clock() + USE_SECONDS
                    await self._flush_uses()
                if self._clock() >= due_at:
                    due_at = self._clock() + DUE_SECONDS
                    await self.resolve_due()
            except DatabaseUnavailable:
                pass  # said already
            except Exception as error:
                self._warn("the ledger could not look after itself", reason=repr(error))
            lost.clear()  # only now: a database that falls away at each look would be looked at without a pause

    async def _flush_uses(self) -> None:
        uses, self._uses = self._uses, {}
        if uses:
            with contextlib.suppress(DatabaseUnavailable):
                await self._connection.use(lambda database: write_uses(database, uses))

    # --- the directory, and its copy ---

    async def _read_directory(self) -> None:
        revision = await self._connection.use(read_revision)
        if revision == self.directory.revision:
            return
        self.directory = (await self._connection.use(read_directory)).naming(self.key_names)
        if self._copy is not None:
            await asyncio.to_thread(_replace, self._copy, encode(self.directory))

    def _read_copy(self) -> Directory:
        """Return the copy of the directory, or an empty one."""
        if self._copy is None:
            return Directory()
        try:
            return decode(self._copy.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Directory()
        except (OSError, ValueError) as error:
            self._warn("the copy of the keys cannot be read", reason=str(error))
            return Directory()


async def _unfinished(name: str, database: Database) -> Sequence[Unfinished]:
    return await database.unfinished(name)


async def _interrupt(drawing: Unfinished, now: int, database: Database) -> None:
    in_doubt = drawing.at_stake if drawing.state is State.SENT else 0
    end = Settlement(drawing.drawing_id, now, Outcome.INTERRUPTED, in_doubt=in_doubt, by="recovery")
    await database.settle(end)


async def _count_as_paid(drawing_id: str, now: int, note: str, database: Database) -> None:
    await database.resolve(drawing_id, now, "gateway", note, paid=True)


def _replace(path: Path, text: str) -> None:
    """Write a file under another name, and give it its own when it is whole."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.chmod(0o600)
    unfinished.replace(path)
