"""Undelivered runs, and runs with an idempotency key, as files: one for each run, whole or not there. A note file tells
that such a run was sent while it is under way, and which jobs a provider has accepted for it. Holds no prompt and no
upload, since only the answer is needed again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.access.keyring import Key
from app.errors import ApiError, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.call import Call, SubmittedJob
from app.images import ImageRequest, Operation, Size
from app.runs.entry import RunEntry
from app.runs.run import Run, RunObserver
from app.runs.state import State
from app.storage.recording import Meter, Recording, Span
from app.storage.spool import Uploads

_EVENTS: dict[str, Callable[..., Event]] = {
    kind.__name__: kind for kind in (Served, ImageBegins, ImageLink, ImageEnds, Done)
}
_ERROR_FIELDS = (
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
_CONVERSION = ("output_format", "output_compression")  # parameters that a job's images may still need
_UNDELIVERED, _DELIVERED = ".run", ".had"
_SENT = ".sent"  # a note: the run is under way
_HALF = ".half"
_NAME = re.compile(r"[0-9a-f]{32}\.(?:run|had|sent|half)")
_LENGTH = 8  # bytes that hold the length of the head

Resume = Callable[[Call, Sequence[SubmittedJob]], AsyncGenerator[Event, None]]


class RunFiles:
    """`wall` is Unix time in seconds: a restart knows no other clock. `new_name` returns one for a file. `report` gets
    the id of a run that could not be written, and the error."""

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

    def note(self, entry: RunEntry) -> SentNote:
        """Begin to write down that the run is about to be sent. Best effort, like `save`."""
        return SentNote(self._directory / f"{self._new_name()}{_SENT}", entry, self._report)

    async def save(self, entry: RunEntry) -> None:
        """Move the images into a file, and remove the run's note. Best effort: a run that finds no room on disk is lost
        with the process; its note stays, if it has one."""
        if entry.note is not None:
            await entry.note.written()
        async with self._one_at_a_time:
            if entry.file is None:
                name = self._new_name() if entry.note is None else entry.note.name
                try:
                    file = await asyncio.to_thread(self._write, entry, self._directory / f"{name}{_UNDELIVERED}")
                except (OSError, ValueError, TypeError) as error:
                    self._report(entry.run.id, error)
                    return
                entry.run.recording.move(file)
                entry.file = file
        if entry.note is not None:
            entry.note.remove()
            entry.note = None

    def load(
        self,
        retain_seconds: float,
        clock: Callable[[], float],
        *,
        resume: Resume | None = None,
        recording: Callable[[], Recording] | None = None,
        observers: Sequence[RunObserver] = (),
    ) -> Iterator[RunEntry]:
        """Yield the runs that earlier processes left, the oldest first, and at last the runs that were under way when
        they were killed. Of these, a run with a job is under way again: `resume` returns its events, `recording` an
        empty recording for them. Any other ends now. Removes files of ours that are too old, half or damaged, and
        leaves all others alone. Needs a running loop.

        If all runs are too old, the newest counts as ended now: the clock may have jumped. If the gateway only stood
        still, to keep them once more does no harm."""
        now, found = self._wall(), self._find()
        ended = {path: min(since, now) for path, since in found.items() if path.suffix in (_UNDELIVERED, _DELIVERED)}
        names, newest = {path.stem for path in ended}, max(ended.values(), default=now)
        late = now - newest if now - newest > retain_seconds else 0.0
        for name in sorted(found, key=lambda path: (path.suffix == _SENT, found[path])):
            path, age = name, now - late - ended.get(name, now - late)
            try:
                if age > retain_seconds or path.suffix == _HALF or (path.suffix == _SENT and path.stem in names):
                    path.unlink()  # a run that has its file needs no note
                    continue
                if path.suffix == _SENT:
                    head = _read_head(path)
                    if head.get("jobs") and resume is not None and recording is not None:
                        yield self._take_up(path, head, clock, resume, recording(), observers)
                        continue
                    path = path.rename(path.with_suffix(_UNDELIVERED))
                if late or name not in ended or found[name] > now:
                    os.utime(path, (now - age, now - age))  # so that the next start counts on
                entry = self._read(path, age, clock)
            except OSError:
                continue
            except Exception:  # damage may look like anything, and must not keep the gateway from starting
                with suppress(OSError):
                    path.unlink()
                continue
            yield entry

    def _find(self) -> dict[Path, float]:
        """Return the files that are ours by their names, with the time of their last change."""
        found = dict[Path, float]()
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found[Path(entry.path)] = entry.stat(follow_symlinks=False).st_mtime
        return found

    def _write(self, entry: RunEntry, path: Path) -> StoredRun:
        """Write a whole run. The disk has all of it before its note goes."""
        run = entry.run
        log = run.recording.log()
        head = _head(entry, run.recording.error, log)
        half = path.with_suffix(_HALF)
        try:
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(head)
                for event in log:
                    if isinstance(event, Span):
                        file.write(run.recording.read(event))
                    elif isinstance(event, ImageData):
                        file.write(event.base64)
                if entry.note is not None:
                    file.flush()
                    os.fsync(file.fileno())
            half.rename(path)
            if entry.note is not None:
                _sync(path.parent)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        return StoredRun(path, len(head))

    def _read(self, path: Path, age: float, clock: Callable[[], float]) -> RunEntry:
        """Return the run that ended `age` seconds ago. Raises OSError, or anything else when the file is damaged."""
        head, length = _read_head(path), _length_of(path)
        file, log = StoredRun(path, _LENGTH + length), list(_log(head["events"]))
        if file.size != sum(event.length for event in log if isinstance(event, Span)):
            raise ValueError(f"{path} is cut")
        error = None if head["error"] is None else ApiError(**head["error"])
        recording = Recording.stored(log, file, self._meter, error)
        run = _run(head, _no_events(), recording, clock)
        run.call.sent = 1
        run.restore(
            _ended_state(error, is_delivered=path.suffix == _DELIVERED),
            seconds_ago=age,
            fingerprint=_fingerprint(head),
        )
        return RunEntry(run, head["ids"], file=file)

    def _take_up(
        self,
        path: Path,
        head: dict[str, Any],
        clock: Callable[[], float],
        resume: Resume,
        recording: Recording,
        observers: Sequence[RunObserver],
    ) -> RunEntry:
        """Return a run whose jobs an earlier process submitted, under way again."""
        call = _call(head)
        call.sent = 1  # so that it is never taken for one that costs nothing
        jobs = [SubmittedJob(**job) for job in head["jobs"]]
        run = _run(head, _resumed(resume, call, jobs), recording, clock, call=call, observers=observers)
        run.fingerprint = _fingerprint(head)
        entry = RunEntry(run, head["ids"])
        entry.note = SentNote(path, entry, self._report, jobs)
        return entry


class SentNote:
    """A file that says that a run was sent: its head, with the error that the next process tells, and the jobs that
    providers have accepted. Made within a running loop, where writing begins at once, in a thread. `jobs` are those of
    a file that an earlier process wrote."""

    def __init__(
        self,
        path: Path,
        entry: RunEntry,
        report: Callable[[str, Exception], None],
        jobs: Sequence[SubmittedJob] | None = None,
    ) -> None:
        self._path = path
        self._entry = entry
        self._report = report
        self._is_removed = False
        self._jobs = list(jobs or ())
        self._writing = asyncio.create_task(self._write() if jobs is None else asyncio.sleep(0))
        self._one_at_a_time = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._path.stem

    @property
    def has_jobs(self) -> bool:
        return bool(self._jobs)

    async def written(self) -> None:
        """Wait for the file. Writing goes on when the waiting is cancelled: other tasks may wait, too."""
        await asyncio.shield(self._writing)

    async def add(self, job: SubmittedJob) -> None:
        """Return when the disk knows the job, too."""
        self._jobs.append(job)
        await asyncio.shield(asyncio.create_task(self._write()))

    def remove(self) -> None:
        """Remove the file, also one that is being written."""
        self._is_removed = True
        with suppress(OSError):
            self._path.unlink()

    async def _write(self) -> None:
        await self._entry.run.identify()
        async with self._one_at_a_time:
            try:
                head = _head(self._entry, _interrupted(), [], self._jobs)
                await asyncio.to_thread(self._put, head)
            except (OSError, ValueError, TypeError) as error:
                if not self._jobs:
                    self.remove()
                self._report(self._entry.run.id, error)

    def _put(self, head: bytes) -> None:
        """Replace the file, so that a killed process leaves the old one or the new one."""
        half = self._path.with_name(f"{secrets.token_hex(16)}{_HALF}")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(head)
            file.flush()
            os.fsync(file.fileno())
        half.rename(self._path)
        _sync(self._path.parent)
        if self._is_removed:  # meanwhile, and perhaps before the file was there
            self._path.unlink(missing_ok=True)


class StoredRun:
    """A run's file: a head in JSON, and the image data behind it. Open only while it is read, for there may be many."""

    def __init__(self, path: Path, start: int) -> None:
        """The image data begins at byte `start`."""
        self.size = path.stat().st_size - start
        self._path = path
        self._start = start
        self._descriptor: int | None = None
        self._has_name = True

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def write(self, data: bytes) -> None:  # noqa: ARG002 (a stored run takes nothing)
        raise ValueError("a stored run has ended")

    def read(self, offset: int, length: int) -> bytes:
        """Raises OSError."""
        return os.pread(self._open(), length, self._start + offset)

    def rest(self) -> None:
        """Close the descriptor until the next read."""
        if self._has_name:
            self.close()

    def mark_delivered(self) -> None:
        """Tell the next process by the file's name."""
        if self._has_name and self._path.suffix != _DELIVERED:
            with suppress(OSError):
                self._path = self._path.rename(self._path.with_suffix(_DELIVERED))

    def remove(self) -> None:
        """Remove the file. It can be read until it is closed."""
        if self._has_name:
            with suppress(OSError):
                self._open()
            with suppress(OSError):
                self._path.unlink()
            self._has_name = False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor


def _head(entry: RunEntry, error: ApiError | None, log: list[Event | Span], jobs: Sequence[SubmittedJob] = ()) -> bytes:
    """Return the beginning of a file: everything but the image data, after its length."""
    run = entry.run
    head = json.dumps(
        {
            "ids": entry.ids,
            "created": run.created,
            "key": run.call.key.name,
            "idempotency_key": run.idempotency_key,
            "fingerprint": run.fingerprint.hex() if run.fingerprint else None,
            "request": _request(run.call.request),
            "error": None if error is None else {name: getattr(error, name) for name in _ERROR_FIELDS},
            "events": [_event(event) for event in log],
            "jobs": [asdict(job) for job in jobs],
            "result": run.call.result,
            "base_url": run.call.base_url,
        }
    ).encode()
    return len(head).to_bytes(_LENGTH, "big") + head


def _length_of(path: Path) -> int:
    """Return the length of the head. Raises ValueError for a file that is cut."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "big")
    if length > path.stat().st_size:  # as much memory would be asked for
        raise ValueError(f"{path} is cut")
    return length


def _read_head(path: Path) -> dict[str, Any]:
    length = _length_of(path)
    with path.open("rb") as file:
        file.seek(_LENGTH)
        head: dict[str, Any] = json.loads(file.read(length))
    return head


def _call(head: dict[str, Any]) -> Call:
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
    call = Call(request, Key(head["key"], b""), Uploads(), base_url=head.get("base_url"), id=head["ids"][0])
    call.result = head.get("result", "b64_json")
    return call


def _run(
    head: dict[str, Any],
    events: AsyncGenerator[Event, None],
    recording: Recording,
    clock: Callable[[], float],
    *,
    call: Call | None = None,
    observers: Sequence[RunObserver] = (),
) -> Run:
    call, name = call or _call(head), head["idempotency_key"]
    return Run(call, events, recording, ExitStack(), head["created"], clock, idempotency_key=name, observers=observers)


def _fingerprint(head: dict[str, Any]) -> bytes | None:
    found = head.get("fingerprint") or head.get("identity")  # its name in files of earlier versions
    return bytes.fromhex(found) if found else None


def _ended_state(error: ApiError | None, *, is_delivered: bool) -> State:
    if error is not None:
        return State.UNCERTAIN if error.perhaps_paid else State.FAILED
    return State.DELIVERED if is_delivered else State.FINISHED


def _interrupted() -> ApiError:
    return UpstreamFailed(
        "The gateway was stopped while the images were drawn. They may have been paid for, so they are not drawn "
        "again. To have them drawn anew, send another Idempotency-Key.",
        status=504,
        code="run_interrupted",
        attempts=1,
    ).paid()


def _sync(directory: Path) -> None:
    """Make the names of files outlive a failing machine."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _request(request: ImageRequest) -> dict[str, Any]:
    """Return the parts of a request that shape its answer."""
    conversion = {name: request.parameters[name] for name in _CONVERSION if name in request.parameters}
    return {
        "operation": str(request.operation),
        "model": request.model,
        "n": request.n,
        "stream": request.stream,
        "raw": request.raw,
        "size": str(request.size) if request.size else None,
        "parameters": {**request.outline().parameters, **conversion},
    }


def _event(event: Event | Span) -> dict[str, Any] | int:
    """Return an event as JSON; image data becomes its length."""
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


async def _resumed(resume: Resume, call: Call, jobs: Sequence[SubmittedJob]) -> AsyncGenerator[Event, None]:
    """Ask for the events when the first one is wanted: by then the gateway serves."""
    async with aclosing(resume(call, jobs)) as events:
        async for event in events:
            yield event


async def _no_events() -> AsyncGenerator[Event, None]:
    return
    yield
