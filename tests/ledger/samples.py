"""Values with defaults, and a database as one of its users sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from app.ledger.book.registry import Registry
from app.ledger.database.protocol import Database
from app.ledger.values.changes import Actor
from app.ledger.values.directory import ApiKey, Budget, Project
from app.ledger.values.drawings import Admission, AttemptResult, AttemptSent, Claim, Outcome, Settlement
from app.ledger.values.limits import Limit, Limits, Owner, limits_of
from app.ledger.values.windows import period_at

NOW = 1_790_000_000_000_000  # a Monday in September 2026
KEY, PROJECT = Owner("key", "key00001", "ci"), Owner("project", "proj_1", "design")
ME = Actor("command", "test")
REPLICA = "gateway"

_ids: Iterator[int] = count(1)


def key_limits(**limits: int) -> tuple[Limit, ...]:
    return limits_of(KEY, Limits(**limits))


def project_limits(**limits: int) -> tuple[Limit, ...]:
    return limits_of(PROJECT, Limits(**limits))


def an_admission(**fields: Any) -> Admission:
    id = f"{next(_ids):032x}"
    known = Admission(
        id=id,
        request_id=f"req_{id}",
        run_id=f"req_{id}",
        key_id=KEY.id,
        project_id=PROJECT.id,
        operation="generations",
        asked_model="schnell",
        model="flux/schnell",
        n=1,
        pixels=1_000_000,
        most=100,
    )
    return replace(known, **fields)


def an_attempt(drawing_id: str, seq: int = 1, most: int = 100, **fields: Any) -> AttemptSent:
    known = AttemptSent(drawing_id, seq, NOW, "nebula", "nebula/schnell", "schnell", 1, most)
    return replace(known, **fields)


def a_settlement(drawing_id: str, cost: int = 0, in_doubt: int = 0, **fields: Any) -> Settlement:
    outcome = Outcome.PERHAPS_PAID if in_doubt else Outcome.DELIVERED if cost else Outcome.FAILED
    result = AttemptResult(1, "nebula", "nebula/schnell", "schnell", "ok", 1, 900, 200, "up-1", cost, in_doubt)
    known = Settlement(drawing_id, NOW + 9, outcome, cost, in_doubt, images=int(bool(cost)), attempts=(result,))
    return replace(known, **fields)


def a_project(**fields: Any) -> Project:
    return replace(Project(PROJECT.id, PROJECT.name, NOW), **fields)


def a_key(**fields: Any) -> ApiKey:
    return replace(ApiKey(KEY.id, KEY.name, bytes(32), PROJECT.id, created_at=NOW, created_by="test"), **fields)


def a_budget(**fields: Any) -> Budget:
    return replace(Budget("bud_1", "all", None, 1000, "month"), **fields)


def claims_of(*budgets: Budget, now: int = NOW) -> tuple[Claim, ...]:
    return tuple(Claim(x, period_at(x.window, x.timezone, now, x.since)) for x in budgets)


def registry_of(database: Database, now: int = NOW) -> Registry:
    return Registry(database, lambda: now)


async def periods(database: Database) -> Sequence[tuple[Any, ...]]:
    """The periods of all budgets: id, held, spent, in doubt."""
    sql = "select budget_id, held_nano, spent_nano, in_doubt_nano from budget_period order by budget_id, starts_at"
    return [tuple(row) for row in await database.query(sql)]


async def drawings(database: Database) -> Sequence[tuple[Any, ...]]:
    """All drawings: state, held, cost, in doubt."""
    sql = "select state, held_nano, cost_nano, in_doubt_nano from drawing order by id"
    return [tuple(row) for row in await database.query(sql)]


async def count_of(database: Database, table: str) -> int:
    return int((await database.query(f"select count(*) from {table}"))[0][0])
