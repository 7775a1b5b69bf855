"""Which runs are kept, for which key, how long and in how much room; and which of them a new request joins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from app.access.keyring import Key
from app.errors import ApiError, Conflict, NotFound, Unavailable, shortened
from app.gateway.call import SubmittedJob
from app.gateway.fanout import FinishedImages
from app.images import ImageRequest
from app.runs.entry import DeliveredRuns, RunEntry
from app.runs.fingerprint import find_fingerprint
from app.runs.follower import Follower
from app.runs.persistence import RunFiles
from app.runs.run import Run
from app.runs.state import State
from app.storage.full_disk import LEAST_FREE
from app.storage.recording import Meter

RUNS = 10_000  # known at once, of all kinds: each takes some kilobytes
NAMES = 16  # request ids of one run, at the most
# A caller that has not received its answer so long after the run's end is slow: the images go to disk.
SLOW_SECONDS = 1.0
SWEEP_SECONDS = 0.05, 30.0  # between two sweeps, at the least and at the most


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes and seconds."""

    memory_bytes: int
    disk_bytes: int
    retain_seconds: float


@dataclass(frozen=True, slots=True)
class RetentionSnapshot:
    """The kept runs by state, the delivered ones that may go first, and the bytes of all recordings."""

    states: dict[State, int]
    delivered: int
    memory_bytes: int
    disk_bytes: int


class Retention:
    """`runs` are the runs that an earlier process left; with any, it has to be made within a running loop. `free`
    returns the bytes that the disk has left."""

    def __init__(
        self,
        room: Room,
        meter: Meter,
        persistence: RunFiles,
        clock: Callable[[], float],
        runs: Iterable[RunEntry] = (),
        free: Callable[[], int] = lambda: LEAST_FREE,
    ) -> None:
        self._room = room
        self._meter = meter
        self._persistence = persistence
        self._clock = clock
        self._free = free
        self._entries = dict.fromkeys(runs)  # in the order in which they began
        self._delivered = DeliveredRuns()
        for entry in self._entries:
            self._prepare(entry)
            if entry.run.state.is_delivered:
                self._delivered.add(entry)
        self._slow: set[asyncio.Task[None]] = set()
        self._swept = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        if self._entries:
            self._sweep_later()

    def snapshot(self) -> RetentionSnapshot:
        states = Counter(entry.run.state for entry in self._entries)
        return RetentionSnapshot(dict(states), len(self._delivered), self._meter.memory, self._meter.disk)

    def entries(self) -> list[RunEntry]:
        """Return the kept runs, in the order in which they began."""
        return list(self._entries)

    def make_room(self) -> None:
        """Drop delivered runs before anything is drawn. Raises Unavailable when undelivered ones fill all the room."""
        self._sweep()
        while self._meter.memory >= self._room.memory_bytes and (entry := self._delivered.first_in_memory()):
            self._forget(entry)
        while self._meter.disk >= self._room.disk_bytes and (entry := self._delivered.first_on_disk()):
            self._forget(entry)
        while (entry := self._delivered.first_on_disk()) and self._free() < LEAST_FREE:
            self._forget(entry)
        while len(self._entries) >= RUNS and (entry := self._first_dispensable()):
            self._forget(entry)
        # An undelivered recording must not stay in memory: it goes to disk.
        if self._meter.disk >= self._room.disk_bytes or len(self._entries) >= RUNS:
            raise Unavailable(
                "The gateway has no room left for images that nobody has fetched yet. Try again later.",
                code="no_room",
                retry_after=max(1.0, min(30.0, self._room.retain_seconds)),
            )

    def _first_dispensable(self) -> RunEntry | None:
        """Return a delivered run, else a failed one, the oldest first; never images that no caller has."""
        delivered = self._delivered.first_in_memory() or self._delivered.first_on_disk()
        return delivered or next((entry for entry in self._entries if entry.run.is_empty_failure), None)

    def begin(self, run: Run) -> RunEntry:
        """Keep the run, and start it."""
        entry = RunEntry(run, [run.id])
        self._prepare(entry)
        self._entries[entry] = None
        run.start()
        return entry

    def get(self, run_id: str, key: Key) -> RunEntry:
        """Return the run of that id. Raises NotFound, also for another key's run."""
        self._sweep()
        for entry in self._entries_of(key):
            if run_id in entry.ids:
                return entry
        seconds = f"{self._room.retain_seconds:g}"
        message = (
            f"There is no run {shortened(run_id)!r} of yours. Runs are kept for {seconds} seconds after their end."
        )
        raise NotFound(message, code="run_not_found")

    async def find(
        self, request: ImageRequest, key: Key, *, idempotency_key: str | None, is_retry: bool
    ) -> RunEntry | None:
        """Return the run that `request` comes back for. Raises Conflict when its idempotency key belongs to another
        request."""
        if idempotency_key is None and not is_retry:
            return None
        self._sweep()
        if idempotency_key is None:
            return await self._find_retried_run(request, key)
        return await self._find_named_run(request, key, idempotency_key)

    async def _find_named_run(self, request: ImageRequest, key: Key, idempotency_key: str) -> RunEntry | None:
        wanted: bytes | None = None
        while entry := self._named(idempotency_key, key):
            wanted = wanted or await find_fingerprint(request)
            is_same = await entry.run.is_for(wanted)
            if entry.run.is_given_up:  # its end decides whether this request is drawn afresh
                await entry.run.wait_until_over()
            if entry not in self._entries:
                continue  # it was forgotten meanwhile, or drawn afresh
            if not is_same:
                raise Conflict(
                    "This Idempotency-Key was used for another request. Use a new one for a new request.",
                    code="idempotency_key_reused",
                    param="Idempotency-Key",
                )
            return entry
        return None

    async def _find_retried_run(self, request: ImageRequest, key: Key) -> RunEntry | None:
        wanted: bytes | None = None
        # Runs without a connected caller come first: two callers of the same request may both come back.
        joinable = [entry for entry in self._entries_of(key) if self._is_joinable(entry)]
        for entry in sorted(joinable, key=lambda entry: entry.run.present > 0):
            wanted = wanted or await find_fingerprint(request)
            is_same = await entry.run.is_for(wanted)
            if is_same and entry.run.is_given_up:
                await entry.run.wait_until_over()
            if is_same and self._is_joinable(entry):
                return entry
        return None

    @contextmanager
    def join(self, entry: RunEntry, request_id: str) -> Iterator[None]:
        """Count a caller that came back while it is answered from the run."""
        entry.joined += 1
        if request_id not in entry.ids and len(entry.ids) < NAMES:
            entry.ids.append(request_id)
        try:
            yield
        finally:
            entry.joined -= 1

    def replace(self, entry: RunEntry) -> None:
        """Forget a run that failed unpaid and is drawn afresh; its images, if it has any, belong to the new run."""
        entry.run.call.drawn = FinishedImages()
        self._forget(entry)

    def follow(self, entry: RunEntry, *, finish_on_disconnect: bool) -> Following:
        """Answer one caller from the run. When the last caller leaves, a run that was sent goes on if
        `finish_on_disconnect`; any other ends."""
        return Following(self, entry, Follower(entry.run, finish_on_disconnect, partial(self._deliver, entry)))

    async def settle(self, entry: RunEntry) -> None:
        """Decide what to keep when a follower, or the run, has ended. A run that no caller has is kept, also over a
        restart, so that its retry finds it. A failure without a cost is forgotten, unless its retry would then get the
        error of an older run."""
        run = entry.run
        if run.state.is_unpaid:
            self._retract(entry)
        if entry in self._entries and run.has_ended:
            if _is_forgettable(run) and not await self._hides_older_failure(entry):
                if not run.followers:
                    self._forget(entry)
                return
            if run.idempotency_key is not None or not run.state.is_delivered:
                await run.identify()
                if not run.state.is_unpaid and not entry.is_handed_on:
                    await self._save(entry)
            self._sweep_later()
        if not run.followers:
            if entry not in self._entries:
                run.forget()
            elif entry.file:
                entry.file.rest()

    async def _settle_in_time(self, entry: RunEntry) -> None:
        """Settle a run that has ended; while a caller receives it, only after `SLOW_SECONDS`."""
        if entry.run.present:
            entry.slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._settle_slow, entry)
        else:
            await self.settle(entry)

    def _settle_slow(self, entry: RunEntry) -> None:
        task = asyncio.create_task(self.settle(entry))
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    def take_up(self) -> None:
        """Start the runs whose jobs an earlier process submitted."""
        for entry in self._entries:
            if not entry.run.has_ended:
                entry.run.start()

    def give_up(self, error: Callable[[], ApiError]) -> None:
        """End everything that is under way with an error, since the gateway shuts down. The notes of runs with jobs
        stay for the next process."""
        for entry in (entry for entry in self.entries() if not entry.run.has_ended):
            is_sent = entry.run.state is State.SENT
            entry.is_handed_on = is_sent and entry.note is not None and entry.note.has_jobs
            if entry.is_handed_on and entry.run.call.account is not None:
                entry.run.call.account.hand_on()
            entry.run.abort(error().paid() if is_sent else error())

    async def close(self) -> None:
        """End all runs, and save the undelivered ones for the next process."""
        self.give_up(lambda: Unavailable("The gateway is going down.", code="shutting_down"))
        for entry in self.entries():
            await entry.run.wait_until_over()
            entry.cancel_timer()
        await asyncio.gather(*self._slow, return_exceptions=True)
        for entry in self.entries():
            await self.settle(entry)
            entry.run.forget()
        self._entries.clear()
        if self._sweeper:
            self._sweeper.cancel()

    def _prepare(self, entry: RunEntry) -> None:
        """Record a run before anything is sent if it has an idempotency key; any run, once a job was submitted. A
        process that is killed loses the others: no caller can name them."""
        call, entry.run.when_over = entry.run.call, partial(self._settle_in_time, entry)
        if entry.run.idempotency_key is not None:
            call.announce = partial(self._announce, entry)
        call.remember = partial(self._remember, entry)

    async def _announce(self, entry: RunEntry) -> None:
        """Record on disk that the run may have been sent. All attempts of a run share one note."""
        if entry.note is None:
            entry.note = self._persistence.note(entry)
        await entry.note.written()
        self._persistence.register(entry)

    async def _remember(self, entry: RunEntry, job: SubmittedJob) -> None:
        await self._announce(entry)
        if entry.note is not None:
            await entry.note.add(job)

    def _deliver(self, entry: RunEntry) -> None:
        entry.run.deliver()
        entry.cancel_timer()
        self._tidy(entry)
        if entry not in self._entries:
            return
        self._delivered.add(entry)
        while (too_many := self._delivered.first_too_many()) is not None:
            self._forget(too_many)

    async def _save(self, entry: RunEntry) -> None:
        entry.run.followers += 1  # its recording stays open meanwhile
        try:
            await self._persistence.save(entry)
        finally:
            entry.run.followers -= 1
        self._tidy(entry)

    def _tidy(self, entry: RunEntry) -> None:
        """Remove the file of a delivered run, unless it has an idempotency key."""
        if entry.file is not None:
            is_done_with = entry.run.state.is_delivered and entry.run.idempotency_key is None
            if is_done_with or entry not in self._entries:
                entry.file.remove()
        self._persistence.register(entry)

    def _retract(self, entry: RunEntry) -> None:
        """Remove the note: the next process need not learn that the run was sent."""
        if entry.note is not None:
            entry.note.remove()
            entry.note = None
        self._persistence.register(entry)

    def _named(self, idempotency_key: str, key: Key) -> RunEntry | None:
        return next((each for each in self._entries_of(key) if each.run.idempotency_key == idempotency_key), None)

    def _entries_of(self, key: Key) -> Iterator[RunEntry]:
        """Yield the key's runs, the newest first."""
        return (entry for entry in reversed(self._entries) if entry.run.call.key.id == key.id)

    def _is_joinable(self, entry: RunEntry) -> bool:
        """True if an SDK's retry may be answered from the run."""
        is_undelivered = entry.run.state is not State.DELIVERED
        is_alone = not entry.joined and entry.run.idempotency_key is None
        return entry in self._entries and is_undelivered and is_alone

    async def _hides_older_failure(self, entry: RunEntry) -> bool:
        """True if dropping this failed run would let its retry match an older failed run of the same request. Drops
        older ones that are redundant."""
        if entry.run.idempotency_key is not None:
            return False
        others = [each for each in self._entries_of(entry.run.call.key) if each is not entry and _is_alike(each, entry)]
        if not any(map(self._would_be_told, others)):
            return False
        await entry.run.identify()
        same = [each for each in others if each.run.fingerprint == entry.run.fingerprint is not None]
        for each in same:
            if _is_forgettable(each.run) and not each.run.followers:
                self._forget(each)
        return any(map(self._would_be_told, same))

    def _would_be_told(self, entry: RunEntry) -> bool:
        """True if a retry that matches this failed run would get its error."""
        return self._is_joinable(entry) and not _is_forgettable(entry.run)

    def _sweep(self, *, is_hurried: bool = True) -> None:
        """Forget ended runs whose time is up; once a second if `is_hurried`."""
        now = self._clock()
        if is_hurried and now - self._swept < 1.0:
            return
        self._swept = now
        for entry in self.entries():
            ended = entry.run.ended_at
            if ended is not None and ended + self._room.retain_seconds < now and not entry.run.followers:
                self._forget(entry)

    def _sweep_later(self) -> None:
        """Schedule a sweep, so that runs go in time when no request comes."""
        if self._sweeper is None:
            least, most = SWEEP_SECONDS
            seconds = min(max(self._room.retain_seconds, least), most)
            self._sweeper = asyncio.get_running_loop().call_later(seconds, self._sweep_on_time)

    def _sweep_on_time(self) -> None:
        self._sweeper = None
        self._sweep(is_hurried=False)
        if self._entries:
            self._sweep_later()

    def _forget(self, entry: RunEntry) -> None:
        self._entries.pop(entry, None)
        entry.cancel_timer()
        self._delivered.remove(entry)
        if entry.file:
            entry.file.remove()
        self._retract(entry)
        if not entry.run.followers:
            entry.run.forget()


class Following(AbstractAsyncContextManager[Follower]):
    """A caller, while it is answered."""

    __slots__ = ("_entry", "_follower", "_retention")

    def __init__(self, retention: Retention, entry: RunEntry, follower: Follower) -> None:
        self._retention = retention
        self._entry = entry
        self._follower = follower

    async def __aenter__(self) -> Follower:
        return self._follower

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, Exception):
                await self._follower.end_badly()
        finally:
            self._follower.end()
            await self._retention.settle(self._entry)


def _is_forgettable(run: Run) -> bool:
    """True if the run failed without a cost and without an image, and its caller knows."""
    return run.state is State.FAILED and run.is_empty_failure


def _is_alike(one: RunEntry, other: RunEntry) -> bool:
    """True if both failed, at the same model. A cheap test before the fingerprints."""
    return (
        one.run.recording.error is not None
        and one.run.idempotency_key is None
        and one.run.call.request.model == other.run.call.request.model
    )
