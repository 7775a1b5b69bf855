"""Runs that ended before their caller had the answer, or that have an idempotency key, as files: one a run, whole or
not there. Of the latter also that they were sent, while they have not ended. Holds no prompt and no upload, since only
the answer is needed again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.access.keys import Key
from app.errors import ApiError, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.call import Call
from app.images import ImageRequest, Operation, Size
from app.runs.entry import RunEntry
from app.runs.run import Run
from app.storage.recording import Meter, Recording, Span
from app.storage.spool import Uploads

_EVENTS: dict[str, Callable[..., Event]] = {
    kind.__name__: kind for kind in (Served, ImageBegins, ImageLink, ImageEnds, Done)
}
_TOLD = (
    "message",
    "param",
    "code",
    "status",
    "type",
    "should_retry",
    "retry_after",
    "details",
    "headers",
    "perhaps_paid",
    "attempts",
)
_OWED, _RECEIVED = ".run", ".had"  # whether somebody has had the answer
_SENT = ".sent"  # the answer is not known yet
_HALF = ".half"
_NAME = re.compile(r"[0-9a-f]{32}\.(?:run|had|sent|half)")
_LENGTH = 8  # bytes that say how long the head is


class RunFiles:
    """`wall` is Unix time in seconds: a restart knows no other clock. `new_name` gives one for a file. `report` is told
    what could not be written, with the run's id."""

    def __init__(
        self,
        directory: Path,
        meter: Meter,
        wall: Callable[[], float] = time.time,
        new_name: Callable[[], str] = lambda: secrets.token_hex(16),
        report: Callable[[str, Exception], None] = lambda _id, _error: None,
    ) -> None:
        self._directory = directory
        self._meter = meter
        self._wall = wall
        self._new_name = new_name
        self._report = report
        self._one_at_a_time = asyncio.Lock()

    def note(self, kept: RunEntry) -> SentNote:
        """Writes down that the run is about to be sent: a process that is killed then tells the next one. Best effort,
        as `save` is."""
        return SentNote(self._directory / f"{self._new_name()}{_SENT}", kept, self._report)

    async def save(self, kept: RunEntry) -> None:
        """From then on the images lie in the file only, and the run's note is gone. Best effort: a run that finds no
        room on disk is lost with the process; its note stays, if it has one."""
        if kept.note is not None:
            await kept.note.written()
        async with self._one_at_a_time:
            if kept.place is None:
                name = self._new_name() if kept.note is None else kept.note.name
                try:
                    stored = await asyncio.to_thread(self._write, kept, self._directory / f"{name}{_OWED}")
                except (OSError, ValueError, TypeError) as error:
                    self._report(kept.run.id, error)
                    return
                kept.run.recording.move(stored)
                kept.place = stored
        if kept.note is not None:
            kept.note.remove()
            kept.note = None

    def load(self, retain_seconds: float, clock: Callable[[], float]) -> Iterator[RunEntry]:
        """Yields what earlier processes left, the oldest first, and at last what they had sent when they were killed:
        that ends now. Removes files of ours that are too old, half or damaged, and leaves all others alone.

        If all runs are too old, the newest counts as ended now: the clock may have jumped, and to keep them once more
        does no harm if the gateway only stood still."""
        now, found = self._wall(), self._find()
        ended = {path: min(since, now) for path, since in found.items() if path.suffix in (_OWED, _RECEIVED)}
        names, newest = {path.stem for path in ended}, max(ended.values(), default=now)
        late = now - newest if now - newest > retain_seconds else 0.0
        for name in sorted(found, key=lambda path: (path.suffix == _SENT, found[path])):
            path, age = name, now - late - ended.get(name, now - late)
            try:
                if age > retain_seconds or path.suffix == _HALF or (path.suffix == _SENT and path.stem in names):
                    path.unlink()  # a run that has its file needs no note
                    continue
                if path.suffix == _SENT:
                    path = path.rename(path.with_suffix(_OWED))
                if late or name not in ended or found[name] > now:
                    os.utime(path, (now - age, now - age))  # so that the next start counts on
                kept = self._read(path, age, clock)
            except OSError:
                continue
            except Exception:  # damage may look like anything, and must not keep the gateway from starting
                with suppress(OSError):
                    path.unlink()
                continue
            yield kept

    def _find(self) -> dict[Path, float]:
        """The files that are ours by their names, with the time of their last change."""
        found = dict[Path, float]()
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found[Path(entry.path)] = entry.stat(follow_symlinks=False).st_mtime
        return found

    def _write(self, kept: RunEntry, path: Path) -> RunFile:
        """The disk has all of a run before its note goes."""
        run = kept.run
        log = run.recording.log()
        head = _head(kept, run.recording.error, log)
        half = path.with_suffix(_HALF)
        try:
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(head)
                for event in log:
                    if isinstance(event, Span):
                        file.write(run.recording.read(event))
                    elif isinstance(event, ImageData):
                        file.write(event.base64)
                if kept.note is not None:
                    file.flush()
                    os.fsync(file.fileno())
            half.rename(path)
            if kept.note is not None:
                _sync(path.parent)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        return RunFile(path, len(head))

    def _read(self, path: Path, age: float, clock: Callable[[], float]) -> RunEntry:
        """The run that ended `age` seconds ago. Raises OSError, or anything else when the file is damaged."""
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "big")
            if length > path.stat().st_size:  # or as much memory would be asked for
                raise ValueError(f"{path} is cut")
            head = json.loads(file.read(length))
        stored, log = RunFile(path, _LENGTH + length), list(_log(head["events"]))
        if stored.size != sum(event.length for event in log if isinstance(event, Span)):
            raise ValueError(f"{path} is cut")
        said = head["request"]
        request = ImageRequest(
            Operation(said["operation"]),
            said["model"],
            n=said["n"],
            stream=said["stream"],
            raw=said["raw"],
            size=Size.parse(said["size"] or ""),
            parameters=said["parameters"],
        )
        error = None if head["error"] is None else ApiError(**head["error"])
        call = Call(request, Key(head["key"], b""), Uploads(), sent=True, id=head["ids"][0])
        recording = Recording.stored(log, stored, self._meter, error)
        run = Run(head["ids"][0], call, _nothing(), recording, ExitStack(), head["created"], clock)
        run.identity = bytes.fromhex(head["identity"]) if head["identity"] else None
        run.ended_at = clock() - age
        run.named = head["idempotency_key"] is not None
        run.delivered = path.suffix == _RECEIVED
        return RunEntry(run, head["idempotency_key"], ids=head["ids"], place=stored)


class SentNote:
    """A file that says that a run was sent: its head, with the error that the next process tells. Made within a running
    loop, where writing begins at once, in a thread."""

    def __init__(self, path: Path, kept: RunEntry, report: Callable[[str, Exception], None]) -> None:
        self._path = path
        self._report = report
        self._removed = False
        self._writing = asyncio.create_task(self._write(kept))

    @property
    def name(self) -> str:
        return self._path.stem

    async def written(self) -> None:
        """Goes on writing when the waiting is cancelled: others may wait, too."""
        await asyncio.shield(self._writing)

    def remove(self) -> None:
        """May be called at any time."""
        self._removed = True
        with suppress(OSError):
            self._path.unlink()

    async def _write(self, kept: RunEntry) -> None:
        await kept.run.identify()
        try:
            await asyncio.to_thread(self._put, _head(kept, _interrupted(), []))
        except (OSError, ValueError, TypeError) as error:
            self.remove()
            self._report(kept.run.id, error)

    def _put(self, head: bytes) -> None:
        """Half of it says that nothing was sent, so it needs no other name until it is whole."""
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(head)
            file.flush()
            os.fsync(file.fileno())
        _sync(self._path.parent)
        if self._removed:  # meanwhile, and perhaps before it was there
            self._path.unlink(missing_ok=True)


class RunFile:
    """A run's file: a head in JSON, and the image data behind it. Open only while it is read, for there may be many."""

    def __init__(self, path: Path, start: int) -> None:
        """The image data begins at byte `start`."""
        self.size = path.stat().st_size - start
        self._path = path
        self._start = start
        self._descriptor: int | None = None
        self._named = True

    def write(self, data: bytes) -> None:  # noqa: ARG002 (a stored run takes nothing)
        raise ValueError("a stored run has ended")

    def read(self, offset: int, length: int) -> bytes:
        """Raises OSError."""
        return os.pread(self._open(), length, self._start + offset)

    def rest(self) -> None:
        """Nobody is reading for now."""
        if self._named:
            self.close()

    def received(self) -> None:
        """Its name says so, since the next process has nothing else to go by."""
        if self._named and self._path.suffix != _RECEIVED:
            with suppress(OSError):
                self._path = self._path.rename(self._path.with_suffix(_RECEIVED))

    def remove(self) -> None:
        """The file will not outlive the process, but can be read until it is closed."""
        if self._named:
            with suppress(OSError):
                self._open()
            with suppress(OSError):
                self._path.unlink()
            self._named = False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor


def _head(kept: RunEntry, error: ApiError | None, log: list[Event | Span]) -> bytes:
    """What a file begins with: all but the image data, and how long that is."""
    run = kept.run
    head = json.dumps(
        {
            "ids": kept.ids,
            "created": run.created,
            "key": run.call.key.name,
            "idempotency_key": kept.idempotency_key,
            "identity": run.identity.hex() if run.identity else None,
            "request": _request(run.call.request),
            "error": _error(error),
            "events": [_event(event) for event in log],
        }
    ).encode()
    return len(head).to_bytes(_LENGTH, "big") + head


def _interrupted() -> ApiError:
    return UpstreamFailed(
        "The gateway was stopped while the images were drawn. They may have been paid for, so they are not drawn "
        "again. To have them drawn anew, send another Idempotency-Key.",
        status=504,
        code="run_interrupted",
        attempts=1,
    ).paid()


def _sync(directory: Path) -> None:
    """Names of files outlive a failing machine from now on."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _request(request: ImageRequest) -> dict[str, Any]:
    """What the shape of an answer depends on."""
    return {
        "operation": str(request.operation),
        "model": request.model,
        "n": request.n,
        "stream": request.stream,
        "raw": request.raw,
        "size": str(request.size) if request.size else None,
        "parameters": dict(request.outline().parameters),
    }


def _error(error: ApiError | None) -> dict[str, Any] | None:
    return None if error is None else {name: getattr(error, name) for name in _TOLD}


def _event(event: Event | Span) -> dict[str, Any] | int:
    """Image data as its length."""
    if isinstance(event, Span):
        return event.length
    if isinstance(event, ImageData):
        return len(event.base64)
    return {"kind": type(event).__name__, **asdict(event)}


def _log(events: list[Any]) -> Iterator[Event | Span]:
    offset = 0
    for event in events:
        if isinstance(event, int):
            yield Span(offset, event)
            offset += event
        else:
            fields = {name: tuple(v) if isinstance(v, list) else v for name, v in event.items() if name != "kind"}
            yield _EVENTS[event["kind"]](**fields)


async def _nothing() -> Any:
    return
    yield
