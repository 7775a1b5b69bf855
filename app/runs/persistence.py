"""The store in which undelivered runs, and those with an idempotency key, outlive the process: one file for each run,
whole or not there."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import ApiError
from app.events import Event, ImageData
from app.gateway.call import Call, SubmittedJob
from app.runs.entry import RunEntry
from app.runs.run import Run, RunObserver
from app.runs.run_file import (
    DELIVERED,
    HALF,
    SENT,
    UNDELIVERED,
    SentNote,
    StoredRun,
    decode_call,
    decode_fingerprint,
    decode_log,
    encode_head,
    read_head,
    whole_file,
)
from app.runs.state import State
from app.storage.recording import Meter, Recording, Span

_NAME = re.compile(r"[0-9a-f]{32}\.(?:run|had|sent|half)")

Resume = Callable[[Call, Sequence[SubmittedJob]], AsyncGenerator[Event, None]]


@dataclass(slots=True, eq=False)
class RunFiles:
    """`wall` is Unix time in seconds: a restart knows no other clock. `new_name` returns one for a file. `report` gets
    the id of a run that could not be written, and the error."""

    directory: Path
    meter: Meter
    wall: Callable[[], float] = time.time
    new_name: Callable[[], str] = lambda: secrets.token_hex(16)
    report: Callable[[str, Exception], None] = lambda _id, _error: None
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def note(self, entry: RunEntry) -> SentNote:
        """Begin to write down that the run is about to be sent. Best effort, like `save`."""
        return SentNote(self.directory / f"{self.new_name()}{SENT}", entry.run, entry.ids, self.report)

    async def save(self, entry: RunEntry) -> None:
        """Move the images into a file, and remove the run's note. Best effort: a run that finds no room on disk is lost
        with the process; its note stays, if it has one."""
        if entry.note is not None:
            await entry.note.written()
        async with self._one_at_a_time:
            if entry.file is None:
                name = self.new_name() if entry.note is None else entry.note.name
                try:
                    file = await asyncio.to_thread(self._write, entry, self.directory / f"{name}{UNDELIVERED}")
                except (OSError, ValueError, TypeError) as error:
                    self.report(entry.run.id, error)
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
        they were killed. A run of these that has a job is under way again: `resume` returns its events, `recording` an
        empty recording for them. Any other ends now. Removes files of ours that are too old, half or damaged, and
        leaves all others alone. Needs a running loop.

        If all runs are too old, the newest counts as ended now: the clock may have jumped. If the gateway only stood
        still, to keep them once more does no harm."""
        now, found = self.wall(), self._find()
        ended = {path: min(since, now) for path, since in found.items() if path.suffix in (UNDELIVERED, DELIVERED)}
        names, newest = {path.stem for path in ended}, max(ended.values(), default=now)
        late = now - newest if now - newest > retain_seconds else 0.0
        for name in sorted(found, key=lambda path: (path.suffix == SENT, found[path])):
            path, age = name, now - late - ended.get(name, now - late)
            try:
                if age > retain_seconds or path.suffix == HALF or (path.suffix == SENT and path.stem in names):
                    path.unlink()  # a run that has its file needs no note
                    continue
                if path.suffix == SENT:
                    head, _ = read_head(path)
                    if head.get("jobs") and resume is not None and recording is not None:
                        yield self._take_up(path, head, clock, resume, recording(), observers)
                        continue
                    path = path.rename(path.with_suffix(UNDELIVERED))
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
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found[Path(entry.path)] = entry.stat(follow_symlinks=False).st_mtime
        return found

    def _write(self, entry: RunEntry, path: Path) -> StoredRun:
        """Write a whole run. The disk has all of it before its note goes."""
        run = entry.run
        log = run.recording.log()
        head = encode_head(run, entry.ids, run.recording.error, log)
        with whole_file(path, is_durable=entry.note is not None) as file:
            file.write(head)
            for event in log:
                if isinstance(event, Span):
                    file.write(run.recording.read(event))
                elif isinstance(event, ImageData):
                    file.write(event.base64)
        return StoredRun(path, len(head))

    def _read(self, path: Path, age: float, clock: Callable[[], float]) -> RunEntry:
        """Return the run that ended `age` seconds ago. Raises OSError, or anything else when the file is damaged."""
        head, start = read_head(path)
        file, log = StoredRun(path, start), list(decode_log(head["events"]))
        if file.size != sum(event.length for event in log if isinstance(event, Span)):
            raise ValueError(f"{path} is cut")
        error = None if head["error"] is None else ApiError(**head["error"])
        recording = Recording.stored(log, file, self.meter, error)
        name, created = head["idempotency_key"], head["created"]
        run = Run(decode_call(head), _no_events(), recording, ExitStack(), created, clock, name)
        run.fingerprint = decode_fingerprint(head)
        run.restore(_state_at_end(error, is_delivered=path.suffix == DELIVERED), seconds_ago=age)
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
        call, jobs = decode_call(head), [SubmittedJob(**job) for job in head["jobs"]]
        events, name, created = _resume_later(resume, call, jobs), head["idempotency_key"], head["created"]
        run = Run(call, events, recording, ExitStack(), created, clock, name, observers)
        run.fingerprint = decode_fingerprint(head)
        entry = RunEntry(run, head["ids"])
        entry.note = SentNote(path, run, entry.ids, self.report, jobs)
        return entry


def _state_at_end(error: ApiError | None, *, is_delivered: bool) -> State:
    if error is not None:
        return State.UNCERTAIN if error.perhaps_paid else State.FAILED
    return State.DELIVERED if is_delivered else State.FINISHED


async def _resume_later(resume: Resume, call: Call, jobs: Sequence[SubmittedJob]) -> AsyncGenerator[Event, None]:
    """Ask for the events when the first one is wanted: by then the gateway serves."""
    async with aclosing(resume(call, jobs)) as events:
        async for event in events:
            yield event


async def _no_events() -> AsyncGenerator[Event, None]:
    return
    yield
