"""Recognise a full disk, and warn the operator of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

LEAST_FREE = 4 * 1_048_576  # bytes on the disk, or so: below, it is as good as full
QUIET_SECONDS = 60.0  # without a failure, until the next one is news
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk, the user's share of it, the largest file


def is_full(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _FULL


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk. Raises OSError if it is away."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class DiskAlarm:
    """Warns when something cannot be written: once, until `QUIET_SECONDS` pass without a failure. `warn` gets the
    event, the folder and the reason; `clock` gives seconds. For any number of threads."""

    def __init__(self, warn: Callable[..., None], clock: Callable[[], float]) -> None:
        self._warn = warn
        self._clock = clock
        self._quiet_until = dict[str, float]()  # by event

    def failed(self, folder: str, error: OSError) -> None:
        event = "the disk is full" if is_full(error) else "the disk cannot be written to"
        now = self._clock()
        is_known, self._quiet_until[event] = now < self._quiet_until.get(event, now), now + QUIET_SECONDS
        if not is_known:
            self._warn(event, folder=folder, reason=error.strerror)
