"""What one round of the event loop writes to a connection goes out together: the head, the body and the end of a small
answer are three writes, and each would be a system call and a segment of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

MOST_HELD = 16_384  # bytes: more goes out at once, so that a slow reader is noticed


class Cork:
    """A transport as far as answers need one."""

    __slots__ = ("_close", "_held", "_loop", "_size", "_transport")

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        loop: asyncio.AbstractEventLoop,
        close: Callable[[], None] | None = None,
    ) -> None:
        """`close` ends the connection; the transport does if there is none."""
        self._close = close or transport.close
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
        """At once."""
        self._held += pieces
        self.flush()

    def flush(self) -> None:
        """Nobody takes what is held when the connection has ended meanwhile."""
        if self._held:
            held, self._held, self._size = self._held, [], 0
            if not self._transport.is_closing():
                self._transport.writelines(held)

    def close(self) -> None:
        self.flush()
        self._close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
