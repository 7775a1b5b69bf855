"""Gauges: the objects that are alive, read from their snapshots at each scrape. Facts of the database alone are read
now and then, and no scrape waits for them longer than a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from app.catalog.deployments import Model
from app.ledger.book.rollups import read_mark, read_number
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.database.upkeep import placeholders
from app.ledger.ledger import Ledger
from app.ledger.values.directory import Budget, Directory
from app.ledger.values.windows import Period, period_at
from app.microseconds import SECOND, to_microseconds
from app.routing.failover import RetryBudget
from app.routing.health import Health
from app.routing.queues import Slots
from app.runs.retention import Retention, Room
from app.storage.disk import DiskStore
from app.storage.spool import Budget as UploadBudget
from app.telemetry.metrics.drawings import Drawings
from app.telemetry.metrics.families import BUDGETS, Metrics
from app.telemetry.metrics.series import Labels

DATABASE_SECONDS = 10.0  # until the database is asked again
KEYS_SECONDS = 60.0  # until it is looked which keys have expired
PATIENCE_SECONDS = 1.0
AT_A_TIME = 50  # budgets in one statement
# With the words of the index of open drawings, or SQLite would not use it.
IN_DOUBT = "select count(*) from drawing where state in ('held', 'sent', 'in_doubt') and state = 'in_doubt'"
_OUTBOX = "select count(*) from outbox where done_at is null"
_USED = "select budget_id, spent_nano, held_nano, in_doubt_nano from budget_period where {}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The objects that have the snapshots. `disk` returns the bytes of the disk: all, used, free."""

    health: Health
    queues: Slots
    retry_budget: RetryBudget
    retention: Retention
    room: Room
    store: DiskStore
    uploads: UploadBudget
    ledger: Ledger
    disk: Callable[[], tuple[int, int, int]]


@dataclass(slots=True, eq=False)
class State:
    """`models` are those of the present configuration, and `stated_keys` the number of its keys."""

    metrics: Metrics
    drawings: Drawings
    sources: Sources
    clock: Callable[[], float] = time.time
    models: Sequence[Model] = ()
    stated_keys: int = 0
    _read_at: float = 0.0  # when the database was asked last
    _reading: asyncio.Task[None] | None = None
    _counted: Directory = field(default_factory=Directory)  # the directory whose keys are counted
    _counted_at: float = 0.0

    def __post_init__(self) -> None:
        self.metrics.config_valid.replace({(): 1})

    def config_reloaded(self, *, is_valid: bool) -> None:
        self.metrics.config_reloads.add("applied" if is_valid else "refused")
        self.metrics.config_valid.replace({(): float(is_valid)})

    async def read(self) -> None:
        """Bring all gauges up to date."""
        if not self.metrics.build_info.values:
            import platform
            from importlib.metadata import version  # neither is needed to start

            self.metrics.build_info.replace({(version("image-gateway"), platform.python_version()): 1})
        await self._read_database()
        self._read_deployments()
        self._read_room()
        metrics, ledger = self.metrics, self.sources.ledger.snapshot()
        metrics.ledger_up.replace({(): float(ledger.is_available)})
        metrics.ledger_journal_rows.replace({(): ledger.journal_records})
        metrics.in_flight.replace({(operation,): count for operation, count in self.drawings.in_flight().items()})
        metrics.retry_budget_exhausted.replace({(): self.sources.retry_budget.snapshot().refused})
        await self._count_keys()

    def _read_deployments(self) -> None:
        metrics, sources = self.metrics, self.sources
        deployments = {each.name: each for model in self.models for each in model.deployments}
        health, queues = sources.health.snapshot(), {each.deployment: each for each in sources.queues.snapshot()}
        pauses = [each for each in health if each.left > 0]
        waiting, used, limits = dict[Labels, float](), dict[Labels, float](), dict[Labels, float]()
        up, cooldowns, accounts = dict[Labels, float](), dict[Labels, float](), dict[Labels, float]()
        for name, each in deployments.items():
            provider = metrics.providers(each.provider.name)
            labels = provider, metrics.models(each.model)
            queue = queues.get(name)
            waiting[labels] = queue.waiting if queue else 0
            used[labels] = queue.held if queue else 0
            if (places := each.places) is not None:
                limits[labels] = places
            own = [pause for pause in pauses if pause.name in (name, each.provider.name)]
            up[labels] = float(not own)
            for pause in own:
                cooldowns[*labels, pause.reason] = pause.left
            is_refused = any(pause.reason == "account" for pause in own)
            accounts[provider,] = min(accounts.get((provider,), 1.0), float(not is_refused))
        for gauge, values in (
            (metrics.queue_waiting, waiting),
            (metrics.slots_in_use, used),
            (metrics.slots_limit, limits),
            (metrics.provider_up, up),
            (metrics.provider_cooldown_seconds, cooldowns),
            (metrics.provider_account_ok, accounts),
        ):
            gauge.replace(values)

    def _read_room(self) -> None:
        metrics, sources = self.metrics, self.sources
        runs, store, uploads = sources.retention.snapshot(), sources.store.snapshot(), sources.uploads.snapshot()
        metrics.runs.replace({(state.name.lower(),): count for state, count in runs.states.items()})
        metrics.store_bytes.replace(
            {
                ("files",): store.used + store.writing,
                ("runs_memory",): runs.memory_bytes,
                ("runs_disk",): runs.disk_bytes,
                ("uploads_memory",): uploads.memory,
                ("uploads_disk",): uploads.disk,
            }
        )
        metrics.store_limit_bytes.replace(
            {
                ("files",): store.max_bytes,
                ("runs_memory",): sources.room.memory_bytes,
                ("runs_disk",): sources.room.disk_bytes,
                ("uploads_memory",): sources.uploads.memory_bytes,
                ("uploads_disk",): sources.uploads.disk_bytes,
            }
        )
        metrics.disk_bytes.replace({})
        metrics.disk_free_bytes.replace({})
        with suppress(OSError):  # it is away, and so are its series
            total, _, free = sources.disk()
            metrics.disk_bytes.replace({(): total})
            metrics.disk_free_bytes.replace({(): free})

    async def _count_keys(self) -> None:
        """Count the keys in a thread, since there may be a hundred thousand, if they have changed or time has gone
        by."""
        directory, now = self.sources.ledger.directory, self.clock()
        if directory is not self._counted or now - self._counted_at >= KEYS_SECONDS:
            counts = await asyncio.to_thread(count_keys, directory, to_microseconds(now))
            self._counted, self._counted_at = directory, now
            self.metrics.keys.replace({(state,): count for state, count in counts.items()})
        self.metrics.keys.values["stated",] = self.stated_keys

    # --- from the database ---

    async def _read_database(self) -> None:
        if self._reading is None and self.clock() - self._read_at >= DATABASE_SECONDS:
            self._reading = asyncio.create_task(self._ask())
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=PATIENCE_SECONDS)
            if self._reading.done():
                reading, self._reading = self._reading, None
                reading.result()

    async def _ask(self) -> None:
        self._read_at, metrics = self.clock(), self.metrics
        now = to_microseconds(self._read_at)
        budgets = self.sources.ledger.directory.budgets[:BUDGETS]
        periods = [(each, period_at(each.window, each.timezone, now, each.since)) for each in budgets]
        try:
            found = await read_book(self.sources.ledger.database, periods)
        except DatabaseUnavailable:
            return  # `ledger_up` says so; the gauges keep their values
        metrics.in_doubt_open.replace({(): found.in_doubt})
        metrics.outbox_pending.replace({(): found.pending})
        if found.rolled_up:
            metrics.rollup_age_seconds.replace({(): max(now - found.rolled_up, 0) / SECOND})
        if found.drift is not None:
            metrics.ledger_drift.replace({(): found.drift})
        gauges = (metrics.budget_used_ratio, metrics.budget_held_ratio, metrics.budget_in_doubt_ratio)
        for index, gauge in enumerate(gauges):
            gauge.replace({(x.id,): found.used.get(x.id, (0, 0, 0))[index] / max(x.amount, 1) for x in budgets})
        metrics.budget_resets_seconds.replace(
            {(x.id,): (period.ends_at - now) / SECOND for x, period in periods if period.ends_at is not None}
        )


@dataclass(frozen=True, slots=True)
class BookState:
    """The number of drawings in doubt and of waiting messages, the money spent, held and in doubt of each budget, the
    time before which usage is summed up (0: it never was), and the number of sums that differed when the ledger was
    verified (None: it never was)."""

    in_doubt: int
    pending: int
    used: Mapping[str, tuple[int, int, int]]
    rolled_up: int
    drift: int | None


async def read_book(database: Database, periods: Sequence[tuple[Budget, Period]]) -> BookState:
    """Return the state of the book, with these periods of budgets. Raises DatabaseUnavailable."""
    in_doubt, pending = await database.query(IN_DOUBT), await database.query(_OUTBOX)
    used = dict[str, tuple[int, int, int]]()
    for first in range(0, len(periods), AT_A_TIME):
        some = periods[first : first + AT_A_TIME]
        marks = iter(placeholders(database, 2 * len(some)))
        wanted = " or ".join(f"(budget_id = {next(marks)} and starts_at = {next(marks)})" for _ in some)
        values = [value for budget, period in some for value in (budget.id, period.starts_at)]
        rows = await database.query(_USED.format(wanted), values)
        used |= {str(id): (int(spent), int(held), int(doubtful)) for id, spent, held, doubtful in rows}
    drift = await read_number(database, "drift") if await read_number(database, "verified") else None
    return BookState(int(in_doubt[0][0]), int(pending[0][0]), used, await read_mark(database), drift)


def count_keys(directory: Directory, now: int) -> Mapping[str, int]:
    """Return the number of issued keys by their state, at a time in microseconds."""
    counts = {"active": 0, "disabled": 0, "expired": 0}
    for key in directory.keys.values():
        counts["active" if key.is_usable(now) else "disabled" if key.disabled_at is not None else "expired"] += 1
    return counts
