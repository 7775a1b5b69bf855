"""`GET /v1/gateway/events`: the audit log as it was written, the newest line first."""

from __future__ import annotations

import json
import re
from typing import Any

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.lists import DEFAULT_LIMIT, MOST, page_of, unknown_cursor
from app.ledger.values.records import EventFilter, EventRecord
from app.microseconds import SECOND

_ID = re.compile(r"[0-9]{1,18}")


async def list_all(call: AdminCall) -> Content:
    query = call.query()
    after, limit = query.text("after"), query.integer("limit", 1, MOST) or DEFAULT_LIMIT
    since, until = query.time("since"), query.time("until")
    actors, objects = query.texts("actor_id"), query.texts("object_id")
    query.check()
    if after is not None and not _ID.fullmatch(after):
        raise unknown_cursor("after", after)
    which = EventFilter(since, until, (), actors, objects)
    page = await (await call.reports()).events(which, after=int(after) if after else None, limit=limit)
    return page_of([describe(event) for event in page.items], has_more=page.has_more)


def describe(event: EventRecord) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "object": "event",
        "created_at": event.at // SECOND,
        "actor": {"kind": event.actor_kind, "id": event.actor_id, "address": event.address},
        "request_id": event.request_id,
        "action": event.action,
        "object_kind": event.object_kind,
        "object_id": event.object_id,
        "before": json.loads(event.before) if event.before else None,
        "after": json.loads(event.after) if event.after else None,
    }
