"""The files of a run: the run itself and, while it is under way, the note that it was sent. They hold no prompt and no
upload, since only the answer is needed again."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from app.access.key_text import stable_id
from app.access.keyring import Key
from app.errors import ApiError, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.call import Call, SubmittedJob
from app.images import ImageRequest, Operation, Size
from app.runs.run import Run
from app.storage.recording import Span
from app.storage.spool import Uploads

RECORDING = ".run"
NOTE = ".sent"  # says that a run was sent
HALF = ".half"
_EVENTS: dict[str, Callable[..., Event]] = {
    kind.__name__: kind for kind in (Served, ImageBegins, ImageLink, ImageEnds, Done)
}
_CONVERSION = ("output_format", "output_compression")  # parameters that a job's images may still need
_LENGTH = 8  # bytes that hold the length of the head


class SentNote:
    """A file that says that a run was sent. It holds the head, with the error that the next process returns, and the
    jobs that providers have accepted. Needs a running loop: writing begins at once, in a thread. `ids` are those of the
    requests that the run answers, `jobs` those of a file that an earlier process wrote."""

    def __init__(
        self,
        path: Path,
        run: Run,
        ids: list[str],
        report: Callable[[str, Exception], None],
        jobs: Sequence[SubmittedJob] | None = None,
    ) -> None:
        self._path = path
        self._run = run
        self._ids = ids
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
        """Add a job. Returns when it is on disk."""
        self._jobs.append(job)
        await asyncio.shield(asyncio.create_task(self._write()))

    def remove(self) -> None:
        """Remove the file, also one that is being written."""
        self._is_removed = True
        with suppress(OSError):
            self._path.unlink()

    async def _write(self) -> None:
        await self._run.identify()
        async with self._one_at_a_time:
            try:
                head = encode_head(self._run, self._ids, _interruption(), [], self._jobs)
                await asyncio.to_thread(self._put, head)
            except (OSError, ValueError, TypeError) as error:
                if not self._jobs:
                    self.remove()
                self._report(self._run.id, error)

    def _put(self, head: bytes) -> None:
        """Replace the file, so that a killed process leaves the old one or the new one."""
        with whole_file(self._path, is_durable=True) as file:
            file.write(head)
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
        self.has_name = True

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def write(self, data: bytes) -> None:  # noqa: ARG002 (a stored run takes nothing)
        raise ValueError("a stored run has ended")

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes of the image data. Raises OSError."""
        return os.pread(self._open(), length, self._start + offset)

    def rest(self) -> None:
        """Close the descriptor until the next read."""
        if self.has_name:
            self.close()

    def remove(self) -> None:
        """Remove the file. It can be read until it is closed."""
        if self.has_name:
            with suppress(OSError):
                self._open()
            with suppress(OSError):
                self._path.unlink()
            self.has_name = False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor


def encode_head(
    run: Run, ids: list[str], error: ApiError | None, log: list[Event | Span], jobs: Sequence[SubmittedJob] = ()
) -> bytes:
    """Return the beginning of a file: everything but the image data, after its length."""
    head = json.dumps(
        {
            "ids": ids,
            "created": run.created,
            "key": run.call.key.name,
            "key_id": run.call.key.id,
            "idempotency_key": run.idempotency_key,
            "fingerprint": run.fingerprint.hex() if run.fingerprint else None,
            "request": _request(run.call.request),
            "error": None if error is None else vars(error),  # the parameters of ApiError
            "events": [_event(event) for event in log],
            "jobs": [asdict(job) for job in jobs],
            "drawing": _drawing(run.call),
            "result": run.call.result,
            "base_url": run.call.base_url,
        }
    ).encode()
    return len(head).to_bytes(_LENGTH, "big") + head


def read_head(path: Path) -> tuple[dict[str, Any], int]:
    """Return the head, and the offset of the image data. Raises ValueError for a file that is cut."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "big")
        if length > path.stat().st_size:  # as much memory would be asked for
            raise ValueError(f"{path} is cut")
        return json.loads(file.read(length)), _LENGTH + length


def decode_call(head: dict[str, Any]) -> Call:
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
    return Call(
        request,
        Key(head.get("key_id") or stable_id("key", head["key"]), head["key"]),  # earlier versions knew the name alone
        Uploads(),
        base_url=head.get("base_url"),
        id=head["ids"][0],
        result=head.get("result", "b64_json"),
        sent=1,  # so that it is never taken for one that costs nothing
    )


def decode_fingerprint(head: dict[str, Any]) -> bytes | None:
    found = head.get("fingerprint") or head.get("identity")  # its name in files of earlier versions
    return bytes.fromhex(found) if found else None


@contextmanager
def whole_file(path: Path, *, is_durable: bool) -> Iterator[IO[bytes]]:
    """Write a file that takes its place when the block ends, and not if it fails. If it `is_durable`, its bytes and its
    name then survive a crash of the machine."""
    half = path.with_name(f"{secrets.token_hex(16)}{HALF}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        half.rename(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    if is_durable:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _interruption() -> ApiError:
    return UpstreamFailed(
        "The gateway was stopped while the images were drawn. They may have been paid for, so they are not drawn "
        "again. To have them drawn anew, send another Idempotency-Key.",
        status=504,
        code="run_interrupted",
        attempts=1,
    ).paid()


def _drawing(call: Call) -> dict[str, Any] | None:
    """Return where the ledger keeps the call."""
    account = call.account
    if account is None:
        return None
    return {"id": account.drawing_id, "held": account.held, "attempts": account.attempts, "lost": account.lost}


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


def decode_log(events: list[Any]) -> Iterator[Event | Span]:
    offset = 0
    for event in events:
        if isinstance(event, int):
            yield Span(offset, event)
            offset += event
        else:
            fields = {name: tuple(v) if isinstance(v, list) else v for name, v in event.items() if name != "kind"}
            yield _EVENTS[event["kind"]](**fields)
