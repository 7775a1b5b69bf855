"""The journal: records survive crashes, torn writes and a full disk."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.journal import Journal

ROOM = 4096


def opened(path: Path) -> Journal:
    return Journal(path, room=ROOM)


def test_records_are_there_after_a_restart_until_they_are_cleared(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal")
    for text in ("one", "zwölf", "{}"):
        journal.append(text)
    journal.close()
    journal = opened(tmp_path / "journal")
    assert tuple(journal.read()) == ("one", "zwölf", "{}")
    journal.clear()
    journal.append("four")
    journal.close()
    assert tuple(opened(tmp_path / "journal").read()) == ("four",), "the old ones are not found behind it"


def test_its_room_is_taken_beforehand(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal")
    found = (tmp_path / "journal").stat()
    assert (found.st_size, found.st_blocks * 512 >= ROOM, found.st_mode & 0o777) == (ROOM, True, 0o600)
    journal.append("x" * 100)
    assert (tmp_path / "journal").stat().st_size == ROOM


def test_it_grows_beyond_its_room_while_the_disk_has_some(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal")
    for number in range(50):
        journal.append(f"{number}" * 100)
    journal.close()
    assert len(opened(tmp_path / "journal")) == 50


def test_a_file_system_on_which_no_room_can_be_taken_keeps_records_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    journal = opened(tmp_path / "journal")
    journal.append("one", spare=ROOM)
    assert tuple(journal.read()) == ("one",)


def test_a_long_journal_takes_no_memory(tmp_path: Path) -> None:
    journal, texts = opened(tmp_path / "journal"), [f"{number}" * 1000 for number in range(10, 99)]
    tracemalloc.start()
    try:
        for text in texts:
            journal.append(text)
        journal.close()
        journal = opened(tmp_path / "journal")
        assert len(journal) == len(texts)
        assert tracemalloc.get_traced_memory()[0] < 20_000
        assert all(read == text for read, text in zip(journal.read(), texts, strict=True))
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def test_a_disk_that_is_full_leaves_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, write = opened(tmp_path / "journal"), os.pwrite
    journal.append("one")

    def half(file: int, content: bytes, position: int) -> int:
        return write(file, content[:11] if len(content) > 11 else content, position)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="no room"):
        journal.append("two, which is long enough")
    monkeypatch.undo()
    assert tuple(opened(tmp_path / "journal").read()) == ("one",)
    journal.append("three")
    assert tuple(opened(tmp_path / "journal").read()) == ("one", "three")


def test_a_record_that_leaves_too_little_room_behind_it_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path / "journal")
    journal.append("one", spare=ROOM)  # the disk has some
    taken = (tmp_path / "journal").stat().st_size

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        journal.append("two", spare=taken)
    journal.append("three", spare=ROOM // 2)
    journal.append("four")
    assert tuple(opened(tmp_path / "journal").read()) == ("one", "three", "four")


def test_without_room_beforehand_it_opens_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    journal = opened(tmp_path / "journal")
    journal.append("one")
    assert len(journal) == 1


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=6), st.data())
def test_a_write_that_a_crash_cut_short_loses_that_record_alone(texts: list[str], data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = opened(path)
        for text in texts[:-1]:
            journal.append(text)
        before = path.read_bytes()
        journal.append(texts[-1])
        journal.close()
        after = path.read_bytes()
        start = next((i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b), 0)
        end = max((i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b), default=0)
        cut = data.draw(st.integers(start, end))
        path.write_bytes(after[:cut] + before[cut:])
        assert tuple(opened(path).read()) == tuple(texts[:-1])
