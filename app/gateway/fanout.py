"""Several images where an upstream draws fewer at a time: parts drawn side by side, one answer. Knows no provider; a
part is whatever `draw` makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from app.dialects.usage import add_up
from app.errors import ApiError, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, Served
from app.storage.recording import Recording

Draw = Callable[[int, int], AsyncGenerator[Event, None]]  # first index, how many


@dataclass(slots=True)
class FinishedImages:
    """What has been drawn of a call so far: whole images by index. Outlives a failed call, so that only what is
    missing is drawn when it is asked for again."""

    recordings: dict[int, Recording] = field(default_factory=dict)
    served: dict[int, Served] = field(default_factory=dict)
    usages: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def close(self) -> None:
        while self.recordings:
            self.recordings.popitem()[1].close()

    def keep(self, recording: Recording) -> None:
        """The whole images of a drawing that broke off between two of them. Raises OSError."""
        served, image, begun = None, recording.fresh(), None
        try:
            for event in (event for index in range(recording.length) for event in recording.at(index)):
                if isinstance(event, Served):
                    served = self.served[0] = event  # with all attempts so far
                    continue
                if isinstance(event, ImageBegins):
                    image.close()
                    image, begun = recording.fresh(), event
                    if served:
                        image.append(served)
                image.append(event)
                if isinstance(event, ImageEnds) and begun and begun.partial is None:
                    image.end()
                    self.recordings[begun.index], image = image, recording.fresh()
        finally:
            image.close()


def parts(n: int, at_a_time: int, have: Iterable[int] = ()) -> list[tuple[int, int]]:
    """The missing ones of `n` images as (first index, how many), each at most `at_a_time` in a row."""
    missing = [index for index in range(n) if index not in set(have)]
    found: list[tuple[int, int]] = []
    for index in missing:
        if found and sum(found[-1]) == index and found[-1][1] < at_a_time:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((index, 1))
    return found


async def in_a_row(n: int, draw: Draw) -> AsyncGenerator[Event, None]:
    """All of `n` images, passed on while they come; if an answer holds fewer than asked, the rest is drawn after it."""
    drawn, got, sent = FinishedImages(), 0, 0
    while got < n:
        first, before = got, sent
        async with aclosing(draw(first, n - first)) as events:
            async for event in events:
                if type(event) is ImageData:  # nearly every byte's path
                    yield event
                    continue
                if isinstance(event, ImageBegins):
                    event = replace(event, index=first + event.index)
                    got += event.partial is None
                elif isinstance(event, Served):
                    sent = before + event.attempts
                    event = replace(event, attempts=sent)
                elif isinstance(event, Done):
                    _note(drawn, event)
                    continue
                yield event
        if got == first:
            raise _nothing()
    yield Done(add_up(drawn.usages) or None, drawn.facts)


async def together(
    n: int,
    at_a_time: int,
    draw: Draw,
    new: Callable[[], Recording],
    drawn: FinishedImages,
    *,
    at_once: int,
    as_they_land: bool,
) -> AsyncGenerator[Event, None]:
    """All of `n` images or an ApiError. In order and only when all are there, so that a failure is a clean one; or
    each as it lands (`as_they_land`), whole, and partial images with them. `at_once` parts are drawn side by side: more
    would only wait in a queue, whose time may be up when the first are paid for."""
    landed: asyncio.Queue[Recording | None] = asyncio.Queue()
    kept = list(drawn.recordings.values())
    async with _drawing(n, at_a_time, at_once, draw, new, drawn, landed) as work:
        if as_they_land:
            for image in kept:
                async for event in image.follow():
                    yield event
            while (recording := await landed.get()) is not None:
                try:
                    async for event in recording.follow():
                        yield event
                finally:
                    if recording not in drawn.recordings.values():
                        recording.close()  # a partial image: once is enough
        await work
    if not as_they_land:
        yield _summary(drawn)
        for index in range(n):
            async for event in drawn.recordings[index].follow():
                if not isinstance(event, Served):
                    yield event
    yield Done(add_up(drawn.usages) or None, drawn.facts)


@asynccontextmanager
async def _drawing(
    n: int,
    at_a_time: int,
    at_once: int,
    draw: Draw,
    new: Callable[[], Recording],
    drawn: FinishedImages,
    landed: asyncio.Queue[Any],
) -> AsyncIterator[asyncio.Task[None]]:
    places, failed = asyncio.Semaphore(at_once), asyncio.Event()

    async def in_turn(first: int, count: int) -> None:
        async with places:
            if failed.is_set():
                return  # what was not begun is not paid for
            try:
                await _part(first, count, draw, new, drawn, landed)
            except BaseException:
                failed.set()
                raise

    async def all_of_it() -> None:
        try:
            missing = parts(n, at_a_time, drawn.recordings)
            while missing:
                await _settled([asyncio.create_task(in_turn(first, count)) for first, count in missing], drawn)
                missing = parts(n, at_a_time, drawn.recordings)
        finally:
            landed.put_nowait(None)

    work = asyncio.create_task(all_of_it())
    try:
        yield work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        while not landed.empty():
            if (recording := landed.get_nowait()) and recording not in drawn.recordings.values():
                recording.close()


async def _settled(tasks: Sequence[asyncio.Task[None]], drawn: FinishedImages) -> None:
    """Waits for all, also when one fails: the others are paid for. Then raises the first failure; sooner than any
    other one after which nothing may be drawn again."""
    try:
        results = await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    if failures := [result for result in results if isinstance(result, BaseException)]:
        told = min(failures, key=lambda failure: isinstance(failure, ApiError) and not failure.perhaps_paid)
        sent = _attempts(drawn) + _in_vain(failures)
        if not isinstance(told, ApiError):
            raise told
        alone = told.alone()
        alone.attempts = sent
        raise alone


def _in_vain(failures: Iterable[BaseException]) -> int:
    """The requests that failed parts took."""
    return sum(error.attempts for error in failures if isinstance(error, ApiError))


async def _part(
    first: int, count: int, draw: Draw, new: Callable[[], Recording], drawn: FinishedImages, landed: asyncio.Queue[Any]
) -> None:
    """Draws one part. Its images are kept one by one, as soon as each is whole."""
    recording, served, begun, got = new(), None, ImageBegins(first), 0
    try:
        async with aclosing(draw(first, count)) as events:
            async for event in events:
                if isinstance(event, Served):
                    served = drawn.served[first] = event
                elif isinstance(event, Done):
                    _note(drawn, event)
                elif isinstance(event, ImageBegins):
                    begun = replace(event, index=first + event.index)
                    if recording.length:  # of an image too many
                        recording.close()
                        recording = new()
                    if served:
                        recording.append(replace(served, attempts=_attempts(drawn)))
                    recording.append(begun)
                elif begun.index < first + count and begun.index not in drawn.recordings:
                    recording.append(event)
                    if isinstance(event, ImageEnds):
                        recording.end()
                        if begun.partial is None:
                            drawn.recordings[begun.index] = recording
                            got += 1
                        landed.put_nowait(recording)
                        recording = new()
    except ApiError:
        drawn.served.pop(first, None)  # its attempts are told by the error
        raise
    finally:
        if not recording.ended:
            recording.close()
    if not got:
        raise _nothing()


def _nothing() -> ApiError:
    return UpstreamFailed(
        "The provider answered without an image.",
        code="upstream_broken_answer",
    ).paid()


def _note(drawn: FinishedImages, done: Done) -> None:
    drawn.facts.update(done.facts)
    if done.usage:
        drawn.usages.append(dict(done.usage))


def _attempts(drawn: FinishedImages) -> int:
    return sum(served.attempts for served in drawn.served.values())


def _summary(drawn: FinishedImages) -> Served:
    """One word for the whole call: the first part's provider, everybody's attempts, all that was dropped or mapped."""
    all_served = [drawn.served[first] for first in sorted(drawn.served)]
    dropped = dict.fromkeys(name for served in all_served for name in served.dropped)
    mapped = dict.fromkeys(name for served in all_served for name in served.mapped)
    return replace(all_served[0], attempts=_attempts(drawn), dropped=tuple(dropped), mapped=tuple(mapped))
