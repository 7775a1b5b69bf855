"""Runs that ended before their caller had the answer, as files: one a run, whole or not there. Holds no prompt and no
upload, since only the answer is needed again."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.errors import ApiError
from app.images import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, ImageRequest, Operation, Served, Size
from app.keys import Key
from app.recording import Meter, Recording, Span
from app.retention import Kept
from app.runs import Call, Run
from app.spool import Uploads

_EVENTS: dict[str, Callable[..., Event]] = {
    kind.__name__: kind for kind in (Served, ImageBegins, ImageLink, ImageEnds, Done)
}
_TOLD = ("message", "param", "code", "status", "type", "should_retry", "retry_after", "details", "perhaps_paid")


class RunShelf:
    """`wall` is Unix time in seconds: a restart knows no other clock."""

    def __init__(self, directory: Path, meter: Meter, wall: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._meter = meter
        self._wall = wall

    async def save(self, kept: Kept) -> None:
        """Best effort: a run that finds no room on disk is lost with the process only."""
        if kept.place is None:
            path = self._path(kept)
            with suppress(OSError, ValueError):
                await asyncio.to_thread(self._write, kept, path)
                kept.place = path

    def remove(self, kept: Kept) -> None:
        if kept.place is not None:
            kept.place.unlink(missing_ok=True)
            kept.place = None

    def load(self, retain_seconds: float, clock: Callable[[], float]) -> Iterator[Kept]:
        """What earlier processes left and is not too old. Half files and old ones are removed."""
        for path in sorted(self._directory.iterdir()):
            try:
                if path.suffix != ".run" or self._wall() - path.stat().st_mtime > retain_seconds:
                    path.unlink()
                    continue
                yield self._read(path, clock)
            except (OSError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)

    def _path(self, kept: Kept) -> Path:
        name = sha256(f"{kept.run.call.key.name}\0{kept.run.id}\0{kept.run.created}".encode()).hexdigest()[:40]
        return self._directory / f"{name}.run"

    def _write(self, kept: Kept, path: Path) -> None:
        run = kept.run
        pieces = [event for event in run.recording.log() if isinstance(event, Span | ImageData)]
        head = json.dumps(
            {
                "id": run.id,
                "created": run.created,
                "key": run.call.key.name,
                "idempotency_key": kept.idempotency_key,
                "identity": run.identity.hex() if run.identity else None,
                "request": _request(run.call.request),
                "error": _error(run.recording.error),
                "events": [_event(event) for event in run.recording.log()],
            }
        ).encode()
        half = path.with_suffix(".half")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(len(head).to_bytes(8, "big") + head)
            for piece in pieces:
                file.write(run.recording.read(piece) if isinstance(piece, Span) else piece.base64)
        half.rename(path)

    def _read(self, path: Path, clock: Callable[[], float]) -> Kept:
        stored = Stored(path)
        head = stored.head
        request = ImageRequest(
            Operation(head["request"]["operation"]),
            head["request"]["model"],
            n=head["request"]["n"],
            stream=head["request"]["stream"],
            raw=head["request"]["raw"],
            size=Size.parse(head["request"]["size"] or ""),
            parameters=head["request"]["parameters"],
        )
        error = None if head["error"] is None else ApiError(**head["error"])
        recording = Recording.stored(list(_log(head["events"])), stored, self._meter, error)
        call = Call(request, Key(head["key"], b""), Uploads(), sent=True)
        run = Run(head["id"], call, _nothing(), recording, ExitStack(), head["created"], clock)
        run.identity = bytes.fromhex(head["identity"]) if head["identity"] else None
        run.ended_at = clock() - (self._wall() - path.stat().st_mtime)
        return Kept(run, head["idempotency_key"], place=path)


class Stored:
    """A run's file: a head in JSON, and the image data behind it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        length = int.from_bytes(os.pread(self._file.fileno(), 8, 0), "big")
        self.head: dict[str, Any] = json.loads(os.pread(self._file.fileno(), length, 8))
        self._start = 8 + length

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size - self._start

    def write(self, data: bytes) -> None:  # noqa: ARG002 (a stored run takes nothing)
        raise ValueError("a stored run has ended")

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, self._start + offset)

    def close(self) -> None:
        self._file.close()


def _request(request: ImageRequest) -> dict[str, Any]:
    """What the shape of an answer depends on."""
    return {
        "operation": str(request.operation),
        "model": request.model,
        "n": request.n,
        "stream": request.stream,
        "raw": request.raw,
        "size": str(request.size) if request.size else None,
        "parameters": {
            name: request.parameters[name] for name in ("background", "quality") if name in request.parameters
        },
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
