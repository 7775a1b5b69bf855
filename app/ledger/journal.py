"""The journal: writes that could not reach the database, in a file whose room is taken beforehand.

A record is its length, its checksum and its text; a length of zero ends the journal. Each write carries the end with
it, and is on the disk when `append` returns. A record that a crash cut short ends the journal too. Does not know the
meaning of the texts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

ROOM = 4 * 1_048_576  # bytes: some 5,000 settlements
_HEAD = struct.Struct("<II")  # length, checksum
_END = bytes(_HEAD.size)
# A file system on which no room can be taken beforehand; glibc does it by writing there, and musl does not.
_CANNOT_TAKE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Journal:
    """One file of one process. Blocks; belongs to one thread at a time. Raises OSError."""

    def __init__(self, path: Path, room: int = ROOM) -> None:
        """Open the file, or make it. If the disk has less room, the file takes that."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._file).st_size < room:
            with contextlib.suppress(OSError):  # records then need room on the disk when they come
                os.posix_fallocate(self._file, 0, room)
        self._count, self._end = 0, 0
        for record in self.read():
            self._count, self._end = self._count + 1, self._end + _HEAD.size + len(record.encode())

    def __len__(self) -> int:
        return self._count

    def read(self) -> Iterator[str]:
        """Yield the records from the file: a long outage fills the disk, and no memory."""
        position = 0
        while len(head := os.pread(self._file, _HEAD.size, position)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            content = os.pread(self._file, length, position + _HEAD.size) if length else b""
            if not length or len(content) < length or crc32(content) != checksum:
                return
            yield content.decode()
            position += _HEAD.size + length

    def append(self, text: str, spare: int = 0) -> None:
        """Write a record, and wait until the disk has it. `spare` bytes of room are left behind it, or nothing is
        written; on a file system that takes no room beforehand this is not looked at."""
        content = text.encode()
        record = _HEAD.pack(len(content), crc32(content)) + content
        needed = self._end + len(record) + len(_END) + spare
        if spare and needed > os.fstat(self._file).st_size:
            try:
                os.posix_fallocate(self._file, 0, needed)
            except OSError as error:
                if error.errno not in _CANNOT_TAKE:
                    raise
        written = os.pwrite(self._file, record + _END, self._end)
        if written < len(record) + len(_END):
            os.pwrite(self._file, _END, self._end)  # the disk became full in the middle of it
            raise OSError("the journal has no room")
        os.fdatasync(self._file)
        self._end += len(record)
        self._count += 1

    def clear(self) -> None:
        """Forget all records."""
        os.pwrite(self._file, _END, 0)
        os.fdatasync(self._file)
        self._count, self._end = 0, 0

    def close(self) -> None:
        os.close(self._file)
