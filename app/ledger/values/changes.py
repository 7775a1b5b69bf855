"""Changes of the directory: their authors, their errors, and the use of budgets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.ledger.values.directory import Budget
from app.ledger.values.windows import Period


class Taken(Exception):
    """Another one has this name or id."""


class Missing(Exception):
    """There is no such project, key or budget."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change: an API key, a command, or the gateway itself."""

    kind: Literal["key", "command", "gateway"]
    id: str
    address: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget and its use in the period of a moment."""

    budget: Budget
    period: Period
    spent: int = 0
    held: int = 0
    in_doubt: int = 0
