"""Reads the rest of a long body of known length around aiohttp's parser and reader. Why:
`docs/decisions/0002-httpx-over-aiohttp.md`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import aiohttp
from aiohttp.client_proto import ResponseHandler

LARGE_PIECE = 65_536  # bytes: a reader who is behind by more lets the socket pause


class SizedBody:
    """Reads the rest of a long body of known length, in the place of aiohttp's parser and reader: the parser would copy
    each piece, and the reader pause the socket at each, since a piece fills it. It has the interface of aiohttp's
    parsers of WebSockets, and the part of its reader's that is needed here.

    The socket is paused while the reader is behind by a large piece or by two: what is not read waits in the kernel.
    """

    def __init__(self, handler: ResponseHandler, transport: asyncio.Transport, begun: bytes, left: int) -> None:
        """`begun` is what came with the head; `left` bytes are to come."""
        self._handler = handler
        self._transport = transport
        self._left = left
        self._pieces = deque((begun,) if begun else ())
        self._error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._paused_since: float | None = None  # the loop's time
        self._seconds_paused = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._when_over: Callable[[], None] = _do_nothing
        handler.set_parser(self, None)

    async def readany(self) -> bytes:
        """Return the next piece; an empty one at the end. Raises aiohttp's errors, once all pieces are read."""
        pieces = self._pieces
        while not pieces:
            if self._error is not None:
                raise self._error
            if not self._left:
                return b""
            if self._paused_since is not None:
                self._seconds_paused += self._loop.time() - self._paused_since
                self._paused_since = None
                self._transport.resume_reading()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return pieces.popleft()

    def is_eof(self) -> bool:
        return not self._left

    def at_eof(self) -> bool:
        return not self._left and not self._pieces

    def on_eof(self, callback: Callable[[], None]) -> None:
        self._when_over = callback

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._wake()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if len(data) > self._left:  # the next answer to this connection would begin with what follows
            self._handler.force_close()
            data = data[: self._left]
        if data:
            self._pieces.append(data)
            self._left -= len(data)
            if not self._left:
                self._when_over()
            elif self._paused_since is None and (len(data) > LARGE_PIECE or len(self._pieces) > 1):
                self._paused_since = self._loop.time()
                self._transport.pause_reading()
            self._wake()
        return False, b""

    def take_pause(self) -> float:
        """Return for how many seconds the socket was paused since the last call."""
        seconds, self._seconds_paused = self._seconds_paused, 0.0
        if self._paused_since is not None:
            now = self._loop.time()
            seconds, self._paused_since = seconds + now - self._paused_since, now
        return seconds

    def feed_eof(self) -> None:
        """Note that the connection is lost."""
        if self._left:
            self.set_exception(aiohttp.ClientPayloadError("the answer ended before its length"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _do_nothing() -> None:
    pass
