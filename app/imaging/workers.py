"""The threads that work on pixels, a short queue that is fair between keys, and a bound on all pixels in work. Loads
Pillow when the first image needs it. Knows nothing of requests."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from app.errors import ApiError, Unavailable
from app.images import Blob, Size
from app.imaging.formats import ENOUGH, dimensions
from app.imaging.operations import Look, Oversized, Redraw, RedrawMask, Sink, Undrawable

# Memory: all work together takes at most BYTES_PER_PIXEL for each pixel in work. A key has up to `max_pixels` of them
# in work, and all keys a quarter more. Measured: up to 12 for PNG, JPEG and masks, 18 for reading WebP. Writing WebP
# takes up to 55, so there each pixel counts as three; an image above a third of `max_pixels` counts as all that a key
# may have, and takes more: 41 for each pixel of a large one. MOST_MEMORY is the worst case, beside the compressed bytes
# of the files in work (those of a WebP twice); a test measures it.
BYTES_PER_PIXEL = 24
WRITING_WEBP, LARGE_WEBP = 3, 42  # as how many pixels one counts, and the bytes that one takes if it counts no more
PIXELS = 50_000_000  # a telephone's 48 megapixels
RESERVE = 4  # the quarter that a key with `max_pixels` in work leaves to others
MOST_MEMORY = PIXELS * LARGE_WEBP + PIXELS // RESERVE * BYTES_PER_PIXEL
COPIES = 2  # of the compressed bytes, that decoders keep
SECONDS = 120.0  # several times what the largest image takes on one core

T = TypeVar("T")


class WorkFile(Blob, Sink, Protocol):
    """A file that is written to its end and then read, by one thread at a time."""

    def close(self) -> None: ...


class Workers(contextlib.AbstractContextManager["Workers"]):
    """At most `threads` images of a key, and `max_pixels` of them all, are in work at once; `waiting` may wait. One
    image more, and a quarter more pixels, are in work if they belong to another key, so that no key takes all.

    An image counts as the most pixels that it has before, after, or between.
    """

    def __init__(
        self,
        spool: Callable[[], WorkFile],
        *,
        threads: int = 2,
        waiting: int = 32,
        max_pixels: int = PIXELS,
        seconds: float = SECONDS,
        observe: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        """`spool` makes a file for an image that belongs to no request. Work may take up to `seconds`. `observe` gets
        each work's kind and its seconds."""
        self._observe = observe
        self.spool = spool
        self.max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads + 1, "imaging", initializer=_silence_warnings)
        self._threads = threads
        self._waiting = waiting
        self._seconds = seconds
        self._working: Counter[str] = Counter()  # threads, by key
        self._pixels: Counter[str] = Counter()  # in work, by key
        self._queue: list[_Job] = []
        self._turns: dict[str, int] = {}  # the number of a key's last turn, while it has jobs in the queue or in work
        self._closed = False

    async def redraw(
        self, source: Blob, target: Sink, order: Redraw | RedrawMask, *, key: str = "", paid: bool = False
    ) -> Size:
        """Write the image to `target` as ordered, and return its size.

        `key` is the name of the caller's key. A `paid` image waits however long the queue is. Raises Undrawable
        (WithoutAlpha for a mask; also if it takes too long), and Unavailable when the queue or the disk is full.
        """
        most = self._pixels_of(source, order.size)
        weight = WRITING_WEBP if isinstance(order, Redraw) and order.format == "webp" else 1
        files = _SwitchedFiles(source, target)

        def work() -> Size:
            # In the thread: Pillow takes memory that a gateway without such work never needs.
            from app.imaging import pillow

            if isinstance(order, RedrawMask):
                return pillow.redraw_mask(files, files, order, most)
            return pillow.redraw(files, files, order, most)

        kind = "mask" if isinstance(order, RedrawMask) else "redraw"
        return await self._work(kind, _Job(key, self._weight(most * weight, source), files, patient=paid), work)

    async def look(self, source: Blob, *, key: str = "") -> Look:
        """Return Pillow's reading of an odd header. Raises Undrawable, Unavailable."""
        most = self._pixels_of(source, None)
        blob = _SwitchedBlob(source)

        def work() -> Look:
            from app.imaging import pillow

            return pillow.look(blob, most)

        return await self._work("look", _Job(key, self._weight(most, source), blob), work)

    def close(self) -> None:
        """Refuse the jobs in the queue and wait for those in work."""
        self._closed = True
        for job in self._queue:
            job.refuse(_closing())
        self._queue = []
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pixels_of(self, source: Blob, target: Size | None) -> int:
        """Return the most pixels that the work may hold. Raises Oversized for more than `max_pixels`."""
        size = dimensions(source.read(0, ENOUGH))
        if size is None:
            return self.max_pixels  # it may be anything up to that
        between = target and Size(target.width, size.height)  # resizing goes along one edge, then along the other
        most = max((size, target or size, between or size), key=lambda s: s.pixels)
        if most.pixels > self.max_pixels:
            raise Oversized(f"it is {most} pixels, and images of up to {self.max_pixels:,} pixels can be converted")
        return most.pixels

    def _weight(self, pixels: int, source: Blob) -> int:
        """Return the pixels that a job counts for, its file's bytes included. No more than one key may have, so that
        each job gets a turn."""
        return min(pixels + COPIES * source.size // BYTES_PER_PIXEL, self.max_pixels)

    async def _work(self, kind: str, job: _Job, work: Callable[[], T]) -> T:
        """Do the work in a thread, which cannot be stopped: if it takes too long, or its caller leaves, it ends at the
        next byte that it reads or writes, and is busy until then."""
        await self._enter(job)
        try:
            if self._closed:
                raise _closing()
            running = asyncio.wrap_future(self._pool.submit(_run_clean, work))
        except BaseException:
            self._leave(job)
            raise
        began = time.perf_counter()
        running.add_done_callback(lambda _: self._observe(kind, time.perf_counter() - began))
        running.add_done_callback(partial(self._end, job))
        try:
            await asyncio.wait([running], timeout=self._seconds)
            if not running.done():
                raise Oversized(f"it takes more than {self._seconds:g} s to convert")
            return running.result()
        except MemoryError as error:
            raise Unavailable("The server has too little memory for this image now.", retry_after=30) from error
        finally:
            job.source.turn_off()

    async def _enter(self, job: _Job) -> None:
        """Wait for the job's turn. Raises Unavailable."""
        if self._closed:
            raise _closing()
        self._queue.append(job)
        self._start_jobs()
        if len(self._queue) > self._waiting and not job.patient and job in self._queue:
            self._evict(job.key)
        try:
            await job.turn
        except asyncio.CancelledError:
            if job in self._queue:
                self._queue.remove(job)
                self._start_jobs()
            elif job.turn.done() and not job.turn.cancelled() and not job.turn.exception():
                self._leave(job)  # the turn came just now
            raise

    def _evict(self, key: str) -> None:
        """Refuse the newest job of the key with the longest queue; of two equal ones, of `key`."""
        impatient = [job for job in self._queue if not job.patient]
        counts = Counter(job.key for job in impatient)
        longest = max(counts, key=lambda other: (counts[other], other == key))
        newest = next(job for job in reversed(impatient) if job.key == longest)
        self._queue.remove(newest)
        newest.refuse(
            Unavailable(
                f"The server has {len(self._queue)} images waiting to be converted and takes no more. Try again "
                "later, or send PNG or JPEG files that need no conversion.",
                code="media_queue_full",
                retry_after=5,
            )
        )

    def _start_jobs(self) -> None:
        while job := self._next():
            self._queue.remove(job)
            self._turns[job.key] = max(self._turns.values(), default=0) + 1
            self._working[job.key] += 1
            self._pixels[job.key] += job.pixels
            job.turn.set_result(None)

    def _next(self) -> _Job | None:
        """Return the first job of the key that has the fewest in work, and of equal keys the one whose last turn is
        longest ago. None if that job has no room yet, so that a large image does not wait for ever behind small ones;
        a key that has all it may have is passed over."""
        firsts: dict[str, _Job] = {}
        for job in self._queue:
            firsts.setdefault(job.key, job)
        for job in sorted(firsts.values(), key=lambda first: (self._working[first.key], self._turns.get(first.key, 0))):
            if self._working[job.key] < self._threads and self._pixels[job.key] + job.pixels <= self.max_pixels:
                room = self.max_pixels + self.max_pixels // RESERVE - self._pixels.total()
                return job if self._working.total() <= self._threads and job.pixels <= room else None
        return None

    def _end(self, job: _Job, running: asyncio.Future[T]) -> None:
        self._leave(job)
        if not running.cancelled():
            running.exception()  # without this look, asyncio would log those that came too late

    def _leave(self, job: _Job) -> None:
        self._working[job.key] -= 1
        self._pixels[job.key] -= job.pixels
        if not self._working[job.key]:
            del self._working[job.key], self._pixels[job.key]
        self._start_jobs()
        if job.key not in self._working and all(other.key != job.key for other in self._queue):
            self._turns.pop(job.key, None)


@dataclass(slots=True, eq=False)
class _Job:
    """One image, in the queue or in work."""

    key: str
    pixels: int
    source: _SwitchedBlob
    patient: bool = False
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def refuse(self, error: Unavailable) -> None:
        if not self.turn.done():
            self.turn.set_exception(error)


class _SwitchedBlob:
    """The source of work in a thread, which it ends from outside: once it is off, each read raises Undrawable."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self.size = blob.size
        self._lock = threading.Lock()
        self._is_off = False

    def turn_off(self) -> None:
        with self._lock:
            self._is_off = True

    def read(self, offset: int, length: int) -> bytes:
        self._check()
        return self._blob.read(offset, length)  # a file that is closed meanwhile raises, and gives nothing

    def _check(self) -> None:
        if self._is_off:
            raise Undrawable("its caller waits for it no more")


class _SwitchedFiles(_SwitchedBlob):
    """Source and target. Once they are off, no write is under way, so the target may be closed."""

    def __init__(self, source: Blob, target: Sink) -> None:
        super().__init__(source)
        self._target = target

    def write(self, data: bytes | bytearray) -> None:
        with self._lock:
            self._check()
            self._target.write(data)


def _run_clean(work: Callable[[], T]) -> T:
    """Run work in a thread, and leave nothing in memory but the result."""
    try:
        return work()
    except (Undrawable, ApiError, MemoryError) as error:
        error.__cause__ = error.__context__ = None  # their frames hold images
        raise error.with_traceback(None) from None
    finally:
        # Each thread has a heap of glibc's, which keeps the memory that libwebp freed. Other systems have no such call.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _closing() -> Unavailable:
    return Unavailable("The server is going down.", retry_after=5)


def _silence_warnings() -> None:
    """Silence Pillow's warnings about metadata: they are no news for the operator."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
