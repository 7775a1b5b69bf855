"""One caller that is answered from a run. It reports that it has the answer, has left, or that its connection broke;
the run decides what follows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from weakref import ref

from app.errors import Unavailable
from app.runs.run import Run
from app.runs.state import State

RETURN_SECONDS = 10.0  # after a delivery, in which a broken connection lets its retry have the run


@dataclass(slots=True, eq=False)
class Follower:
    """`when_delivered` notes the delivery."""

    run: Run
    finish_on_disconnect: bool
    when_delivered: Callable[[], None]
    _is_present: bool = True
    _has_left: bool = False
    _is_broken: bool = False

    def __post_init__(self) -> None:
        self.run.followers += 1
        self.run.present += 1

    def delivered(self) -> None:
        """Note that the socket took the last byte of the answer. Does nothing for an answer that is an error."""
        if self.run.recording.error is None:
            self.when_delivered()

    def left(self) -> None:
        """Note that the caller disconnected. The last one ends a run that was not sent to a provider yet."""
        self._has_left = True
        self._depart()

    def broken(self) -> None:
        """Note that the connection broke in the middle of the answer."""
        self._is_broken = True

    def broken_later(self) -> Callable[[], None]:
        """Return a callback for a connection that breaks after the last byte: the caller may not have everything. It
        does not keep the run, since connections may stay idle for long."""
        found = ref(self.run)

        def broken() -> None:
            if run := found():
                run.break_delivery(RETURN_SECONDS)

        return broken

    async def end_badly(self) -> None:
        """Depart without the answer, or with an error. Waits for the end of a run that outlives its callers."""
        self._depart()
        if not self.run.present and self._outlives():
            with suppress(OSError):
                self.run.recording.spill()
            await self.run.wait_until_over()
        error = self.run.recording.error
        is_refusal = error is not None and error.should_retry is False
        self.run.tell(is_missed=is_refusal if self._has_left else self._is_broken)

    def end(self) -> None:
        """Depart, and release the recording. The last follower ends a run that is still under way."""
        self._depart()
        self.run.followers -= 1
        if not self.run.followers:
            self.run.abandon()

    def _depart(self) -> None:
        if self._is_present:
            self._is_present = False
            self.run.present -= 1
            if not self.run.present and not self.run.has_ended and not self._outlives():
                self.run.abort(Unavailable("The caller left, so the work on the images was given up."))

    def _outlives(self) -> bool:
        """True if the run goes on when the last caller leaves."""
        return self.run.state is not State.WAITING and self.finish_on_disconnect
