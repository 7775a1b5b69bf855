"""Budgets, with the use of each in its present period."""

from __future__ import annotations

import secrets
from collections.abc import Container
from typing import Any, Literal
from zoneinfo import ZoneInfo

from app.api.administration.endpoint import AdminCall, Content, not_found
from app.api.administration.fields import Fields
from app.api.administration.lists import page_of
from app.api.organization.projects import named_project
from app.api.requests.rules import invalid, missing
from app.catalog.money import to_number
from app.errors import Conflict, shortened
from app.ledger.values.changes import BudgetState
from app.ledger.values.directory import THRESHOLDS, Budget, Directory
from app.ledger.values.windows import Window
from app.microseconds import SECOND

WINDOWS: tuple[Window, ...] = ("day", "week", "month", "total")
LEAST_GONE = 24  # a projection begins when this part of the period is gone
HIGHEST_THRESHOLD = 1000  # per cent


async def list_all(call: AdminCall) -> Content:
    query, registry = call.query(), await call.registry()
    project, key = query.text("project_id"), query.text("api_key_id")
    query.check()
    budgets = [
        budget
        for budget in (await registry.directory()).budgets
        if all(
            id is None or (budget.scope == scope and budget.scope_id == id)
            for scope, id in (("project", project), ("key", key))
        )
    ]
    states = await registry.budget_states(budgets)
    return page_of([describe(state, call.currency, call.now) for state in states], has_more=False)


async def create(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    directory = await registry.directory()
    scope, scope_id = _owner(body, directory, call.keys(directory))
    amount, window = body.money("amount"), body.choice("window", WINDOWS)
    timezone, models = body.text("timezone") or "UTC", body.texts("models")
    hard, thresholds = body.flag("hard"), _thresholds(body)
    body.check()
    if amount is None or window is None:
        raise missing("amount" if amount is None else "window")
    _check_timezone(timezone)
    budget = Budget(
        f"bud_{secrets.token_hex(8)}",
        scope,
        scope_id,
        amount,
        window,
        timezone,
        models,
        since=call.now,
        hard=hard is not False,
        thresholds=THRESHOLDS if thresholds is None else thresholds,
    )
    await registry.add_budget(budget, call.actor)
    await call.refresh()
    return await _told(call, budget.id)


async def retrieve(call: AdminCall) -> Content:
    return await _told(call, call.path["budget"])


async def update(call: AdminCall) -> Content:
    """Change the amount, the hardness or the thresholds. To change what a budget counts, make another."""
    body, registry = await call.body(), await call.registry()
    amount, hard, thresholds = body.money("amount"), body.flag("hard"), _thresholds(body)
    body.check()
    budget = _changeable(await registry.directory(), call.path["budget"])
    stated = {"amount": amount, "hard": hard, "thresholds": thresholds}
    if changes := {name: value for name, value in stated.items() if value is not None}:
        await registry.update_budget(budget.id, call.actor, **changes)
        await call.refresh()
    return await _told(call, budget.id)


async def delete(call: AdminCall) -> Content:
    registry = await call.registry()
    budget = _changeable(await registry.directory(), call.path["budget"])
    await registry.remove_budget(budget.id, call.actor)
    await call.refresh()
    return {"id": budget.id, "object": "budget.deleted", "deleted": True}


def describe(state: BudgetState, currency: str, now: int) -> dict[str, Any]:
    budget, period = state.budget, state.period
    used = state.spent + state.in_doubt + state.held
    return {
        "id": budget.id,
        "object": "budget",
        "scope": budget.scope,
        "project_id": budget.scope_id if budget.scope == "project" else None,
        "api_key_id": budget.scope_id if budget.scope == "key" else None,
        "owner": budget.owner or None,
        "models": list(budget.models),
        "amount": to_number(budget.amount),
        "currency": currency,
        "window": budget.window,
        "timezone": budget.timezone,
        "hard": budget.hard,
        "thresholds": list(budget.thresholds),
        "source": budget.source,
        "period": {
            "start_time": period.starts_at // SECOND,
            "end_time": None if period.ends_at is None else period.ends_at // SECOND,
            "spent": to_number(state.spent),
            "in_doubt": to_number(state.in_doubt),
            "held": to_number(state.held),
            "left": to_number(max(budget.amount - used, 0)),
            "projected": _projected(state, now),
        },
    }


async def _told(call: AdminCall, id: str) -> Content:
    registry = await call.registry()
    budgets = [budget for budget in (await registry.directory()).budgets if budget.id == id]
    if not budgets:
        raise not_found(id, "budget")
    [state] = await registry.budget_states(budgets)
    return describe(state, call.currency, call.now)


def _owner(
    body: Fields, directory: Directory, keys: Container[str]
) -> tuple[Literal["all", "project", "key"], str | None]:
    """Read whose budget it is: one project's, one key's, or everything."""
    project, key = body.text("project_id"), body.text("api_key_id")
    if project is not None and key is not None:
        raise invalid("api_key_id", "A budget is of a project or of a key. Send one of 'project_id' and 'api_key_id'.")
    if project is not None:
        return "project", named_project(directory, project).id
    if key is not None:
        if key not in keys:
            raise invalid("api_key_id", not_found(key, "API key").message)
        return "key", key
    return "all", None


def _thresholds(body: Fields) -> tuple[int, ...] | None:
    values = body.integers("thresholds", 1, HIGHEST_THRESHOLD)
    return None if values is None else tuple(sorted(set(values)))


def _check_timezone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise invalid(
            "timezone", f"There is no time zone {shortened(name)!r}. Write one like 'Europe/Prague'."
        ) from None


def _changeable(directory: Directory, id: str) -> Budget:
    budget = next((budget for budget in directory.budgets if budget.id == id), None)
    if budget is None:
        raise not_found(id, "budget")
    if budget.source == "file":
        raise Conflict(f"Budget {id!r} stands in the configuration. Change it there.", code="stated_in_configuration")
    return budget


def _projected(state: BudgetState, now: int) -> float | None:
    """Return the use at the period's end, if it goes on as it began. None: it has no end, or has hardly begun, so that
    one drawing would count as many."""
    period = state.period
    if period.ends_at is None:
        return None
    gone, whole = now - period.starts_at, period.ends_at - period.starts_at
    if gone * LEAST_GONE < whole:
        return None
    return to_number((state.spent + state.in_doubt) * whole // min(gone, whole))
