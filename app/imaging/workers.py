"""Where pixels are worked on: a few threads, a short queue that is fair between keys, and a bound on all pixels in work
together. Pillow is loaded when the first picture needs it. Knows nothing of requests."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from app.errors import ApiError, Unavailable
from app.images import Blob, Size
from app.imaging.formats import ENOUGH, dimensions
from app.imaging.operations import Look, Redraw, RedrawMask, Undrawable
from app.storage.spool import Spool

# Memory: all work together takes at most BYTES_PER_PIXEL for each pixel in work. A key has up to `max_pixels` of them
# in work, and all keys a quarter more. Measured: up to 12 for PNG, JPEG and masks, 18 for reading WebP. Writing WebP
# takes up to 55, so there each pixel counts as three; a picture above a third of `max_pixels` counts as all that a key
# may have, and takes more: 41 for each pixel of a large one. MOST_MEMORY is the worst of it, beside the compressed
# bytes of the files in work (those of a WebP twice); a test measures it.
BYTES_PER_PIXEL = 24
WRITING_WEBP, LARGE_WEBP = 3, 42  # as how many pixels one counts, and the bytes that one takes if it counts no more
PIXELS = 50_000_000  # a telephone's 48 megapixels
RESERVE = 4  # the quarter: what a key with `max_pixels` in work leaves to others
MOST_MEMORY = PIXELS * LARGE_WEBP + PIXELS // RESERVE * BYTES_PER_PIXEL
COPIES = 2  # of the compressed bytes, that decoders keep
SECONDS = 120.0  # several times what the largest picture takes that may be converted, on one core

T = TypeVar("T")


class Workers:
    """At most `threads` pictures of a key, and `max_pixels` of them all, are in work at once; `waiting` may stand in
    line. One picture more, and a quarter more pixels, are in work if they are another key's: no key has them all.

    The pixels of a picture are those of the largest of what it was, what it becomes, and what is between.
    """

    def __init__(
        self,
        spool: Callable[[], Spool],
        *,
        threads: int = 2,
        waiting: int = 32,
        max_pixels: int = PIXELS,
        seconds: float = SECONDS,
    ) -> None:
        """`spool` makes one for pictures that belong to no request. Work may take up to `seconds`."""
        self.spool = spool
        self.max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads + 1, "studio", initializer=_quieten)
        self._threads = threads
        self._waiting = waiting
        self._seconds = seconds
        self._working: Counter[str] = Counter()  # threads, by key
        self._pixels: Counter[str] = Counter()  # in work, by key
        self._line: list[_Place] = []
        self._turns: dict[str, int] = {}  # the number of a key's last, while it has others in line or in work
        self._closed = False

    async def redraw(
        self, source: Blob, target: Spool, order: Redraw | RedrawMask, *, key: str = "", paid: bool = False
    ) -> Size:
        """Writes the picture to `target` as ordered; gives its size.

        `key`: the name of the caller's. `paid`: the picture has cost money, so it stands in line however long that is.
        Raises Undrawable (WithoutAlpha for a mask; also if it takes too long), and Unavailable when the line or the
        disk is full.
        """
        most = self._pixels_of(source, order.size)
        weight = WRITING_WEBP if isinstance(order, Redraw) and order.format == "webp" else 1

        def work(leash: _Leash) -> Size:
            from app.imaging import (
                pillow,  # in the thread: it takes memory that a gateway without such work never needs
            )

            picture, file = _Source(source, leash), _Target(target, leash)
            if isinstance(order, RedrawMask):
                return pillow.redraw_mask(picture, file, order, most)
            return pillow.redraw(picture, file, order, most)

        return await self._work(_Place(key, self._weight(most * weight, source), patient=paid), work)

    async def look(self, source: Blob, *, key: str = "") -> Look:
        """Raises Undrawable, Unavailable."""
        most = self._pixels_of(source, None)

        def work(leash: _Leash) -> Look:
            from app.imaging import pillow

            return pillow.look(_Source(source, leash), most)

        return await self._work(_Place(key, self._weight(most, source)), work)

    def close(self) -> None:
        """Sends those in line away and waits for what is in work."""
        self._closed = True
        for place in self._line:
            place.refuse(_closing())
        self._line = []
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pixels_of(self, source: Blob, target: Size | None) -> int:
        """How many there may be at the most. Raises Undrawable for more than are taken."""
        size = dimensions(source.read(0, ENOUGH))
        if size is None:
            return self.max_pixels  # it may be anything up to that
        between = target and Size(target.width, size.height)  # resizing goes along one edge, then along the other
        most = max((size, target or size, between or size), key=lambda s: s.pixels)
        if most.pixels > self.max_pixels:
            raise Undrawable(f"it is {most} pixels, and pictures of up to {self.max_pixels:,} pixels can be converted")
        return most.pixels

    def _weight(self, pixels: int, source: Blob) -> int:
        """In pixels, the file's bytes included. No more than one key may have, so that each picture's turn comes."""
        return min(pixels + COPIES * source.size // BYTES_PER_PIXEL, self.max_pixels)

    async def _work(self, place: _Place, work: Callable[[_Leash], T]) -> T:
        """Does the work in a thread. That cannot be stopped: if it takes too long, or its caller leaves, it ends at the
        next byte that it reads or writes, and is busy until then."""
        await self._enter(place)
        leash = _Leash()
        try:
            if self._closed:
                raise _closing()
            running = asyncio.wrap_future(self._pool.submit(_alone, partial(work, leash)))
        except BaseException:
            self._leave(place)
            raise
        running.add_done_callback(partial(self._end, place))
        try:
            await asyncio.wait([running], timeout=self._seconds)
            if not running.done():
                raise Undrawable(f"it takes more than {self._seconds:g} s to convert")
            return running.result()
        except MemoryError as error:
            raise Unavailable("The server has too little memory for this picture now.", retry_after=30) from error
        finally:
            leash.cut()

    async def _enter(self, place: _Place) -> None:
        """Returns with the place taken. Raises Unavailable."""
        if self._closed:
            raise _closing()
        self._line.append(place)
        self._call()
        if len(self._line) > self._waiting and not place.patient and place in self._line:
            self._crowd_out(place.key)
        try:
            await place.turn
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
                self._call()
            elif place.turn.done() and not place.turn.cancelled() and not place.turn.exception():
                self._leave(place)  # the turn came just now
            raise

    def _crowd_out(self, key: str) -> None:
        """Sends the last away of the key that has most in line; of two that have as many, the one that came now."""
        impatient = [place for place in self._line if not place.patient]
        counts = Counter(place.key for place in impatient)
        most = max(counts, key=lambda other: (counts[other], other == key))
        last = next(place for place in reversed(impatient) if place.key == most)
        self._line.remove(last)
        last.refuse(
            Unavailable(
                f"The server has {len(self._line)} pictures waiting to be converted and takes no more. Try again "
                "later, or send PNG or JPEG files that need no conversion.",
                code="media_queue_full",
                retry_after=5,
            )
        )

    def _call(self) -> None:
        """Gives places away while there are some."""
        while place := self._next():
            self._line.remove(place)
            self._turns[place.key] = max(self._turns.values(), default=0) + 1
            self._working[place.key] += 1
            self._pixels[place.key] += place.pixels
            place.turn.set_result(None)

    def _next(self) -> _Place | None:
        """The first in line of the key that has the fewest in work, and of several the one whose last turn is longest
        ago. No other overtakes it, unless it is its own key that has no room for it: a large picture does not wait for
        ever behind small ones."""
        firsts: dict[str, _Place] = {}
        for place in self._line:
            firsts.setdefault(place.key, place)
        for place in sorted(
            firsts.values(), key=lambda first: (self._working[first.key], self._turns.get(first.key, 0))
        ):
            if self._working[place.key] < self._threads and self._pixels[place.key] + place.pixels <= self.max_pixels:
                room = self.max_pixels + self.max_pixels // RESERVE - self._pixels.total()
                return place if self._working.total() <= self._threads and place.pixels <= room else None
        return None

    def _end(self, place: _Place, running: asyncio.Future[T]) -> None:
        self._leave(place)
        if not running.cancelled():
            running.exception()  # without this look, asyncio would log those that came too late

    def _leave(self, place: _Place) -> None:
        self._working[place.key] -= 1
        self._pixels[place.key] -= place.pixels
        if not self._working[place.key]:
            del self._working[place.key], self._pixels[place.key]
        self._call()
        if place.key not in self._working and all(other.key != place.key for other in self._line):
            self._turns.pop(place.key, None)


@dataclass(slots=True, eq=False)
class _Place:
    """One picture's place, in line or in work."""

    key: str
    pixels: int
    patient: bool = False
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def refuse(self, error: Unavailable) -> None:
        if not self.turn.done():
            self.turn.set_exception(error)


class _Leash:
    """Ends work in a thread from outside. It is entered for each read and write, and raises Undrawable once it is cut.
    Then no write is under way, so the file may be closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cut = False

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._is_cut:
            self._lock.release()
            raise Undrawable("its caller waits for it no more")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class _Source:
    """A blob on a leash."""

    def __init__(self, blob: Blob, leash: _Leash) -> None:
        self._blob = blob
        self._leash = leash
        self.size = blob.size

    def read(self, offset: int, length: int) -> bytes:
        with self._leash:
            pass
        return self._blob.read(offset, length)  # a file that is closed meanwhile raises, and gives nothing


class _Target:
    """A spool on a leash."""

    def __init__(self, spool: Spool, leash: _Leash) -> None:
        self._spool = spool
        self._leash = leash

    def write(self, data: bytes | bytearray) -> None:
        with self._leash:
            self._spool.write(data)


def _alone(work: Callable[[], T]) -> T:
    """In a thread. Leaves nothing in memory but the result."""
    try:
        return work()
    except (Undrawable, ApiError, MemoryError) as error:
        error.__cause__ = error.__context__ = None  # their frames hold pictures
        raise error.with_traceback(None) from None
    finally:
        _trim()


def _trim() -> None:
    """glibc's heaps, of which each thread has one, keep what libwebp gave back. Nothing where there is no glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _closing() -> Unavailable:
    return Unavailable("The server is going down.", retry_after=5)


def _quieten() -> None:
    """What Pillow finds odd in a picture's metadata is no news for the operator."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
