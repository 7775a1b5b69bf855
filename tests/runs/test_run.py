"""Runs: how they are read and how they end, and that nothing is held any longer."""

import asyncio
import errno
import os
from collections.abc import Awaitable
from typing import cast

import pytest

from app.catalog.fitting import Fitted
from app.errors import ApiError, Unavailable
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, Served
from app.gateway.account import Account
from app.runs.run import Run
from app.runs.state import State
from app.storage.spool import Spool, Uploads
from tests.drawings import PICTURE, Clock, all_of, are_closed, drawing, edit, paid, read, unpaid, wanted
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_all_readers_read_the_same_each_at_its_own_pace() -> None:
    more = asyncio.Event()
    drawn = drawing(*PICTURE[:3], more, *PICTURE[3:])
    drawn.run.start()
    slow = drawn.run.reader()
    first = [*await slow.read()]
    readers = [asyncio.create_task(read(drawn.run)) for _ in range(3)]
    await asyncio.sleep(0)
    more.set()
    assert await asyncio.gather(*readers, read(drawn.run)) == [list(PICTURE)] * 4
    assert drawn.run.has_ended
    assert drawn.observer.ends == ["run"]
    assert drawn.closed == ["drawing"]
    assert first + await all_of(slow) == list(PICTURE)
    drawn.run.forget()
    assert (drawn.meter.memory, drawn.meter.growing) == (0, 0)


async def test_a_reader_that_is_cancelled_disturbs_no_other() -> None:
    more = asyncio.Event()
    drawn = drawing(*PICTURE[:2], more, *PICTURE[2:])
    first, second = (asyncio.create_task(read(drawn.run)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    more.set()
    assert await second == list(PICTURE)
    drawn.run.forget()


async def test_it_is_drawn_to_its_end_though_nobody_reads_and_settled_then() -> None:
    settled: list[State] = []

    async def settle() -> None:
        settled.append(drawn.run.state)

    drawn = drawing(*PICTURE)
    drawn.run.when_over = settle
    drawn.run.start()
    await asyncio.gather(drawn.run.wait_until_over(), drawn.run.wait_until_over())
    assert settled == [State.FINISHED]
    assert drawn.observer.ends == ["run"]
    drawn.run.forget()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_a_full_disk_does_not_keep_it_from_finishing(number: int) -> None:
    class Full(Spool):
        def write(self, data: object) -> None:
            raise OSError(number, os.strerror(number))

    drawn = drawing(*PICTURE, spool=lambda: Full(0))
    assert await read(drawn.run) == list(PICTURE)
    drawn.run.forget()
    drawn = drawing(ImageData(b"a" * 100), spool=lambda: Full(0))
    drawn.meter.memory_limit = 10
    with pytest.raises(Unavailable, match="no room") as caught:
        await read(drawn.run)
    assert (caught.value.should_retry, caught.value.perhaps_paid) == (False, True)
    assert drawn.closed == ["drawing"]
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
    assert drawn.closed == ["drawing"]
    drawn.run.forget()


async def test_who_comes_back_for_a_broken_drawing_is_told_at_once_but_reads_the_images_of_a_stream() -> None:
    whole: tuple[Event, ...] = (*PICTURE, ImageBegins(1), ImageData(b"half"))
    for stream, n, read_first in [(False, 2, 0), (True, 1, 0), (True, 2, len(whole))]:
        drawn = drawing(*whole, paid(), request=wanted(stream=stream, n=n))
        drawn.run.start()
        await drawn.run.wait_until_over()
        found = list[Event]()
        with pytest.raises(ApiError, match="cut"):
            reader = drawn.run.reader()
            while events := await reader.read():
                found += events
        assert len(found) == read_first
        drawn.run.forget()


@pytest.mark.parametrize("has_begun", [False, True])
async def test_it_can_be_ended_from_outside(has_begun: bool) -> None:
    drawn = drawing(*PICTURE[:2], asyncio.Event())
    run = drawn.run
    reader = asyncio.create_task(read(run))
    await asyncio.sleep(0.01 if has_begun else 0)
    run.abort(Unavailable("going down"))
    run.abort(Unavailable("only the first counts"))
    await asyncio.wait_for(run.wait_until_over(), PATIENCE)
    assert drawn.closed == (["drawing"] if has_begun else [])
    with pytest.raises(Unavailable, match="going down"):
        await reader
    assert str(await _error_of(run)) == "going down"
    run.forget()
    assert (drawn.meter.memory, drawn.meter.growing) == (0, 0)


async def test_a_run_that_has_all_its_images_is_whole_though_it_is_ended_from_outside() -> None:
    """As while the rest of a provider's answer is waited for."""
    drawn = drawing(*PICTURE, Done(), asyncio.Event())
    drawn.run.start()
    await asyncio.sleep(0.01)
    drawn.run.abort(Unavailable("going down"))
    await drawn.run.wait_until_over()
    assert drawn.run.state is State.FINISHED
    assert await read(drawn.run) == [*PICTURE, Done()]
    drawn.run.forget()


async def _error_of(run: Run) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await read(run)
    return caught.value


async def test_work_that_is_cancelled_by_others_ends_it_as_perhaps_paid() -> None:
    drawn = drawing(PICTURE[0], asyncio.CancelledError())
    assert (await _error_of(drawn.run)).perhaps_paid
    assert drawn.closed == ["drawing"]
    drawn.run.forget()


async def test_a_run_that_nobody_waits_for_can_be_abandoned() -> None:
    drawn = drawing(*PICTURE[:2], asyncio.Event())
    drawn.run.start()
    await asyncio.sleep(0)
    drawn.run.abandon()
    await drawn.run.wait_until_over()
    assert drawn.closed == ["drawing"]
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
    assert list(image.events()) == [Served("p", "m", 1), ImageBegins(0), ImageData(b"aGVsbG8="), ImageEnds()]
    drawn.run.forget()
    assert (drawn.meter.memory, drawn.meter.growing) == (0, 0)
    drawn = drawing(*PICTURE, request=wanted(n=2))
    drawn.run.call.drawn.recordings[0] = drawn.run.recording.fresh()
    await read(drawn.run)
    assert not drawn.run.call.drawn.recordings
    drawn.run.forget()
    assert drawn.meter.growing == 0


class SlowBook:
    """An account whose book takes a moment to write something down."""

    drawing_id, held, cost = "drawing", 0, 0

    def __init__(self) -> None:
        self.settled: list[ApiError | None] = []
        self.given_back = 0
        self.asked, self.written = asyncio.Event(), asyncio.Event()

    async def sent(self, fitted: Fitted) -> None:
        raise NotImplementedError

    async def settle(self, error: ApiError | None) -> None:
        if not self.settled:
            self.settled.append(error)
            self.asked.set()
            await self.written.wait()

    def hand_on(self) -> None:
        raise NotImplementedError

    def give_back(self) -> Awaitable[None]:
        self.given_back += 1
        return asyncio.ensure_future(asyncio.sleep(0))


@pytest.mark.parametrize(("sent", "given_back"), [(False, 1), (True, 0)])
async def test_a_run_that_is_ended_before_its_work_begins_costs_nothing_unless_an_earlier_process_sent_it(
    sent: bool, given_back: int
) -> None:
    drawn, book = drawing(*PICTURE, sent=sent), SlowBook()
    drawn.run.call.account = cast("Account", book)
    drawn.run.start()
    drawn.run.abort(Unavailable("the caller left"))
    await asyncio.wait_for(drawn.run.wait_until_over(), 1)
    assert (book.given_back, book.settled) == (given_back, [])
    drawn.run.forget()


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_run_that_is_ended_from_outside_while_the_book_is_written_ends_as_the_book_says(crashed: bool) -> None:
    refusal = Unavailable("nothing was drawn")
    drawn, book = drawing(ValueError("a bug") if crashed else refusal, sent=False), SlowBook()
    drawn.run.call.account = cast("Account", book)
    drawn.run.start()
    await asyncio.wait_for(book.asked.wait(), PATIENCE)
    drawn.run.abort(Unavailable("the caller left"))
    await asyncio.sleep(0)
    book.written.set()
    await asyncio.wait_for(drawn.run.wait_until_over(), PATIENCE)
    assert drawn.run.has_ended
    assert "the caller left" not in str(await _error_of(drawn.run))
    assert (len(book.settled), drawn.observer.ends) == (1, ["run"])
    drawn.run.forget()


async def test_a_run_whose_images_are_booked_has_them_though_it_is_ended_from_outside_meanwhile() -> None:
    drawn, book = drawing(*PICTURE, Done(), asyncio.Event()), SlowBook()
    drawn.run.call.account = cast("Account", book)
    drawn.run.start()
    await asyncio.wait_for(book.asked.wait(), PATIENCE)
    drawn.run.abort(Unavailable("going down"))
    await asyncio.sleep(0)
    book.written.set()
    await asyncio.wait_for(drawn.run.wait_until_over(), PATIENCE)
    assert (drawn.run.state, book.settled) == (State.FINISHED, [None])
    assert await read(drawn.run) == [*PICTURE, Done()]
    drawn.run.forget()
