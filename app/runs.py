"""A run: the work of getting the images of one request, which does not belong to the connection that asked for it.

Whoever follows a run drives it; when its last follower falls behind or leaves, it drives itself. So a caller who keeps
up costs nothing more, and nothing that was paid for is lost with a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from app.errors import ApiError, Unavailable
from app.fanout import Drawn
from app.images import Event, ImageRequest
from app.keys import Key
from app.preparing import Preparation
from app.recording import Recording
from app.spool import Uploads
from app.stores import StoredFile


@dataclass(slots=True)
class Call:
    """One request, while it is worked on."""

    request: ImageRequest
    key: Key
    uploads: Uploads
    preparation: Preparation | None = None  # of the pictures that were sent; None: there is nothing to prepare
    link: Callable[[StoredFile], str] | None = None  # the address under which this caller can fetch a stored image
    drawn: Drawn = field(default_factory=Drawn)
    result: Literal["b64_json", "url"] = "b64_json"  # in which form the images leave
    sent: bool = False  # something has left for a provider: from now on it may cost money


class Run:
    """`events` are the call's; `resources` are given back when the run has ended, the uploads when nobody needs them
    to know the request again."""

    def __init__(
        self,
        id: str,
        call: Call,
        events: AsyncGenerator[Event, None],
        recording: Recording,
        resources: ExitStack,
        created: int,
        clock: Callable[[], float],
    ) -> None:
        self.id = id
        self.call = call
        self.created = created  # Unix time, seconds
        self.recording = recording
        self.ended_at: float | None = None  # the clock's time, seconds
        self.delivered = False
        self.followers = 0
        self.identity: bytes | None = None  # of the request, once somebody had to know
        self._clock = clock
        self._events = events
        self._resources = resources
        self._driver: asyncio.Task[None] | None = None
        self._driving: asyncio.Task[Any] | None = None
        self._abort: ApiError | None = None

    @property
    def ended(self) -> bool:
        return self.recording.ended

    async def follow(self) -> AsyncGenerator[Event, None]:
        """The events from the start. Raises the ApiError that ended the run."""
        index, recording, me = 0, self.recording, asyncio.current_task()
        while True:
            while index < recording.length:
                for event in recording.at(index):
                    yield event
                index += 1
            if recording.ended:
                if recording.error:
                    raise recording.error
                return
            if self._driving is not None:
                await recording.changed()
            else:
                await self._drive_once(me)

    async def finish(self) -> None:
        """Waits for the end, driving the run there if nobody else does. For a run that nobody reads any more."""
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
            await self.finish()
            await then()

        if self._driver is None and not self.recording.ended:
            self._driver = asyncio.create_task(drive())

    def abort(self, error: ApiError) -> None:
        """Ends the run with `error`, whoever drives it."""
        if self.ended:
            return
        if self.call.sent:
            error.should_retry, error.perhaps_paid = False, True
        if self._driving is None:
            self._end(error)
        else:
            self._abort = error
            self._driving.cancel()

    async def _drive_once(self, me: asyncio.Task[Any] | None) -> None:
        self._driving = me
        try:
            self.recording.append(await anext(self._events))
        except StopAsyncIteration:
            self._end(None)
        except ApiError as error:
            self._end(error)
        except OSError as error:
            await self._events.aclose()
            self._end(Unavailable(f"The gateway has no room for the images: {error.strerror}.", should_retry=False))
        except asyncio.CancelledError:
            if self._abort is None:
                self._end(Unavailable("The request was given up before it was sent to a provider."))
                raise
            self._end(self._abort)
            if me is not None:
                me.uncancel()
        except BaseException:
            self._end(ApiError("The gateway failed while the images were drawn.", code="internal_error"))
            raise
        finally:
            self._driving = None

    def release(self) -> None:
        """Closes the uploads as soon as they are not needed any more."""
        if self.ended and (self.delivered or self.identity is not None):
            self.call.uploads.close()

    def forget(self) -> None:
        """Closes all that is left of the run."""
        self.call.uploads.close()
        self.call.drawn.close()
        self.recording.close()

    def _end(self, error: ApiError | None) -> None:
        if not self.recording.ended:
            self.recording.end(error)
            self.ended_at = self._clock()
            self._resources.close()
            self.release()
