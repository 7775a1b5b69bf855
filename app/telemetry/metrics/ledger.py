"""The ledger as admission and accounts call it, with a meter: times, refusals, and the ends of drawings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.ledger.ledger import Ledger
from app.ledger.values.drawings import (
    Admission,
    AttemptSent,
    BudgetRefusal,
    Foresight,
    Joined,
    LimitRefusal,
    Refusal,
    Settlement,
    Ticket,
    Unavailable,
)
from app.ledger.values.limits import Limit, LimitState
from app.telemetry.metrics.drawings import Drawings
from app.telemetry.metrics.families import Metrics

T = TypeVar("T")


class Traces(Protocol):
    """Observes each call with its seconds, and the ends of drawings."""

    def note(self, name: str, seconds: float) -> None: ...

    def settled(self, settlement: Settlement) -> None: ...


@dataclass(frozen=True, slots=True)
class MeteredLedger:
    """Each method is the ledger's."""

    ledger: Ledger
    drawings: Drawings
    metrics: Metrics
    traces: Traces | None = None

    async def admit(self, admission: Admission) -> Ticket | Refusal:
        found = await self._timed("admit", self.ledger.admit(admission))
        if isinstance(found, Ticket):
            self.drawings.admitted(admission)
        elif isinstance(found, LimitRefusal):
            limit = found.state.limit
            self.metrics.limited.add(str(limit.measure), limit.owner.kind)
        elif isinstance(found, BudgetRefusal):
            self.metrics.limited.add("cost", found.budget.scope)
        return found

    async def foresee(self, admission: Admission) -> Foresight | Refusal:
        return await self._timed("foresee", self.ledger.foresee(admission))

    async def limit_states(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]:
        return await self._timed("limits", self.ledger.limit_states(limits))

    async def reserve(self, drawing_id: str, most: int) -> BudgetRefusal | Unavailable | None:
        return await self._timed("reserve", self.ledger.reserve(drawing_id, most))

    async def sent(self, attempt: AttemptSent) -> Unavailable | None:
        return await self._timed("sent", self.ledger.sent(attempt))

    async def settle(self, settlement: Settlement) -> None:
        self.drawings.settled(settlement)
        if self.traces is not None:
            self.traces.settled(settlement)
        await self._timed("settle", self.ledger.settle(settlement))

    async def record_joined(self, joined: Joined) -> None:
        self.drawings.joined(joined)
        await self._timed("join", self.ledger.record_joined(joined))

    async def _timed(self, op: str, call: Awaitable[T]) -> T:
        began = time.perf_counter()
        found = await call
        seconds = time.perf_counter() - began
        self.metrics.ledger_seconds.observe(seconds, op)
        if self.traces is not None:
            self.traces.note(op, seconds)
        if isinstance(found, Unavailable):
            self.metrics.ledger_errors.add(op, "unavailable")
        return found
