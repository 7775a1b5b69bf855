"""The store in which undelivered runs, and those with an idempotency key, outlive the process. Each run has one file,
which is whole or not there, and a row of the registry beside it.

The file has everything that decides whether a drawing is paid for twice, or lost. The row may be lost: it says when the
run ended, and whether a caller has it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from app.errors import ApiError
from app.events import ImageData, Sink
from app.gateway.account import Accounts
from app.gateway.call import Call, SubmittedJob
from app.ledger.database.run_rows import RunRow
from app.microseconds import SECOND, to_microseconds
from app.runs.entry import RunEntry
from app.runs.registry import RunRegistry
from app.runs.run import Run, RunObserver
from app.runs.run_file import (
    HALF,
    NOTE,
    RECORDING,
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

_NAME = re.compile(r"[0-9a-f]{32}\.(?:run|had|sent|half)")  # `.had`: a recording of an earlier version
_DELIVERED = {state.name.lower() for state in State if state.is_delivered}

Resume = Callable[[Call, Sequence[SubmittedJob], Sink], Awaitable[None]]


@dataclass(slots=True, eq=False)
class RunFiles:
    """`wall` is Unix time in seconds: a restart knows no other clock. `new_name` returns one for a file. `report` gets
    the id of a run that could not be written, and the error. `registry` None: no process learns of it when runs ended.
    """

    directory: Path
    meter: Meter
    wall: Callable[[], float] = time.time
    new_name: Callable[[], str] = lambda: secrets.token_hex(16)
    report: Callable[[str, Exception], None] = lambda _id, _error: None
    registry: RunRegistry | None = None
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def note(self, entry: RunEntry) -> SentNote:
        """Begin to record that the run is about to be sent. Best effort, like `save`."""
        self._name(entry, self.new_name())
        return SentNote(self.directory / f"{entry.name}{NOTE}", entry.run, entry.ids, self.report)

    async def save(self, entry: RunEntry) -> None:
        """Move the images into a file, and remove the run's note. Best effort: a run that finds no room on disk is lost
        with the process; its note stays, if it has one."""
        if entry.note is not None:
            await entry.note.written()
        async with self._one_at_a_time:
            if entry.file is None:
                if entry.name is None:
                    self._name(entry, self.new_name())
                try:
                    file = await asyncio.to_thread(self._write, entry, self.directory / f"{entry.name}{RECORDING}")
                except (OSError, ValueError, TypeError) as error:
                    self.report(entry.run.id, error)
                    return
                entry.run.recording.move(file)
                entry.file = file
        if entry.note is not None:
            entry.note.remove()
            entry.note = None

    def register(self, entry: RunEntry) -> None:
        """Bring the run's row in step with its files, in the background. Does nothing for a run without files."""
        if self.registry is None or entry.name is None:
            return
        if not entry.is_stored:
            self.registry.remove(entry.name)
            return
        run = entry.run
        state = run.state if run.has_ended else State.SENT  # at its note it is about to be sent
        ended = None if run.ended_at is None else self.wall() - (run.clock() - run.ended_at)
        digest = self.registry.digest
        row = RunRow(
            id=entry.name,
            key_id=run.call.key.id,
            idempotency_digest=digest(run.idempotency_key.encode()) if run.idempotency_key else None,
            fingerprint=digest(run.fingerprint) if run.fingerprint else None,
            state=state.name.lower(),
            names=tuple(entry.ids),
            drawing_id=entry.drawing_id,
            began_at=run.created * SECOND,
            ended_at=None if ended is None else to_microseconds(ended),
        )
        self.registry.put(row)

    def load(
        self,
        retain_seconds: float,
        clock: Callable[[], float],
        *,
        resume: Resume | None = None,
        recording: Callable[[], Recording] | None = None,
        observers: Sequence[RunObserver] = (),
        accounts: Accounts | None = None,
    ) -> list[RunEntry]:
        """Return the runs that earlier processes left, in the order in which they began. Needs a running loop.

        A run that was under way when its process was killed goes on if it has a job: `resume` pushes its events into an
        empty recording, made by `recording`. Any other run has ended: its row says when, and whether a caller has it.
        Without a row it ends now, and no caller has it. Removes files of ours that are too old, half or damaged, and
        leaves all others alone.

        If all runs are too old, the newest counts as ended now: the clock may have jumped. If the gateway was only
        down, keeping them once more does no harm."""
        now, found = self.wall(), self._find()
        rows = self.registry.take_found() if self.registry is not None else {}
        recordings = {path.stem for path in found if path.suffix not in (NOTE, HALF)}
        ended = {
            path: min(row.ended_at / SECOND, now) for path in found if (row := rows.get(path.stem)) and row.ended_at
        }
        newest = max(ended.values(), default=now)
        late = now - newest if now - newest > retain_seconds else 0.0
        entries = list[RunEntry]()
        for path in sorted(found, key=lambda path: ended.get(path, now)):
            age = now - late - ended.get(path, now - late)
            try:
                if path.suffix == HALF or (path.suffix == NOTE and path.stem in recordings):
                    path.unlink()  # a run that has its recording needs no note
                    continue
                head = read_head(path)[0] if path.suffix == NOTE else {}
                if head.get("jobs") and resume is not None and recording is not None:
                    entry = self._take_up(path, head, clock, resume, recording(), observers, accounts)
                elif age > retain_seconds:
                    path.unlink()
                    continue
                else:
                    row = rows.get(path.stem)
                    entry = self._read(path, age, clock, is_delivered=row is not None and row.state in _DELIVERED)
            except OSError:
                continue
            except Exception:  # damage may look like anything, and must not keep the gateway from starting
                with suppress(OSError):
                    path.unlink()
                continue
            entries.append(entry)
        for entry in entries:
            self.register(entry)
        return sorted(entries, key=lambda entry: entry.run.created)

    def drawings_under_way(self) -> list[str]:
        """Return the ledger's ids of the runs whose jobs `load` takes up again."""
        found = list[str]()
        for path in self._find():
            if path.suffix == NOTE:
                with suppress(Exception):  # `load` handles damaged files
                    head, _ = read_head(path)
                    if head.get("jobs") and head.get("drawing"):
                        found.append(head["drawing"]["id"])
        return found

    def _find(self) -> list[Path]:
        """Return the files that are ours by their names."""
        found = list[Path]()
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found.append(Path(entry.path))
        return found

    def _name(self, entry: RunEntry, name: str) -> None:
        entry.name = name
        if entry.run.call.account is not None:
            entry.drawing_id = entry.run.call.account.drawing_id

    def _write(self, entry: RunEntry, path: Path) -> StoredRun:
        """Write a whole run. All of it is on disk before its note is removed."""
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

    def _read(self, path: Path, age: float, clock: Callable[[], float], *, is_delivered: bool) -> RunEntry:
        """Return the run that ended `age` seconds ago. Raises OSError, or anything else when the file is damaged."""
        head, start = read_head(path)
        file, log = StoredRun(path, start), list(decode_log(head["events"]))
        if file.size != sum(event.length for event in log if isinstance(event, Span)):
            raise ValueError(f"{path} is cut")
        error = None if head["error"] is None else ApiError(**head["error"])
        recording = Recording.stored(log, file, self.meter, error)
        name, created = head["idempotency_key"], head["created"]
        run = Run(decode_call(head), _draw_nothing, recording, created, clock, name)
        run.fingerprint = decode_fingerprint(head)
        run.restore(_state_at_end(error, is_delivered=is_delivered), seconds_ago=age)
        drawing_id = (head.get("drawing") or {}).get("id")
        return RunEntry(run, head["ids"], file=file, name=path.stem, drawing_id=drawing_id)

    def _take_up(
        self,
        path: Path,
        head: dict[str, Any],
        clock: Callable[[], float],
        resume: Resume,
        recording: Recording,
        observers: Sequence[RunObserver],
        accounts: Accounts | None,
    ) -> RunEntry:
        """Return a run whose jobs an earlier process submitted, under way again."""
        call, jobs = decode_call(head), [SubmittedJob(**job) for job in head["jobs"]]
        if accounts is not None and (drawing := head.get("drawing")):
            before = max(drawing.get("attempts", 0) - len({job.first for job in jobs}), 0)
            lost = drawing.get("lost", 0)
            call.account = accounts.open(drawing["id"], drawing["held"], call.request, before, lost)
        name, created = head["idempotency_key"], head["created"]
        run = Run(call, partial(resume, call, jobs), recording, created, clock, name, observers)
        run.fingerprint = decode_fingerprint(head)
        entry = RunEntry(run, head["ids"])
        self._name(entry, path.stem)
        entry.note = SentNote(path, run, entry.ids, self.report, jobs)
        return entry


def _state_at_end(error: ApiError | None, *, is_delivered: bool) -> State:
    if error is not None:
        return State.UNCERTAIN if error.perhaps_paid else State.FAILED
    return State.DELIVERED if is_delivered else State.FINISHED


async def _draw_nothing(_sink: Sink) -> None:
    """Draw nothing: the run has ended."""
