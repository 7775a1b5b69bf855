"""A run: the work of getting the images of one request. It does not belong to the connection that asked for it.

A run is a task that writes a recording. Callers read the recording, each at its own pace: a slow one holds up nothing,
and no paid drawing is lost with a connection. `runs.state` draws the states."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from app.errors import ApiError, Unavailable
from app.events import Done, Event, Sink
from app.gateway.call import Call, is_awaited
from app.runs.fingerprint import find_fingerprint, fingerprint
from app.runs.state import State, Step, after
from app.storage.full_disk import is_full
from app.storage.recording import Reader, Recording

SHORT = 2048  # characters: the fingerprint of a shorter request is not worth computing at each delivery


class RunObserver(Protocol):
    """Observes the end of each run, exactly once, also when its caller left long ago."""

    def run_ended(self, run: Run) -> None: ...

    def run_crashed(self, run: Run, error: Exception) -> None:
        """The gateway failed while the run was under way; the run's followers get no details."""
        ...


@dataclass(eq=False, repr=False)
class Run:
    """`draw` pushes the call's events. The uploads are closed when the request's fingerprint does not need them any
    more. `created` is Unix time; `clock` gives seconds."""

    call: Call
    draw: Callable[[Sink], Awaitable[None]]
    recording: Recording
    created: int
    clock: Callable[[], float]
    idempotency_key: str | None = None
    observers: Sequence[RunObserver] = ()
    ended_at: float | None = None  # the clock's time, seconds
    delivered_at: float | None = None
    followers: int = 0  # tasks that need the recording: callers, and the writer of its file
    present: int = 0  # callers that are connected
    fingerprint: bytes | None = None  # of the request, once it was needed
    when_over: Callable[[], Awaitable[None]] | None = None  # awaited in the run's task, after its end
    _state: State = State.WAITING
    _task: asyncio.Task[None] | None = None
    _has_begun: bool = False  # the task has run
    _is_whole: bool = False  # all images have come
    _is_settling: bool = False  # the ledger is recording how the work has ended
    _abort: ApiError | None = None

    def __post_init__(self) -> None:
        self.call.is_awaited = lambda: self.present > 0

    @property
    def id(self) -> str:
        return self.call.id

    @property
    def state(self) -> State:
        """The state of the run. The gateway counts the requests that left: this distinguishes SENT from WAITING."""
        return State.SENT if self._state is State.WAITING and self.call.sent else self._state

    @property
    def has_ended(self) -> bool:
        return self._state is not State.WAITING  # it is never kept as SENT

    @property
    def may_be_drawn_afresh(self) -> bool:
        """True if a retry repeats no payment, and has no error to receive."""
        return self._state is State.FAILED

    @property
    def is_given_up(self) -> bool:
        """True while the run is being ended: callers will get nothing but the error."""
        return self._abort is not None and not self.has_ended

    @property
    def is_empty_failure(self) -> bool:
        """True if the run has nothing but an error."""
        return self.recording.error is not None and not self.call.drawn.recordings

    def start(self) -> None:
        """Begin to draw, in a task of the run's own. Does nothing if the run has begun or ended."""
        if self._task is None and not self.has_ended:
            self._task = asyncio.create_task(self._work())

    def reader(self) -> Reader:
        """Return a reader of the events from the start. Raises the ApiError that ended the run.

        A run that has ended raises at once: a caller that comes back gets a status, not the same broken answer. Only
        in a stream images can come before the error.
        """
        if not (self.call.request.stream and self.call.request.n > 1):
            self.recording.check()
        return Reader(self.recording)

    def abort(self, error: ApiError) -> None:
        """End the run with `error`. If the ledger is already recording its end, that end stands."""
        if self.has_ended or self._abort:
            return
        self._abort = error
        if self._task is not None and not self._is_settling:
            self._task.cancel()
        if not self._has_begun:  # a task that is cancelled before its first step never takes it
            if self.call.account is not None and self.state is State.WAITING:  # an earlier process may have sent it
                self.call.account.give_back()
            self._end(error)

    def abandon(self) -> None:
        """End a run that no caller waits for. Does nothing if it has ended."""
        if not self.has_ended:
            self.abort(self._lost("The work on the images was broken off."))

    async def wait_until_over(self) -> None:
        """Wait until the run has ended and its task has finished."""
        if self._task is not None:
            await asyncio.wait([self._task])

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
        """Note whether a caller received the error of the run."""
        if self.recording.error is not None and self.has_ended:
            self._move(Step.MISS if is_missed and self.is_empty_failure else Step.TELL)

    async def identify(self) -> None:
        """Compute the fingerprint, which identifies the request without its contents from now on."""
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
        # These know the entry, which knows the run. A cycle would keep its images until they are collected.
        self.when_over = self.call.announce = self.call.remember = None

    def restore(self, ended: State, *, seconds_ago: float) -> None:
        """Set the state of a run that an earlier process ended."""
        self._state = ended
        self.ended_at = self.clock() - seconds_ago

    def _move(self, step: Step) -> None:
        self._state = after(self.state, step)

    async def _work(self) -> None:
        self._has_begun = True
        error: ApiError | None = None
        try:
            await self.draw(self._push)
        except ApiError as failure:
            error = failure.alone()  # with its frames it would be kept by one of them, and they hold image data
        except asyncio.CancelledError:
            if not self._is_whole:
                error = self._abort or self._lost("The work on the images was broken off.")
        except Exception as failure:
            if is_full(failure):
                error = self._lost(f"The gateway has no room for the images: {failure.strerror}.", "no_room")
            else:
                error = self._lost("The gateway failed while the images were drawn.", "internal_error")
            await self._settle(error)
            self._end(error)
            for observer in self.observers:
                observer.run_crashed(self, failure)
        await self._settle(error)
        self._end(error)
        if self.when_over is not None:
            await self.when_over()

    async def _push(self, event: Event) -> None:
        if type(event) is Done:
            await self._settle(None)  # first, since the caller may ask for more at once, in the same place
        self.recording.append(event)
        if type(event) is Done:  # the caller may have everything, and ask for more, before the work ends
            self._is_whole = True
            if self._abort is not None and self._task is not None:
                self._task.cancel()  # the images are here, so the rest is not needed

    async def _settle(self, error: ApiError | None) -> None:
        """Record in the ledger how the work has ended, unless it knows. `abort` does not interrupt this: the run would
        not end."""
        if self.call.account is not None:
            self._is_settling = True
            await self.call.account.settle(error)
            self._is_settling = False

    def _lost(self, message: str, code: str | None = None) -> ApiError:
        """Return the error for a failure of the gateway: a request that was sent may have been drawn all the same."""
        kind = ApiError if code == "internal_error" else Unavailable
        error = kind(message, code=code)
        return error.paid() if self.state is State.SENT else error

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
        self.release()
        self.call.is_awaited = is_awaited  # it knows the run, which knows the call
        for observer in self.observers:
            observer.run_ended(self)
