from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.storage.disk import DiskStore, StoreSnapshot
from app.storage.files import EXTENSIONS, MEDIA_TYPES, StoredFile
from tests.storage.open_files import open_files

pytestmark = pytest.mark.anyio
WRITER = """
import asyncio, sys, time
from pathlib import Path
from app.storage.disk import DiskStore
async def main():
    store = DiskStore(Path(sys.argv[1]), lifetime=1000, max_bytes=10**9, clock=time.time)
    whole = await store.begin()
    await whole.write(b"whole")
    print((await whole.commit("image/png")).name, flush=True)
    half = await store.begin()
    await half.write(b"half" * 100000)
    print("half", flush=True)
    time.sleep(60)
asyncio.run(main())
"""


class Clock:
    def __init__(self, now: float = 1_800_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Disk:
    """Stores over one directory, and the time there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()

        self.told: list[OSError] = []  # what could not be written

    def store(self, lifetime: float = 100, max_bytes: int = 1000, held: Collection[str] = ()) -> DiskStore:
        return DiskStore(
            self.directory,
            lifetime=lifetime,
            max_bytes=max_bytes,
            clock=self.clock,
            held=held,
            report=self.told.append,
        )

    def names(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    yield Disk(tmp_path)
    assert open_files(tmp_path) == []


async def put(store: DiskStore, data: bytes = b"picture", media_type: str = "image/png") -> StoredFile:
    writer = await store.begin()
    await writer.write(data[:3])
    await writer.write(data[3:])
    return await writer.commit(media_type)


async def put_free(store: DiskStore, data: bytes) -> StoredFile:
    """A file that may make room for others."""
    file = await put(store, data)
    store.release(file)
    return file


async def read(store: DiskStore, name: str) -> bytes | None:
    kept = await store.open(name)
    if kept is None:
        return None
    try:
        return kept.read(0, kept.file.size + 1)
    finally:
        kept.close()
        kept.close()


async def test_a_file_is_read_again_also_after_a_restart(disk: Disk) -> None:
    store = disk.store()
    file = await put(store, b"picture")
    assert (file.extension, file.media_type, file.size, file.expires) == ("png", "image/png", 7, 1_800_000_101)
    assert len(file.id) == 32
    for again in (store, disk.store()):
        kept = await again.open(file.name)
        assert kept is not None
        assert kept.file == file
        assert (kept.read(0, 3), kept.read(3, 100), kept.read(7, 1)) == (b"pic", b"ture", b"")
        kept.close()
        assert (again.used, again.writing) == (7, 0)


async def test_an_unfinished_file_is_invisible_and_leaves_nothing(disk: Disk) -> None:
    store = disk.store()
    writer = await store.begin()
    await writer.write(b"half")
    [unfinished] = disk.names()
    assert unfinished.endswith(".part")
    assert await store.open(unfinished) is None
    assert (store.used, store.writing) == (0, 4)
    assert store.snapshot() == StoreSnapshot(used=0, held=0, writing=4, max_bytes=store.max_bytes)
    writer.abort()
    writer.abort()
    assert disk.names() == set()
    assert (store.used, store.writing) == (0, 0)


async def test_aborting_after_the_end_does_nothing(disk: Disk) -> None:
    store = disk.store()
    writer = await store.begin()
    await writer.write(b"whole")
    file = await writer.commit("image/png")
    writer.abort()
    assert await read(store, file.name) == b"whole"


async def test_being_killed_leaves_whole_files_and_no_halves(disk: Disk) -> None:
    arguments = [sys.executable, "-c", WRITER, str(disk.directory)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    disk.clock.now = 0.0
    store = disk.store()
    assert disk.names() == {name}
    assert await read(store, name) == b"whole"
    assert store.used == 5


async def test_a_file_is_gone_when_its_time_is_up_swept_or_not(disk: Disk) -> None:
    store = disk.store()
    first = await put(store)
    disk.clock.now += 50
    second = await put(store)
    disk.clock.now = first.expires - 0.01
    assert await read(store, first.name) == b"picture"
    disk.clock.now = first.expires
    assert await read(store, first.name) is None
    assert disk.names() == {first.name, second.name}
    assert not store.sweep()
    assert disk.names() == {second.name}
    assert store.used == 7
    disk.clock.now = second.expires - 50
    third = await put(store)
    disk.clock.now = second.expires
    assert not disk.store().sweep()
    assert disk.names() == {third.name}


async def test_a_file_keeps_its_time_when_the_setting_changes(disk: Disk) -> None:
    long = await put(disk.store(lifetime=100))
    store = disk.store(lifetime=10)
    short = await put(store)
    disk.clock.now += 20
    store.sweep()
    assert disk.names() == {long.name}
    assert await read(store, short.name) is None
    assert await read(store, long.name) == b"picture"


async def test_when_the_budget_is_full_the_oldest_go_and_never_the_new_one(disk: Disk) -> None:
    store = disk.store(max_bytes=100)
    files = []
    for _ in range(5):
        files.append(await put_free(store, bytes(30)))
        disk.clock.now += 1
    assert disk.names() == {file.name for file in files[2:]}
    assert store.used == 90
    last = await put(store, bytes(100))
    assert disk.names() == {last.name}
    assert store.used == 100


async def test_a_smaller_budget_is_kept_to_from_the_start(disk: Disk) -> None:
    store = disk.store(max_bytes=10_000)
    files = []
    for _ in range(150):
        files.append(await put(store, bytes(10)))
        disk.clock.now += 0.1
    assert disk.store(max_bytes=45).used == 40
    assert len(disk.names()) == 4
    assert files[-1].name in disk.names()


async def test_a_picture_above_the_budget_is_kept_until_another_one_needs_the_room(disk: Disk) -> None:
    store = disk.store(max_bytes=100)
    await put_free(store, bytes(90))
    large = await put_free(store, bytes(250))
    assert disk.names() == {large.name}
    assert not store.sweep()
    assert await read(store, large.name) == bytes(250)
    small = await put(store, bytes(10))
    assert disk.names() == {small.name}
    assert (store.used, store.writing) == (10, 0)


async def test_pictures_that_are_written_at_once_are_all_kept(disk: Disk) -> None:
    store = disk.store(max_bytes=100)
    old = await put_free(store, bytes(50))
    writers = [await store.begin() for _ in range(4)]
    await writers[0].write(bytes(50))
    assert old.name in disk.names()
    for writer in writers:
        await writer.write(bytes(40))
    assert old.name not in disk.names()
    files = [await writer.commit("image/png") for writer in writers]
    assert disk.names() == {file.name for file in files}
    assert (store.used, store.writing) == (210, 0)


async def test_a_file_that_is_held_stays_when_others_need_the_room(disk: Disk) -> None:
    store = disk.store(max_bytes=100)
    held = await put(store, bytes(60))
    for _ in range(3):
        last = await put_free(store, bytes(40))
        disk.clock.now += 1
    assert disk.names() == {held.name, last.name}
    store.release(held)
    store.release(held)
    assert disk.names() == {held.name, last.name}
    new = await put(store, bytes(50))
    assert disk.names() == {last.name, new.name}
    assert store.used == 90


async def test_a_held_file_ends_with_its_time(disk: Disk) -> None:
    store = disk.store()
    file = await put(store)
    disk.clock.now = file.expires
    assert not store.sweep()
    assert disk.names() == set()
    store.release(file)
    assert not store.sweep()
    assert store.used == 0
    store.check_room()


async def test_there_is_no_room_while_held_and_unfinished_files_fill_the_budget(disk: Disk) -> None:
    store = disk.store(max_bytes=100)
    await put_free(store, bytes(100))
    store.check_room()
    held = await put(store, bytes(60))
    writer = await store.begin()
    await writer.write(bytes(39))
    store.check_room()
    await writer.write(b"x")
    with pytest.raises(Unavailable, match=r"'files.max_mb'") as refused:
        store.check_room()
    error = refused.value
    assert (error.status, error.code, error.perhaps_paid) == (503, "no_room_for_files", False)
    assert error.retry_after
    assert error.should_retry is not False
    writer.abort()
    store.check_room()
    assert disk.names() == {held.name}


async def test_a_full_disk_is_reported_before_anything_is_drawn(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    store = disk.store()
    full = os.statvfs_result((4096, 4096, 1000, 500, 1023, 0, 0, 0, 0, 255))  # a megabyte short of four
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(Unavailable, match="disk has no room") as refused:
        store.check_room()
    assert (refused.value.code, refused.value.perhaps_paid) == ("no_room_for_files", False)
    assert [error.errno for error in disk.told] == [errno.ENOSPC]


async def test_files_can_be_held_over_a_restart(disk: Disk) -> None:
    before = disk.store(max_bytes=100)
    held, *others = [await put(before, bytes(60)) for _ in range(3)]
    after = disk.store(max_bytes=100, held={held.name, "no such file"})
    assert disk.names() == {held.name}
    assert after.holds(held.name) == held
    assert after.holds(others[0].name) is None
    assert (after.used, after.held) == (60, 60)
    after.release(held)
    assert after.holds(held.name) is None
    await put(after, bytes(60))
    assert held.name not in disk.names()


async def test_files_that_another_process_removed_harm_nothing(disk: Disk) -> None:
    store = disk.store()
    file = await put(store)
    (disk.directory / file.name).unlink()
    assert await read(store, file.name) is None
    disk.clock.now += 200
    store.sweep()
    assert store.used == 0


async def test_a_file_that_is_being_read_can_be_read_to_its_end(disk: Disk) -> None:
    store = disk.store()
    file = await put(store, b"0123456789")
    kept = await store.open(file.name)
    assert kept is not None
    disk.clock.now += 200
    store.sweep()
    assert disk.names() == set()
    assert kept.read(5, 10) == b"56789"
    kept.close()


async def test_foreign_files_are_left_alone_and_never_opened(disk: Disk) -> None:
    (disk.directory / "README.txt").write_bytes(b"mine")
    (disk.directory / f"{'a' * 32}.png").symlink_to("/etc/hostname")
    (disk.directory / f"{'b' * 32}.exe").write_bytes(b"x")
    (disk.directory / f"{'c' * 32}.part").write_bytes(b"x")
    store = disk.store()
    assert "README.txt" in disk.names()
    assert f"{'c' * 32}.part" not in disk.names()
    for name in ("README.txt", f"{'a' * 32}.png", f"{'b' * 32}.exe", "../secret", "", ".", "/etc/passwd"):
        assert await store.open(name) is None
    file = await put(store)
    for name in (file.name.upper(), file.name + ".png", file.id, f"{file.id}.jpg", f"./{file.name}", file.name + "\n"):
        assert await store.open(name) is None


async def test_foreign_names_do_not_prevent_the_start(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"lost+found", ".snapshot", "a.part", f"{'a' * 32}.part", f"{'b' * 32}.png"}
    for name in names:
        (disk.directory / name).mkdir(mode=0)
    whole, half = f"{'c' * 32}.png", f"{'d' * 32}.part"  # of another user
    for name in (whole, half):
        (disk.directory / name).write_bytes(b"x")

    unlink = Path.unlink

    def refused(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == half:  # root, as whom tests may run, can remove everything
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        store = disk.store()
    assert disk.names() == {*names, whole, half}
    await put(store)


async def test_a_clock_that_is_ahead_at_the_start_does_not_sweep_all_files_at_once(disk: Disk) -> None:
    store = disk.store()
    held, other = await put(store), await put(store)
    right = disk.clock.now
    disk.clock.now += 1_000_000
    store = disk.store(held={held.name})
    disk.clock.now += 99
    assert not store.sweep()
    assert disk.names() == {held.name, other.name}
    assert await read(store, other.name) is None  # its link says so, too
    disk.clock.now = right + 1
    assert await read(disk.store(), other.name) == b"picture"
    disk.clock.now += 1_000_000
    store = disk.store(held={held.name})
    disk.clock.now += 101
    assert not store.sweep()
    assert disk.names() == set()


async def test_many_files_go_a_few_at_a_time(disk: Disk) -> None:
    store = disk.store(max_bytes=10_000)
    for _ in range(150):
        await put(store)
    disk.clock.now += 200
    turns: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        turns.append(seconds)
        if seconds:
            raise Enough

    with pytest.raises(Enough):
        await store.keep_clean(60, sleep)
    assert turns == [0, 0, 60]
    assert disk.names() == set()


async def test_a_full_disk_is_reported(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    store = disk.store()
    writer = await store.begin()

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(Unavailable, match="No space left on device"):
            await writer.write(b"x")
    writer.abort()
    assert store.writing == 0
    disk.directory.rmdir()
    with pytest.raises(Unavailable, match="b64_json"):
        await store.begin()
    assert [error.errno for error in disk.told] == [errno.ENOSPC, errno.ENOENT]


@pytest.mark.parametrize("media_type", [*EXTENSIONS, "text/html", "application/x-unknown"])
async def test_each_type_has_an_extension_and_other_files_are_plain_bytes(disk: Disk, media_type: str) -> None:
    store = disk.store()
    file = await put(store, media_type=media_type)
    kept = await store.open(file.name)
    assert kept is not None
    kept.close()
    assert kept.file.media_type == file.media_type == (media_type if media_type in EXTENSIONS else EXTENSION_LESS)
    assert MEDIA_TYPES[file.extension] == file.media_type


EXTENSION_LESS = "application/octet-stream"
