"""A run that is kept, and how many of those whose answers have arrived. Does not decide who is answered from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.runs.run import Run

# What has arrived and has no idempotency key is kept for nobody in particular, so in little room: bytes in memory,
# runs, and open files.
DELIVERED_BYTES = 4 * 1_048_576
DELIVERED_RUNS = 128
DELIVERED_FILES = 64


class RunFile(Protocol):
    """The file in which a run outlives the process."""

    def rest(self) -> None: ...

    def received(self) -> None: ...

    def remove(self) -> None: ...


class Note(Protocol):
    """The file that tells the next process that a run was sent, while nothing tells what became of it."""

    @property
    def name(self) -> str:
        """That of the run's own file, too."""
        ...

    async def written(self) -> None:
        """Waits until the disk has it."""
        ...

    def remove(self) -> None: ...


@dataclass(slots=True, eq=False)
class RunEntry:
    """`ids` are those of the requests that are answered from the run."""

    run: Run
    idempotency_key: str | None
    ids: list[str]
    joined: int = 0  # by how many who came back and are still there
    place: RunFile | None = None
    note: Note | None = None
    delivered_at: float = 0.0  # the clock's time, seconds
    returned: bool = False  # it was delivered, but its connection broke


class Delivered:
    """The runs whose answers have arrived: those in memory and those in files, each in the order of delivery. Those
    with an idempotency key lie in files of their own, and stay while there is room."""

    def __init__(self) -> None:
        self._in_memory: dict[RunEntry, int] = {}
        self._on_disk: dict[RunEntry, None] = {}
        self._named: dict[RunEntry, None] = {}
        self._bytes = 0

    def add(self, kept: RunEntry) -> None:
        recording = kept.run.recording
        if kept.run.named:
            self._named.setdefault(kept)
        elif recording.on_disk:
            self._on_disk.setdefault(kept)
        elif kept not in self._in_memory:
            self._in_memory[kept] = recording.in_memory
            self._bytes += recording.in_memory

    def remove(self, kept: RunEntry) -> None:
        self._bytes -= self._in_memory.pop(kept, 0)
        self._on_disk.pop(kept, None)
        self._named.pop(kept, None)

    def in_memory(self) -> RunEntry | None:
        homeless = (kept for kept in self._named if kept.place is None)  # the disk was full
        return next(iter(self._in_memory), None) or next(homeless, None)

    def on_disk(self) -> RunEntry | None:
        return next(iter(self._on_disk), None) or next(iter(self._named), None)

    def too_much(self) -> RunEntry | None:
        """One that has to go."""
        if self._bytes > DELIVERED_BYTES or len(self._in_memory) > DELIVERED_RUNS:
            return next(iter(self._in_memory))
        return next(iter(self._on_disk)) if len(self._on_disk) > DELIVERED_FILES else None
