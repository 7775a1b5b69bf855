"""An attempt: one deployment asked once for one or more images, in one exchange or several. Knows no provider, no HTTP
and no clock; reports to observers.

An attempt begins before its first byte leaves (`attempt_began`). It ends exactly once (`attempt_ended`), also by a
cancellation or a bug:

    UNDER_WAY ──┬─ nothing was sent ──────────────────────────▶ NOT_SENT    costs nothing; the next deployment may draw
                ├─ it says that nothing was drawn ────────────▶ FAILED      the next deployment may draw
                ├─ it refuses the request ────────────────────▶ REFUSED     passed on to the caller; no other is tried
                │
                ├─ first image data: the commit point (`first_image`)
                │    └─▶ committed: the held events go out, and no other attempt replaces this one
                │         ├─ the answer ends well ─────────────▶ DELIVERED
                │         └─ the answer breaks ───────────────▶ UNCERTAIN
                │
                ├─ the answer is lost, cut or garbled ────────▶ UNCERTAIN   perhaps drawn and paid for
                ├─ the work is given up (caller, shutdown) ───▶ CANCELLED   perhaps drawn, if an exchange was made
                └─ the gateway itself fails (no room, a bug) ─▶ CRASHED     perhaps drawn, if an exchange was made
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Protocol, Self

from app.catalog.deployments import Deployment
from app.catalog.fitting import Fitted
from app.errors import ApiError, Failure, UpstreamError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served, Sink
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
    """Observes each attempt. Methods must neither raise nor wait: they run between two bytes of an image."""

    def attempt_began(self, attempt: Attempt) -> None:
        """The attempt's first byte is about to leave."""
        ...

    def first_image(self, attempt: Attempt) -> None:
        """The attempt's first image data has come. Not called for an attempt that ends without any."""
        ...

    def attempt_ended(self, attempt: Attempt) -> None:
        """The attempt has its outcome. Its error still has its cause here, and loses it afterwards."""
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
    sink: Sink  # takes the events that may go out
    traceparent: str | None = None  # of its span, where traces are kept
    is_resumed: bool = False  # an earlier process began it: it takes up a job that was submitted
    began: float = 0.0
    first_image_at: float | None = None
    ended: float | None = None
    exchanges: int = 0  # that were made, or may have been; 0 at the end: nothing was sent
    images: int = 0  # whole ones
    usage: Mapping[str, Any] | None = None
    shown: list[Mapping[str, Any]] = field(default_factory=list)  # the facts of each whole image
    provider_request_id: str | None = None  # what the provider calls it: its job, or the first of its requests
    outcome: Outcome = Outcome.UNDER_WAY
    error: UpstreamError | ApiError | None = None
    _held: list[Event] = field(default_factory=list, init=False, repr=False)  # until the commit point
    _is_partial: bool = field(default=False, init=False)  # the image that is passing is a partial one
    _is_done: bool = field(default=False, init=False)  # all images have come

    @property
    def deployment(self) -> Deployment:
        return self.fitted.deployment

    @property
    def is_done(self) -> bool:
        """True if all that was asked for has come, even if the connection breaks afterwards."""
        return self._is_done

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the last whole image."""
        return self.shown[-1] if self.shown else {}

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

    async def push(self, event: Event) -> None:
        """Record an event and push it on. Events before the commit point are held until then."""
        if type(event) is ImageData and self.first_image_at is not None:  # nearly every byte's path
            await self.sink(event)
            return
        if type(event) is ImageBegins:
            self._is_partial = event.partial is not None
        elif type(event) is ImageEnds:
            if not self._is_partial:
                self.images += 1
                self.shown.append(event.facts)
        elif type(event) is Done:
            self._is_done, self.usage = True, event.usage
            self.shown = [{**event.facts, **facts} for facts in self.shown]
        if self.first_image_at is not None:
            await self.sink(event)
            return
        self._held.append(event)
        if type(event) is not ImageData and type(event) is not ImageLink:
            return
        self.first_image_at = self.clock()
        for observer in self.observers:
            observer.first_image(self)
        held, self._held = self._held, []
        for each in held:
            await self.sink(each)

    def _outcome(self, error: BaseException | None) -> Outcome:
        given_up = error is not None and not isinstance(error, Exception)  # CancelledError
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


def account_for(error: ApiError, attempts: Sequence[Attempt]) -> None:
    """Note in the error that ends the work on an image how many attempts were made for it, and whether one may have
    been paid for. Images that are drawn together share the number. A full queue's error gets it too."""
    error.attempts = len(attempts)
    if any(attempt.outcome is Outcome.UNCERTAIN for attempt in attempts):
        error.paid()
