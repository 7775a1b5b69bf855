"""The values of the money path as JSON, for the journal and for Postgres's functions. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from app.ledger.values.directory import Budget
from app.ledger.values.drawings import Admission, AttemptResult, AttemptSent, Claim, Joined, Outcome, Settlement
from app.ledger.values.windows import Period

Value = AttemptSent | AttemptResult | Joined | Settlement | Admission | Period

_NAMES: dict[type[Any], tuple[str, ...]] = {}


def as_fields(value: Value) -> dict[str, Any]:
    """Return the fields of a value, for `json.dumps`."""
    kind = type(value)
    if kind not in _NAMES:
        _NAMES[kind] = tuple(field.name for field in fields(kind))
    found = {name: getattr(value, name) for name in _NAMES[kind]}
    if isinstance(value, Settlement):
        found["attempts"] = [as_fields(attempt) for attempt in value.attempts]
    return found


def admission_fields(admission: Admission) -> dict[str, Any]:
    """Return the fields that its row needs: the limits are taken, and tags are a text of their own."""
    found = as_fields(admission)
    del found["limits"]
    found["tags"] = json.dumps(dict(admission.tags)) if admission.tags else None
    return found


def deferral_fields(admission: Admission, claims: Sequence[Claim], at: int) -> dict[str, Any]:
    """Return the fields of an admission that the database does not know."""
    return admission_fields(admission) | {"claims": [claim_fields(claim) for claim in claims], "at": at}


def claim_fields(claim: Claim) -> dict[str, Any]:
    return {"budget_id": claim.budget.id, **as_fields(claim.period)}


def settlement_of(found: Mapping[str, Any]) -> Settlement:
    attempts = tuple(AttemptResult(**attempt) for attempt in found["attempts"])
    return Settlement(**{**found, "attempts": attempts, "outcome": Outcome(found["outcome"])})


def admission_of(found: Mapping[str, Any]) -> Admission:
    return Admission(**{**found, "tags": json.loads(found["tags"]) if found["tags"] else {}})


def claims_of(found: Sequence[Mapping[str, Any]]) -> tuple[Claim, ...]:
    """Return claims of which a row needs no more than the budget's id."""
    return tuple(Claim(_named(claim["budget_id"]), Period(claim["starts_at"], claim["ends_at"])) for claim in found)


def _named(budget_id: str) -> Budget:
    return Budget(budget_id, "all", None, 0, "total")
