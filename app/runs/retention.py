"""Which runs are kept, for whom, how long and in how much room; and which of them a new request joins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from app.access.keys import Key
from app.errors import ApiError, Conflict, NotFound, Unavailable, shortened
from app.gateway.fanout import FinishedImages
from app.images import ImageRequest
from app.runs.entry import Delivered, Note, RunEntry
from app.runs.fingerprint import identified
from app.runs.run import Run
from app.storage.full_disk import LEAST_FREE
from app.storage.recording import Meter

RUNS = 10_000  # that are known at once, of all kinds: each takes some kilobytes, whatever became of it
RETURN_SECONDS = 10.0  # after its delivery in which a broken connection lets its retry have the run
NAMES = 16  # under which one run is known, at the most
SWEEP_SECONDS = 0.05, 30.0  # between looks for what is too old, at the least and at the most


class Persistence(Protocol):
    """Where runs that ended undelivered, or have an idempotency key, outlive the process."""

    async def save(self, kept: RunEntry) -> None:
        """Gives it a place, if there is room. Then its note is removed."""
        ...

    def note(self, kept: RunEntry) -> Note:
        """Begins to write down that the run is about to be sent."""
        ...


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes and seconds."""

    memory_bytes: int
    disk_bytes: int
    retain_seconds: float


class Retention:
    """`runs` are what an earlier process has left; with any, it has to be made within a running loop. `free` tells how
    many bytes the disk has left."""

    def __init__(
        self,
        room: Room,
        meter: Meter,
        persistence: Persistence,
        clock: Callable[[], float],
        runs: Iterable[RunEntry] = (),
        free: Callable[[], int] = lambda: LEAST_FREE,
    ) -> None:
        self._room = room
        self._meter = meter
        self._persistence = persistence
        self._clock = clock
        self._free = free
        self._kept: dict[int, RunEntry] = {id(kept): kept for kept in runs}  # a caller may name two runs the same
        self._delivered = Delivered()
        for kept in self._kept.values():
            if kept.run.delivered:
                self._delivered.add(kept)
        self._swept = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        if self._kept:
            self._sweep_later()

    def make_room(self) -> None:
        """Before anything is drawn. Raises Unavailable when there is no room for what nobody may fetch."""
        self._sweep()
        while self._meter.memory >= self._room.memory_bytes and (kept := self._delivered.in_memory()):
            self._forget(kept)
        while self._meter.disk >= self._room.disk_bytes and (kept := self._delivered.on_disk()):
            self._forget(kept)
        while (kept := self._delivered.on_disk()) and self._free() < LEAST_FREE:
            self._forget(kept)
        while len(self._kept) >= RUNS and (kept := self._dispensable()):
            self._forget(kept)
        # Memory is no room to stay in: what falls behind, or is left, goes to disk.
        if self._meter.disk >= self._room.disk_bytes or len(self._kept) >= RUNS:
            raise Unavailable(
                "The gateway has no room left for images that nobody has fetched yet. Try again later.",
                code="no_room",
                retry_after=max(1.0, min(30.0, self._room.retain_seconds)),
            )

    def _dispensable(self) -> RunEntry | None:
        """Sooner what somebody has had than what failed, the oldest first; never images that nobody has had."""
        delivered = self._delivered.in_memory() or self._delivered.on_disk()
        return delivered or next((kept for kept in self._kept.values() if kept.run.failed_empty), None)

    def add(self, run: Run, idempotency_key: str | None) -> RunEntry:
        run.named = idempotency_key is not None
        kept = RunEntry(run, idempotency_key, [run.id])
        if run.named:
            run.call.announce = partial(self._announce, kept)
        self._kept[id(kept)] = kept
        return kept

    def get(self, run_id: str, key: Key) -> RunEntry:
        """Raises NotFound, also for another key's run."""
        self._sweep()
        for kept in self._of(key):
            if run_id in kept.ids:
                return kept
        seconds = f"{self._room.retain_seconds:g}"
        message = (
            f"There is no run {shortened(run_id)!r} of yours. Runs are kept for {seconds} seconds after their end."
        )
        raise NotFound(message, code="run_not_found")

    async def find(
        self, request: ImageRequest, key: Key, *, idempotency_key: str | None, is_retry: bool
    ) -> RunEntry | None:
        """The run that `request` comes back for. Raises Conflict when the idempotency key was used for another one."""
        self._sweep()
        wanted: bytes | None = None
        if idempotency_key is not None:
            while kept := self._named(idempotency_key, key):
                wanted = wanted or await identified(request)
                same = await kept.run.is_for(wanted)
                if id(kept) not in self._kept:
                    continue  # it was forgotten meanwhile, or drawn afresh
                if not same:
                    raise Conflict(
                        "This Idempotency-Key was used for another request. Use a new one for a new request.",
                        code="idempotency_key_reused",
                        param="Idempotency-Key",
                        should_retry=False,
                    )
                return kept
        elif is_retry:
            # Sooner one that nobody is connected to: two who asked for the same may both come back.
            waiting = [kept for kept in self._of(key) if self._awaited(kept)]
            for kept in sorted(waiting, key=lambda kept: kept.run.present > 0):
                wanted = wanted or await identified(request)
                if await kept.run.is_for(wanted) and self._awaited(kept):
                    return kept
        return None

    @contextmanager
    def joined(self, kept: RunEntry, request_id: str) -> Iterator[None]:
        """While somebody who came back is answered from the run."""
        kept.joined += 1
        if request_id not in kept.ids and len(kept.ids) < NAMES:
            kept.ids.append(request_id)
        try:
            yield
        finally:
            kept.joined -= 1

    def replace(self, kept: RunEntry) -> None:
        """The run failed unpaid and is drawn afresh; its images, if it has any, are another's now."""
        kept.run.call.drawn = FinishedImages()
        self._forget(kept)

    async def settled(self, kept: RunEntry) -> None:
        """Somebody has stopped following the run, or it has ended by itself: what nobody has had yet is kept so that
        it is known again, also after a restart; what failed without having cost anything is forgotten, if no older
        failure would be told in its place."""
        run = kept.run
        if run.failed_unpaid:
            _retract(kept)
        if id(kept) in self._kept and run.ended:
            if _forgettable(run) and not await self._covers(kept):
                if not run.followers:
                    self._forget(kept)
                return
            if run.named or not run.delivered:
                await run.identify()
            if (run.named or not run.delivered) and not run.failed_unpaid:
                await self._save(kept)
            self._sweep_later()
        if not run.followers:
            if id(kept) not in self._kept:
                run.forget()
            elif kept.place:
                kept.place.rest()

    def delivered(self, kept: RunEntry) -> None:
        """The socket has taken the last byte."""
        run = kept.run
        run.delivered, kept.delivered_at, kept.returned = True, self._clock(), False
        run.release()
        self._tidy(kept)
        if id(kept) not in self._kept:
            return
        self._delivered.add(kept)
        while (too_much := self._delivered.too_much()) is not None:
            self._forget(too_much)

    def returned(self, kept: RunEntry) -> None:
        """The connection broke after the last byte was sent on it, so the caller may not have had all. Its retry, which
        comes at once, is answered from the run if it is still there: it stays among those that go first, since clients
        that had all of it break connections, too. Later on, idle ones are reset for other reasons."""
        soon = self._clock() - kept.delivered_at < RETURN_SECONDS
        kept.returned = soon and kept.run.delivered

    def give_up(self, error: Callable[[], ApiError]) -> None:
        """The gateway goes down: whatever is still drawn ends with an error."""
        for kept in list(self._kept.values()):
            told = error()
            kept.run.abort(told.paid() if kept.run.call.sent else told)

    async def close(self) -> None:
        """Sees to it that what nobody has fetched yet outlives the process."""
        self.give_up(lambda: Unavailable("The gateway is going down.", code="shutting_down"))
        for kept in list(self._kept.values()):
            await kept.run.over()
            await self.settled(kept)
            kept.run.forget()
        self._kept.clear()
        if self._sweeper:
            self._sweeper.cancel()

    async def _announce(self, kept: RunEntry) -> None:
        """Returns when the disk knows that the run may have been sent. All attempts of a run share one note. Only runs
        with an idempotency key have one: a process that is killed loses the others, and no caller can name them."""
        if kept.note is None:
            kept.note = self._persistence.note(kept)
        await kept.note.written()

    async def _save(self, kept: RunEntry) -> None:
        kept.run.followers += 1  # its recording is not to be closed meanwhile
        try:
            await self._persistence.save(kept)
        finally:
            kept.run.followers -= 1
        self._tidy(kept)

    def _tidy(self, kept: RunEntry) -> None:
        """Of what somebody has had, only what has an idempotency key needs its file."""
        if kept.place is None:
            return
        if id(kept) not in self._kept or (kept.run.delivered and not kept.run.named):
            kept.place.remove()
        elif kept.run.delivered:
            kept.place.received()

    def _named(self, idempotency_key: str, key: Key) -> RunEntry | None:
        return next((kept for kept in self._of(key) if kept.idempotency_key == idempotency_key), None)

    def _of(self, key: Key) -> Iterator[RunEntry]:
        """The newest first."""
        return (kept for kept in reversed(self._kept.values()) if kept.run.call.key.name == key.name)

    def _awaited(self, kept: RunEntry) -> bool:
        waits = kept.returned or not kept.run.delivered
        return id(kept) in self._kept and waits and not kept.joined and kept.idempotency_key is None

    async def _covers(self, kept: RunEntry) -> bool:
        """Whether an older failure would be told for this one, if it were forgotten, when its caller comes back. Of
        several that are good for nothing else one is enough."""
        if kept.idempotency_key is not None:
            return False
        others = [other for other in self._of(kept.run.call.key) if other is not kept and _alike(other, kept)]
        if not any(self._awaited(other) and not _forgettable(other.run) for other in others):
            return False
        await kept.run.identify()
        same = [other for other in others if other.run.identity == kept.run.identity is not None]
        for other in same:
            if _forgettable(other.run) and not other.run.followers:
                self._forget(other)
        return any(self._awaited(other) and not _forgettable(other.run) for other in same)

    def _sweep(self, *, now_and_then: bool = True) -> None:
        now = self._clock()
        if now_and_then and now - self._swept < 1.0:
            return
        self._swept = now
        for kept in list(self._kept.values()):
            ended = kept.run.ended_at
            if ended is not None and ended + self._room.retain_seconds < now and not kept.run.followers:
                self._forget(kept)

    def _sweep_later(self) -> None:
        """Nothing stays too long because nobody comes any more."""
        if self._sweeper is None:
            least, most = SWEEP_SECONDS
            seconds = min(max(self._room.retain_seconds, least), most)
            self._sweeper = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._sweeper = None
        self._sweep(now_and_then=False)
        if self._kept:
            self._sweep_later()

    def _forget(self, kept: RunEntry) -> None:
        self._kept.pop(id(kept), None)
        self._delivered.remove(kept)
        if kept.place:
            kept.place.remove()
        _retract(kept)
        if not kept.run.followers:
            kept.run.forget()


def _retract(kept: RunEntry) -> None:
    """The next process need not know that the run was sent."""
    if kept.note is not None:
        kept.note.remove()
        kept.note = None


def _forgettable(run: Run) -> bool:
    """It has cost nothing, and whoever asked knows."""
    return run.failed_unpaid and run.failed_empty and not run.owed


def _alike(one: RunEntry, other: RunEntry) -> bool:
    """Whether both failed, at the same model: what is cheap to see."""
    return (
        one.run.recording.error is not None
        and one.idempotency_key is None
        and one.run.call.request.model == other.run.call.request.model
    )
