"""Bytes kept until a request is over: in memory while they are few, in a nameless file beyond. No HTTP here."""

from __future__ import annotations

import os
import tempfile
from types import TracebackType
from typing import IO, Self

Bytes = bytes | bytearray | memoryview


class Spool:
    """A Blob that grows at its end. Read from any thread, once nothing is written any more.

    The file has no name (`O_TMPFILE` where the system has it), so that not even SIGKILL leaves it behind.
    """

    def __init__(self, memory_bytes: int, directory: str | None = None) -> None:
        """Up to `memory_bytes` stay in memory; the file lies in `directory`, or in the system's own place (None)."""
        self._memory = bytearray()
        self._memory_bytes = memory_bytes
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._descriptor = -1
        self._size = 0
        self._closed = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    def write(self, data: Bytes) -> None:
        """Appends. Raises OSError when the disk is full, ValueError when closed."""
        if self._closed:
            raise ValueError("the spool is closed")
        length = len(data)
        if self._file is None and self._size + length <= self._memory_bytes:
            self._memory += data
        else:
            if self._file is None:
                self._spill()
            _write_all(self._descriptor, data)
        self._size += length

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end. Raises ValueError when closed."""
        if self._closed:
            raise ValueError("the spool is closed")
        length = max(0, min(length, self._size - offset))
        if self._file is None:
            return bytes(memoryview(self._memory)[offset : offset + length])
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:  # a signal cut it short
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        """Forgets the bytes. May be called again."""
        self._closed = True
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self) -> None:
        # Closed by close(): SIM115 cannot see that.
        self._file = tempfile.TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115
        self._descriptor = self._file.fileno()
        _write_all(self._descriptor, self._memory)
        self._memory = bytearray()


class Uploads:
    """Owns the spools of one request: leaving the `with` block closes them all, however it is left."""

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._spools: list[Spool] = []

    def spool(self, memory_bytes: int) -> Spool:
        spool = Spool(memory_bytes, self._directory)
        self._spools.append(spool)
        return spool

    def close(self) -> None:
        while self._spools:
            self._spools.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write_all(descriptor: int, data: Bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        with memoryview(data) as view:
            written += os.write(descriptor, view[written:])
