"""Which errors say that a disk is full, and a word to the operator when it is. Alone in knowing both."""

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
    """What the disk has left."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class DiskAlarm:
    """Tells that something could not be written, once each time that it begins. `tell` gets what happened, the folder
    and the reason; `clock` gives seconds. For any number of threads."""

    def __init__(self, tell: Callable[..., None], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._quiet_until = dict[str, float]()  # by what is told

    def failed(self, folder: str, error: OSError) -> None:
        what = "the disk is full" if is_full(error) else "the disk cannot be written to"
        now = self._clock()
        known, self._quiet_until[what] = now < self._quiet_until.get(what, now), now + QUIET_SECONDS
        if not known:
            self._tell(what, folder=folder, reason=error.strerror)
