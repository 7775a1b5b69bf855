"""Several images where an upstream draws fewer at a time: draw parts side by side, give one answer. Knows no provider:
`draw` draws a part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from app.dialects.usage import add_up
from app.errors import ApiError, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, Served, Sink
from app.gateway.splitter import ImageSplitter
from app.storage.recording import Recording

Draw = Callable[[int, int, Sink], Awaitable[None]]  # first index, how many, where its events go


@dataclass(slots=True)
class FinishedImages:
    """The whole images of a call so far, by index. They outlive a failed call, so that a retry draws only the missing
    ones."""

    recordings: dict[int, Recording] = field(default_factory=dict)
    served: dict[int, Served] = field(default_factory=dict)  # by the first index of the part
    usages: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        return sum(served.attempts for served in self.served.values())

    def note(self, done: Done) -> None:
        self.facts.update(done.facts)
        if done.usage:
            self.usages.append(dict(done.usage))

    def done(self) -> Done:
        return Done(add_up(self.usages) or None, self.facts)

    def summary(self) -> Served:
        """Return the first part's provider, with the attempts of all parts and all that was dropped or mapped."""
        parts = [self.served[first] for first in sorted(self.served)]
        dropped = dict.fromkeys(name for served in parts for name in served.dropped)
        mapped = dict.fromkeys(name for served in parts for name in served.mapped)
        return replace(parts[0], attempts=self.attempts, dropped=tuple(dropped), mapped=tuple(mapped))

    def keep(self, recording: Recording) -> None:
        """Copy the whole images of a drawing that broke off between two of them. Raises OSError."""
        with closing(ImageSplitter(recording.fresh)) as images:
            for event in recording.events():
                if isinstance(event, Served):
                    self.served[0] = event  # with all attempts so far
                elif image := images.push(event):
                    if isinstance(event, ImageBegins) and self.served:
                        image.append(self.served[0])
                    image.append(event)
                    if isinstance(event, ImageEnds) and images.begins.partial is None:
                        image.end()
                        self.recordings[images.begins.index] = image
                        images.release()

    def close(self) -> None:
        while self.recordings:
            self.recordings.popitem()[1].close()


def missing_parts(n: int, at_a_time: int, have: Iterable[int] = ()) -> list[tuple[int, int]]:
    """Return the missing ones of `n` images as (first index, how many), each at most `at_a_time` in a row."""
    missing = [index for index in range(n) if index not in set(have)]
    found: list[tuple[int, int]] = []
    for index in missing:
        if found and sum(found[-1]) == index and found[-1][1] < at_a_time:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((index, 1))
    return found


async def draw_in_a_row(n: int, draw: Draw, sink: Sink) -> None:
    """Push all of `n` images as they come. Draws the rest if an answer holds fewer than asked. Raises ApiError."""
    drawn, got, sent = FinishedImages(), 0, 0
    while got < n:
        first, before = got, sent

        async def push(event: Event, first: int = first, before: int = before) -> None:
            nonlocal got, sent
            if type(event) is ImageData:  # nearly every byte's path
                await sink(event)
                return
            if isinstance(event, ImageBegins):
                event = replace(event, index=first + event.index)
                got += event.partial is None
            elif isinstance(event, Served):
                sent = before + event.attempts
                event = replace(event, attempts=sent)
            elif isinstance(event, Done):
                drawn.note(event)
                return
            await sink(event)

        await draw(first, n - first, push)
        if got == first:
            raise _no_image()
    await sink(drawn.done())


async def draw_together(
    n: int,
    at_a_time: int,
    draw: Draw,
    sink: Sink,
    new: Callable[[], Recording],
    drawn: FinishedImages,
    *,
    at_once: int,
    as_they_land: bool,
) -> None:
    """Push all of `n` images. Raises ApiError.

    They are pushed in order once all are there, so that a failure is a clean one. With `as_they_land`, each whole image
    is pushed as it lands, and partial images too. `at_once` parts are drawn side by side: more would wait in a queue,
    and could time out there when the first are paid for.
    """
    parts = _Parts(n, at_a_time, draw, new, drawn, asyncio.Semaphore(at_once), sink if as_they_land else None)
    if as_they_land:
        for earlier in list(drawn.recordings.values()):
            await parts.land(earlier)
    await parts.draw_all()
    if not as_they_land:
        await sink(drawn.summary())
        for index in range(n):
            for event in drawn.recordings[index].events():
                if not isinstance(event, Served):
                    await sink(event)
            await asyncio.sleep(0)  # no sink waits, and others have their turn
    await sink(drawn.done())


@dataclass(slots=True)
class _Parts:
    """The parts of one call, while they are drawn side by side. `sink` gets each image as it lands, if any."""

    n: int
    at_a_time: int
    draw: Draw
    new: Callable[[], Recording]
    drawn: FinishedImages
    turns: asyncio.Semaphore
    sink: Sink | None
    landing: asyncio.Lock = field(default_factory=asyncio.Lock)  # images do not mix
    has_failed: bool = False

    async def draw_all(self) -> None:
        while missing := missing_parts(self.n, self.at_a_time, self.drawn.recordings):
            await self._settle([asyncio.create_task(self._draw_in_turn(*part)) for part in missing])

    async def land(self, image: Recording) -> None:
        if self.sink is not None:
            async with self.landing:
                for event in image.events():
                    await self.sink(event)
                await asyncio.sleep(0)

    async def _settle(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for all parts, also when one fails: the others are paid for. Then raise the first failure that may have
        been paid for, or else the first of all. A cancellation cancels all parts, and waits for them, too."""
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        except asyncio.CancelledError:
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        if failures := [result for result in results if isinstance(result, BaseException)]:
            gravest = min(failures, key=lambda failure: isinstance(failure, ApiError) and not failure.perhaps_paid)
            if isinstance(gravest, ApiError):
                in_vain = sum(error.attempts for error in failures if isinstance(error, ApiError))
                gravest = gravest.alone()
                gravest.attempts = self.drawn.attempts + in_vain
            try:
                raise gravest
            finally:
                del gravest, failures, results  # they hold this frame, and frames with image data

    async def _draw_in_turn(self, first: int, count: int) -> None:
        async with self.turns:
            if not self.has_failed:  # a part that was not begun is not paid for
                try:
                    await self._draw_part(first, count)
                except BaseException:
                    self.has_failed = True
                    raise

    async def _draw_part(self, first: int, count: int) -> None:
        """Draw one part. Keeps its images one by one, as soon as each is whole."""
        drawn, has_image = self.drawn, False
        with closing(ImageSplitter(self.new)) as images:

            async def push(event: Event) -> None:
                nonlocal has_image
                if isinstance(event, Served):
                    drawn.served[first] = event
                elif isinstance(event, Done):
                    drawn.note(event)
                elif image := images.push(event):
                    index = first + images.begins.index
                    if index >= first + count or index in drawn.recordings:
                        return  # an image too many
                    if isinstance(event, ImageBegins):
                        event = replace(event, index=index)
                        if served := drawn.served.get(first):
                            image.append(replace(served, attempts=drawn.attempts))
                    image.append(event)
                    if isinstance(event, ImageEnds):
                        image.end()
                        if images.begins.partial is None:
                            drawn.recordings[index] = image
                            has_image = True
                            images.release()
                        await self.land(image)

            try:
                await self.draw(first, count, push)
            except ApiError:
                drawn.served.pop(first, None)  # the error counts its attempts
                raise
        if not has_image:
            raise _no_image()


def _no_image() -> ApiError:
    return UpstreamFailed("The provider answered without an image.", code="upstream_broken_answer").paid()
