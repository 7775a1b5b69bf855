"""A run: the work of getting the images of one request, which does not belong to the connection that asked for it.

Whoever follows a run drives it; when its last follower falls behind or leaves, it drives itself. So a caller who keeps
up costs nothing more, and nothing that was paid for is lost with a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any

from app.errors import ApiError, Unavailable
from app.events import Done, Event
from app.gateway.call import Call
from app.images import ImageRequest
from app.runs.fingerprint import identified, identity
from app.storage.full_disk import is_full
from app.storage.recording import Recording

SHORT = 2048  # characters: a request that is no longer is not worth a digest for each that was delivered


class Run:
    """`events` are the call's; `resources` are given back when the run has ended, the uploads when nobody needs them
    to know the request again. `report` is told of what should not have happened, with the run's id: whoever follows is
    told no more than that."""

    def __init__(
        self,
        id: str,
        call: Call,
        events: AsyncGenerator[Event, None],
        recording: Recording,
        resources: ExitStack,
        created: int,
        clock: Callable[[], float],
        report: Callable[[str, Exception], None] = lambda _id, _error: None,
    ) -> None:
        self.id = id
        self.call = call
        self.created = created  # Unix time, seconds
        self.recording = recording
        self.ended_at: float | None = None  # the clock's time, seconds
        self.delivered = False
        self.followers = 0  # who still needs the recording: callers, and whoever stores it
        self.present = 0  # callers who are connected
        self.identity: bytes | None = None  # of the request, once somebody had to know
        self.owed = False  # it failed, and whoever asked could not be told how
        self.named = False  # by an idempotency key: the request is to be known again even when it was answered
        self._clock = clock
        self._report = report
        self._events = events
        self._resources = resources
        self._driver: asyncio.Task[None] | None = None
        self._driving: asyncio.Task[Any] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._abort: ApiError | None = None

    @property
    def ended(self) -> bool:
        return self.recording.ended

    @property
    def failed_unpaid(self) -> bool:
        """Whether it can be drawn afresh without paying twice."""
        error = self.recording.error
        return error is not None and not error.perhaps_paid

    @property
    def failed_empty(self) -> bool:
        """Whether all that is left of it is an error."""
        return self.recording.error is not None and not self.call.drawn.recordings

    def driven_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `task` is waiting for the next event, and nobody would if it did not."""
        return task is not None and self._driving is task

    async def follow(self) -> AsyncGenerator[Event, None]:
        """The events from the start. Raises the ApiError that ended the run; at once, if it has ended: who comes back
        for it gets a status, and not the same broken answer again. Only in a stream can images come before it."""
        index, recording, me = 0, self.recording, asyncio.current_task()
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
            if self._driving is not None:
                await recording.changed()
            else:
                await self._drive_once(me)

    async def finish(self) -> None:
        """Waits for the end, driving the run there if nobody else does. For a run that nobody reads any more."""
        if not self.ended:
            with suppress(OSError):
                self.recording.spill()
        me = asyncio.current_task()
        while not self.recording.ended:
            if self._driving is not None:
                await self.recording.changed()
            else:
                await self._drive_once(me)

    def detach(self, then: Callable[[], Awaitable[None]]) -> None:
        """From now on the run drives itself, since its follower is too slow; `then` is done at its end."""

        async def drive() -> None:
            try:
                await self.finish()
            finally:
                await then()

        if self._driver is None:
            self._driver = asyncio.create_task(drive())

    def abort(self, error: ApiError) -> None:
        """Ends the run with `error`, whoever drives it."""
        if self.ended or self._abort:
            return
        if self._driving is None:
            self._end(error)
            self._closing = asyncio.create_task(self._close_events())
        else:
            self._abort = error
            self._driving.cancel()

    def abandon(self) -> None:
        """Nobody follows any more: ends the run, if it has not ended and does not drive itself."""
        if self._driving is None:
            self.abort(self._lost("The work on the images was broken off."))

    async def over(self) -> None:
        """Waits until nothing of an aborted run is at work any more."""
        while not self.ended:
            await self.recording.changed()
        tasks = [task for task in (self._driver, self._closing) if task]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive_once(self, me: asyncio.Task[Any] | None) -> None:
        self._driving = me
        try:
            self.recording.append(event := await anext(self._events))
            if type(event) is Done:  # the caller may have all of it and ask for more before the last things are seen to
                self._resources.close()
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
                await self._events.aclose()
                self._end(self._lost(f"The gateway has no room for the images: {error.strerror}.", "no_room"))
            else:
                self._end(self._lost("The gateway failed while the images were drawn.", "internal_error"))
            self._report(self.id, error)
        finally:
            self._driving = None

    def _lost(self, message: str, code: str | None = None) -> ApiError:
        """The gateway's own failure: what was sent may have been drawn all the same."""
        kind = ApiError if code == "internal_error" else Unavailable
        error = kind(message, code=code)
        return error.paid() if self.call.sent else error

    async def _close_events(self) -> None:
        """Nobody is left to be told what goes wrong here."""
        with suppress(Exception):
            await self._events.aclose()

    async def identify(self) -> None:
        """From now on the request is known again without what it holds."""
        if self.identity is None:
            found = await identified(self.call.request)
            if self.identity is None:  # nobody was faster
                self.identity = found
            self.release()

    async def is_for(self, identity: bytes | None) -> bool:
        """Whether the run is that of such a request."""
        await self.identify()
        return self.identity is not None and self.identity == identity

    def release(self) -> None:
        """Lets go of what was asked as soon as it is not needed any more, and of stored files once the caller has the
        links to them."""
        if self.delivered:
            self.call.files.close()
        if self.ended and (self.identity is not None or (self.delivered and not self.named)):
            self.call.uploads.close()
            self.call.preparation = None
            if self.identity is None and self.call.request.text_length > SHORT:
                self.identity = _known_without(self.call.request)
        if self.ended and self.identity is not None:
            self.call.request = self.call.request.outline()

    def forget(self) -> None:
        """Closes all that is left of the run."""
        self.call.uploads.close()
        self.call.files.close()
        self.call.drawn.close()
        self.recording.close()

    def _end(self, error: ApiError | None) -> None:
        if self.recording.ended:
            return
        if error is not None and not error.attempts:
            error.attempts = self.call.sent
        self.recording.end(error)
        self.ended_at = self._clock()
        if error is None:
            self.call.drawn.close()  # the recording has all of it
        elif self.call.request.n > 1 and self.failed_unpaid and not self.call.drawn.recordings:
            with suppress(OSError):
                self.call.drawn.keep(self.recording)
        self._resources.close()
        self.release()


def _known_without(request: ImageRequest) -> bytes:
    """The digest of a request whose uploads are closed. With uploads it cannot be had any more: nothing is the same."""
    return b"" if request.images else identity(request)
