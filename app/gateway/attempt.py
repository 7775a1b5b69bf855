"""An attempt: one deployment asked once for one or more images, in one exchange or several. Knows no provider, no HTTP
and no clock; tells observers what becomes of it.

An attempt begins before its first byte leaves (`attempt_began`). It ends exactly once (`attempt_ended`), also by a
cancellation or a bug, and in any task:

    UNDER_WAY ──┬─ nothing was sent ──────────────────────────▶ NOT_SENT    costs nothing; the next deployment may draw
                ├─ it says that nothing was drawn ────────────▶ FAILED      the next deployment may draw
                ├─ it refuses the request ────────────────────▶ REFUSED     the caller is told, nothing else is tried
                │
                ├─ first image data: the commit point (`first_image`)
                │    └─▶ committed: what was held back is told, and the attempt is never abandoned for the next
                │         ├─ the answer ends well ─────────────▶ DELIVERED
                │         └─ the answer breaks ───────────────▶ UNCERTAIN
                │
                ├─ the answer is lost, cut or garbled ────────▶ UNCERTAIN   perhaps drawn and paid for
                ├─ the work is given up (caller, shutdown) ───▶ CANCELLED   perhaps drawn, if an exchange was made
                └─ the gateway itself fails (no room, a bug) ─▶ CRASHED     perhaps drawn, if an exchange was made
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Protocol, Self

from app.catalog.deployments import Deployment
from app.catalog.fitting import Fitted
from app.errors import ApiError, Failure, UpstreamError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.call import Call


class Outcome(Enum):
    """The module's docstring draws how an attempt gets to each of them."""

    UNDER_WAY = auto()
    DELIVERED = auto()
    NOT_SENT = auto()
    FAILED = auto()
    REFUSED = auto()
    UNCERTAIN = auto()
    CANCELLED = auto()
    CRASHED = auto()


class AttemptObserver(Protocol):
    """Hears of each attempt. Methods must neither raise nor wait: they run between two bytes of an image."""

    def attempt_began(self, attempt: Attempt) -> None:
        """Its first byte is about to leave."""
        ...

    def first_image(self, attempt: Attempt) -> None:
        """Its first image data has come. Not called for an attempt that ends without any."""
        ...

    def attempt_ended(self, attempt: Attempt) -> None:
        """It has its outcome. Its error still has its cause here, and loses it afterwards."""
        ...


@dataclass(slots=True, eq=False)
class Attempt:
    """A context manager: the attempt begins and ends with its block. Times are the clock's, in seconds."""

    call: Call
    fitted: Fitted
    first: int  # index of the first image that it is to draw
    number: int  # among the attempts for this image, from 1
    clock: Callable[[], float]
    observers: Sequence[AttemptObserver]
    is_resumed: bool = False  # an earlier process began it: it takes up a job that was submitted
    began: float = 0.0
    first_image_at: float | None = None
    ended: float | None = None
    exchanges: int = 0  # that were made, or may have been; 0 at the end: nothing was sent
    images: int = 0  # whole ones
    usage: Mapping[str, Any] | None = None
    outcome: Outcome = Outcome.UNDER_WAY
    error: UpstreamError | ApiError | None = None
    _held: list[Event] = field(default_factory=list, init=False, repr=False)  # until the commit point
    _is_partial: bool = field(default=False, init=False)  # the image that is passing is a partial one
    _is_done: bool = field(default=False, init=False)  # all images have come

    @property
    def deployment(self) -> Deployment:
        return self.fitted.deployment

    @property
    def is_committed(self) -> bool:
        return self.first_image_at is not None

    def __enter__(self) -> Self:
        self.began = self.clock()
        self.call.sent += 1
        provider, model = self.deployment.provider.name, self.deployment.model
        self._held.append(Served(provider, model, self.number, self.fitted.dropped, self.fitted.mapped))
        for observer in self.observers:
            observer.attempt_began(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = self.clock()
        self.outcome = self._outcome(error)
        if not self.exchanges:
            self.call.sent -= 1
        if isinstance(error, UpstreamError | ApiError):
            self.error = error
        for observer in self.observers:
            observer.attempt_ended(self)
        if self.error is not None:
            self.error = self.error.alone()  # the frames of the other one hold image data

    def take(self, event: Event) -> Sequence[Event]:
        """Note an event, and return the events that may be told now: none before the commit point."""
        if type(event) is ImageData and self.first_image_at is not None:  # nearly every byte's path
            return (event,)
        if type(event) is ImageBegins:
            self._is_partial = event.partial is not None
        elif type(event) is ImageEnds:
            self.images += not self._is_partial
        elif type(event) is Done:
            self._is_done, self.usage = True, event.usage
        if self.first_image_at is not None:
            return (event,)
        self._held.append(event)
        if type(event) is not ImageData and type(event) is not ImageLink:
            return ()
        self.first_image_at = self.clock()
        for observer in self.observers:
            observer.first_image(self)
        held, self._held = self._held, []
        return held

    def _outcome(self, error: BaseException | None) -> Outcome:
        given_up = error is not None and not isinstance(error, Exception)  # CancelledError, GeneratorExit
        if error is None or (given_up and self._is_done):
            return Outcome.DELIVERED
        if given_up:
            return Outcome.CANCELLED
        if not self.exchanges and isinstance(error, UpstreamError | ApiError):
            return Outcome.NOT_SENT
        if not isinstance(error, UpstreamError):
            return Outcome.CRASHED
        if self.is_committed or error.is_uncertain:
            return Outcome.UNCERTAIN
        return Outcome.REFUSED if error.failure is Failure.REFUSED else Outcome.FAILED


@contextmanager
def account_for(attempts: Sequence[Attempt]) -> Iterator[None]:
    """Note in an ApiError that ends the block, be it a full queue, how many attempts for the image (or for a few that
    are drawn together) were made, and whether one of them may have been paid for."""
    try:
        yield
    except ApiError as error:
        error.attempts = len(attempts)
        if any(attempt.outcome is Outcome.UNCERTAIN for attempt in attempts):
            error.paid()
        raise
