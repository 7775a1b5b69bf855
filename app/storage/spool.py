"""Bytes that live as long as a request: in memory while they are few, in a nameless file beyond, and all together
within a budget. No HTTP here."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO

Bytes = bytes | bytearray | memoryview

KEPT_FILES, KEPT_BYTES = 8, 16 * 1_048_576  # spare files: how many, and how large each may be


@dataclass(frozen=True, slots=True)
class FilesSnapshot:
    """The files of spools at one moment: those in use, and the spares."""

    open: int
    spare: int


class Files:
    """Files without a name (`O_TMPFILE` where the system has it), so that not even SIGKILL leaves one behind.

    Some stay as spares and are written again: making new ones and freeing their pages takes longer than writing the
    bytes. The bytes of an earlier user are beyond reach, since a spool reads no further than it wrote. For any number
    of threads.
    """

    def __init__(
        self, directory: str | None = None, keep: int = 0, report: Callable[[OSError], None] = lambda _: None
    ) -> None:
        """Files lie in `directory`, or in the system's own place (None); up to `keep` are spares. `report` gets each
        error of a file that cannot be written."""
        self._directory = directory
        self._keep = keep
        self.report = report
        self._open = 0
        self._spares: list[IO[bytes]] = []
        self._lock = threading.Lock()

    def take(self) -> IO[bytes]:
        """Return an empty or spare file. Raises OSError."""
        with self._lock:
            self._open += 1
            if self._spares:
                return self._spares.pop()
        try:
            return tempfile.TemporaryFile(buffering=0, dir=self._directory)
        except OSError:
            with self._lock:
                self._open -= 1
            raise

    def give_back(self, file: IO[bytes], size: int) -> None:
        """Keep the file as a spare, or close it. `size`: bytes that were written."""
        with self._lock:
            self._open -= 1
            if size <= KEPT_BYTES and len(self._spares) < self._keep:
                self._spares.append(file)
                return
        file.close()

    def snapshot(self) -> FilesSnapshot:
        return FilesSnapshot(self._open, len(self._spares))

    def close(self) -> None:
        """Close the spares, and from now on each file that is given back."""
        self._keep = 0
        while self._spares:
            self._spares.pop().close()


@dataclass(frozen=True, slots=True)
class BudgetSnapshot:
    """The bytes that all uploads hold at one moment."""

    disk: int
    memory: int


class Budget:
    """The most bytes that all uploads may hold, and those that they hold now. For any number of threads."""

    def __init__(self, disk_bytes: int = sys.maxsize, memory_bytes: int = sys.maxsize) -> None:
        self.disk_bytes = disk_bytes
        self.memory_bytes = memory_bytes
        self.disk = 0
        self.memory = 0
        self._lock = threading.Lock()

    def take(self, disk: int, memory: int, memory_bytes: int) -> bool:
        """Take `disk` and `memory` bytes more (or less), unless that would exceed the budget. `memory_bytes`: the most
        that memory may hold afterwards. False: nothing was taken."""
        with self._lock:
            if (disk > 0 and self.disk + disk > self.disk_bytes) or (
                memory > 0 and self.memory + memory > memory_bytes
            ):
                return False
            self.disk += disk
            self.memory += memory
            return True

    def snapshot(self) -> BudgetSnapshot:
        with self._lock:
            return BudgetSnapshot(self.disk, self.memory)


class Spool:
    """A Blob that grows at its end. Read from any thread, once nothing is written any more."""

    def __init__(self, memory_bytes: int, files: Files | None = None, uploads: Uploads | None = None) -> None:
        """Up to `memory_bytes` stay in memory, the rest goes to one of `files`. All of it counts among `uploads`."""
        self._uploads = uploads
        self._memory = bytearray()
        self._memory_bytes = memory_bytes
        self._files = files or Files()
        self._file: IO[bytes] | None = None
        self._descriptor = -1
        self._closed = False
        self.size = 0

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    def write(self, data: Bytes) -> None:
        """Append. Raises OSError when the disk is full or the budget used up, ValueError when closed."""
        if self._closed:
            raise ValueError("the spool is closed")
        length, uploads = len(data), self._uploads
        short = self._file is None and self.size + length <= self._memory_bytes
        if short and (uploads is None or uploads.hold_for_now(length)):
            self._memory += data
        else:
            if uploads is not None:
                uploads.store(length, len(self._memory))
            try:
                if self._file is None:
                    self._spill()
                write_all(self._descriptor, data, self.size)
            except OSError as error:
                self._files.report(error)
                raise
        self.size += length

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer at the end. Raises ValueError when closed."""
        if self._closed:
            raise ValueError("the spool is closed")
        length = max(0, min(length, self.size - offset))  # the file may hold bytes of an earlier user
        if self._file is None:
            data = bytes(memoryview(self._memory)[offset : offset + length])
        else:
            data = os.pread(self._descriptor, length, offset)
        if self._closed:  # meanwhile, by another thread: the file may belong to another spool already
            raise ValueError("the spool is closed")
        return data

    def close(self) -> None:
        """Forget the bytes. May be called again."""
        self._closed = True
        self._memory = bytearray()
        if self._file is not None:
            self._files.give_back(self._file, self.size)
            self._file = None

    def _spill(self) -> None:
        self._file = self._files.take()
        self._descriptor = self._file.fileno()
        write_all(self._descriptor, self._memory, 0)
        self._memory = bytearray()


class Uploads(AbstractContextManager["Uploads"]):
    """The spools of one request, and the part of the budget that it takes. The `with` block gives back all."""

    def __init__(self, files: Files | None = None, budget: Budget | None = None) -> None:
        self._files = files or Files()
        self._budget = budget or Budget()
        self._disk = self._memory = 0
        self._spools: list[Spool] = []

    def spool(self, memory_bytes: int) -> Spool:
        spool = Spool(memory_bytes, self._files, self)
        self._spools.append(spool)
        return spool

    def hold(self, count: int) -> bool:
        """Take memory for bytes that cannot go to disk; False if there is none left."""
        return self._take(0, count, self._budget.memory_bytes)

    def hold_for_now(self, count: int) -> bool:
        """Take memory for bytes that may go to disk; False if half of all is taken: the rest is for those that
        cannot."""
        return self._take(0, count, self._budget.memory_bytes // 2)

    def store(self, count: int, moved: int) -> None:
        """Take room on disk for `count` bytes more, and for `moved` that leave memory. Raises OSError."""
        if not self._take(count + moved, -moved, 0):
            raise OSError(errno.EDQUOT, "the uploads under way take all of 'server.max_uploads_mb'")

    @property
    def left(self) -> int:
        """The bytes on disk that all uploads have left."""
        return self._budget.disk_bytes - self._budget.disk

    def close(self) -> None:
        """Give everything back. May be called again."""
        while self._spools:
            self._spools.pop().close()
        if self._disk or self._memory:
            self._take(-self._disk, -self._memory, 0)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, disk: int, memory: int, memory_bytes: int) -> bool:
        taken = self._budget.take(disk, memory, memory_bytes)
        if taken:
            self._disk += disk
            self._memory += memory
        return taken


def write_all(descriptor: int, data: Bytes, offset: int) -> None:
    """Write to a file from `offset`. Raises OSError."""
    written = 0
    with memoryview(data) as view:
        while written < len(data):
            written += os.pwrite(descriptor, view[written:], offset + written)
