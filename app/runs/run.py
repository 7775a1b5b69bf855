"""A run: the work of getting the images of one request. It does not belong to the connection that asked for it.

The reader that follows a run drives it; when its last reader falls behind or leaves, the run drives itself. So a caller
that keeps up costs nothing more, and no paid drawing is lost with a connection. `runs.state` draws the states."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from app.errors import ApiError, Unavailable
from app.events import Done, Event
from app.gateway.call import Call
from app.runs.fingerprint import find_fingerprint, fingerprint
from app.runs.state import Event as Step
from app.runs.state import State, after
from app.storage.full_disk import is_full
from app.storage.recording import Recording

SHORT = 2048  # characters: the fingerprint of a shorter request is not worth computing at each delivery


class RunObserver(Protocol):
    """Hears of each run's end, exactly once, also when its caller left long ago."""

    def run_ended(self, run: Run) -> None: ...

    def run_crashed(self, run: Run, error: Exception) -> None:
        """The gateway failed while the run was under way; the run's followers get no details."""
        ...


@dataclass(eq=False, repr=False)
class Run:
    """`events` are the call's. `resources` are closed when the run has ended, the uploads when the request's
    fingerprint does not need them any more. `created` is Unix time; `clock` gives seconds."""

    call: Call
    events: AsyncGenerator[Event, None]
    recording: Recording
    resources: ExitStack
    created: int
    clock: Callable[[], float]
    idempotency_key: str | None = None
    observers: Sequence[RunObserver] = ()
    ended_at: float | None = None  # the clock's time, seconds
    delivered_at: float | None = None
    followers: int = 0  # tasks that need the recording: callers, and the writer of its file
    present: int = 0  # callers that are connected
    fingerprint: bytes | None = None  # of the request, once it was needed
    _state: State = State.WAITING
    _driver: asyncio.Task[None] | None = None  # the run's own
    _driving: asyncio.Task[Any] | None = None  # the task that waits for the next event
    _closing: asyncio.Task[None] | None = None
    _abort: ApiError | None = None

    def __post_init__(self) -> None:
        self.call.is_awaited = lambda: self.present > 0

    @property
    def id(self) -> str:
        return self.call.id

    @property
    def state(self) -> State:
        """The gateway counts the requests that left: they tell SENT from WAITING."""
        return State.SENT if self._state is State.WAITING and self.call.sent else self._state

    @property
    def has_ended(self) -> bool:
        return self._state is not State.WAITING  # it is never kept as SENT

    @property
    def may_be_drawn_afresh(self) -> bool:
        """True if a retry costs nothing that was paid already, and has no error to learn of."""
        return self._state is State.FAILED

    @property
    def is_empty_failure(self) -> bool:
        """True if the run has nothing but an error."""
        return self.recording.error is not None and not self.call.drawn.recordings

    def is_driven_by(self, task: asyncio.Task[Any] | None) -> bool:
        """True if `task` waits for the next event, and no other task would."""
        return task is not None and self._driving is task

    async def follow(self) -> AsyncGenerator[Event, None]:
        """Yield the events from the start. Raises the ApiError that ended the run.

        A run that has ended raises at once: a caller that comes back gets a status, not the same broken answer. Only
        in a stream images can come before the error.
        """
        index, recording = 0, self.recording
        if not (self.call.request.stream and self.call.request.n > 1):
            recording.check()
        while True:
            while index < recording.length:
                for event in recording.at(index):
                    yield event
                index += 1
            if recording.ended:
                recording.check()
                return
            await self._advance()

    async def finish(self) -> None:
        """Wait for the end, and drive the run there if no other task does. For a run without a reader."""
        if not self.has_ended:
            with suppress(OSError):
                self.recording.spill()
        while not self.recording.ended:
            await self._advance()

    def detach(self, then: Callable[[], Awaitable[None]]) -> None:
        """Let the run drive itself from now on, and await `then` at its end. For a follower that is too slow."""

        async def drive() -> None:
            try:
                await self.finish()
            finally:
                await then()

        if self._driver is None:
            self._driver = asyncio.create_task(drive())

    def abort(self, error: ApiError) -> None:
        """End the run with `error`, whichever task drives it."""
        if self.has_ended or self._abort:
            return
        if self._driving is None:
            self._end(error)
            self._closing = asyncio.create_task(self._close_events())
        else:
            self._abort = error
            self._driving.cancel()

    def abandon(self) -> None:
        """End a run without followers, unless it has ended or drives itself."""
        if self._driving is None:
            self.abort(self._lost("The work on the images was broken off."))

    async def wait_until_over(self) -> None:
        """Wait until no task of an aborted run is at work any more."""
        while not self.has_ended:
            await self.recording.changed()
        tasks = [task for task in (self._driver, self._closing) if task]
        await asyncio.gather(*tasks, return_exceptions=True)

    def deliver(self) -> None:
        """Note that the socket of a caller took the last byte."""
        self._move(Step.DELIVER)
        self.delivered_at = self.clock()
        self.release()

    def break_delivery(self, within: float) -> None:
        """Note that the connection broke after the delivery. It counts for `within` seconds: later on, idle connections
        are reset for other reasons."""
        if self._state is State.DELIVERED and self.clock() - (self.delivered_at or 0.0) < within:
            self._move(Step.BREAK)

    def tell(self, *, is_missed: bool) -> None:
        """Note whether a caller got the error of the run, or could not be told."""
        if self.recording.error is not None and self.has_ended:
            self._move(Step.MISS if is_missed and self.is_empty_failure else Step.TELL)

    async def identify(self) -> None:
        """Compute the fingerprint: the request is known again without its contents from now on."""
        if self.fingerprint is None:
            found = await find_fingerprint(self.call.request)
            if self.fingerprint is None:  # another task may have been faster
                self.fingerprint = found
            self.release()

    async def is_for(self, wanted: bytes | None) -> bool:
        """True if the run's request has the fingerprint `wanted`."""
        await self.identify()
        return self.fingerprint is not None and self.fingerprint == wanted

    def release(self) -> None:
        """Close the parts of the request that are not needed any more, and release stored files once the caller has
        the links to them."""
        if self._state.is_delivered:
            self.call.files.close()
        if not self.has_ended:
            return
        is_done_with = self._state.is_delivered and self.idempotency_key is None
        if self.fingerprint is not None or is_done_with:
            self.call.uploads.close()
            self.call.preparation = None
            if self.fingerprint is None and self.call.request.text_length > SHORT:
                # The uploads are closed. A request with uploads is equal to no other from now on.
                self.fingerprint = b"" if self.call.request.images else fingerprint(self.call.request)
        if self.fingerprint is not None:
            self.call.request = self.call.request.outline()

    def forget(self) -> None:
        """Close everything that is left of the run. Another call does nothing."""
        if self._state is not State.FORGOTTEN:
            self._move(Step.FORGET)
        self.call.uploads.close()
        self.call.files.close()
        self.call.drawn.close()
        self.recording.close()

    def restore(self, ended: State, *, seconds_ago: float) -> None:
        """Set the state of a run that an earlier process ended."""
        self._state = ended
        self.ended_at = self.clock() - seconds_ago

    def _move(self, event: Step) -> None:
        self._state = after(self.state, event)

    async def _advance(self) -> None:
        """Wait for the next event or the end, and drive the run there if no other task does."""
        if self._driving is not None:
            return await self.recording.changed()
        self._driving = me = asyncio.current_task()
        try:
            self.recording.append(event := await anext(self.events))
            if type(event) is Done:  # the caller may have everything, and ask for more, before the generator ends
                self.resources.close()
        except StopAsyncIteration:
            self._end(None)
        except ApiError as error:
            self._end(error)
        except asyncio.CancelledError:
            if self._abort is None:
                self._end(self._lost("The work on the images was broken off."))
                raise
            self._end(self._abort)
            if me is not None:
                me.uncancel()
        except Exception as error:
            if is_full(error):
                await self.events.aclose()
                self._end(self._lost(f"The gateway has no room for the images: {error.strerror}.", "no_room"))
            else:
                self._end(self._lost("The gateway failed while the images were drawn.", "internal_error"))
            for observer in self.observers:
                observer.run_crashed(self, error)
        finally:
            self._driving = None

    def _lost(self, message: str, code: str | None = None) -> ApiError:
        """Return the error for a failure of the gateway: a request that was sent may have been drawn all the same."""
        kind = ApiError if code == "internal_error" else Unavailable
        error = kind(message, code=code)
        return error.paid() if self.state is State.SENT else error

    async def _close_events(self) -> None:
        """Close the generator. Its errors have no reader any more."""
        with suppress(Exception):
            await self.events.aclose()

    def _end(self, error: ApiError | None) -> None:
        if self.has_ended:
            return
        if error is not None and not error.attempts:
            error.attempts = self.call.sent
        failed = Step.FAIL_PAID if error is not None and error.perhaps_paid else Step.FAIL
        self._move(Step.FINISH if error is None else failed)
        self.recording.end(error)
        self.ended_at = self.clock()
        if error is None:
            self.call.drawn.close()  # the recording has everything
        elif self.call.request.n > 1 and self._state.is_unpaid and not self.call.drawn.recordings:
            with suppress(OSError):
                self.call.drawn.keep(self.recording)
        self.resources.close()
        self.release()
        for observer in self.observers:
            observer.run_ended(self)
