"""Send together the bytes of one round of the event loop: the head, the body and the end of a small answer are three
writes, and each would be a system call and a segment of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

MOST_HELD = 16_384  # bytes: more goes out at once, so that a slow reader is noticed


class Cork:
    """A transport as far as answers need one."""

    __slots__ = ("_close", "_held", "_loop", "_size", "_transport")

    def __init__(
        self, transport: asyncio.WriteTransport, loop: asyncio.AbstractEventLoop, close: Callable[[], None]
    ) -> None:
        """`close` ends the connection."""
        self._close = close
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._size += len(data)
        if self._size > MOST_HELD:
            self.flush()

    def writelines(self, pieces: Sequence[bytes]) -> None:
        """Send at once, without a copy."""
        self._held += pieces
        self.flush()

    def flush(self) -> None:
        """Send the held bytes, or drop them if the connection has ended."""
        if self._held:
            held, self._held, self._size = self._held, [], 0
            if not self._transport.is_closing():
                self._transport.writelines(held)

    def close(self) -> None:
        self.flush()
        self._close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
