"""The events of a drawing, recorded while they pass, so that later readers get them from the start. Small events stay
in memory; image data lies in memory or in a file. Knows nothing of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from app.errors import ApiError, Unavailable
from app.events import Event, ImageData
from app.images import Blob
from app.storage.full_disk import no_space


class Blobs(Blob, Protocol):
    """The file that takes image data out of memory."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Span:
    """Image data that lies in the file."""

    offset: int
    length: int


# Bytes. While images are drawn, a slow caller looks like a fast one. So the bound for all recordings is what a few
# fast callers need, and many share it. Among more than `MANY`, it would spare the disk only a small part of the bytes.
FREE_FOR_FEW = 44 * 1_048_576
WORKING_SET = 16 * 1_048_576
FREE_FOR_MANY = 8 * 1_048_576
FEW, MANY = 2, 16
SMALLEST_SHARE = 131_072
READ_BACK = 65_536


class Meter:
    """Counts the image data of all recordings together, and says how much of it memory may hold; bytes."""

    __slots__ = ("disk", "growing", "memory", "memory_limit")

    def __init__(self, memory_limit: int) -> None:
        self.memory_limit = memory_limit
        self.memory = 0
        self.disk = 0
        self.growing = 0  # recordings that have not ended

    def allows(self, held: int) -> bool:
        """True if a recording may go on holding so much in memory."""
        working_set = WORKING_SET if self.growing <= MANY else FREE_FOR_MANY
        if self.memory <= (FREE_FOR_FEW if self.growing <= FEW else working_set):
            return self.memory <= self.memory_limit
        share = max(SMALLEST_SHARE, working_set // max(1, self.growing))
        return held <= share and self.memory <= self.memory_limit


class Recording:
    """One writes, any number read, each at its own pace.

    `spool` makes the file. Data goes there once `spill` is called, or this recording holds more than `memory_bytes` or
    than `meter` allows. A full disk loses nothing while memory may take more.
    """

    def __init__(self, spool: Callable[[], Blobs], meter: Meter, memory_bytes: int) -> None:
        self._make_spool = spool
        self._meter = meter
        self._memory_bytes = memory_bytes
        self._spool: Blobs | None = None
        self._disk_full = False  # nothing more goes to the file, which may end in half a piece
        self._log: list[Event | Span] = []
        self._waiters: list[asyncio.Future[None]] = []  # readers
        self.in_memory = 0  # bytes of image data
        self.on_disk = 0
        self.ended = self.closed = False
        self.error: ApiError | None = None
        meter.growing += 1

    def append(self, event: Event) -> None:
        """Append an event. Raises OSError when neither disk nor memory has room."""
        if type(event) is not ImageData:
            self._log.append(event)
        elif self._spool is None or self._disk_full:
            self._keep_in_memory(event)
        else:
            try:
                span = _write(event, self._spool)
            except OSError:
                self._disk_full = True
                self._keep_in_memory(event)
            else:
                self._log.append(span)
                self._meter.disk += span.length
                self.on_disk += span.length
        self._wake()

    def end(self, error: ApiError | None = None) -> None:
        """End the recording. Only the first end counts."""
        if not self.ended:
            self._meter.growing -= 1
            self.ended, self.error = True, error.alone() if error else None
            self._wake()

    def spill(self) -> None:
        """Move image data to the file, later data too. Raises OSError when the disk is full, and changes nothing
        then."""
        if self._spool is not None or self._disk_full or self.closed:
            return
        spool = None
        try:
            spool = self._make_spool()
            log = [_write(event, spool) if type(event) is ImageData else event for event in self._log]
        except OSError:
            self._disk_full = True
            if spool is not None:
                spool.close()
            raise
        self._use_file(spool, log)

    def move(self, blobs: Blobs) -> None:
        """Read from `blobs` instead, which holds all image data in its order and without gaps, also for readers under
        way. For a recording that has ended."""
        offset, log = 0, self.log()
        for index, event in enumerate(log):
            if isinstance(event, ImageData | Span):
                length = event.length if isinstance(event, Span) else len(event.base64)
                log[index] = Span(offset, length)
                offset += length
        before = self._spool
        self._use_file(blobs, log)
        if before is not None:
            before.close()

    def fresh(self) -> Recording:
        """Return an empty one with the same room."""
        return Recording(self._make_spool, self._meter, self._memory_bytes)

    @property
    def length(self) -> int:
        return len(self._log)

    def at(self, index: int) -> Iterable[Event]:
        """Return one event; image data on disk in several small ones, so that a slow reader holds little."""
        item = self._log[index]
        if isinstance(item, Span):
            end = item.offset + item.length
            starts = range(item.offset, end, READ_BACK)
            return (ImageData(self.read(Span(start, min(READ_BACK, end - start)))) for start in starts)
        return (item,)

    def check(self) -> None:
        """Raise the ApiError that ended it."""
        if self.error:
            raise self.error.alone()

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done when an event is appended or the recording ends."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def events(self) -> Iterator[Event]:
        """Yield all events that there are."""
        for index in range(len(self._log)):
            yield from self.at(index)

    def log(self) -> list[Event | Span]:
        """Return all there is, to be stored: image data in the file as its span."""
        return list(self._log)

    def read(self, span: Span) -> bytes:
        """Read image data. Raises ValueError when the recording is closed."""
        if self._spool is None:
            raise ValueError("the recording is closed")
        return self._spool.read(span.offset, span.length)

    @classmethod
    def stored(cls, log: list[Event | Span], spool: Blobs, meter: Meter, error: ApiError | None) -> Recording:
        """Return a recording that has ended, from a store."""
        recording = cls(lambda: spool, meter, 0)
        recording._use_file(spool, log)
        recording.end(error)
        return recording

    def close(self) -> None:
        """Discard everything. Readers under way get an error, so that none takes a half for the whole."""
        self.end()
        if self.error is None:
            self.error = Unavailable("The images are not kept any more.", code="run_not_kept", should_retry=False)
        self.closed = True
        self._log = []
        self._meter.memory -= self.in_memory
        self._meter.disk -= self.on_disk
        self.in_memory = self.on_disk = 0
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _use_file(self, spool: Blobs, log: list[Event | Span]) -> None:
        self._meter.memory -= self.in_memory
        self._meter.disk += spool.size - self.on_disk
        self._log, self._spool = log, spool
        self.in_memory, self.on_disk = 0, spool.size

    def _keep_in_memory(self, event: ImageData) -> None:
        size = len(event.base64)
        self.in_memory += size
        self._meter.memory += size
        self._log.append(event)
        if self.in_memory > self._memory_bytes or not self._meter.allows(self.in_memory):
            with suppress(OSError):  # memory goes on as far as it may
                self.spill()
            if self._disk_full and self._meter.memory > self._meter.memory_limit:
                raise no_space()

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():  # its reader may have left
                    waiter.set_result(None)


class Reader:
    """Reads a recording from its start, also while it grows."""

    __slots__ = ("_index", "_recording")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._index = 0

    async def read(self) -> Iterable[Event]:
        """Return the next events, and wait for them; none at the end. Raises the ApiError that ended the recording."""
        recording = self._recording
        while self._index >= recording.length:
            if recording.ended:
                recording.check()
                return ()
            await recording.changed()
        self._index += 1
        return recording.at(self._index - 1)


def _write(event: ImageData, spool: Blobs) -> Span:
    span = Span(spool.size, len(event.base64))
    spool.write(event.base64)
    return span
