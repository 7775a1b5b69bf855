"""Runs that ended before their caller had the answer, or that have an idempotency key, as files: one a run, whole or
not there. Holds no prompt and no upload, since only the answer is needed again."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.access.keys import Key
from app.errors import ApiError
from app.images import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, ImageRequest, Operation, Served, Size
from app.runs.entry import Kept
from app.runs.run import Call, Run
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
_LENGTH = 8  # bytes that say how long the head is


class RunShelf:
    """`wall` is Unix time in seconds: a restart knows no other clock. `new_name` gives one for a file."""

    def __init__(
        self,
        directory: Path,
        meter: Meter,
        wall: Callable[[], float] = time.time,
        new_name: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._directory = directory
        self._meter = meter
        self._wall = wall
        self._new_name = new_name
        self._one_at_a_time = asyncio.Lock()

    async def save(self, kept: Kept) -> None:
        """From then on the images lie in the file only. Best effort: a run that finds no room on disk is lost with the
        process."""
        async with self._one_at_a_time:
            if kept.place is None:
                with suppress(OSError, ValueError, TypeError):
                    stored = await asyncio.to_thread(self._write, kept, self._directory / f"{self._new_name()}{_OWED}")
                    kept.run.recording.move(stored)
                    kept.place = stored

    def load(self, retain_seconds: float, clock: Callable[[], float]) -> Iterator[Kept]:
        """What earlier processes left and is not too old, the oldest first. Half, damaged and old files are removed."""
        found: list[tuple[float, Path]] = []
        for path in self._directory.iterdir():
            since = path.stat().st_mtime
            if path.suffix not in (_OWED, _RECEIVED) or self._wall() - since > retain_seconds:
                path.unlink()
            else:
                found.append((since, path))
        for since, path in sorted(found):
            try:
                yield self._read(path, clock() - (self._wall() - since), clock)
            except Exception:  # damage may look like anything, and must not keep the gateway from starting
                path.unlink(missing_ok=True)

    def _write(self, kept: Kept, path: Path) -> Stored:
        run = kept.run
        log = run.recording.log()
        head = json.dumps(
            {
                "ids": kept.ids,
                "created": run.created,
                "key": run.call.key.name,
                "idempotency_key": kept.idempotency_key,
                "identity": run.identity.hex() if run.identity else None,
                "request": _request(run.call.request),
                "error": _error(run.recording.error),
                "events": [_event(event) for event in log],
            }
        ).encode()
        half = path.with_suffix(".half")
        try:
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(len(head).to_bytes(_LENGTH, "big") + head)
                for event in log:
                    if isinstance(event, Span):
                        file.write(run.recording.read(event))
                    elif isinstance(event, ImageData):
                        file.write(event.base64)
            half.rename(path)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        return Stored(path, _LENGTH + len(head))

    def _read(self, path: Path, ended_at: float, clock: Callable[[], float]) -> Kept:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "big")
            if length > path.stat().st_size:  # or as much memory would be asked for
                raise ValueError(f"{path} is cut")
            head = json.loads(file.read(length))
        stored, log = Stored(path, _LENGTH + length), list(_log(head["events"]))
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
        call = Call(request, Key(head["key"], b""), Uploads(), sent=True)
        recording = Recording.stored(log, stored, self._meter, error)
        run = Run(head["ids"][0], call, _nothing(), recording, ExitStack(), head["created"], clock)
        run.identity = bytes.fromhex(head["identity"]) if head["identity"] else None
        run.ended_at = ended_at
        run.named = head["idempotency_key"] is not None
        run.delivered = path.suffix == _RECEIVED
        return Kept(run, head["idempotency_key"], ids=head["ids"], place=stored)


class Stored:
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
