"""The protocol of a database: the money path, which each one writes out, and plain statements for everything else.

Each method is one transaction: done as a whole, or not at all. All of them may be repeated with the same drawing's id.
Every method raises `DatabaseUnavailable` if the database is away, full, read-only or locked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.ledger.values.drawings import (
    Admission,
    AttemptSent,
    Beginning,
    BudgetRefusal,
    Claim,
    Joined,
    LimitRefusal,
    Settlement,
    Ticket,
    Unfinished,
)
from app.ledger.values.windows import Period

Row = Sequence[Any]
Dialect = Literal["sqlite", "postgresql"]


class DatabaseUnavailable(Exception):
    """The database cannot be used now. The message says why."""


class DuplicateRow(Exception):
    """A row with this id, or with another value that must be unique, exists."""


class SchemaError(Exception):
    """The schema does not fit this program. The message names the remedy."""


class ForeignSecret(Exception):
    """Another living process of the database has another secret. The message names the remedy."""


@dataclass(frozen=True, slots=True)
class Full:
    """A hard budget has too little room to hold more money for a drawing."""

    budget_id: str
    period: Period
    amount: int
    used: int
    held: int
    needed: int


class Database(Protocol):
    """`SqliteDatabase` or `PostgresDatabase`."""

    dialect: Dialect

    async def admit(
        self, admission: Admission, claims: Sequence[Claim], replica: str, now: int
    ) -> Ticket | LimitRefusal | BudgetRefusal:
        """Take all limits, places and budgets that the request needs and write its row; or write nothing."""
        ...

    async def reserve(self, drawing_id: str, most: int, now: int, *, has_left: bool = False) -> bool | Full:
        """Hold `most` for a drawing in all. False: its reservation is gone. `has_left`: the request went out while the
        database was away, so that it is held even without room."""
        ...

    async def sent(self, attempt: AttemptSent) -> bool:
        """Write down that an attempt is about to leave, and wait until the disk has it. False: the reservation is
        gone."""
        ...

    async def record(self, begun: Sequence[Beginning], ended: Sequence[Settlement], replica: str) -> None:
        """Write requests that count in no limit: first the rows of the new ones with their first attempts, like `sent`,
        and then the ends."""
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """End a drawing and free its places. False: it has ended before, and nothing changes."""
        ...

    async def resolve(self, drawing_id: str, at: int, by: str, note: str, *, paid: bool) -> bool:
        """Turn the money in doubt into cost, or release it. False: nothing is in doubt."""
        ...

    async def defer(self, admission: Admission, claims: Sequence[Claim], replica: str, at: int) -> None:
        """Write the row of a request that was admitted while the database was away, even without room."""
        ...

    async def join(self, joined: Joined, replica: str) -> None:
        """Write the row of an answer from an existing run."""
        ...

    async def unfinished(self, replica: str) -> Sequence[Unfinished]:
        """Return the drawings of a process that have not ended."""
        ...

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        """Return the rows of one statement, which must not write. Placeholders are the dialect's."""
        ...

    def stream(self, sql: str, parameters: Sequence[Any] = (), chunk: int = 1000) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows of one statement in chunks, in bounded memory, as of one moment."""
        ...

    async def execute(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> Sequence[int]:
        """Run statements in one transaction; return the number of rows that each changed. Raises DuplicateRow."""
        ...

    async def aclose(self) -> None: ...
