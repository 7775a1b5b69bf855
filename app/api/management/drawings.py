"""Drawings: pages, exports, one with its attempts and its money, and the resolution of those in doubt.

An ordinary key sees its own drawings alone, one with the scope `usage` those of its project.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from app.api.administration.endpoint import AdminCall, Content, not_found, streamed
from app.api.administration.fields import Fields
from app.api.administration.lists import DEFAULT_LIMIT, page_of, unknown_cursor
from app.api.management.csv_text import CSV, wanted_kind, write_csv
from app.api.requests.rules import invalid, missing
from app.catalog.money import to_number, to_text
from app.errors import Conflict
from app.images import Operation
from app.ledger.values.drawings import Outcome, State
from app.ledger.values.limits import MEGAPIXEL
from app.ledger.values.records import DrawingFilter, DrawingRecord, UnknownRow
from app.microseconds import SECOND

MOST_DRAWINGS = 1000  # of a page
COLUMNS = (
    *("id", "created_at", "ended_at", "request_id", "project_id", "api_key_id", "user", "tags", "operation", "model"),
    *("provider", "upstream_model", "state", "outcome", "error_code", "n", "images", "size", "megapixels", "cost"),
    *("cost_in_doubt", "saved", "currency", "attempts", "queue_seconds", "first_image_seconds", "seconds"),
)
Chunk = Sequence[DrawingRecord]
_ID = re.compile(r"[0-9a-f]{32}")


async def list_all(call: AdminCall) -> Content | Response:
    query = call.query()
    which = _filter(query)
    if (project := call.reading.project_id) is not None:
        is_foreign = which.project_id not in (None, project)
        which = replace(which, project_id=project)
    elif (key := call.reading.key_id) is not None:
        is_foreign = which.key_id not in (None, key)
        which = replace(which, key_id=key)
    else:
        is_foreign = False
    after, limit, kind = query.text("after"), query.integer("limit", 1, MOST_DRAWINGS), wanted_kind(call.accept)
    query.check()
    if kind is not None:
        _check_whole(after=after, limit=limit)
    if is_foreign:
        return page_of([], has_more=False)
    reports = await call.reports()
    if kind is not None:
        written, chunks = _csv if kind == CSV else _ndjson, reports.export(which)
        first = await anext(chunks, None) or ()  # while a failure can still set the status
        return streamed(written(_chain(first, chunks), call.currency), kind)
    try:
        page = await reports.drawings(which, after, limit or DEFAULT_LIMIT)
    except UnknownRow:
        raise unknown_cursor("after", after or "") from None
    return page_of([describe(row, call.currency) for row in page.items], has_more=page.has_more)


async def retrieve(call: AdminCall) -> Content:
    id = _id(call)
    found = await (await call.reports()).drawing(id)
    reading, row = call.reading, found.drawing
    if reading.project_id not in (None, row.project_id) or reading.key_id not in (None, row.key_id):
        raise not_found(id, "drawing")
    attempts = [
        {
            "provider": attempt.provider,
            "deployment": attempt.deployment,
            "upstream_model": attempt.model,
            "sent_at": _seconds(attempt.sent_at),
            "images": attempt.images,
            "dropped": _names(attempt.dropped),
            "mapped": _names(attempt.mapped),
            "result": attempt.result,
            "http_status": attempt.http_status,
            "provider_request_id": attempt.provider_request_id,
            "seconds": _from_ms(attempt.ms),
            "cost": to_number(attempt.cost_nano),
            "cost_in_doubt": to_number(attempt.in_doubt_nano),
        }
        for attempt in found.attempts
    ]
    entries = [
        {
            "kind": entry.kind,
            "created_at": _seconds(entry.at),
            "held": to_number(entry.held_nano),
            "spent": to_number(entry.spent_nano),
            "in_doubt": to_number(entry.in_doubt_nano),
            "by": entry.made_by,
            "note": entry.note,
        }
        for entry in found.entries
    ]
    told = describe(row, call.currency) | {"run_id": row.run_id, "cost_source": row.cost_source}
    told |= {"price_id": None if row.price_id is None else str(row.price_id)}
    told |= {"http_status": row.http_status, "held": to_number(row.held_nano)}
    told |= {"asked": json.loads(row.asked) if row.asked else {}}
    told |= {"asked_model": row.asked_model, "quality": row.quality, "format": row.format}
    return told | {"attempts": attempts, "entries": entries}


async def resolve(call: AdminCall) -> Content:
    body, id = await call.body(), _id(call)
    paid, note = body.flag("paid"), body.text("note", 500) or ""
    body.check()
    if paid is None:
        raise missing("paid", " Say true if the provider charged for the drawing, else false.")
    reports = await call.reports()
    await reports.drawing(id)  # it is there
    by = f"key:{call.caller.id}"
    if not await call.administration.book.resolve(id, paid=paid, by=by, note=note):
        raise Conflict(f"Drawing {id!r} is not in doubt: there is nothing to resolve.", code="not_in_doubt")
    told = {"paid": paid} | ({"note": note} if note else {})
    await (await call.registry()).note(call.actor, "resolve", "drawing", id, told)
    return describe((await reports.drawing(id)).drawing, call.currency)


def describe(row: DrawingRecord, currency: str) -> dict[str, Any]:
    """Return a row as JSON. Times are Unix seconds."""
    has_size = row.width is not None and row.height is not None
    pixels = row.images * (row.width or 0) * (row.height or 0)
    return {
        "id": row.id,
        "object": "drawing",
        "created_at": _seconds(row.at),
        "ended_at": _seconds(row.ended_at),
        "request_id": row.request_id,
        "project_id": row.project_id,
        "api_key_id": row.key_id,
        "user": row.end_user,
        "tags": json.loads(row.tags) if row.tags else {},
        "operation": row.operation,
        "model": row.model,
        "provider": row.provider,
        "upstream_model": row.upstream_model,
        "state": row.state,
        "outcome": row.outcome,
        "error_code": row.error_code,
        "n": row.n,
        "images": row.images,
        "size": f"{row.width}x{row.height}" if has_size else None,
        "megapixels": pixels / MEGAPIXEL if has_size else None,
        "cost": to_number(row.cost_nano),
        "cost_in_doubt": to_number(row.in_doubt_nano),
        "saved": to_number(row.saved_nano),
        "currency": currency,
        "attempts": row.attempts,
        "queue_seconds": _from_ms(row.queue_ms),
        "first_image_seconds": _from_ms(row.first_ms),
        "seconds": _from_ms(row.total_ms),
    }


def _check_whole(**paging: str | int | None) -> None:
    """Raise InvalidRequest for what asks for a page: an export has none."""
    for name, value in paging.items():
        if value is not None:
            message = f"{name!r} asks for a page, and an export is whole. Leave it out: 'since' and 'until' narrow it."
            raise invalid(name, message)


async def _chain(first: Chunk, others: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    yield first
    async for chunk in others:
        yield chunk


async def _ndjson(chunks: AsyncIterator[Chunk], currency: str) -> AsyncIterator[str]:
    async for rows in chunks:
        yield "".join(f"{json.dumps(describe(row, currency))}\n" for row in rows)


async def _csv(chunks: AsyncIterator[Chunk], currency: str) -> AsyncIterator[str]:
    has_head = False
    async for rows in chunks:
        yield write_csv(COLUMNS, (_flat(row, currency) for row in rows), header=not has_head)
        has_head = True
    if not has_head:
        yield write_csv(COLUMNS, (), header=True)


def _flat(row: DrawingRecord, currency: str) -> dict[str, Any]:
    """Return a row as cells: tags as JSON, and money with all its digits."""
    found = describe(row, currency)
    found |= {"tags": json.dumps(found["tags"]) if found["tags"] else None, "cost": to_text(row.cost_nano)}
    return found | {"cost_in_doubt": to_text(row.in_doubt_nano), "saved": to_text(row.saved_nano)}


def _filter(query: Fields) -> DrawingFilter:
    return DrawingFilter(
        state=query.choice("state", tuple(map(str, State))),
        outcome=query.choice("outcome", tuple(map(str, Outcome))),
        project_id=query.text("project_id"),
        key_id=query.text("api_key_id"),
        model=query.text("model"),
        provider=query.text("provider"),
        operation=query.choice("operation", tuple(map(str, Operation))),
        request_id=query.text("request_id"),
        since=query.time("since"),
        until=query.time("until"),
    )


def _id(call: AdminCall) -> str:
    """Return the id in the path. Raises NotFound if it cannot be one."""
    id = call.path["drawing"]
    if not _ID.fullmatch(id):
        raise not_found(id, "drawing")
    return id


def _names(text: str | None) -> list[str]:
    return text.split(",") if text else []


def _seconds(at: int | None) -> int | None:
    return None if at is None else at // SECOND


def _from_ms(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
