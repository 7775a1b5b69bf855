"""Runs whose drawing a test holds in its hands. Knows no provider and no HTTP."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.access.keyring import Key
from app.dialects import Exchange
from app.errors import ApiError
from app.events import Event, ImageBegins, ImageData, ImageEnds, Served, Sink
from app.gateway.call import Call
from app.gateway.inspection import Inspector
from app.images import ImageRequest, Operation, Upload
from app.runs.run import Run
from app.storage.recording import Meter, Reader, Recording
from app.storage.spool import Spool, Uploads

A, B = Key("a", "a"), Key("b", "b")
# What is drawn: an event, the end by an error, a moment to wait for, or what is done at that point.
Step = Event | BaseException | asyncio.Event | Callable[[], None]
PICTURE: tuple[Event, ...] = (Served("p", "m", 1), ImageBegins(0), ImageData(b"aGVsbG8="), ImageEnds())


class Clock:
    """Seconds, as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Observer:
    """Records the ends of runs, by their ids."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.crashes: list[tuple[str, Exception]] = []

    def run_ended(self, run: Run) -> None:
        self.ends.append(run.id)

    def run_crashed(self, run: Run, error: Exception) -> None:
        self.crashes.append((run.id, error))


@dataclass
class Drawing:
    """A run and the things that it holds."""

    run: Run
    meter: Meter
    uploads: Uploads
    observer: Observer
    closed: list[str]  # "drawing", once its work has ended


def wanted(prompt: str = "a fox", **fields: Any) -> ImageRequest:
    return ImageRequest(Operation.GENERATIONS, "flux", prompt, **fields)


def edit(uploads: Uploads, data: bytes = b"picture") -> ImageRequest:
    spool = uploads.spool(0)
    spool.write(data)
    return ImageRequest(Operation.EDITS, "flux", "a fox", images=(Upload(spool, "a.png", "image/png"),))


def drawing(
    *steps: Step,
    id: str = "run",
    idempotency_key: str | None = None,
    request: ImageRequest | None = None,
    key: Key = A,
    sent: bool = True,
    uploads: Uploads | None = None,
    clock: Callable[[], float] | None = None,
    meter: Meter | None = None,
    spool: Callable[[], Spool] = lambda: Spool(0),
) -> Drawing:
    meter, uploads = meter or Meter(1 << 30), uploads or Uploads()
    call = Call(request or wanted(), key, uploads, sent=sent, id=id)
    closed = list[str]()
    recording = Recording(spool, meter, 1 << 20)
    observer = Observer()
    run = Run(
        call,
        partial(_draw, steps, closed),
        recording,
        1_700_000_000,
        clock or Clock(),
        idempotency_key=idempotency_key,
        observers=(observer,),
    )
    return Drawing(run, meter, uploads, observer, closed)


async def _draw(steps: tuple[Step, ...], closed: list[str], sink: Sink) -> None:
    try:
        for step in steps:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, BaseException):
                raise step
            elif callable(step):
                step()
            else:
                await sink(step)
    finally:
        closed.append("drawing")


def into(events: list[Event], also: Sink | None = None) -> Sink:
    """Return a sink that collects what it is pushed. `also` gets it, too."""

    async def push(event: Event) -> None:
        events.append(event)
        if also is not None:
            await also(event)

    return push


async def play(events: Iterable[Event | BaseException], sink: Sink) -> None:
    """Push the events. An exception among them is raised."""
    for event in events:
        if isinstance(event, BaseException):
            raise event
        await sink(event)


def are_closed(request: ImageRequest) -> bool:
    """True if the pictures of the request cannot be read any more."""
    try:
        for picture in request.images:
            picture.blob.read(0, 1)
    except (ValueError, OSError):
        return True
    return False


def look(inspect: Inspector, events: Iterable[Event | Exchange]) -> list[Event]:
    """Return the events that are told."""
    looked = (each for event in events if not isinstance(event, Exchange)
              for each in (inspect.missing_before(event), inspect(event)))  # fmt: skip
    return [told for told in looked if told is not None]


async def read(run: Run) -> list[Event]:
    """Return all events. Starts a run that was not started."""
    run.start()
    return await all_of(run.reader())


async def finish(run: Run) -> None:
    """Wait for the end. Starts a run that was not started."""
    run.start()
    await run.wait_until_over()


async def all_of(reader: Reader) -> list[Event]:
    events: list[Event] = []
    while found := await reader.read():
        events += found
    return events


def unpaid() -> ApiError:
    return ApiError("busy", status=503)


def paid() -> ApiError:
    return ApiError("cut", status=502, should_retry=False, perhaps_paid=True)
