"""Errors that count as a full disk, and how often they are reported."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from app.storage.full_disk import QUIET_SECONDS, DiskAlarm, free_bytes, is_full, no_space
from app.storage.spool import Files, Spool


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_a_quota_and_a_file_may_be_full(number: int) -> None:
    assert is_full(OSError(number, os.strerror(number)))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), OSError("full"), ValueError("full")])
def test_other_errors_are_no_full_disk(error: Exception) -> None:
    assert not is_full(error)


def test_it_is_reported_once_each_time_that_it_begins() -> None:
    told, now = list[tuple[str, Any]](), 5.0
    alarm = DiskAlarm(lambda what, **facts: told.append((what, facts)), lambda: now)
    for _ in range(4):
        alarm.failed("spool", no_space())
        now += QUIET_SECONDS / 2
    assert told == [("the disk is full", {"folder": "spool", "reason": "No space left on device"})]
    alarm.failed("runs", OSError(errno.EIO, "Input/output error"))
    assert told[1:] == [("the disk cannot be written to", {"folder": "runs", "reason": "Input/output error"})]
    now += QUIET_SECONDS
    alarm.failed("files", no_space())
    assert [what for what, _ in told] == ["the disk is full", "the disk cannot be written to", "the disk is full"]


def test_a_spool_reports_bytes_that_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[OSError]()
    spool = Spool(0, Files(str(tmp_path), report=told.append))
    spool.write(b"fits")

    def full(*_: object) -> int:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="File too large"):
        spool.write(b"does not")
    assert [error.errno for error in told] == [errno.EFBIG]
    spool.close()


def test_a_missing_folder_is_reported_too(tmp_path: Path) -> None:
    told = list[OSError]()
    with pytest.raises(OSError, match="No such file"):
        Spool(0, Files(str(tmp_path / "gone"), report=told.append)).write(b"x")
    assert [error.errno for error in told] == [errno.ENOENT]
    assert free_bytes(tmp_path) > 0
