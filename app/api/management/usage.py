"""`GET /v1/gateway/usage`: requests, images, seconds and money, by day or hour and up to seven dimensions."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.fields import check_span
from app.api.management.csv_text import CSV, wanted_kind, write_csv
from app.api.requests.rules import invalid, missing
from app.catalog.money import to_number, to_text
from app.ledger.values.limits import MEGAPIXEL
from app.ledger.values.records import DIMENSIONS, MICROSECONDS, Dimension, UsageQuery, UsageRecord, Width
from app.microseconds import SECOND

WIDTHS: dict[str, Width] = {"1h": "hour", "1d": "day"}
MOST_BUCKETS = {"1h": 31 * 24, "1d": 10 * 366}
SUMS = ("requests", "images", "megapixels", "seconds", "cost", "cost_in_doubt", "joined", "saved", "currency")
SPELT = {name: "api_key_id" if name == "key_id" else name for name in DIMENSIONS}


async def summarize(call: AdminCall) -> Content | Response:
    query = call.query()
    since, until = query.time("since"), query.time("until")
    width = query.choice("bucket_width", ("1h", "1d")) or "1d"
    groups = query.choices("group_by", tuple(SPELT.values()))
    only = {name: values for name, spelt in SPELT.items() if (values := query.texts(spelt))}
    query.check()
    if since is None:
        raise missing("since")
    check_span("since", since, "until", until)
    until = call.now + 1 if until is None else until
    span = MICROSECONDS[WIDTHS[width]]
    if (until - since) // span > MOST_BUCKETS[width]:
        raise invalid("since", f"Invalid 'since': at most {MOST_BUCKETS[width]} buckets of {width} are told at once.")
    by: tuple[Dimension, ...] = tuple(name for name, spelt in SPELT.items() if spelt in groups)
    found = await call.usage(UsageQuery(since - since % span, until, WIDTHS[width], by, only))
    if wanted_kind(call.accept) == CSV:
        columns = ("start_time", "end_time", *(SPELT[name] for name in by), *SUMS)
        rows = (_flat(line, span, call.currency) for line in found)
        return Response(write_csv(columns, rows, header=True), media_type=CSV)
    return {"object": "list", "data": [describe(line, span, call.currency) for line in found], "has_more": False}


def describe(line: UsageRecord, span: int, currency: str) -> dict[str, Any]:
    return {
        "object": "usage",
        "start_time": line.starts_at // SECOND,
        "end_time": (line.starts_at + span) // SECOND,
        **{SPELT[name]: value or None for name, value in line.values.items()},
        "requests": line.requests,
        "images": line.images,
        "megapixels": line.pixels / MEGAPIXEL,
        "seconds": line.milliseconds / 1000,
        "cost": to_number(line.cost),
        "cost_in_doubt": to_number(line.in_doubt),
        "joined": line.joined,
        "saved": to_number(line.saved),
        "currency": currency,
    }


def _flat(line: UsageRecord, span: int, currency: str) -> dict[str, Any]:
    """Return a line as cells: money has all its digits."""
    money = {"cost": to_text(line.cost), "cost_in_doubt": to_text(line.in_doubt), "saved": to_text(line.saved)}
    return describe(line, span, currency) | money
