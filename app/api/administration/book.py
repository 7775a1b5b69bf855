"""The book as the API asks it. `app.ledger` fits these protocols, and the wiring brings the two together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.ledger.values.changes import Actor, BudgetState
from app.ledger.values.directory import ApiKey, Budget, Directory, Project
from app.ledger.values.records import (
    Doubts,
    DrawingDetail,
    DrawingFilter,
    DrawingRecord,
    EventFilter,
    EventRecord,
    Page,
    PriceRecord,
    Timing,
    UsageQuery,
    UsageRecord,
)


class Reports(Protocol):
    """Raises UnknownRow for the id of a row that is not there, and DatabaseUnavailable."""

    async def drawings(self, which: DrawingFilter, after: str | None = None, limit: int = 100) -> Page[DrawingRecord]:
        """Return the newest drawings, or those that come after the one with the id `after`."""
        ...

    def export(self, which: DrawingFilter) -> AsyncIterator[Sequence[DrawingRecord]]:
        """Yield all of these drawings in chunks."""
        ...

    async def drawing(self, id: str) -> DrawingDetail: ...

    async def usage(self, query: UsageQuery) -> Sequence[UsageRecord]: ...

    async def timing(self, since: int, until: int) -> Timing:
        """Return how long the delivered drawings of a span took."""
        ...

    async def doubts(self) -> Doubts:
        """Return the drawings that are in doubt now."""
        ...

    async def prices(self, *, with_past: bool = False) -> Sequence[PriceRecord]: ...

    async def events(
        self, which: EventFilter, *, after: int | None = None, before: int | None = None, limit: int = 20
    ) -> Page[EventRecord]: ...


class Registry(Protocol):
    """Each change is one transaction. Raises Missing, Taken and DatabaseUnavailable."""

    async def directory(self) -> Directory: ...

    async def projects_of_keys(self) -> Mapping[str, str | None]: ...

    async def note(self, actor: Actor, action: str, kind: str, id: str, after: Mapping[str, Any]) -> None:
        """Write a line of the audit log about a change that was made elsewhere."""
        ...

    async def add_project(self, project: Project, actor: Actor) -> None: ...

    async def update_project(self, id: str, actor: Actor, **changes: Any) -> Project: ...

    async def archive_project(self, id: str, actor: Actor) -> Project: ...

    async def add_key(self, key: ApiKey, actor: Actor) -> None: ...

    async def update_key(self, id: str, actor: Actor, **changes: Any) -> ApiKey: ...

    async def rotate_key(self, id: str, digest: bytes, previous_until: int, actor: Actor) -> ApiKey: ...

    async def delete_key(self, id: str, actor: Actor) -> None: ...

    async def add_budget(self, budget: Budget, actor: Actor) -> None: ...

    async def update_budget(self, id: str, actor: Actor, **changes: Any) -> Budget: ...

    async def remove_budget(self, id: str, actor: Actor) -> None: ...

    async def budget_states(self, budgets: Iterable[Budget]) -> Sequence[BudgetState]: ...


class Book(Protocol):
    """`app.ledger.book.book` explains each of these."""

    @property
    def currency(self) -> str: ...

    async def reports(self) -> Reports: ...

    async def registry(self) -> Registry: ...

    async def refresh(self) -> None: ...

    async def resolve(self, drawing_id: str, *, paid: bool, by: str, note: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key: its text, which is shown only now, and its stored parts."""

    id: str
    text: str = field(repr=False)
    digest: bytes = field(repr=False)


class Mint(Protocol):
    """Makes the text of keys."""

    def __call__(self, *, is_admin: bool, id: str | None = None) -> NewKey:
        """`id`: that of the key whose text is replaced."""
        ...
