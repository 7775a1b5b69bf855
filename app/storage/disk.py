"""Images kept as files of one directory, for a while and within a budget. Alone in knowing how they lie there."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from app.errors import Unavailable
from app.storage.files import EXTENSIONS, MEDIA_TYPES, StoredFile
from app.storage.full_disk import LEAST_FREE, free_bytes, no_space

# Hexadecimal, since some file systems do not tell capitals from small letters. No other name is ever opened.
_NAME = re.compile(r"([0-9a-f]{32})\.([a-z0-9]{3,4})")
_HALF = ".part"
_PROBE = f"probe{_HALF}"
_UNFINISHED = re.compile(r"(?:[0-9a-f]{32}|probe)\.part")
_AT_ONCE = 64  # files removed before others get their turn
_RETRY_AFTER = 30.0  # seconds
_WRITE = os.O_WRONLY | os.O_CLOEXEC


def _new_id() -> str:
    return secrets.token_hex(16)


class DiskStore:
    """`clock` gives seconds since 1970, and must not jump while the process lives. A file carries its end, as the time
    of its last change, over restarts.

    The budget never ends a drawing that is under way: what is being written, and what is held until its answer has
    been delivered, may exceed it together, and only what is to be drawn next is refused then.

    Nothing here waits for the disk to have it all (fsync): what a failing machine loses would have gone soon anyway.
    Pieces go to the page cache, which is not worth a thread. For one event loop, and one process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        lifetime: float,
        max_bytes: int,
        clock: Callable[[], float],
        new_id: Callable[[], str] = _new_id,
        nameless: bool | None = None,
        held: Collection[str] = (),
        report: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        """`directory` is there and belongs to this store alone. `lifetime` in seconds. Without `nameless`, it is tried
        out whether files can be written without a name. Files named in `held` are held from the start. `report` is
        told of what cannot be written. Raises OSError."""
        self.lifetime = lifetime
        self.max_bytes = max_bytes
        self.used = 0  # bytes in finished files
        self.held = 0  # of these, bytes in files that are held
        self.writing = 0  # bytes in unfinished files
        self._directory = directory
        self._clock = clock
        self._new_id = new_id
        self._report = report
        # What may go, as end, bytes, name: a heap, so that the first to go is in front. And what may not, by name.
        self._files: list[tuple[int, int, str]] = []
        self._held: dict[str, StoredFile] = {}
        self._look_around(held)
        self._make_room()
        self._nameless = _can_be_nameless(directory) if nameless is None else nameless
        while self.sweep():
            pass

    async def begin(self) -> DiskWriter:
        try:
            return DiskWriter(self, self._directory, self._new_id(), self._nameless)
        except OSError as error:
            raise self.no_room(error) from error

    async def open(self, name: str) -> DiskFile | None:
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

    def check_room(self) -> None:
        if free_bytes(self._directory) < LEAST_FREE:
            self._report(no_space())
            raise Unavailable(
                "The server's disk has no room for an image that is to be handed out as a URL. Ask for "
                "`response_format: b64_json`, which keeps nothing.",
                code="no_room_for_files",
                retry_after=_RETRY_AFTER,
            )
        if self.held + self.writing >= self.max_bytes:
            raise Unavailable(
                "The server has no room now for another image that is to be handed out as a URL: those that are being "
                "drawn, or were not received yet, fill it (the setting 'files.max_mb'). Try again later, or ask for "
                "`response_format: b64_json`, which keeps nothing.",
                code="no_room_for_files",
                retry_after=_RETRY_AFTER,
            )

    def release(self, file: StoredFile) -> None:
        if self._held.pop(file.name, None) is not None:
            self.held -= file.size
            heapq.heappush(self._files, (file.expires, file.size, file.name))

    def holds(self, name: str) -> StoredFile | None:
        """The file of that name, if it is held."""
        return self._held.get(name)

    def sweep(self) -> bool:
        """Removes what has had its time, held or not, the first to end first. Whether there may be more of that to do:
        one call takes little time."""
        now = self._clock()
        for _ in range(_AT_ONCE):
            held = next(iter(self._held.values()), None)
            if held and held.expires <= now:
                self.release(held)
            if not self._files or self._files[0][0] > now:
                return False
            self._drop_first()
        return True

    async def keep_clean(self, interval: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Sweeps every `interval` seconds, until cancelled."""
        while True:
            while self.sweep():
                await sleep(0)
            await sleep(interval)

    def admit(self, length: int) -> None:
        """Counts bytes that are about to be written to an unfinished file. What may go makes room for them."""
        self.writing += length
        self._make_room()

    def forget(self, length: int) -> None:
        """An unfinished file of that many bytes is gone, or finished."""
        self.writing -= length

    def end_of_life(self) -> int:
        """When a file that is finished now ends. Rounded up: a whole second is all that a link says."""
        return math.ceil(self._clock() + self.lifetime)

    def add(self, file: StoredFile) -> None:
        """A file that is finished. It is held."""
        self._held[file.name] = file
        self.held += file.size
        self.used += file.size

    def no_room(self, error: OSError) -> Unavailable:
        """What the caller is told of a file that cannot be written. The operator is told, too."""
        self._report(error)
        return Unavailable(
            "The server has no room for an image that was to be handed out as a URL (it could not be written: "
            f"{error.strerror or error}). Ask for `response_format: b64_json`, which keeps nothing.",
            code="no_room_for_files",
            retry_after=_RETRY_AFTER,
        ).paid()

    def _make_room(self) -> None:
        while self._files and self.used + self.writing > self.max_bytes:
            self._drop_first()

    def _drop_first(self) -> None:
        _, size, name = heapq.heappop(self._files)
        self.used -= size
        with contextlib.suppress(OSError):  # somebody else was faster
            (self._directory / name).unlink()

    def _look_around(self, held: Collection[str]) -> None:
        """Counts the files that earlier processes left, and removes halves of files. Leaves alone what is not ours.

        If the time of all files is up, they stay for another one: the clock may have jumped. Their links are good again
        when it is put right."""
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
        up = max((ends for ends, _, _ in found), default=0) <= self._clock()
        for ends, size, match in sorted(found, key=lambda file: file[0]):
            file = StoredFile(
                match[1], match[2], MEDIA_TYPES.get(match[2], ""), size, self.end_of_life() if up else ends
            )
            if file.name in held:
                self.add(file)
            else:
                self._files.append((file.expires, size, file.name))
                self.used += size
        heapq.heapify(self._files)


class DiskWriter:
    """A file that has no name before it is whole (`O_TMPFILE`), so that not even SIGKILL leaves it behind; where the
    system has no such files, one with a name that the next start removes."""

    def __init__(self, store: DiskStore, directory: Path, id: str, nameless: bool) -> None:
        self._store = store
        self._directory = directory
        self._id = id
        self._half = None if nameless else directory / f"{id}{_HALF}"
        self._size = 0
        self._descriptor = (
            os.open(directory, _WRITE | os.O_TMPFILE, 0o600)
            if self._half is None
            else os.open(self._half, _WRITE | os.O_CREAT | os.O_EXCL, 0o600)
        )

    async def write(self, data: bytes) -> None:
        self._store.admit(len(data))
        self._size += len(data)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError as error:
            raise self._store.no_room(error) from error

    async def commit(self, media_type: str) -> StoredFile:
        extension = EXTENSIONS.get(media_type, "bin")
        expires = self._store.end_of_life()
        file = StoredFile(self._id, extension, MEDIA_TYPES[extension], self._size, expires)
        try:
            os.utime(self._descriptor, (expires, expires))
            self._name(self._directory / file.name)
        except OSError as error:
            raise self._store.no_room(error) from error
        self._close()
        self._store.add(file)
        return file

    def abort(self) -> None:
        if self._descriptor < 0:
            return
        self._close()
        if self._half:
            self._half.unlink(missing_ok=True)

    def _name(self, path: Path) -> None:
        if self._half:
            self._half.replace(path)
        else:
            _link(self._descriptor, path)

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._store.forget(self._size)


class DiskFile:
    """An open file: removing its name does not end it."""

    def __init__(self, file: StoredFile, descriptor: int) -> None:
        self.file = file
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; b"" at the end."""
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _link(descriptor: int, path: Path) -> None:
    """Gives a file without a name one, as open(2) advises. `src_dir_fd` means nothing beside an absolute path, but
    without it Python calls link(2), which does not follow the way through /proc."""
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def _can_be_nameless(directory: Path) -> bool:
    """Some systems, file systems and containers without /proc cannot."""
    probe = directory / _PROBE
    try:
        descriptor = os.open(directory, _WRITE | os.O_TMPFILE, 0o600)
    except (OSError, AttributeError):
        return False
    try:
        _link(descriptor, probe)
        probe.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
