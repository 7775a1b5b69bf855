"""Runs: who drives them, how they end, and that nothing is held any longer."""

import asyncio
import errno
import os
from contextlib import aclosing

import pytest

from app.errors import ApiError, Unavailable
from app.events import Event, ImageBegins, ImageData, ImageEnds, Served
from app.runs.run import Run
from app.runs.state import State
from app.storage.spool import Spool, Uploads
from tests.drawings import PICTURE, Clock, are_closed, drawing, edit, paid, read, unpaid, wanted

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_its_only_follower_drives_it_without_another_task() -> None:
    tasks: list[int] = []
    before = len(asyncio.all_tasks())
    drawn = drawing(*PICTURE, lambda: tasks.append(len(asyncio.all_tasks())))
    assert await read(drawn.run) == list(PICTURE)
    assert tasks == [before]
    assert drawn.run.has_ended
    assert drawn.observer.ends == ["run"]
    assert drawn.closed == ["events", "resources"]
    drawn.run.forget()
    assert (drawn.meter.memory, drawn.meter.growing) == (0, 0)


async def test_many_followers_read_the_same_and_one_of_them_drives() -> None:
    more = asyncio.Event()
    drawn = drawing(*PICTURE[:3], more, *PICTURE[3:])
    readers = [asyncio.create_task(read(drawn.run)) for _ in range(3)]
    await asyncio.sleep(0)
    assert [drawn.run.is_driven_by(reader) for reader in readers] == [True, False, False]
    more.set()
    assert await asyncio.gather(*readers, read(drawn.run)) == [list(PICTURE)] * 4
    drawn.run.forget()


async def test_when_the_one_who_drives_stops_reading_another_goes_on() -> None:
    more = asyncio.Event()
    drawn = drawing(*PICTURE[:2], more, *PICTURE[2:])
    async with aclosing(drawn.run.follow()) as slow:
        assert [await anext(slow), await anext(slow)] == list(PICTURE[:2])
        other = asyncio.create_task(read(drawn.run))
        await asyncio.sleep(0)
        assert drawn.run.is_driven_by(other)
        more.set()
        assert await other == list(PICTURE)
        assert [event async for event in slow] == list(PICTURE[2:])
    drawn.run.forget()


async def test_who_is_too_slow_is_left_behind_and_still_reads_it_all() -> None:
    done = asyncio.Event()

    async def then() -> None:
        done.set()

    drawn = drawing(*PICTURE)
    async with aclosing(drawn.run.follow()) as slow:
        first = await anext(slow)
        drawn.run.detach(then)
        drawn.run.detach(then)
        await asyncio.wait_for(done.wait(), 1)
        assert drawn.run.has_ended
        assert drawn.observer.ends == ["run"]
        assert drawn.closed == ["events", "resources"]
        assert [first, *[event async for event in slow]] == list(PICTURE)
    drawn.run.forget()
    assert (drawn.meter.memory, drawn.meter.disk, drawn.meter.growing) == (0, 0, 0)


async def test_what_was_left_behind_when_it_had_ended_is_settled_all_the_same() -> None:
    settled = asyncio.Event()

    async def then() -> None:
        settled.set()

    drawn = drawing(*PICTURE)
    await read(drawn.run)
    drawn.run.detach(then)
    await asyncio.wait_for(settled.wait(), 1)
    assert drawn.run.recording.on_disk == 0  # no need
    drawn.run.forget()


async def test_it_is_finished_without_anybody_who_reads() -> None:
    drawn = drawing(*PICTURE)
    await asyncio.gather(drawn.run.finish(), drawn.run.finish())
    assert drawn.run.has_ended
    assert drawn.observer.ends == ["run"]
    assert drawn.run.recording.on_disk == len(b"aGVsbG8=")
    drawn.run.forget()
    assert drawn.meter.disk == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_a_full_disk_does_not_keep_it_from_finishing(number: int) -> None:
    class Full(Spool):
        def write(self, data: object) -> None:
            raise OSError(number, os.strerror(number))

    drawn = drawing(*PICTURE, spool=lambda: Full(0))
    await asyncio.wait_for(drawn.run.finish(), 1)
    assert await read(drawn.run) == list(PICTURE)
    drawn.run.forget()
    drawn = drawing(ImageData(b"a" * 100), spool=lambda: Full(0))
    drawn.meter.memory_limit = 10
    with pytest.raises(Unavailable, match="no room") as caught:
        await read(drawn.run)
    assert (caught.value.should_retry, caught.value.perhaps_paid) == (False, True)
    assert drawn.closed == ["events", "resources"]
    assert [id for id, _ in drawn.observer.crashes] == ["run"]  # what is lost is told with its id
    drawn.run.forget()

    drawn = drawing(OSError(number, os.strerror(number)))
    with pytest.raises(Unavailable, match="no room"):
        await read(drawn.run)
    drawn.run.forget()


@pytest.mark.parametrize("sent", [False, True])
async def test_an_error_is_told_to_all_and_a_crash_may_have_been_paid(sent: bool) -> None:
    drawn = drawing(*PICTURE[:2], unpaid())
    for _ in range(2):
        with pytest.raises(ApiError, match="busy"):
            await read(drawn.run)
    assert drawn.run.state is State.FAILED
    drawn.run.forget()

    fault = KeyError("a fault of ours")
    drawn = drawing(*PICTURE[:2], fault, sent=sent)
    other = asyncio.create_task(read(drawn.run))
    for reading in (read(drawn.run), other):
        with pytest.raises(ApiError, match="The gateway failed") as caught:
            await reading
        assert (caught.value.should_retry, caught.value.perhaps_paid) == ((False, True) if sent else (None, False))
    assert drawn.observer.crashes == [("run", fault)]
    assert drawn.closed == ["events", "resources"]
    drawn.run.forget()


async def test_who_comes_back_for_a_broken_drawing_is_told_at_once_but_reads_the_images_of_a_stream() -> None:
    whole: tuple[Event, ...] = (*PICTURE, ImageBegins(1), ImageData(b"half"))
    for stream, n, read_first in [(False, 2, 0), (True, 1, 0), (True, 2, len(whole))]:
        drawn = drawing(*whole, paid(), request=wanted(stream=stream, n=n))
        await drawn.run.finish()
        found = []
        with pytest.raises(ApiError, match="cut"):
            async for event in drawn.run.follow():
                found.append(event)  # noqa: PERF401 (what came before the error counts)
        assert len(found) == read_first
        drawn.run.forget()


@pytest.mark.parametrize("driven", [False, True])
async def test_it_can_be_ended_from_outside_whoever_drives_it(driven: bool) -> None:
    never = asyncio.Event()
    drawn = drawing(*PICTURE[:2], never)
    run = drawn.run
    reader = asyncio.create_task(read(run) if driven else _first(run))
    other = asyncio.create_task(_error_of(run)) if driven else None
    await asyncio.sleep(0.01)
    run.abort(Unavailable("going down"))
    run.abort(Unavailable("only the first counts"))
    await asyncio.wait_for(run.wait_until_over(), 1)
    assert drawn.closed == (["events", "resources"] if driven else ["resources", "events"])
    if driven:
        with pytest.raises(Unavailable, match="going down"):
            await reader
        assert not reader.cancelled()
    assert str(await (other or _error_of(run))) == "going down"
    await asyncio.gather(reader, return_exceptions=True)
    run.forget()
    assert (drawn.meter.memory, drawn.meter.growing) == (0, 0)


async def _first(run: Run) -> Event:
    events = run.follow()
    async with aclosing(events):
        return await anext(events)


async def _error_of(run: Run) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await read(run)
    return caught.value


async def test_who_is_cancelled_while_it_drives_ends_it() -> None:
    drawn = drawing(PICTURE[0], asyncio.Event())
    reader = asyncio.create_task(read(drawn.run))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert drawn.closed == ["events", "resources"]
    assert (await _error_of(drawn.run)).perhaps_paid
    drawn.run.forget()


async def test_what_nobody_follows_any_more_is_ended_unless_it_drives_itself() -> None:
    drawn = drawing(*PICTURE)
    await _first(drawn.run)
    drawn.run.abandon()
    await drawn.run.wait_until_over()
    assert drawn.closed == ["resources", "events"]
    drawn.run.forget()

    more = asyncio.Event()
    drawn = drawing(*PICTURE[:2], more, *PICTURE[2:])
    drawn.run.detach(drawn.run.finish)
    await asyncio.sleep(0)
    drawn.run.abandon()
    more.set()
    await drawn.run.wait_until_over()
    assert await read(drawn.run) == list(PICTURE)
    drawn.run.forget()


@pytest.mark.parametrize(
    ("name", "delivered", "fingerprint", "closed"),
    [
        (None, False, None, False),
        (None, True, None, True),
        (None, False, b"known", True),
        ("k", True, None, False),
        ("k", True, b"known", True),
    ],
)
async def test_uploads_are_closed_when_the_request_is_known_without_them(
    name: str | None, delivered: bool, fingerprint: bytes | None, closed: bool
) -> None:
    uploads = Uploads()
    request = edit(uploads)
    drawn = drawing(*PICTURE, request=request, uploads=uploads, idempotency_key=name)
    run = drawn.run
    run.fingerprint = fingerprint
    run.release()
    assert not are_closed(request), "it has not ended"
    await read(run)
    if delivered:
        run.deliver()
    assert are_closed(request) is closed
    run.forget()
    assert are_closed(request)


@pytest.mark.parametrize("delivered", [True, False])
async def test_its_stored_files_are_held_until_it_was_delivered_or_is_forgotten(delivered: bool) -> None:
    drawn, given_back = drawing(*PICTURE), list[str]()
    run = drawn.run
    run.call.files.callback(given_back.append, "file")
    await read(run)
    run.release()
    assert given_back == []
    if delivered:
        run.deliver()
    assert given_back == (["file"] if delivered else [])
    run.forget()
    assert given_back == ["file"]


async def test_it_knows_when_it_ended() -> None:
    clock = Clock()
    drawn = drawing(*PICTURE, clock=clock)
    assert drawn.run.ended_at is None
    clock.now = 1234.0
    await read(drawn.run)
    assert drawn.run.ended_at == 1234.0
    drawn.run.forget()


async def test_whole_images_of_a_failure_that_was_not_paid_are_kept_and_those_of_a_success_are_not() -> None:
    second = (ImageBegins(1), ImageData(b"half"))
    drawn = drawing(*PICTURE, *second, unpaid(), request=wanted(n=2))
    await _error_of(drawn.run)
    [image] = drawn.run.call.drawn.recordings.values()
    assert [event async for event in image.follow()] == [
        Served("p", "m", 1),
        ImageBegins(0),
        ImageData(b"aGVsbG8="),
        ImageEnds(),
    ]
    drawn.run.forget()
    assert (drawn.meter.memory, drawn.meter.growing) == (0, 0)
    drawn = drawing(*PICTURE, request=wanted(n=2))
    drawn.run.call.drawn.recordings[0] = drawn.run.recording.fresh()
    await read(drawn.run)
    assert not drawn.run.call.drawn.recordings
    drawn.run.forget()
    assert drawn.meter.growing == 0
