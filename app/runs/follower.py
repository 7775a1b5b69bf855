"""One caller that is answered from a run. It says only that it has the answer, has left, or that its connection broke:
the run decides what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from app.errors import Unavailable
from app.events import Event
from app.runs.run import Run
from app.runs.state import State

RETURN_SECONDS = 10.0  # after a delivery, in which a broken connection lets its retry have the run


@dataclass(slots=True, eq=False)
class Follower:
    """`when_delivered` notes the delivery, `when_settled` is awaited when a run that drives itself has ended."""

    run: Run
    finish_on_disconnect: bool
    when_delivered: Callable[[], None]
    when_settled: Callable[[], Awaitable[None]]
    _is_present: bool = True
    _has_left: bool = False
    _is_broken: bool = False

    def __post_init__(self) -> None:
        self.run.followers += 1
        self.run.present += 1

    def events(self) -> AsyncGenerator[Event, None]:
        """Return the run's events from the start. They raise the ApiError that ended the run."""
        return self.run.follow()

    def is_driving(self, task: asyncio.Task[None] | None) -> bool:
        """True if the run would stand still without `task`."""
        return self.run.is_driven_by(task)

    def fell_behind(self) -> None:
        """Let the run drive itself: the caller is slower than the provider."""
        self.run.detach(self.when_settled)

    def delivered(self) -> None:
        """The socket took the last byte of the answer. For an answer that is an error, nothing is noted."""
        if self.run.recording.error is None:
            self.when_delivered()

    def left(self) -> None:
        """The caller disconnected. The last one ends a run that was not sent to a provider yet."""
        self._has_left = True
        self._depart()

    def broken(self) -> None:
        """The connection broke: in the middle of the answer, or after its last byte, so that the caller may not have
        everything."""
        self._is_broken = True
        self.run.break_delivery(RETURN_SECONDS)

    async def end_badly(self) -> None:
        """The caller did not get the answer, or got an error. A run that outlives its callers is driven to its end."""
        self._depart()
        if not self.run.present and self._outlives():
            await self.run.finish()
        error = self.run.recording.error
        is_refusal = error is not None and error.should_retry is False
        self.run.tell(is_missed=is_refusal if self._has_left else self._is_broken)

    def end(self) -> None:
        """The caller needs the recording no more."""
        self._depart()
        self.run.followers -= 1
        if not self.run.followers:
            self.run.abandon()

    def _depart(self) -> None:
        if self._is_present:
            self._is_present = False
            self.run.present -= 1
            if not self.run.present and not self._outlives():
                self.run.abort(Unavailable("The caller left, so the work on the images was given up."))

    def _outlives(self) -> bool:
        """True if the run goes on when the last caller leaves."""
        return self.run.state is not State.WAITING and self.finish_on_disconnect
