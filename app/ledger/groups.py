"""Writes drawings in groups, if they count neither in a budget nor in a limit.

Such a drawing needs no decision, so its beginning and its end may wait a moment for those of others. One transaction
for many costs a fraction of one for each: in the database, and in threads that take the interpreter from each other. A
gateway that is not busy waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.values.drawings import Beginning, Settlement

PACE = 0.01  # seconds from one group to the next

Begun = tuple[Beginning, "asyncio.Future[None]"]


class Groups:
    """Collects beginnings and ends. One group is under way at a time, so an end never overtakes its beginning.

    `record` writes a group down as a whole, or raises. `keep` gets the ends of a group while the database is away;
    `lose` gets an end that cannot be written down at all, and the reason."""

    def __init__(
        self,
        record: Callable[[Sequence[Beginning], Sequence[Settlement]], Awaitable[None]],
        keep: Callable[[Sequence[Settlement]], Awaitable[None]],
        lose: Callable[[Settlement, Exception], None],
    ) -> None:
        self._record = record
        self._keep = keep
        self._lose = lose
        self._begun = list[Begun]()
        self._ended = list[Settlement]()
        self._next = 0.0  # the loop's time, before which no group leaves
        self._work: asyncio.Task[None] | None = None

    def begin(self, beginning: Beginning) -> asyncio.Future[None]:
        """Return a future that is done when the beginning is on the disk, or raises DatabaseUnavailable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun.append((beginning, done))
        self._start()
        return done

    def end(self, settlement: Settlement) -> None:
        self._ended.append(settlement)
        self._start()

    async def drain(self) -> None:
        """Return when everything is written down. A caller that is cancelled does not stop it."""
        if self._work is not None:
            await asyncio.wait([self._work])

    def _start(self) -> None:
        if self._work is None:
            self._work = asyncio.create_task(self._write_groups())

    async def _write_groups(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._begun or self._ended:
                await asyncio.sleep(max(self._next - loop.time(), 0))
                self._next = loop.time() + PACE
                begun, self._begun = self._begun, []
                ended, self._ended = self._ended, []
                await self._write(begun, ended)
        finally:
            self._work = None

    async def _write(self, begun: Sequence[Begun], ended: Sequence[Settlement]) -> None:
        try:
            await self._record([beginning for beginning, _ in begun], ended)
        except DatabaseUnavailable as error:
            for _, done in begun:
                _fail(done, DatabaseUnavailable(str(error)))
            await self._keep(ended)
        except Exception as error:
            if len(begun) + len(ended) > 1:  # one that cannot be written down takes no other with it
                for each in begun:
                    await self._write([each], [])
                for end in ended:
                    await self._write([], [end])
                return
            for _, done in begun:
                _fail(done, error)
            for end in ended:
                self._lose(end, error)
        else:
            for _, done in begun:
                if not done.done():  # its caller was cancelled
                    done.set_result(None)


def _fail(done: asyncio.Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
