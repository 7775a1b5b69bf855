"""Runs whose drawing a test holds in its hands. Knows no provider and no HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from app.access.keys import Key
from app.errors import ApiError
from app.events import Event, ImageBegins, ImageData, ImageEnds, Served
from app.gateway.call import Call
from app.images import ImageRequest, Operation, Upload
from app.runs.run import Run
from app.storage.recording import Meter, Recording
from app.storage.spool import Spool, Uploads

A, B = Key("a", b""), Key("b", b"")
# What is drawn: an event, the end by an error, a moment to wait for, or what is done at that point.
Step = Event | BaseException | asyncio.Event | Callable[[], None]
PICTURE: tuple[Event, ...] = (Served("p", "m", 1), ImageBegins(0), ImageData(b"aGVsbG8="), ImageEnds())


class Clock:
    """Seconds, as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Drawing:
    """A run, and what has become of what it holds."""

    run: Run
    meter: Meter
    uploads: Uploads
    crashes: list[tuple[str, Exception]]
    closed: list[str] = field(default_factory=list)  # what was given back, in this order


def wanted(prompt: str = "a fox", **fields: Any) -> ImageRequest:
    return ImageRequest(Operation.GENERATIONS, "flux", prompt, **fields)


def edit(uploads: Uploads, data: bytes = b"picture") -> ImageRequest:
    spool = uploads.spool(0)
    spool.write(data)
    return ImageRequest(Operation.EDITS, "flux", "a fox", images=(Upload(spool, "a.png", "image/png"),))


def drawing(
    *steps: Step,
    id: str = "run",
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
    resources = ExitStack()
    recording = Recording(spool, meter, 1 << 20)
    events, crashes = _events(steps, lambda: drawn.closed), list[tuple[str, Exception]]()
    run = Run(
        id, call, events, recording, resources, 1_700_000_000, clock or Clock(), lambda *crash: crashes.append(crash)
    )
    drawn = Drawing(run, meter, uploads, crashes)
    resources.callback(drawn.closed.append, "resources")
    return drawn


async def _events(steps: tuple[Step, ...], closed: Callable[[], list[str]]) -> AsyncGenerator[Event, None]:
    try:
        for step in steps:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, BaseException):
                raise step
            elif callable(step):
                step()
            else:
                yield step
    finally:
        closed().append("events")


async def read(run: Run) -> list[Event]:
    return [event async for event in run.follow()]


def unpaid() -> ApiError:
    return ApiError("busy", status=503)


def paid() -> ApiError:
    return ApiError("cut", status=502, should_retry=False, perhaps_paid=True)
