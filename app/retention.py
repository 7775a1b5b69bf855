"""Which runs are kept, for whom, how long and in how much room; and which of them a new request joins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.errors import ApiError, Conflict, NotFound, Unavailable
from app.fanout import Drawn
from app.identity import identity, uploads_of
from app.images import ImageRequest
from app.keys import Key
from app.recording import Meter
from app.runs import Run

DELIVERED_BYTES = 4 * 1_048_576  # of images that have arrived: kept for nobody in particular, so in little room
DELIVERED_RUNS = 1000


@dataclass(slots=True)
class Kept:
    run: Run
    idempotency_key: str | None
    joined: bool = False  # by somebody who came back, and is still there
    place: Path | None = None  # the file in which it outlives the process


class Shelf(Protocol):
    """Where runs that ended undelivered outlive the process."""

    async def save(self, kept: Kept) -> None: ...

    def remove(self, kept: Kept) -> None: ...


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes and seconds."""

    memory_bytes: int
    disk_bytes: int
    retain_seconds: float


class Retention:
    def __init__(
        self, room: Room, meter: Meter, shelf: Shelf, clock: Callable[[], float], runs: Iterable[Kept] = ()
    ) -> None:
        self._room = room
        self._meter = meter
        self._shelf = shelf
        self._clock = clock
        self._kept: dict[int, Kept] = {id(kept): kept for kept in runs}  # a caller may name two runs the same
        self._delivered: dict[int, Kept] = {}  # in the order of delivery
        self._delivered_bytes = 0  # in memory
        self._swept = 0.0

    def make_room(self) -> None:
        """Before anything is drawn. Raises Unavailable when neither memory nor disk has room."""
        self._sweep()
        while self._delivered and self._meter.memory >= self._room.memory_bytes:
            self._forget(next(iter(self._delivered.values())))
        while self._delivered and self._meter.disk >= self._room.disk_bytes:
            self._forget(next(iter(self._delivered.values())))
        if self._meter.disk >= self._room.disk_bytes:
            raise Unavailable(
                "The gateway has no room left for images that nobody has fetched yet. Try again later.",
                retry_after=min(30.0, self._room.retain_seconds),
            )

    def add(self, run: Run, idempotency_key: str | None) -> Kept:
        kept = Kept(run, idempotency_key)
        self._kept[id(kept)] = kept
        return kept

    def get(self, run_id: str, key: Key) -> Kept:
        """Raises NotFound, also for another key's run."""
        for kept in reversed(self._kept.values()):
            if kept.run.id == run_id and kept.run.call.key.name == key.name:
                return kept
        seconds = f"{self._room.retain_seconds:g}"
        message = f"There is no run {run_id!r} of yours. Runs are kept for {seconds} seconds after their end."
        raise NotFound(message, code="run_not_found")

    async def join(
        self, request: ImageRequest, key: Key, *, idempotency_key: str | None, is_retry: bool
    ) -> Kept | Drawn | None:
        """The run that `request` is to be answered from; what is left of it, if some of its images are there; or
        None. Raises Conflict when the idempotency key was used for another request."""
        self._sweep()
        mine = [kept for kept in reversed(self._kept.values()) if kept.run.call.key.name == key.name]
        if idempotency_key is not None:
            for kept in mine:
                if kept.idempotency_key == idempotency_key:
                    if not await _same(kept.run, request):
                        raise Conflict(
                            "This Idempotency-Key was used for another request. Use a new one for a new request.",
                            code="idempotency_key_reused",
                            param="Idempotency-Key",
                            should_retry=False,
                        )
                    return self._usable(kept)
        elif is_retry:
            waiting = [kept for kept in mine if not kept.run.delivered and not kept.joined]
            for kept in sorted(waiting, key=lambda kept: kept.run.followers > 0):
                if await _same(kept.run, request) and not kept.joined and id(kept) in self._kept:
                    return self._usable(kept)
        return None

    async def settled(self, kept: Kept) -> None:
        """Somebody has stopped following the run, or it has ended by itself: what nobody has had yet is kept so that
        it is known again, also after a restart; what failed without having cost anything is forgotten."""
        run = kept.run
        if id(kept) not in self._kept and not run.followers:
            run.forget()
        if not run.ended or run.delivered:
            return
        error = run.recording.error
        if error and not error.perhaps_paid and not run.call.drawn.recordings:
            if not run.followers:
                self._forget(kept)
            return
        if run.identity is None:
            run.identity = await _identity(run.call.request)
            run.release()
        if not run.delivered:
            await self._shelf.save(kept)

    def delivered(self, kept: Kept) -> None:
        run = kept.run
        run.delivered, kept.joined = True, False
        run.release()
        self._shelf.remove(kept)
        run.call.drawn.close()
        if id(kept) in self._kept and id(kept) not in self._delivered:
            self._delivered[id(kept)] = kept
            self._delivered_bytes += run.recording.in_memory
        while len(self._delivered) > DELIVERED_RUNS or self._delivered_bytes > DELIVERED_BYTES:
            self._forget(next(iter(self._delivered.values())))

    def give_up(self, error: Callable[[], ApiError]) -> None:
        """The gateway goes down: whatever is still drawn ends with an error."""
        for kept in list(self._kept.values()):
            kept.run.abort(error())

    async def close(self) -> None:
        """Sees to it that what nobody has fetched yet outlives the process."""
        for kept in list(self._kept.values()):
            await self.settled(kept)
            kept.run.forget()

    def _usable(self, kept: Kept) -> Kept | Drawn | None:
        """A run that failed unpaid is forgotten; its images, if it has any, are not."""
        error = kept.run.recording.error
        if error is None or error.perhaps_paid:
            kept.joined = True
            return kept
        drawn, kept.run.call.drawn = kept.run.call.drawn, Drawn()
        self._forget(kept)
        return drawn if drawn.recordings else None

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept < 1.0:
            return
        self._swept = now
        for kept in list(self._kept.values()):
            ended = kept.run.ended_at
            if ended is not None and ended + self._room.retain_seconds < now and not kept.run.followers:
                self._forget(kept)

    def _forget(self, kept: Kept) -> None:
        self._kept.pop(id(kept), None)
        if self._delivered.pop(id(kept), None):
            self._delivered_bytes -= kept.run.recording.in_memory
        self._shelf.remove(kept)
        if not kept.run.followers:
            kept.run.forget()


async def _identity(request: ImageRequest) -> bytes | None:
    try:
        return await asyncio.to_thread(identity, request) if uploads_of(request) else identity(request)
    except ValueError:  # closed: delivered meanwhile
        return None


async def _same(run: Run, request: ImageRequest) -> bool:
    if run.identity is None:
        run.identity = await _identity(run.call.request)
        run.release()
    return run.identity is not None and run.identity == await _identity(request)
