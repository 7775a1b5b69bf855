"""Recordings: each reader, at any pace, reads all of it, in memory, on disk, or while it moves between them."""

import asyncio
import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds
from app.storage.recording import READ_BACK, Blobs, Meter, Reader, Recording, Span
from app.storage.spool import Spool
from tests.drawings import all_of

pytestmark = pytest.mark.anyio

MEGABYTE = 1_048_576


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def in_file() -> Spool:
    return Spool(0)


def recording(meter: Meter | None = None, spool: Callable[[], Blobs] = in_file, most: int = MEGABYTE) -> Recording:
    return Recording(spool, meter or Meter(100 * MEGABYTE), most)


class Disk:
    """Files that together hold `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.files: list[Disk.File] = []

    def new(self) -> "Disk.File":
        self.files.append(Disk.File(self))
        return self.files[-1]

    class File:
        def __init__(self, disk: "Disk") -> None:
            self._disk = disk
            self._data = b""
            self.size = 0
            self.closed = False

        def write(self, data: bytes) -> None:
            taken = data[: self._disk.room]
            self._data += taken  # half of it may be written, as on a real disk
            self._disk.room -= len(taken)
            if len(taken) < len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
            self.size += len(data)

        def read(self, offset: int, length: int) -> bytes:
            assert not self.closed
            return self._data[offset : offset + length]

        def close(self) -> None:
            self.closed = True


def data_of(events: list[Event]) -> bytes:
    return b"".join(event.base64 for event in events if isinstance(event, ImageData))


def others(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, ImageData)]


PIECES = st.binary(max_size=3000).map(ImageData)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    PIECES, PIECES, st.builds(ImageBegins, st.integers(0, 9)), st.builds(ImageEnds), st.builds(Done)
)


@given(
    events=st.lists(EVENTS, max_size=40),
    paces=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    spill_at=st.none() | st.integers(0, 40),
    move_while_read=st.booleans(),
    room=st.integers(0, 40_000),
    most=st.integers(0, 20_000),
)
def test_readers_at_any_pace_read_the_same_wherever_it_lies(
    events: list[Event], paces: list[int], spill_at: int | None, move_while_read: bool, room: int, most: int
) -> None:
    meter, disk = Meter(1_000_000), Disk(room)
    kept = Recording(disk.new, meter, most)

    async def read(pace: int) -> list[Event]:
        found, reader = list[Event](), Reader(kept)
        while events := await reader.read():
            for event in events:
                found.append(event)
                for _ in range(pace):
                    await asyncio.sleep(0)
        return found

    async def everything() -> list[list[Event]]:
        readers = [asyncio.create_task(read(pace)) for pace in paces]
        for number, event in enumerate(events):
            if number == spill_at:
                try:
                    kept.spill()
                except OSError:
                    assert kept.length == number  # and nothing has changed
            kept.append(event)
            if number % 3 == 0:
                await asyncio.sleep(0)
        kept.end()
        if move_while_read:
            stored = Spool(0)
            stored.write(data_of(events))
            kept.move(stored)
        readers.append(asyncio.create_task(read(0)))
        return await asyncio.gather(*readers)

    for found in asyncio.run(everything()):
        assert others(found) == others(events)
        assert data_of(found) == data_of(events)
    assert kept.in_memory + kept.on_disk == len(data_of(events)) == meter.memory + meter.disk
    kept.close()
    assert (meter.memory, meter.disk, meter.growing) == (0, 0, 0)
    assert all(file.closed for file in disk.files)


async def test_little_stays_in_memory_and_more_goes_to_a_file() -> None:
    meter = Meter(100 * MEGABYTE)
    kept = recording(meter, most=1000)
    kept.append(ImageData(b"a" * 1000))
    assert (kept.in_memory, kept.on_disk) == (1000, 0)
    kept.append(ImageData(b"b"))
    assert (kept.in_memory, kept.on_disk) == (0, 1001) == (meter.memory, meter.disk)
    kept.append(ImageData(b"c" * 5))
    assert (meter.memory, meter.disk) == (0, 1006)
    kept.close()


@pytest.mark.parametrize(("count", "most"), [(1, 44), (2, 44), (3, 16), (16, 16), (17, 8), (64, 8)])
async def test_the_bytes_of_all_together_are_bounded(count: int, most: int) -> None:
    meter = Meter(100 * MEGABYTE)
    many = [recording(meter, most=100 * MEGABYTE) for _ in range(count)]
    piece = ImageData(b"a" * 65_536)
    for _ in range(2048 // count):
        for kept in many:
            kept.append(piece)
            assert meter.memory <= most * MEGABYTE + len(piece.base64)
    assert meter.memory + meter.disk == 2048 // count * count * 65_536
    for kept in many:
        kept.close()
    assert (meter.memory, meter.disk, meter.growing) == (0, 0, 0)


async def test_a_large_piece_on_disk_is_read_in_small_ones() -> None:
    kept = recording()
    kept.append(ImageData(b"a" * (3 * READ_BACK + 1)))
    kept.spill()
    pieces = [event.base64 for event in kept.at(0) if isinstance(event, ImageData)]
    assert [len(piece) for piece in pieces] == [READ_BACK, READ_BACK, READ_BACK, 1]
    kept.close()


async def test_a_disk_that_is_full_loses_nothing_while_memory_has_room() -> None:
    meter, disk = Meter(10_000), Disk(100)
    kept = recording(meter, disk.new, most=50)
    pieces = [bytes([65 + number]) * 60 for number in range(10)]
    for piece in pieces:
        kept.append(ImageData(piece))
    kept.end()
    assert data_of([*kept.events()]) == b"".join(pieces)
    assert (kept.in_memory, kept.on_disk) == (540, 60) == (meter.memory, meter.disk)
    kept.close()
    assert (meter.memory, meter.disk) == (0, 0)


async def test_without_room_on_disk_and_in_memory_it_says_so() -> None:
    kept = recording(Meter(1000), Disk(0).new, most=10)
    kept.append(ImageData(b"a" * 1000))
    with pytest.raises(OSError, match="No space left") as caught:
        kept.append(ImageData(b"b"))
    assert caught.value.errno == errno.ENOSPC
    kept.close()


async def test_a_spill_that_fails_changes_nothing() -> None:
    disk = Disk(5)
    kept = recording(spool=disk.new)
    kept.append(ImageData(b"abc"))
    kept.append(ImageData(b"defg"))
    with pytest.raises(OSError, match="No space left"):
        kept.spill()
    assert (kept.in_memory, kept.on_disk) == (7, 0)
    kept.end()
    assert data_of([*kept.events()]) == b"abcdefg"
    assert disk.files[0].closed
    kept.close()


async def test_a_reader_of_a_failed_recording_reads_its_events_and_gets_the_error() -> None:
    kept = recording()
    kept.append(ImageBegins(0))
    kept.end(ApiError("broken"))
    kept.end(ApiError("the first end counts"))
    reader = Reader(kept)
    assert [*await reader.read()] == [ImageBegins(0)]
    with pytest.raises(ApiError, match="broken"):
        await reader.read()
    kept.close()


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_reader_of_a_closed_recording_gets_an_error_and_takes_no_half_for_the_whole(
    ended: bool, on_disk: bool
) -> None:
    kept = recording()
    for _ in range(3):
        kept.append(ImageData(b"a"))
    if on_disk:
        kept.spill()
    if ended:
        kept.end()
    reader = Reader(kept)
    assert [*await reader.read()] == [ImageData(b"a")]
    kept.close()
    with pytest.raises(ApiError, match="not kept any more"):
        await reader.read()


async def test_waiting_readers_are_woken_by_the_end_and_may_be_cancelled() -> None:
    kept = recording()

    async def read() -> list[Event]:
        return await all_of(Reader(kept))

    first, second = asyncio.create_task(read()), asyncio.create_task(read())
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert (first.done(), second.cancelled()) == (False, True)
    kept.end()
    assert await first == []
    kept.close()


async def test_a_closed_one_takes_no_file_any_more() -> None:
    disk = Disk(100)
    kept = recording(spool=disk.new)
    kept.close()
    kept.spill()
    assert disk.files == []
    with pytest.raises(ValueError, match="closed"):
        kept.read(Span(0, 1))


async def test_closing_twice_counts_once() -> None:
    meter = Meter(MEGABYTE)
    kept = recording(meter)
    kept.append(ImageData(b"abc"))
    kept.close()
    kept.close()
    assert (meter.memory, meter.disk, meter.growing) == (0, 0, 0)
