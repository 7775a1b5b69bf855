"""The audit log: `client.admin.organization.audit_logs`. `/v1/gateway/events` also has the events that OpenAI's types
lack, such as those of budgets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.fields import Fields
from app.api.administration.lists import DEFAULT_LIMIT, MOST, page_of, unknown_cursor
from app.api.requests.rules import invalid
from app.ledger.values.directory import Project
from app.ledger.values.records import EventFilter, EventRecord
from app.microseconds import SECOND

# OpenAI's type of an event, by the kind of object and the action of ours.
TYPES = {
    ("project", "create"): "project.created",
    ("project", "update"): "project.updated",
    ("project", "archive"): "project.archived",
    ("api_key", "create"): "api_key.created",
    ("api_key", "update"): "api_key.updated",
    ("api_key", "rotate"): "api_key.updated",
    ("api_key", "delete"): "api_key.deleted",
}
_ID = re.compile(r"audit_log-([0-9]{1,18})")


async def list_all(call: AdminCall) -> Content:
    query = call.query()
    after, before = (_cursor(name, query.text(name)) for name in ("after", "before"))
    limit = query.integer("limit", 1, MOST) or DEFAULT_LIMIT
    since, until = _times(query)
    types = query.texts("event_types")
    registry = await call.registry()
    projects_by_id, owners = (await registry.directory()).projects, await registry.projects_of_keys()
    projects, resources = query.texts("project_ids"), query.texts("resource_ids")
    actors, emails = query.texts("actor_ids"), query.texts("actor_emails")
    query.flag("tenant_only")
    query.check()
    actions = tuple(which for which, type in TYPES.items() if not types or type in types)
    if not actions or emails:
        return page_of([], has_more=False)
    which = EventFilter(since, until, actions, actors, resources, projects)
    page = await (await call.reports()).events(which, after=after, before=before, limit=limit)
    return page_of([describe(event, projects_by_id, owners) for event in page.items], has_more=page.has_more)


def describe(event: EventRecord, projects: Mapping[str, Project], owners: Mapping[str, str | None]) -> dict[str, Any]:
    """Return an event as JSON. `owners` are the projects of all keys, also of those that were deleted."""
    type = TYPES[event.object_kind, event.action]
    changes: dict[str, Any] = json.loads(event.after or "{}")
    about: dict[str, Any] = {"id": event.object_id}
    told: dict[str, Any] = {name: changes[name] for name in ("name", "scopes") if name in changes}
    if "scopes" in told and isinstance(told["scopes"], str):
        told["scopes"] = json.loads(told["scopes"])
    if event.object_kind == "project" and "name" in told:
        told["title"] = told["name"]
    if event.action == "create":
        about["data"] = told
    elif event.action in ("update", "rotate"):
        about["changes_requested"] = told
    found: dict[str, Any] = {
        "id": f"audit_log-{event.id}",
        "type": type,
        "effective_at": event.at // SECOND,
        "actor": _actor(event),
        type: about,
    }
    project_id = owners.get(event.object_id) if event.object_kind == "api_key" else event.object_id
    project = projects.get(project_id or "")
    if project is not None:
        found["project"] = {"id": project.id, "name": project.name}
    return found


def _actor(event: EventRecord) -> dict[str, Any]:
    account = {"id": event.actor_id}
    found = {
        "type": "api_key",
        "api_key": {"id": event.actor_id, "type": "service_account", "service_account": account},
    }
    return found | ({"session": {"ip_address": event.address}} if event.address else {})


def _cursor(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = _ID.fullmatch(text)
    if found is None:
        raise unknown_cursor(name, text)
    return int(found[1])


def _times(query: Fields) -> tuple[int | None, int | None]:
    """Read `effective_at[gte]` and its like, as the first time and the one before which an event has to be."""
    bounds = {name: query.time(f"effective_at[{name}]") for name in ("gt", "gte", "lt", "lte")}
    lows = [
        value + SECOND * (name == "gt") for name, value in bounds.items() if value is not None and name in ("gt", "gte")
    ]
    highs = [
        value + SECOND * (name == "lte")
        for name, value in bounds.items()
        if value is not None and name in ("lt", "lte")
    ]
    if "effective_at" in query:
        raise invalid("effective_at", "Write the bounds as 'effective_at[gte]' and 'effective_at[lt]'.")
    return max(lows, default=None), min(highs, default=None)
