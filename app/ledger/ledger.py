"""The ledger: what admission, attempts and runs call. It finds the budgets, asks the database, and has the journal for
the time when the database is away. Knows neither SQL nor HTTP.

*Admit* reserves; *sent* comes before the first byte leaves; *settle* ends. Settling never fails: what the database
cannot be told goes to the journal, and is told later, in its order. Everything may be told twice. `connection` has the
database and the journal; `life` opens them, recovers and watches.

    the database is away, and a hard budget or a limit is in scope: nothing is admitted or sent (`when_down: refuse`)
    the database is away, and neither is: the journal has the drawing, and the caller notices nothing
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from app.ledger.connection import Connection
from app.ledger.database.foresight import foresee, limit_states
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database, DatabaseUnavailable, Full
from app.ledger.database.replicas import Replica
from app.ledger.groups import Groups
from app.ledger.journal import Journal
from app.ledger.life import Life
from app.ledger.values.directory import Directory
from app.ledger.values.drawings import (
    Admission,
    AttemptSent,
    Beginning,
    BudgetRefusal,
    Claim,
    Foresight,
    Joined,
    Refusal,
    Settlement,
    Ticket,
    Unavailable,
    Unpriced,
)
from app.ledger.values.limits import Limit, LimitState
from app.ledger.values.text import as_fields, deferral_fields
from app.ledger.values.windows import period_at
from app.microseconds import to_microseconds

END_BYTES = 4096  # of the journal, for the end of a drawing; with several attempts some 2,000
GLANCE_SECONDS = 0.5  # that a look at the limits may take
ALONE = Replica("gateway")  # where nobody else uses the database


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of the ledger."""

    unpriced: Literal["refuse", "serve"] = "refuse"
    when_down: Literal["refuse", "serve"] = "refuse"
    in_doubt_days: int = 30


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The ledger at one moment. `open_drawings`: admitted by this process and not settled."""

    is_available: bool
    journal_records: int
    revision: int
    open_drawings: int


class Ledger:
    """One process's way to the book. `clock` gives seconds since the epoch; `warn` gets an event and its facts."""

    def __init__(
        self, connection: Connection, life: Life, policy: Policy, clock: Callable[[], float], warn: Callable[..., None]
    ) -> None:
        self._connection = connection
        self._replica = connection.replica.name
        self._life = life
        self._open = life.open_drawings
        self._policy = policy
        self._clock = clock
        self._warn = warn
        self._unwritten = dict[str, tuple[Admission, int]]()  # admitted at that time, and not written down yet
        self._alone = set[str]()  # drawings that count in nothing
        self._groups = Groups(self._record, self._keep, self._lose)  # of drawings that count in nothing
        self._work = set[asyncio.Task[None]]()

    @property
    def replica(self) -> str:
        """The name of this process in the database."""
        return self._replica

    @property
    def database(self) -> Database:
        """For reports and changes of the directory. Raises DatabaseUnavailable."""
        return self._connection.database

    @property
    def directory(self) -> Directory:
        """The newest projects, keys and budgets that this process knows."""
        return self._life.directory

    @property
    def key_names(self) -> Mapping[str, str]:
        """The names of the configuration's keys, by their ids."""
        return self._life.key_names

    def name_keys(self, names: Mapping[str, str]) -> None:
        """Know the names of the configuration's keys, by their ids: budgets that belong to them are told by these."""
        self._life.name_keys(names)

    async def refresh(self) -> None:
        """Catch up with the database, and know its newest directory. Raises DatabaseUnavailable."""
        await self._life.refresh()

    def note_use(self, key_id: str) -> None:
        """Remember that a key was used, to the hour. It is written down within a minute."""
        self._life.note_use(key_id)

    def snapshot(self) -> LedgerSnapshot:
        connection = self._connection
        return LedgerSnapshot(
            not connection.is_away, connection.journal_records, self.directory.revision, len(self._open)
        )

    async def drain(self) -> None:
        """Return when what is under way is written down."""
        await self._groups.drain()
        await asyncio.gather(*self._work, return_exceptions=True)

    # --- the money path ---

    async def admit(self, admission: Admission) -> Ticket | Refusal:
        """Take every limit, place and budget that a request needs, or none. The same id again gives the same ticket.

        A request for one image that counts in nothing asks the database nothing: its first *sent* writes its row."""
        now = self._now()
        claims = self._claims(admission, now)
        is_alone = not claims and not admission.limits and admission.n == 1
        if is_alone and self.directory.revision and not self._connection.is_away:
            self._unwritten[admission.id] = admission, now
            self._alone.add(admission.id)
            self._open[admission.id] = False
            return Ticket(admission.id, admission.most or 0)
        hard = next((claim.budget for claim in claims if claim.budget.hard), None)
        if admission.most is None and hard is not None and self._policy.unpriced == "refuse":
            return Unpriced(hard)
        try:
            await self._connection.catch_up()
            found = await self._connection.use(lambda database: database.admit(admission, claims, self._replica, now))
        except DatabaseUnavailable as error:
            is_known = self.directory.revision > 0  # if not, there may be budgets
            if self._policy.when_down == "refuse" and (hard is not None or admission.limits or not is_known):
                return Unavailable(str(error))
            if not await self._note("defer", deferral_fields(admission, claims, now)):
                return Unavailable(str(error))
            found = Ticket(admission.id, admission.most or 0, is_deferred=True)
        if isinstance(found, Ticket):
            self._open[admission.id] = hard is not None
        return found

    async def foresee(self, admission: Admission) -> Foresight | Refusal:
        """Return what `admit` would find now, and take nothing."""
        now = self._now()
        claims = self._claims(admission, now)
        hard = next((claim.budget for claim in claims if claim.budget.hard), None)
        if admission.most is None and hard is not None and self._policy.unpriced == "refuse":
            return Unpriced(hard)
        try:
            await self._connection.catch_up()
            return await self._connection.use(lambda database: foresee(database, admission, claims, now))
        except DatabaseUnavailable as error:
            is_kept = hard is not None or admission.limits or not self.directory.revision
            return Unavailable(str(error)) if is_kept and self._policy.when_down == "refuse" else Foresight()

    async def limit_states(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]:
        """Return what is left of limits; nothing while the database is away or slow: no answer waits for this."""
        try:
            async with asyncio.timeout(GLANCE_SECONDS):
                return await self._connection.use(lambda database: limit_states(database, limits, self._now()))
        except (DatabaseUnavailable, TimeoutError):
            return ()

    async def reserve(self, drawing_id: str, most: int) -> BudgetRefusal | Unavailable | None:
        """Hold `most` for a drawing in all, before a repeat that may be paid again. None: it is held, or will be when
        the database is back, and no hard budget has to be kept meanwhile."""
        unwritten = self._unwritten.pop(drawing_id, None)
        try:
            await self._connection.catch_up()
            if unwritten is not None:
                await self._write_down(*unwritten)
                unwritten = None
            found = await self._connection.use(lambda database: database.reserve(drawing_id, most, self._now()))
        except DatabaseUnavailable as error:
            if self._open.get(drawing_id, True) and self._policy.when_down == "refuse":
                return Unavailable(str(error))
            if unwritten is not None and not await self._note_admission(*unwritten):
                self._unwritten[drawing_id] = unwritten
                return Unavailable(str(error))
            fields = {"drawing_id": drawing_id, "most": most, "at": self._now()}
            return None if await self._note("reserve", fields) else Unavailable(str(error))
        if isinstance(found, Full):
            return self._refusal(found)
        return None if found else Unavailable("the reservation is gone")

    async def sent(self, attempt: AttemptSent) -> Unavailable | None:
        """Write down that an attempt is about to leave. Await it before the first byte does. None: it may leave."""
        admission, at = self._unwritten.pop(attempt.drawing_id, (None, 0))
        try:
            if admission is not None:
                await self._groups.begin(Beginning(admission, at, attempt))
                return None
            await self._connection.catch_up()
            if await self._connection.use(lambda database: database.sent(attempt)):
                return None
            return Unavailable("the reservation is gone")
        except DatabaseUnavailable as error:
            if self._open.get(attempt.drawing_id, True) and self._policy.when_down == "refuse":
                return Unavailable(str(error))
            if admission is not None and not await self._note_admission(admission, at):
                return Unavailable(str(error))
            return None if await self._note("sent", as_fields(attempt)) else Unavailable(str(error))

    async def settle(self, settlement: Settlement) -> None:
        """End a drawing: settle, release, or leave in doubt. Never raises, and goes on if the caller is cancelled.

        Nobody waits for the end of a drawing that counts in nothing: it is written down with the next group. If the
        process is killed before that, such a drawing is in doubt."""
        is_alone = settlement.drawing_id in self._alone and settlement.drawing_id not in self._unwritten
        self._alone.discard(settlement.drawing_id)
        if not is_alone:
            await self._finish(partial(self._settle, settlement))
            return
        self._groups.end(settlement)
        if self._connection.is_away:  # and the journal has it
            await self._groups.drain()

    async def record_joined(self, joined: Joined) -> None:
        """Write the row of an answer from an existing run. Never raises."""
        await self._finish(partial(self._tell, "join", joined))

    async def resolve(self, drawing_id: str, *, paid: bool, by: str, note: str = "") -> bool:
        """Turn what is in doubt into cost, or release it. False: nothing is in doubt. Raises DatabaseUnavailable."""
        now = self._now()
        return await self._connection.use(lambda database: database.resolve(drawing_id, now, by, note, paid=paid))

    # --- inside ---

    def _now(self) -> int:
        return to_microseconds(self._clock())

    def _claims(self, admission: Admission, now: int) -> tuple[Claim, ...]:
        if not self.directory.budgets:
            return ()
        budgets = self.directory.budgets_of(admission.key_id, admission.project_id, admission.model)
        return tuple(Claim(x, period_at(x.window, x.timezone, now, x.since)) for x in budgets)

    def _refusal(self, full: Full) -> BudgetRefusal | Unavailable:
        budget = next((budget for budget in self.directory.budgets if budget.id == full.budget_id), None)
        if budget is None:
            return Unavailable(f"budget {full.budget_id!r} is full, and not known here yet")
        return BudgetRefusal(budget, full.period, full.amount, full.used, full.held, full.needed)

    async def _finish(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work in a task of its own, which a caller that is cancelled does not end."""

        async def run() -> None:
            try:
                await work()
            except Exception as error:
                self._warn("the ledger could not write down the end of a drawing", reason=repr(error))

        task = asyncio.create_task(run())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        await asyncio.shield(task)

    async def _write_down(self, admission: Admission, at: int) -> None:
        await self._connection.use(lambda database: database.defer(admission, (), self._replica, at))

    async def _record(self, begun: Sequence[Beginning], ended: Sequence[Settlement]) -> None:
        await self._connection.catch_up()
        await self._connection.use(lambda database: database.record(begun, ended, self._replica))
        for settlement in ended:
            self._open.pop(settlement.drawing_id, None)

    async def _keep(self, ended: Sequence[Settlement]) -> None:
        for settlement in ended:
            await self._note("settle", as_fields(settlement))
            self._open.pop(settlement.drawing_id, None)

    def _lose(self, settlement: Settlement, error: Exception) -> None:
        self._open.pop(settlement.drawing_id, None)
        self._warn("the ledger could not write down the end of a drawing", reason=repr(error))

    async def _settle(self, settlement: Settlement) -> None:
        if (unwritten := self._unwritten.pop(settlement.drawing_id, None)) is not None:
            try:
                await self._write_down(*unwritten)
            except DatabaseUnavailable:
                await self._note_admission(*unwritten)
        await self._tell("settle", settlement)
        self._open.pop(settlement.drawing_id, None)

    async def _tell(self, kind: str, value: Settlement | Joined) -> None:
        try:
            await self._connection.catch_up()
            if isinstance(value, Settlement):
                await self._connection.use(lambda database: database.settle(value))
            else:
                await self._connection.use(lambda database: database.join(value, self._replica))
        except DatabaseUnavailable:
            await self._note(kind, as_fields(value))

    async def _note_admission(self, admission: Admission, at: int) -> bool:
        """Note one that counts in nothing."""
        return await self._note("defer", deferral_fields(admission, (), at))

    async def _note(self, kind: str, fields: dict[str, Any]) -> bool:
        """Write a record into the journal. False: it has no room either. All but the end of a drawing leave room for
        the ends of all that have begun: what may be paid for can be written down."""
        spare = END_BYTES * (len(self._open) + 1) if kind != "settle" else 0
        return await self._connection.note(kind, fields, spare)


@contextlib.asynccontextmanager
async def open_ledger(
    url: str | None,
    folder: Path,
    *,
    policy: Policy,
    clock: Callable[[], float],
    warn: Callable[..., None],
    replica: Replica = ALONE,
    migrate: bool = True,
    resumed: Collection[str] = (),
) -> AsyncIterator[Ledger]:
    """Open the ledger of a process, whose `folder` no other process uses. Raises SchemaError and ForeignSecret.

    The database file is in it too, unless `url` names a Postgres."""
    journal = await asyncio.to_thread(Journal, folder / "journal")
    opening = partial(open_database, url, folder, migrate=migrate)
    connection = Connection(opening, journal, replica, warn)
    life = Life(connection, policy.in_doubt_days, clock, warn, folder / "directory.json")
    ledger = Ledger(connection, life, policy, clock, warn)
    await life.start(resumed)
    try:
        yield ledger
    finally:
        await ledger.drain()
        await life.aclose()
        await connection.aclose()
