"""Notice a client that takes nothing of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.server.sockets import count_unsent

STALLED_SECONDS = 60.0  # without the client taking a byte of an answer: then the connection ends


class Progress:
    """Watches a connection to which nothing is written for now. `abort` ends it; its run goes on."""

    __slots__ = ("_abort", "_loop", "_timer", "_transport", "_unsent")

    def __init__(
        self, transport: asyncio.WriteTransport, loop: asyncio.AbstractEventLoop, abort: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._abort = abort
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes, when the client was last seen to take some

    @property
    def is_watched(self) -> bool:
        """True while bytes wait for the client, and its progress will be looked for."""
        return self._timer is not None

    def watch(self) -> None:
        """Look for progress later, if anything waits. Fewer unsent bytes mean then that some were taken."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self._unsent = count_unsent(self._transport)
            self._timer = self._loop.call_later(STALLED_SECONDS, self.look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """End the connection of a client that took nothing since the last look."""
        self._timer = None
        if count_unsent(self._transport) >= self._unsent:
            self._abort()
        else:
            self.watch()
