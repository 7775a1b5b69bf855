"""Where pixels are worked on: a few threads, a short queue, and a bound on all pixels in work together. Pillow is
loaded when the first picture needs it. Knows nothing of requests."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from app.errors import ApiError, Unavailable
from app.images import Blob, Size
from app.imaging.formats import ENOUGH, dimensions
from app.imaging.operations import Look, Redraw, RedrawMask, Undrawable
from app.storage.spool import Spool

# Memory: all work together takes at most BYTES_PER_PIXEL for each of `max_pixels`, beside the compressed bytes of the
# files in work (those of a WebP twice). Measured: up to 12 for PNG, JPEG and masks, 18 for reading WebP. Writing WebP
# takes up to 55, so there each pixel counts as three; one above a third of `max_pixels` has no other work beside it.
BYTES_PER_PIXEL = 24
WRITING_WEBP = 3
PIXELS = 50_000_000  # a telephone's 48 megapixels; 1.2 GB at the worst, or 2.8 GB for one WebP of that size

T = TypeVar("T")


class Studio:
    """At most `threads` pictures, and `max_pixels` of them all, are in work at once; `waiting` may stand in line.

    The pixels of a picture are those of the largest of what it was, what it becomes, and what is between.
    """

    def __init__(
        self, spool: Callable[[], Spool], *, threads: int = 2, waiting: int = 32, max_pixels: int = PIXELS
    ) -> None:
        """`spool` makes one for pictures that belong to no request."""
        self.spool = spool
        self.max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, "studio", initializer=_quieten)
        self._threads = threads
        self._waiting = waiting
        self._working = 0
        self._pixels = 0  # in work
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closed = False

    async def redraw(self, source: Blob, target: Spool, order: Redraw | RedrawMask, *, paid: bool = False) -> Size:
        """Writes the picture to `target` as ordered; gives its size.

        `paid`: the picture has cost money, so it stands in line however long that is. Raises Undrawable (WithoutAlpha
        for a mask), and Unavailable when the line or the disk is full.
        """

        most = self._pixels_of(source, order.size)
        weight = WRITING_WEBP if isinstance(order, Redraw) and order.format == "webp" else 1

        def work() -> Size:
            from app.imaging import (
                pillow,
            )  # in the thread: it takes memory that a gateway without such work never needs

            if isinstance(order, RedrawMask):
                return pillow.redraw_mask(source, target, order, most)
            return pillow.redraw(source, target, order, most)

        return await self._work(most * weight, work, patient=paid)

    async def look(self, source: Blob) -> Look:
        """Raises Undrawable, Unavailable."""
        most = self._pixels_of(source, None)

        def work() -> Look:
            from app.imaging import pillow

            return pillow.look(source, most)

        return await self._work(most, work, patient=False)

    def close(self) -> None:
        """Sends those in line away and waits for what is in work."""
        self._closed = True
        while self._line:
            _, place = self._line.popleft()
            if not place.done():
                place.set_exception(_closing())
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

    async def _work(self, pixels: int, work: Callable[[], T], *, patient: bool) -> T:
        pixels = min(pixels, self.max_pixels)
        await self._enter(pixels, patient=patient)
        try:
            if self._closed:
                raise _closing()
            running = asyncio.wrap_future(self._pool.submit(_alone, work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await _over(running)
                raise
        except MemoryError as error:
            raise Unavailable("The server has too little memory for this picture now.", retry_after=30) from error
        finally:
            self._leave(pixels)

    async def _enter(self, pixels: int, *, patient: bool) -> None:
        if self._closed:
            raise _closing()
        if not self._line and self._has_room(pixels):
            self._take(pixels)
            return
        if len(self._line) >= self._waiting and not patient:
            raise Unavailable(
                f"The server has {len(self._line)} pictures waiting to be converted and takes no more. Try again "
                "later, or send PNG or JPEG files that need no conversion.",
                code="media_queue_full",
                retry_after=5,
            )
        entry = pixels, asyncio.get_running_loop().create_future()
        self._line.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry in self._line:
                self._line.remove(entry)
                self._call()
            elif entry[1].done() and not entry[1].cancelled() and not entry[1].exception():  # the turn had just come
                self._leave(pixels)
            raise

    def _has_room(self, pixels: int) -> bool:
        return self._working < self._threads and self._pixels + pixels <= self.max_pixels

    def _take(self, pixels: int) -> None:
        self._working += 1
        self._pixels += pixels

    def _leave(self, pixels: int) -> None:
        self._working -= 1
        self._pixels -= pixels
        self._call()

    def _call(self) -> None:
        """In turn: a large picture at the head of the line is not overtaken for ever by small ones."""
        while self._line and self._has_room(self._line[0][0]):
            pixels, place = self._line.popleft()
            if not place.done():
                self._take(pixels)
                place.set_result(None)


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


async def _over(running: asyncio.Future[T]) -> None:
    """Waits for work that cannot be stopped: the files that it reads and writes must not be closed under it."""
    while not running.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    if not running.cancelled():
        running.exception()  # nobody is there to be told


def _closing() -> Unavailable:
    return Unavailable("The server is going down.", retry_after=5)


def _quieten() -> None:
    """What Pillow finds odd in a picture's metadata is no news for the operator."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
