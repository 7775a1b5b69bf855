"""A run that is kept, and the kept runs whose answers have arrived. Does not decide which request is answered from
them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.runs.run import Run
from app.runs.run_file import SentNote, StoredRun

# The bounds of delivered runs without an idempotency key, which are seldom asked for again: bytes in memory, runs, and
# open files.
DELIVERED_BYTES = 4 * 1_048_576
DELIVERED_RUNS = 128
DELIVERED_FILES = 64


@dataclass(slots=True, eq=False)
class RunEntry:
    """`ids` are the ids of the requests that the run answers; `joined` counts the callers that came back and are still
    connected. `name` is that of its files, `drawing_id` the ledger's, once there are any. A run that `is_handed_on`
    ended with this process, and the next one takes its jobs up again."""

    run: Run
    ids: list[str]
    joined: int = 0
    file: StoredRun | None = None
    note: SentNote | None = None
    name: str | None = None
    drawing_id: str | None = None
    is_handed_on: bool = False
    slow: asyncio.TimerHandle | None = None  # stores the run if its caller is slow

    @property
    def is_stored(self) -> bool:
        """True if the next process finds it."""
        return self.note is not None or (self.file is not None and self.file.has_name)

    def cancel_timer(self) -> None:
        if self.slow:
            self.slow.cancel()
            self.slow = None


class DeliveredRuns:
    """The runs whose answers have arrived, those in memory and those in files, each in the order of delivery. Those
    with an idempotency key lie in files of their own, and stay while there is room."""

    def __init__(self) -> None:
        self._in_memory: dict[RunEntry, int] = {}
        self._on_disk: dict[RunEntry, None] = {}
        self._named: dict[RunEntry, None] = {}
        self._bytes = 0

    def add(self, entry: RunEntry) -> None:
        recording = entry.run.recording
        if entry.run.idempotency_key is not None:
            self._named.setdefault(entry)
        elif recording.on_disk:
            self._on_disk.setdefault(entry)
        elif entry not in self._in_memory:
            self._in_memory[entry] = recording.in_memory
            self._bytes += recording.in_memory

    def remove(self, entry: RunEntry) -> None:
        self._bytes -= self._in_memory.pop(entry, 0)
        self._on_disk.pop(entry, None)
        self._named.pop(entry, None)

    def __len__(self) -> int:
        return len(self._in_memory) + len(self._on_disk) + len(self._named)

    def first_in_memory(self) -> RunEntry | None:
        without_file = (entry for entry in self._named if entry.file is None)  # the disk was full
        return next(iter(self._in_memory), None) or next(without_file, None)

    def first_on_disk(self) -> RunEntry | None:
        return next(iter(self._on_disk), None) or next(iter(self._named), None)

    def first_too_many(self) -> RunEntry | None:
        """Return a run that has to go, since its kind is over its bound."""
        if self._bytes > DELIVERED_BYTES or len(self._in_memory) > DELIVERED_RUNS:
            return next(iter(self._in_memory))
        return next(iter(self._on_disk)) if len(self._on_disk) > DELIVERED_FILES else None
