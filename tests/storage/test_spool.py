from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.spool import KEPT_BYTES, Budget, Files, FilesSnapshot, Spool, Uploads
from tests.storage.open_files import LINKS, open_files


@given(st.lists(st.binary(max_size=50), max_size=12), st.integers(-3, 300), st.integers(-3, 300))
def test_on_disk_and_in_memory_read_the_same(pieces: list[bytes], offset: int, length: int) -> None:
    whole = b"".join(pieces)
    offset = max(0, offset)
    with Uploads() as uploads:
        spools = [uploads.spool(1_000_000), uploads.spool(20), uploads.spool(0)]
        for spool in spools:
            for piece in pieces:
                spool.write(memoryview(piece))
            assert spool.size == len(whole)
            assert spool.read(offset, length) == whole[offset : offset + max(0, length)]
        assert not spools[0].on_disk
        assert spools[1].on_disk == (len(whole) > 20)


def test_bytes_beyond_the_memory_go_to_a_file_without_a_name(tmp_path: Path) -> None:
    with Uploads(Files(str(tmp_path))) as uploads:
        spool = uploads.spool(10)
        spool.write(b"0123456789")
        assert not spool.on_disk
        spool.write(b"abc")
        assert spool.on_disk
        assert list(tmp_path.iterdir()) == []
        assert spool.read(8, 4) == b"89ab"


def test_all_uploads_together_take_no_more_of_the_disk_than_their_budget() -> None:
    budget = Budget(disk_bytes=100)
    with Uploads(budget=budget) as first, Uploads(budget=budget) as second:
        first.spool(10).write(b"x" * 60)
        other = second.spool(10)
        other.write(b"y" * 40)
        with pytest.raises(OSError, match=r"server\.max_uploads_mb"):
            other.write(b"z")
        first.close()
        other.write(b"z" * 60)
        assert (budget.disk, second.left) == (100, 0)
    assert (budget.disk, budget.memory) == (0, 0)


def test_small_pictures_go_to_disk_when_they_take_half_of_the_memory() -> None:
    budget = Budget(memory_bytes=100)
    with Uploads(budget=budget) as uploads:
        spools = [uploads.spool(20) for _ in range(4)]
        for spool in spools:
            spool.write(b"x" * 10)
            spool.write(b"y" * 10)
        assert [spool.on_disk for spool in spools] == [False, False, True, True]
        assert (budget.disk, budget.memory) == (40, 40)
        assert uploads.hold(60)
        assert not uploads.hold(1)
        assert all(spool.read(5, 10) == b"xxxxxyyyyy" for spool in spools)


@given(st.lists(st.lists(st.integers(0, 60), max_size=6), max_size=6), st.integers(0, 200), st.integers(0, 200))
def test_the_budget_counts_the_bytes_of_the_spools_and_is_never_exceeded(
    written: list[list[int]], disk: int, memory: int
) -> None:
    budget = Budget(disk, memory)
    with Uploads(budget=budget) as uploads:
        spools = [uploads.spool(50) for _ in written]
        for spool, sizes in zip(spools, written, strict=True):
            for size in sizes:
                with contextlib.suppress(OSError):
                    spool.write(bytes(size))
        assert sum(spool.size for spool in spools if spool.on_disk) == budget.disk <= disk
        assert sum(spool.size for spool in spools if not spool.on_disk) == budget.memory <= memory
    assert (budget.disk, budget.memory) == (0, 0)


@pytest.mark.skipif(not LINKS.exists(), reason="open files are counted under /proc")
def test_leaving_the_block_closes_every_file_however_it_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Uploads(Files(str(tmp_path))) as uploads:
        for _ in range(5):
            uploads.spool(0).write(b"x")
        assert len(open_files(tmp_path)) == 5
        raise KeyError
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("memory", [0, 100])
def test_a_closed_spool_refuses_to_be_used(memory: int) -> None:
    spool = Spool(memory)
    spool.write(b"x")
    spool.close()
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        spool.read(0, 1)
    with pytest.raises(ValueError, match="closed"):
        spool.write(b"x")


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with Uploads(Files(str(tmp_path / "missing"))) as uploads, pytest.raises(FileNotFoundError):
        uploads.spool(0).write(b"x")


def test_several_threads_read_one_spool_at_once() -> None:
    data = bytes(range(256)) * 4096
    with Uploads() as uploads:
        spool = uploads.spool(1000)
        spool.write(data)
        with ThreadPoolExecutor(8) as pool:
            pieces = pool.map(lambda at: spool.read(at, 1024), range(0, len(data), 1024))
            assert b"".join(pieces) == data


@pytest.mark.skipif(not LINKS.exists(), reason="open files are counted under /proc")
def test_some_files_are_kept_for_the_next_and_none_when_all_is_over(tmp_path: Path) -> None:
    files = Files(str(tmp_path), keep=2)
    for _ in range(3):
        with Uploads(files) as uploads:
            for _ in range(4):
                uploads.spool(0).write(b"x")
            assert len(open_files(tmp_path)) == 4
            assert files.snapshot().open == 4
        assert len(open_files(tmp_path)) == 2
        assert files.snapshot() == FilesSnapshot(open=0, spare=2)
    files.close()
    assert open_files(tmp_path) == []
    with Uploads(files) as uploads:
        uploads.spool(0).write(b"x")
    assert open_files(tmp_path) == []


@pytest.mark.skipif(not LINKS.exists(), reason="open files are counted under /proc")
def test_a_file_that_has_grown_large_is_no_spare(tmp_path: Path) -> None:
    files = Files(str(tmp_path), keep=1)
    spool = Spool(0, files)
    for _ in range(KEPT_BYTES // 1_048_576 + 1):
        spool.write(bytes(1_048_576))
    assert len(open_files(tmp_path)) == 1
    spool.close()
    assert open_files(tmp_path) == []


@given(st.lists(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), min_size=2, max_size=5))
def test_no_byte_of_an_earlier_spool_can_be_read(written: list[list[bytes]]) -> None:
    files = Files(keep=1)
    for pieces in written:
        with Uploads(files) as uploads:
            spool = uploads.spool(20)
            for piece in pieces:
                spool.write(piece)
            assert spool.read(0, 10_000) == b"".join(pieces)
            assert spool.read(spool.size, 100) == b""
    files.close()


def test_a_spool_that_is_closed_while_it_is_read_gives_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file may have been written by another one by then."""
    files = Files(keep=1)
    spool, other = Spool(0, files), Spool(0, files)
    spool.write(b"mine")
    pread = os.pread

    def meanwhile(descriptor: int, length: int, offset: int) -> bytes:
        spool.close()
        other.write(b"its!")
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", meanwhile)
    with pytest.raises(ValueError, match="closed"):
        spool.read(0, 4)
    other.close()
    files.close()
