"""What is kept, for whom and how long; and who is answered from it."""

import asyncio
import errno
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import ref

import pytest

from app.access.keyring import Key
from app.errors import Conflict, NotFound, Unavailable
from app.events import Event, ImageData
from app.gateway.call import SubmittedJob
from app.gateway.fanout import FinishedImages
from app.gateway.inputs import Preparation
from app.images import ImageRequest
from app.imaging.workers import Workers
from app.runs import entry as kept_runs
from app.runs import retention as module
from app.runs.entry import RunEntry
from app.runs.persistence import RunFiles
from app.runs.retention import Retention, Room
from app.runs.run import Run
from app.runs.run_file import SentNote, StoredRun
from app.runs.state import State
from app.storage.recording import Meter
from app.storage.spool import Spool, Uploads
from tests.drawings import (
    PICTURE,
    A,
    B,
    Clock,
    Drawing,
    all_of,
    are_closed,
    drawing,
    edit,
    finish,
    paid,
    read,
    unpaid,
    wanted,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio

MEGABYTE = 1_048_576


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Place(StoredRun):
    def __init__(self) -> None:
        self.rested = 0
        self.removed, self.has_name = False, True

    def rest(self) -> None:
        self.rested += 1

    def remove(self) -> None:
        self.removed, self.has_name = True, False


class Note(SentNote):
    def __init__(self, disk: asyncio.Event) -> None:
        self.removed = False
        self.jobs: list[SubmittedJob] = []
        self._disk = disk

    @property
    def has_jobs(self) -> bool:
        return bool(self.jobs)

    async def written(self) -> None:
        await self._disk.wait()

    async def add(self, job: SubmittedJob) -> None:
        self.jobs.append(job)

    def remove(self) -> None:
        self.removed = True


class Persistence(RunFiles):
    """`pause` is waited for while something is saved, `disk` until a note is written."""

    def __init__(self) -> None:
        self.saved: list[RunEntry] = []
        self.notes: list[Note] = []
        self.rows: dict[RunEntry, State] = {}
        self.pause: asyncio.Event | None = None
        self.disk = asyncio.Event()
        self.disk.set()

    def note(self, entry: RunEntry) -> Note:
        self.notes.append(Note(self.disk))
        return self.notes[-1]

    def register(self, entry: RunEntry) -> None:
        if entry.is_stored:
            self.rows[entry] = entry.run.state
        else:
            self.rows.pop(entry, None)

    async def save(self, entry: RunEntry) -> None:
        if self.pause:
            await self.pause.wait()
        if entry.file is None:
            self.saved.append(entry)
            entry.file = Place()


class House:
    """A retention and what it stands on."""

    def __init__(self, memory: int = 100 * MEGABYTE, disk: int = 100 * MEGABYTE, seconds: float = 600) -> None:
        self.clock, self.meter, self.persistence = Clock(), Meter(1 << 30), Persistence()
        self.count_free: Callable[[], int] = lambda: 1 << 40
        self.retention = Retention(
            Room(memory, disk, seconds), self.meter, self.persistence, self.clock, free=lambda: self.count_free()
        )

    def begin(self, *steps: Any, idempotency_key: str | None = None, **more: Any) -> tuple[RunEntry, Drawing]:
        drawn = drawing(
            *(steps or PICTURE), meter=self.meter, clock=self.clock, idempotency_key=idempotency_key, **more
        )
        return self.retention.begin(drawn.run), drawn

    async def ended(self, *steps: Any, delivered: bool = False, **more: Any) -> RunEntry:
        """Begin a run, and follow it to its end for one caller, which gets the answer or leaves."""
        entry, _ = self.begin(*steps, **more)
        await self.serve(entry, delivered=delivered)
        return entry

    async def serve(self, entry: RunEntry, *, delivered: bool) -> list[Event]:
        found = list[Event]()
        with suppress(Exception):
            async with self.retention.follow(entry, finish_on_disconnect=True) as follower:
                found += await all_of(entry.run.reader())
                if delivered:
                    follower.delivered()
        return found

    async def find(
        self,
        request: ImageRequest | None = None,
        key: Key = A,
        idempotency_key: str | None = None,
        *,
        retry: bool = False,
    ) -> RunEntry | None:
        return await self.retention.find(
            request or wanted(), key, idempotency_key=idempotency_key, is_retry=retry or idempotency_key is None
        )

    @property
    def entries(self) -> list[RunEntry]:
        return self.retention.entries()


@pytest.fixture
async def house() -> AsyncIterator[Callable[..., House]]:
    houses: list[House] = []

    def new(**room: Any) -> House:
        houses.append(House(**room))
        return houses[-1]

    yield new
    for each in houses:
        await each.retention.close()
        assert (each.meter.memory, each.meter.disk, each.meter.growing) == (0, 0, 0)


New = Callable[..., House]

# --- who comes back ---


@pytest.mark.parametrize("idempotency_key", [None, "k"])
async def test_a_retry_is_not_answered_with_the_error_of_a_run_that_is_just_given_up(
    house: New, idempotency_key: str | None
) -> None:
    home = house()
    entry, _ = home.begin(asyncio.Event(), sent=False, idempotency_key=idempotency_key)
    await asyncio.sleep(0)
    entry.run.abort(Unavailable("the caller left"))
    assert entry.run.is_given_up
    found = await home.find(idempotency_key=idempotency_key)
    assert found is None or found.run.may_be_drawn_afresh


async def test_a_retry_finds_the_newest_run_that_was_not_delivered(house: New) -> None:
    home = house()
    await home.ended(id="old")
    newer = await home.ended(id="newer")
    await home.ended(id="delivered", delivered=True)
    await home.ended(id="another", request=wanted("a hen"))
    await home.ended(id="another key's", key=B)
    assert await home.find() is newer
    assert await home.find(wanted("a cat")) is None
    assert await home.retention.find(wanted(), A, idempotency_key=None, is_retry=False) is None


async def test_a_run_whose_caller_is_gone_is_found_before_one_whose_caller_is_there(house: New) -> None:
    home = house()
    left, _ = home.begin(id="left")
    waited_for, _ = home.begin(id="waited for")
    waited_for.run.present = 1
    assert await home.find() is left
    left.joined = 1
    assert await home.find() is waited_for


async def test_each_run_is_found_by_one_at_a_time(house: New) -> None:
    home = house()
    entry = await home.ended()
    with home.retention.join(entry, "second"):
        assert await home.find() is None
    assert await home.find() is entry


async def test_uploads_that_are_the_same_are_found_and_others_are_not(house: New) -> None:
    home, uploads, mine = house(), Uploads(), Uploads()
    asked = edit(uploads, b"one")
    entry = await home.ended(request=asked, uploads=uploads)
    assert are_closed(asked)  # their fingerprint is enough
    with mine:
        assert await home.find(edit(mine, b"one")) is entry
        assert await home.find(edit(mine, b"two")) is None


async def test_an_idempotency_key_finds_its_run_also_after_delivery_and_while_it_is_drawn(house: New) -> None:
    home, mine = house(), Uploads()
    with mine:
        for delivered in (True, False):
            uploads, name = Uploads(), f"k{delivered}"
            request = edit(uploads)
            entry = await home.ended(request=request, uploads=uploads, idempotency_key=name, delivered=delivered)
            assert await home.find(edit(mine), idempotency_key=name) is entry
            assert are_closed(request)
        entry, _ = home.begin(idempotency_key="drawn")
        assert await home.find(idempotency_key="drawn") is entry
        assert await home.find(idempotency_key="drawn", key=B) is None


async def test_an_idempotency_key_under_another_request_is_a_conflict(house: New) -> None:
    home = house()
    await home.ended(idempotency_key="k")
    with pytest.raises(Conflict) as caught:
        await home.find(wanted("a hen"), idempotency_key="k")
    assert (caught.value.status, caught.value.should_retry) == (409, False)


async def test_a_run_that_is_forgotten_while_it_is_compared_is_not_found(
    house: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = house()
    await home.ended(idempotency_key="k")

    async def slow(run: Run, fingerprint: bytes | None) -> bool:
        home.clock.now += 1000
        home.retention.make_room()
        return True

    monkeypatch.setattr(Run, "is_for", slow)
    assert await home.find(idempotency_key="k") is None
    await home.ended()
    assert await home.find() is None


async def test_two_who_are_compared_at_once_do_not_lose_what_is_known(house: New) -> None:
    """Whoever is first closes the uploads under the second."""
    home, uploads, mine = house(), Uploads(), Uploads()
    request = edit(uploads, b"x" * 3_000_000)
    entry, _ = home.begin(request=request, uploads=uploads, idempotency_key="k")
    await read(entry.run)
    with mine:
        same = edit(mine, b"x" * 3_000_000)
        found = await asyncio.gather(*(home.find(same, idempotency_key="k") for _ in range(4)))
    assert found == [entry] * 4


async def test_a_run_has_the_names_of_all_who_were_answered_from_it(house: New) -> None:
    home = house()
    entry = await home.ended(id="first")
    for number in range(100):
        with home.retention.join(entry, f"again-{number}"):
            pass
    assert home.retention.get("first", A) is home.retention.get("again-0", A) is entry
    assert len(entry.ids) == module.NAMES
    for id, key in [("first", B), ("none", A)]:
        with pytest.raises(NotFound, match="Runs are kept for 600 seconds") as caught:
            home.retention.get(id, key)
        assert caught.value.code == "run_not_found"


async def test_of_two_runs_of_one_name_the_newer_is_given(house: New) -> None:
    home = house()
    await home.ended(id="x")
    newer = await home.ended(id="x")
    assert home.retention.get("x", A) is newer


# --- failures ---


async def test_what_failed_unpaid_is_forgotten_and_what_may_have_been_paid_is_not(house: New) -> None:
    home = house()
    await home.ended(unpaid())
    assert home.entries == []
    entry = await home.ended(paid())
    assert await home.find() is entry
    assert not entry.run.state.is_unpaid
    assert home.persistence.saved == [entry]


async def test_what_failed_unpaid_stays_while_somebody_is_being_told(house: New) -> None:
    home = house()
    entry, _ = home.begin(unpaid())
    entry.run.followers += 1
    await home.serve(entry, delivered=False)
    assert home.entries == [entry]
    await home.serve(entry, delivered=False)
    entry.run.followers -= 1
    await home.retention.settle(entry)
    assert home.entries == []


async def test_what_failed_unpaid_stays_where_an_older_failure_would_be_told_for_it(house: New) -> None:
    home = house()
    older = await home.ended(paid(), id="older")
    for number in range(3):
        await home.ended(unpaid(), id=f"refused {number}")
    newest = home.entries[-1]
    assert await home.find() is newest
    assert newest.run.state.is_unpaid
    await home.ended(unpaid(), id="of another model", request=replace(wanted(), model="other"))
    await home.ended(unpaid(), id="of another prompt", request=wanted("a hen"))
    await home.ended(unpaid(), id="keyed", idempotency_key="k")
    assert await home.find(idempotency_key="k", request=wanted("corrected")) is None
    assert home.entries == [older, newest]


async def test_of_what_is_known_by_its_identity_no_prompt_is_kept(house: New) -> None:
    home = house()
    entry = await home.ended(delivered=True, idempotency_key="k", request=wanted("a long prompt", n=2, stream=True))
    request = entry.run.call.request
    assert (request.prompt, request.n, request.stream) == (None, 2, True)
    assert await home.find(idempotency_key="k", request=wanted("a long prompt", n=2, stream=True)) is entry


async def test_of_what_was_delivered_no_long_text_is_kept_and_it_is_known_all_the_same(house: New) -> None:
    home = house()
    asked = replace(wanted("a long prompt" * 200), extra=(("x", b"[" + b"[]," * 300_000 + b"[]]"),))
    entry = await home.ended(delivered=True, request=asked)
    request = entry.run.call.request
    assert (request.prompt, request.extra) == (None, ())
    entry.run.break_delivery(10)
    assert await home.find(replace(asked, extra=()), retry=True) is None
    assert await home.find(asked, retry=True) is entry


async def test_of_a_delivered_edit_neither_the_long_text_nor_the_preparation_is_kept(house: New) -> None:
    home, uploads = house(), Uploads()
    asked = replace(edit(uploads), prompt="a long prompt" * 200)
    entry, drawn = home.begin(request=asked, uploads=uploads)
    drawn.run.call.preparation = Preparation(asked, uploads, Workers(lambda: Spool(0)))
    await home.serve(entry, delivered=True)
    assert (drawn.run.call.request.prompt, drawn.run.call.request.images) == (None, ())
    assert drawn.run.call.preparation is None
    entry.run.break_delivery(10)
    assert await home.find(drawn.run.call.request, retry=True) is None


async def test_what_failed_unpaid_with_images_hands_them_on_when_it_is_drawn_afresh(house: New) -> None:
    home = house()
    entry, _ = home.begin(unpaid(), request=wanted(n=2))
    image = entry.run.call.drawn.recordings[0] = entry.run.recording.fresh()
    image.append(ImageData(b"abcd"))
    image.end()
    await home.serve(entry, delivered=False)
    assert home.entries == [entry]
    assert home.persistence.saved == []  # an error that may be tried again needs no restart
    assert await home.find(wanted(n=2)) is entry
    assert entry.run.state.is_unpaid
    images: FinishedImages = entry.run.call.drawn
    home.retention.replace(entry)
    assert home.entries == []
    assert list(images.recordings[0].events()) == [ImageData(b"abcd")]
    images.close()


# --- slow callers ---


async def test_images_stay_in_memory_while_their_caller_only_pauses(
    house: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine, where the caller and the gateway wait for their turns."""
    monkeypatch.setattr(module, "SLOW_SECONDS", 600)
    home = house()
    entry, _ = home.begin()
    async with home.retention.follow(entry, finish_on_disconnect=True) as follower:
        await entry.run.wait_until_over()
        await asyncio.sleep(0.1)
        assert (home.persistence.saved, entry.run.recording.on_disk) == ([], 0)
        assert await all_of(entry.run.reader()) == list(PICTURE)
        follower.delivered()
    assert home.persistence.saved == []


async def test_the_images_of_a_slow_caller_are_stored_while_it_reads(
    house: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.01)
    home = house()
    entry, _ = home.begin()
    async with home.retention.follow(entry, finish_on_disconnect=True) as follower:
        await until(lambda: home.persistence.saved)
        assert await all_of(entry.run.reader()) == list(PICTURE)
        follower.delivered()


# --- room ---


async def test_what_was_delivered_is_forgotten_first_to_make_room_on_disk(house: New) -> None:
    home = house(disk=10)
    delivered, undelivered = home.begin(id="delivered")[0], home.begin(id="undelivered")[0]
    for entry in (delivered, undelivered):
        entry.run.recording.spill()
        await finish(entry.run)
        await home.serve(entry, delivered=entry is delivered)
    home.retention.make_room()
    assert home.entries == [undelivered]
    home.begin(id="one more")[0].run.recording.spill()
    await finish(home.entries[-1].run)
    with pytest.raises(Unavailable) as caught:
        home.retention.make_room()
    assert caught.value.code == "no_room"
    assert caught.value.retry_after == 30
    assert len(home.entries) == 2


async def test_when_too_many_runs_are_known_failed_ones_go_and_images_nobody_has_had_stay(
    house: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNS", 3)
    home = house()
    await home.ended(id="delivered", delivered=True)
    failed = [await home.ended(paid(), id=name) for name in ("failed first", "failed next")]
    home.retention.make_room()
    assert home.entries == failed
    undelivered = await home.ended(id="undelivered")
    home.retention.make_room()
    assert home.entries == [failed[1], undelivered]
    drawn, _ = home.begin(id="drawn")
    home.retention.make_room()
    assert home.entries == [undelivered, drawn]
    other = await home.ended(id="other")
    with pytest.raises(Unavailable) as caught:
        home.retention.make_room()
    assert caught.value.code == "no_room"
    assert home.entries == [undelivered, drawn, other]


async def test_what_was_delivered_is_forgotten_first_to_make_room_in_memory(house: New) -> None:
    home = house(memory=10)
    first, second = await home.ended(id="1", delivered=True), await home.ended(id="2", delivered=True)
    home.retention.make_room()
    assert home.entries == [second]
    assert first.run.recording.closed


async def test_little_room_is_left_for_what_was_delivered(house: New, monkeypatch: pytest.MonkeyPatch) -> None:
    home = house()
    for number in range(10):
        await home.ended(ImageData(b"a" * MEGABYTE), id=str(number), delivered=True)
    assert [entry.run.id for entry in home.entries] == ["6", "7", "8", "9"]
    monkeypatch.setattr(kept_runs, "DELIVERED_RUNS", 2)
    await home.ended(id="small", delivered=True)
    assert [entry.run.id for entry in home.entries] == ["9", "small"]


async def test_what_was_delivered_stays_for_its_idempotency_key_while_there_is_room(house: New) -> None:
    home = house()
    entry = [await home.ended(ImageData(b"a" * MEGABYTE), idempotency_key=str(n), delivered=True) for n in range(9)]
    assert home.entries == home.persistence.saved == entry
    assert home.persistence.rows == dict.fromkeys(entry, State.DELIVERED)
    for number, each in enumerate(entry):
        assert await home.find(idempotency_key=str(number)) is each
    assert await home.find() is None  # it was delivered


async def test_a_run_has_a_row_from_its_note_until_it_is_forgotten(house: New) -> None:
    home = house(seconds=60)
    rows = home.persistence.rows
    go = asyncio.Event()
    entry, _ = home.begin(go, *PICTURE, idempotency_key="k")
    assert entry.run.call.announce is not None
    await entry.run.call.announce()
    assert rows == {entry: State.SENT}
    go.set()
    await home.serve(entry, delivered=False)
    assert rows == {entry: State.FINISHED}
    await home.serve(entry, delivered=True)
    assert rows == {entry: State.DELIVERED}
    home.clock.now += 61
    with pytest.raises(NotFound):
        home.retention.get("run", A)
    assert rows == {}


async def test_a_run_that_failed_unpaid_or_was_delivered_at_once_leaves_no_row(house: New) -> None:
    home = house()
    failed, _ = home.begin(unpaid(), idempotency_key="k", sent=False)
    assert failed.run.call.announce is not None
    await failed.run.call.announce()
    await home.serve(failed, delivered=False)
    await home.ended(id="delivered", delivered=True)
    owed = await home.ended(id="left")
    assert home.persistence.rows == {owed: State.FINISHED}
    await home.serve(owed, delivered=True)
    assert home.persistence.rows == {}


async def test_what_an_earlier_process_has_delivered_makes_room_too(house: New) -> None:
    before = house()
    owed = await before.ended(id="owed", idempotency_key="a")
    had = await before.ended(id="had", idempotency_key="b", delivered=True)
    after = Retention(Room(1, 0, 600), before.meter, before.persistence, before.clock, [owed, had])
    for entry in (owed, had):
        entry.run.recording.spill()
    with pytest.raises(Unavailable):
        after.make_room()
    assert after.entries() == [owed]


async def test_what_was_delivered_and_has_an_idempotency_key_goes_when_the_disk_is_full(house: New) -> None:
    home = house()
    entry = [await home.ended(idempotency_key=str(number), delivered=True) for number in range(3)]
    free = iter((0, 0, 1 << 40))
    home.count_free = lambda: next(free)
    home.retention.make_room()
    assert home.entries == entry[2:]


async def test_few_files_stay_open_for_what_was_delivered(house: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_runs, "DELIVERED_FILES", 3)
    home = house()
    for number in range(6):
        entry, _ = home.begin(id=str(number))
        entry.run.recording.spill()
        await finish(entry.run)
        await home.serve(entry, delivered=True)
    assert [entry.run.id for entry in home.entries] == ["3", "4", "5"]


# --- time ---


async def test_runs_are_forgotten_in_time_but_not_while_they_are_read_or_drawn(house: New) -> None:
    home = house(seconds=60)
    await home.ended(id="old")
    read_now = await home.ended(id="read")
    drawn, _ = home.begin(id="drawn")
    read_now.run.followers += 1
    home.clock.now += 61
    home.retention.make_room()
    assert home.entries == [read_now, drawn]
    read_now.run.followers -= 1
    home.clock.now += 2
    home.retention.make_room()
    assert home.entries == [drawn]


async def test_what_nobody_asks_for_is_forgotten_all_the_same(house: New) -> None:
    home = house(seconds=0.05)
    entry = await home.ended()
    home.clock.now += 1
    await until(lambda: home.entries == [])
    assert isinstance(entry.file, Place) and entry.file.removed


# --- what outlives the process ---


async def test_what_ended_undelivered_is_saved_and_what_was_delivered_is_removed(house: New) -> None:
    home = house()
    entry = await home.ended()
    assert home.persistence.saved == [entry]
    assert isinstance(entry.file, Place)
    assert (entry.file.removed, entry.file.rested) == (False, 1)
    await home.serve(entry, delivered=True)
    assert entry.file.removed


async def test_what_is_delivered_while_it_is_saved_is_removed(house: New) -> None:
    home = house()
    home.persistence.pause = asyncio.Event()
    saving = asyncio.create_task(home.ended())
    await asyncio.sleep(0.01)
    [entry] = home.entries
    entry.run.present += 1
    await home.serve(entry, delivered=True)
    home.persistence.pause.set()
    await saving
    assert isinstance(entry.file, Place) and entry.file.removed


async def test_what_is_forgotten_while_it_is_saved_is_closed_afterwards(house: New) -> None:
    home = house()
    home.persistence.pause = asyncio.Event()
    saving = asyncio.create_task(home.ended())
    await asyncio.sleep(0.01)
    [entry] = home.entries
    home.retention.replace(entry)
    assert not entry.run.recording.closed
    home.persistence.pause.set()
    await saving
    assert entry.run.recording.closed
    assert isinstance(entry.file, Place) and entry.file.removed


async def test_at_the_end_what_is_drawn_is_ended_and_told_again_after_it(house: New) -> None:
    home = house()
    sent, sent_drawing = home.begin(PICTURE[0], asyncio.Event(), id="sent")
    queued, _ = home.begin(PICTURE[0], asyncio.Event(), id="queued", sent=False)
    ended = await home.ended(id="ended")
    followers = [asyncio.create_task(home.serve(entry, delivered=True)) for entry in (sent, queued)]
    await asyncio.sleep(0.01)
    await home.retention.close()
    await asyncio.gather(*followers)
    assert set(home.persistence.saved) == {ended, sent}
    assert sent.run.recording.error and queued.run.recording.error
    assert (sent.run.recording.error.perhaps_paid, sent.run.recording.error.should_retry) == (True, False)
    assert not queued.run.recording.error.perhaps_paid
    assert (sent.run.recording.error.attempts, queued.run.recording.error.attempts) == (1, 0)
    assert sent_drawing.closed == ["drawing"]
    assert home.entries == []


async def test_a_disk_that_is_full_keeps_nobody_from_being_answered(house: New) -> None:
    home = house()
    piece = ImageData(b"a" * MEGABYTE)

    def full() -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    entry, _ = home.begin(*[piece] * 5, idempotency_key="k", spool=full)
    assert len(await home.serve(entry, delivered=True)) == 5
    assert home.entries == [entry]


# --- what the next process is told, should this one be killed ---


async def test_nothing_leaves_before_it_is_written_down_and_all_attempts_share_one_note(house: New) -> None:
    home = house()
    entry, _ = home.begin(idempotency_key="k")
    home.persistence.disk.clear()
    announce = entry.run.call.announce
    assert announce is not None
    parts = [asyncio.ensure_future(announce()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(part.done() for part in parts)
    home.persistence.disk.set()
    await asyncio.gather(*parts)
    await announce()
    assert len(home.persistence.notes) == 1
    assert not home.persistence.notes[0].removed


async def test_what_no_caller_can_name_is_not_written_down(house: New) -> None:
    entry, _ = house().begin()
    assert entry.run.call.announce is None


async def test_a_note_goes_with_a_run_that_cost_nothing_or_is_forgotten(house: New) -> None:
    home = house()
    for steps in ((unpaid(),), PICTURE):
        entry, _ = home.begin(*steps, idempotency_key="k")
        assert entry.run.call.announce
        await entry.run.call.announce()
        [note] = home.persistence.notes
        await home.serve(entry, delivered=True)
        assert note.removed is (steps is not PICTURE)
        home.clock.now += 1000
        home.retention.make_room()
        assert note.removed
        home.persistence.notes.clear()


async def test_a_job_is_written_down_also_for_a_run_without_an_idempotency_key(house: New) -> None:
    home = house()
    entry, _ = home.begin()
    job = SubmittedJob("bfl/flux", 0, {"id": "1"})
    assert entry.run.call.remember is not None
    await entry.run.call.remember(job)
    [note] = home.persistence.notes
    assert note.jobs == [job]


async def test_a_run_with_a_job_is_left_to_the_next_process_when_the_gateway_goes_down(house: New) -> None:
    home = house()
    entry, _ = home.begin(PICTURE[0], asyncio.Event(), idempotency_key="k")
    assert entry.run.call.remember is not None
    await entry.run.call.remember(SubmittedJob("bfl/flux", 0, {"id": "1"}))
    follower = asyncio.create_task(home.serve(entry, delivered=True))
    await asyncio.sleep(0.01)
    home.retention.give_up(unpaid)  # the time for drawings is up, and then the process ends
    await home.retention.close()
    await follower
    [note] = home.persistence.notes
    assert (entry.run.recording.error is not None, home.persistence.saved, note.removed) == (True, [], False)


async def test_runs_that_are_taken_up_drive_themselves_to_their_end(house: New) -> None:
    home = house()
    drawn = drawing(*PICTURE, id="taken up", meter=home.meter, clock=home.clock)
    entry = RunEntry(drawn.run, ["taken up"])
    retention = Retention(Room(1 << 30, 1 << 30, 600), home.meter, home.persistence, home.clock, [entry])
    retention.take_up()
    await until(lambda: entry.file is not None)
    assert entry.run.state is State.FINISHED
    assert home.persistence.saved == [entry]
    await retention.close()


async def test_the_snapshot_counts_runs_by_state(house: New) -> None:
    home = house()
    home.begin(asyncio.Event(), id="sent")
    home.begin(asyncio.Event(), id="waiting", sent=False)
    await home.ended(id="delivered", delivered=True)
    await home.ended(id="finished")
    await home.ended(paid(), id="uncertain")
    found = home.retention.snapshot()
    assert found.states == {
        State.SENT: 1,
        State.WAITING: 1,
        State.DELIVERED: 1,
        State.FINISHED: 1,
        State.UNCERTAIN: 1,
    }
    assert (found.delivered, found.memory_bytes, found.disk_bytes) == (1, home.meter.memory, home.meter.disk)


async def test_a_run_that_is_forgotten_leaves_memory_at_once(house: New) -> None:
    home = house(seconds=1)
    found = ref((await home.ended(delivered=True)).run)
    await asyncio.sleep(0)
    home.clock.now += 10
    gc.disable()
    try:
        home.retention.make_room()
        assert (home.entries, found()) == ([], None)
    finally:
        gc.enable()
