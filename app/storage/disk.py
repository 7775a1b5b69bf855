"""Images stored as files of one directory, for a while and within a budget."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from app.errors import Unavailable
from app.storage.files import EXTENSIONS, MEDIA_TYPES, StoredFile
from app.storage.full_disk import LEAST_FREE, free_bytes, no_space
from app.storage.spool import write_all

# Hexadecimal, since some file systems ignore the case of letters. No other name is ever opened.
_NAME = re.compile(r"([0-9a-f]{32})\.([a-z0-9]{3,4})")
_UNFINISHED = re.compile(r"[0-9a-f]{32}\.part")
_AT_ONCE = 64  # files removed before other tasks get their turn


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """Bytes at one moment: in finished files, in those of them that are held, in unfinished files; and the budget."""

    used: int
    held: int
    writing: int
    max_bytes: int


class DiskStore:
    """A store in a directory. A file carries the time of its end over restarts, as the time of its last change.

    The budget never ends a drawing that is under way: unfinished files, and those held until their answer is delivered,
    may exceed it together. Only the next drawing is refused then.

    Nothing waits for the disk (fsync): the images that a crash of the machine loses would have expired soon anyway.
    Pieces go to the page cache, which is not worth a thread. For one event loop, and one process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        lifetime: float,
        max_bytes: int,
        clock: Callable[[], float],
        held: Collection[str] = (),
        report: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        """`directory` exists and belongs to this store alone. `lifetime` in seconds. `clock` gives seconds since 1970,
        and must not jump while the process lives. Files named in `held` are held from the start. `report` gets each
        error of a file that cannot be written. Raises OSError."""
        self.lifetime = lifetime
        self.max_bytes = max_bytes
        self.used = 0  # bytes in finished files
        self.held = 0  # of these, bytes in files that are held
        self.writing = 0  # bytes in unfinished files
        self._directory = directory
        self._clock = clock
        self._report = report
        # The files that may be removed, as end, bytes, name: a heap with the first to end in front.
        self._files: list[tuple[int, int, str]] = []
        self._held: dict[str, StoredFile] = {}
        self._scan(held)
        self._make_room()
        while self.sweep():
            pass

    async def begin(self) -> DiskWriter:
        """Return the writer of a new image. Raises Unavailable when nothing can be written."""
        try:
            return DiskWriter(self, self._directory, secrets.token_hex(16))
        except OSError as error:
            raise self.report_failure(error) from error

    async def open(self, name: str) -> DiskFile | None:
        """Return the file of that name; None if there is none, or none any more."""
        match = _NAME.fullmatch(name)
        media_type = MEDIA_TYPES.get(match[2]) if match else None
        if not match or not media_type:
            return None
        try:
            descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        found = os.fstat(descriptor)
        file = StoredFile(match[1], match[2], media_type, found.st_size, int(found.st_mtime))
        if file.expires <= self._clock():
            os.close(descriptor)
            return None
        return DiskFile(file, descriptor)

    def snapshot(self) -> StoreSnapshot:
        return StoreSnapshot(self.used, self.held, self.writing, self.max_bytes)

    def check_room(self) -> None:
        """Check before a drawing. Raises Unavailable while held or unfinished files take all the room."""
        try:
            if free_bytes(self._directory) < LEAST_FREE:
                raise no_space()
        except OSError as error:
            self._report(error)
            raise _no_room(
                "The server's disk has no room for an image that is to be handed out as a URL "
                f"({error.strerror or error})."
            ) from error
        if self.held + self.writing >= self.max_bytes:
            raise _no_room(
                "The server has no room now for another image that is to be handed out as a URL: images that are being "
                "drawn, or were not received yet, fill it (the setting 'files.max_mb'). Try again later."
            )

    def release(self, file: StoredFile) -> None:
        """Allow the file to make room for others. May be called again, and when the file is gone."""
        if self._held.pop(file.name, None) is not None:
            self.held -= file.size
            heapq.heappush(self._files, (file.expires, file.size, file.name))

    def holds(self, name: str) -> StoredFile | None:
        """Return the file of that name if it is held."""
        return self._held.get(name)

    def sweep(self) -> bool:
        """Remove expired files, held or not, the first to end first. True if more may be left: one call takes little
        time."""
        now = self._clock()
        for _ in range(_AT_ONCE):
            held = next(iter(self._held.values()), None)
            if held and held.expires <= now:
                self.release(held)
            if not self._files or self._files[0][0] > now:
                return False
            self._remove_first()
        return True

    async def keep_clean(self, interval: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Sweep every `interval` seconds, until cancelled."""
        while True:
            while self.sweep():
                await sleep(0)
            await sleep(interval)

    def admit(self, length: int) -> None:
        """Count bytes that are about to be written to an unfinished file, and make room for them."""
        self.writing += length
        self._make_room()

    def end_of_life(self) -> int:
        """Return when a file that is finished now expires. Rounded up: a link says whole seconds."""
        return math.ceil(self._clock() + self.lifetime)

    def add(self, file: StoredFile) -> None:
        """Count a finished file, and hold it."""
        self._held[file.name] = file
        self.held += file.size
        self.used += file.size

    def report_failure(self, error: OSError) -> Unavailable:
        """Report to the operator that a file cannot be written. Return the error for the caller."""
        self._report(error)
        return _no_room(
            "The server has no room for an image that was to be handed out as a URL (it could not be written: "
            f"{error.strerror or error})."
        ).paid()

    def _make_room(self) -> None:
        while self._files and self.used + self.writing > self.max_bytes:
            self._remove_first()

    def _remove_first(self) -> None:
        _, size, name = heapq.heappop(self._files)
        self.used -= size
        with contextlib.suppress(OSError):  # it may be gone already
            (self._directory / name).unlink()

    def _scan(self, held: Collection[str]) -> None:
        """Count the files of earlier processes, and remove unfinished ones. Foreign files stay.

        If all files have expired, they get another lifetime: the clock may have jumped. Their links are good again when
        it is put right."""
        found = list[tuple[int, int, re.Match[str]]]()
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    if _UNFINISHED.fullmatch(entry.name):
                        Path(entry.path).unlink()
                    elif match := _NAME.fullmatch(entry.name):
                        stat = entry.stat(follow_symlinks=False)
                        found.append((int(stat.st_mtime), stat.st_size, match))
        all_expired = max((ends for ends, _, _ in found), default=0) <= self._clock()
        for ends, size, match in sorted(found, key=lambda file: file[0]):
            expires = self.end_of_life() if all_expired else ends
            file = StoredFile(match[1], match[2], MEDIA_TYPES.get(match[2], ""), size, expires)
            if file.name in held:
                self.add(file)
            else:
                heapq.heappush(self._files, (expires, size, file.name))
                self.used += size


class DiskWriter:
    """An image on its way into the store: a file under a name of its own until it is whole. A SIGKILL leaves it to the
    next start, which removes it."""

    def __init__(self, store: DiskStore, directory: Path, id: str) -> None:
        self._store = store
        self._directory = directory
        self._id = id
        self._unfinished = directory / f"{id}.part"
        self._size = 0
        self._descriptor = os.open(self._unfinished, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)

    async def write(self, data: bytes) -> None:
        """Write a piece. Raises Unavailable when the disk takes no more."""
        self._store.admit(len(data))
        offset, self._size = self._size, self._size + len(data)
        try:
            write_all(self._descriptor, data, offset)
        except OSError as error:
            raise self._store.report_failure(error) from error

    async def commit(self, media_type: str) -> StoredFile:
        """End the image, and hold it until it is released. Raises Unavailable when it cannot be stored."""
        extension = EXTENSIONS.get(media_type, "bin")
        expires = self._store.end_of_life()
        file = StoredFile(self._id, extension, MEDIA_TYPES[extension], self._size, expires)
        try:
            os.utime(self._descriptor, (expires, expires))
            self._unfinished.replace(self._directory / file.name)
        except OSError as error:
            raise self._store.report_failure(error) from error
        self._close()
        self._store.add(file)
        return file

    def abort(self) -> None:
        """Discard the image. May be called at any time, and again; does nothing after `commit`."""
        if self._descriptor >= 0:
            self._close()
            self._unfinished.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._store.writing -= self._size


class DiskFile:
    """An open file. It stays readable when the store removes it. To be closed."""

    def __init__(self, file: StoredFile, descriptor: int) -> None:
        self.file = file
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; b"" at the end."""
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _no_room(reason: str) -> Unavailable:
    return Unavailable(
        f"{reason} `response_format: b64_json` stores nothing.", code="no_room_for_files", retry_after=30.0
    )
