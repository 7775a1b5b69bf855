"""Several images of one call: parts side by side, nothing that was drawn is drawn again."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, Served, Sink
from app.gateway.fanout import Draw, FinishedImages, draw_in_a_row, draw_together, missing_parts
from app.storage.recording import Meter, Recording
from app.storage.spool import Spool
from tests.drawings import into, play

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Workers:
    """Draws image `i` as `data(i)`. Calls are noted; `fails` tells what becomes of the part that begins at an index."""

    def __init__(self, *, partials: int = 0, most: int = 10) -> None:
        self.meter = Meter(1 << 30)
        self.calls: list[tuple[int, int]] = []
        self.fails: dict[int, BaseException] = {}
        self.waits: dict[int, asyncio.Event] = {}
        self.closed = 0
        self._partials = partials
        self._most = most

    def recording(self) -> Recording:
        return Recording(lambda: Spool(0), self.meter, 1 << 20)

    async def draw(self, first: int, count: int, sink: Sink) -> None:
        self.calls.append((first, count))
        try:
            await asyncio.sleep(0)
            if first in self.waits:
                await self.waits[first].wait()
            await sink(Served("p", "m", 1))
            for index in range(min(count, self._most)):
                if first + index in self.fails:
                    raise self.fails[first + index]
                for partial in range(self._partials):
                    await play([ImageBegins(index, partial), ImageData(b"part"), ImageEnds()], sink)
                whole: list[Event] = [ImageBegins(index), ImageData(data(first + index)), ImageEnds(seed=first + index)]
                await play(whole, sink)
            await sink(Done({"total_tokens": count}))
        finally:
            self.closed += 1

    async def together(
        self,
        n: int,
        at_a_time: int,
        drawn: FinishedImages,
        *,
        at_once: int = 10,
        stream: bool = False,
        sink: Sink | None = None,
    ) -> list[Event]:
        """Return the events. `sink` gets each of them, too."""
        events: list[Event] = []
        await draw_together(
            n, at_a_time, self.draw, into(events, sink), self.recording, drawn, at_once=at_once, as_they_land=stream
        )
        return events


def data(index: int) -> bytes:
    return f"image-{index}".encode()


def unpaid() -> ApiError:
    return ApiError("busy", status=503)


def paid() -> ApiError:
    return ApiError("cut", status=502, should_retry=False, perhaps_paid=True)


def images(events: list[Event]) -> dict[int, bytes]:
    """The finished images by index, each of which is in one piece with nothing between."""
    found: dict[int, bytes] = {}
    begun: ImageBegins | None = None
    for event in events:
        if isinstance(event, ImageBegins):
            assert begun is None, "images interleave"
            begun = event
            if event.partial is None:
                assert event.index not in found
                found[event.index] = b""
        elif isinstance(event, ImageData):
            assert begun is not None
            if begun.partial is None:
                found[begun.index] += event.base64
        elif isinstance(event, ImageEnds):
            begun = None
    return found


async def in_a_row(n: int, draw: Draw) -> list[Event]:
    events: list[Event] = []
    await draw_in_a_row(n, draw, into(events))
    return events


def appending(recording: Recording) -> Sink:
    async def push(event: Event) -> None:
        recording.append(event)

    return push


def expected(n: int) -> dict[int, bytes]:
    return {index: data(index) for index in range(n)}


@given(n=st.integers(1, 10), at_a_time=st.integers(1, 10), have=st.sets(st.integers(0, 9)))
def test_parts_are_the_missing_images_in_rows_that_are_not_too_long(n: int, at_a_time: int, have: set[int]) -> None:
    found = missing_parts(n, at_a_time, have)
    assert [index for first, count in found for index in range(first, first + count)] == [
        index for index in range(n) if index not in have
    ]
    assert all(0 < count <= at_a_time for _, count in found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at_a_time", [1, 2, 4])
async def test_all_images_come_and_none_interleave(stream: bool, at_a_time: int) -> None:
    workers, drawn = Workers(partials=2 if stream else 0), FinishedImages()
    events = await workers.together(4, at_a_time, drawn, stream=stream)
    assert images(events) == expected(4)
    assert events[-1] == Done({"total_tokens": 4})
    if not stream:
        assert list(images(events)) == [0, 1, 2, 3]
        assert [event for event in events if isinstance(event, Served)] == [Served("p", "m", 4 // at_a_time)]
    drawn.close()
    assert (workers.meter.memory, workers.meter.growing) == (0, 0)


async def test_an_upstream_that_gives_fewer_than_asked_is_asked_for_the_rest() -> None:
    workers, drawn = Workers(most=1), FinishedImages()
    assert images(await workers.together(5, 3, drawn)) == expected(5)
    assert workers.calls == [(0, 3), (3, 2), (1, 2), (4, 1), (2, 1)]
    drawn.close()
    workers = Workers(most=2)
    assert images(await in_a_row(5, workers.draw)) == expected(5)
    assert workers.calls == [(0, 5), (2, 3), (4, 1)]


async def test_an_upstream_that_gives_none_may_have_been_paid() -> None:
    with pytest.raises(ApiError, match="without an image") as first:
        await in_a_row(2, Workers(most=0).draw)
    with pytest.raises(ApiError, match="without an image") as second:
        await Workers(most=0).together(2, 1, FinishedImages())
    for error in (first.value, second.value):
        assert (error.status, error.should_retry, error.perhaps_paid) == (502, False, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_part_that_fails_lets_the_others_end_and_only_the_missing_is_drawn_again(stream: bool) -> None:
    workers, drawn = Workers(), FinishedImages()
    workers.fails[1] = unpaid()
    with pytest.raises(ApiError, match="busy"):
        await workers.together(4, 1, drawn, stream=stream)
    assert sorted(drawn.recordings) == [0, 2, 3]
    workers.fails.clear()
    workers.calls.clear()
    assert images(await workers.together(4, 1, drawn, stream=stream)) == expected(4)
    assert workers.calls == [(1, 1)]
    drawn.close()
    assert (workers.meter.memory, workers.meter.growing) == (0, 0)


async def test_as_many_parts_are_drawn_side_by_side_as_there_are_places() -> None:
    workers, drawn = Workers(), FinishedImages()
    workers.waits = {index: asyncio.Event() for index in range(5)}
    whole = asyncio.create_task(workers.together(5, 1, drawn, at_once=2))
    for index in range(5):
        while len(workers.calls) < min(5, index + 2):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert len(workers.calls) - workers.closed <= 2
        workers.waits[index].set()
    assert images(await whole) == expected(5)


async def test_when_a_part_has_failed_no_other_is_begun() -> None:
    workers, drawn = Workers(), FinishedImages()
    workers.fails[1] = unpaid()
    with pytest.raises(ApiError, match="busy"):
        await workers.together(4, 1, drawn, at_once=1)
    assert workers.calls == [(0, 1), (1, 1)]
    assert sorted(drawn.recordings) == [0]
    drawn.close()


@pytest.mark.parametrize("order", [(0, 3), (3, 0)])
async def test_a_failure_that_may_have_been_paid_is_raised_before_one_that_was_not(order: tuple[int, int]) -> None:
    workers, drawn = Workers(), FinishedImages()
    workers.fails = {order[0]: unpaid(), order[1]: paid()}
    with pytest.raises(ApiError, match="cut"):
        await workers.together(4, 1, drawn)
    drawn.close()


async def test_an_image_that_lands_is_not_held_up_by_one_that_does_not() -> None:
    workers, drawn = Workers(), FinishedImages()
    workers.waits[0] = asyncio.Event()
    landed = asyncio.Event()

    async def push(event: Event) -> None:
        if event == ImageEnds(seed=1):
            landed.set()

    work = asyncio.create_task(workers.together(2, 1, drawn, stream=True, sink=push))
    await landed.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert workers.closed == 2  # also the one that was waiting
    drawn.close()
    assert (workers.meter.memory, workers.meter.growing) == (0, 0)


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("failure", [None, unpaid])
async def test_work_that_is_given_up_leaves_nothing_behind(after: int, failure: Callable[[], ApiError] | None) -> None:
    workers, drawn = Workers(partials=1), FinishedImages()
    if failure:
        workers.fails[2] = failure()
    tasks = len(asyncio.all_tasks())
    told: list[Event] = []

    async def push(event: Event) -> None:
        told.append(event)
        if len(told) > after:
            raise asyncio.CancelledError

    with pytest.raises((asyncio.CancelledError, ApiError)):
        await workers.together(3, 1, drawn, stream=True, sink=push)
    assert len(asyncio.all_tasks()) == tasks
    drawn.close()
    assert (workers.meter.memory, workers.meter.growing) == (0, 0)


async def test_the_whole_images_of_a_drawing_in_a_row_that_broke_off_can_be_kept() -> None:
    workers, drawn, passed = Workers(most=1), FinishedImages(), None
    workers.fails[2] = unpaid()
    passed = workers.recording()
    with pytest.raises(ApiError, match="busy"):
        await draw_in_a_row(4, workers.draw, appending(passed))
    passed.append(ImageBegins(2))
    passed.append(ImageData(b"half"))
    passed.spill()
    drawn.keep(passed)
    passed.close()
    assert sorted(drawn.recordings) == [0, 1]
    workers.fails.clear()
    workers.calls.clear()
    assert images(await workers.together(4, 1, drawn)) == expected(4)
    assert workers.calls == [(2, 1), (3, 1)]
    drawn.close()
    assert (workers.meter.memory, workers.meter.disk, workers.meter.growing) == (0, 0, 0)


async def test_an_image_that_comes_twice_counts_once() -> None:
    async def confused(first: int, count: int, sink: Sink) -> None:
        for _ in range(count):
            await play([ImageBegins(0), ImageData(data(first)), ImageEnds()], sink)
        await sink(Done())

    workers, drawn, events = Workers(), FinishedImages(), list[Event]()
    await draw_together(3, 3, confused, into(events), workers.recording, drawn, at_once=3, as_they_land=True)
    assert images(events) == expected(3)
    drawn.close()
    assert (workers.meter.memory, workers.meter.growing) == (0, 0)
