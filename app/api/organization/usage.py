"""Usage and costs: `client.admin.organization.usage.images` and `.costs`.

Answers come in buckets of time, which begin at full minutes, hours or days (UTC). Answers of other requests' runs cost
nothing and drew nothing, and are not counted. Money that is in doubt is a line item of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.fields import Fields, check_span
from app.api.requests.rules import invalid, missing
from app.catalog.money import to_number
from app.ledger.values.drawings import Outcome
from app.ledger.values.records import MICROSECONDS, Dimension, UsageQuery, UsageRecord, Width
from app.microseconds import SECOND

IN_DOUBT = "in doubt"
WIDTHS: Mapping[str, Width] = {"1m": "minute", "1h": "hour", "1d": "day"}
BUCKETS: Mapping[str, tuple[int, int]] = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}  # the default, the most
COST_BUCKETS = 7, 180
SOURCES = {"image.generation": "generations", "image.edit": "edits", "image.variation": "variations"}
_DIMENSIONS: Mapping[str, Dimension] = {
    "project_id": "project_id",
    "api_key_id": "key_id",
    "model": "model",
    "size": "size",
    "source": "operation",
}
_DRAWN = ("", *(str(outcome) for outcome in Outcome if outcome is not Outcome.JOINED))
_PAGE = re.compile(r"page_([0-9]{1,12})")

GroupBy = Literal["project_id", "user_id", "api_key_id", "model", "size", "source"]
GROUPS: tuple[GroupBy, ...] = ("project_id", "user_id", "api_key_id", "model", "size", "source")
CostGroup = Literal["project_id", "user_id", "line_item", "api_key_id", "api_source"]
COST_GROUPS: tuple[CostGroup, ...] = ("project_id", "user_id", "line_item", "api_key_id", "api_source")


async def images(call: AdminCall) -> Content:
    query = call.query()
    width = query.choice("bucket_width", ("1m", "1h", "1d")) or "1d"
    groups = query.choices("group_by", GROUPS)
    only = {"outcome": _DRAWN, **_only(query)}
    if models := query.texts("models"):
        only["model"] = models
    if sizes := query.texts("sizes"):
        only["size"] = sizes
    if sources := query.choices("sources", tuple(SOURCES)):
        only["operation"] = tuple(SOURCES[source] for source in sources)
    buckets = _buckets(query, call, WIDTHS[width], *BUCKETS[width])
    by = tuple(_DIMENSIONS[group] for group in groups if group in _DIMENSIONS)
    found = await _read(call, buckets, by, only)

    def result(line: UsageRecord) -> dict[str, Any]:
        sums = {"images": line.images, "num_model_requests": line.requests}
        return {"object": "organization.usage.images.result", **sums, **_values(line, groups)}

    return buckets.page({start: [result(line) for line in lines] for start, lines in found.items()})


async def costs(call: AdminCall) -> Content:
    query = call.query()
    query.choice("bucket_width", ("1d",))
    groups, items = query.choices("group_by", COST_GROUPS), query.texts("line_items")
    only = {"outcome": _DRAWN, **_only(query)}
    buckets = _buckets(query, call, "day", *COST_BUCKETS)
    by: tuple[Dimension, ...] = tuple(_DIMENSIONS[group] for group in groups if group in _DIMENSIONS)
    found = await _read(call, buckets, (*by, "model"), only)
    currency, is_itemized = call.currency.lower(), "line_item" in groups
    results = dict[int, list[dict[str, Any]]]()
    for start, lines in found.items():
        amounts = defaultdict[tuple[str, ...], int](int)
        for line in lines:
            owner = tuple(line.values[name] for name in by)
            for item, nano in ((line.values["model"], line.cost), (IN_DOUBT, line.in_doubt)):
                if nano and (not items or item in items):
                    amounts[*owner, item if is_itemized else ""] += nano
        results[start] = [
            {
                "object": "organization.costs.result",
                "amount": {"value": to_number(nano), "currency": currency},
                "line_item": item or None,
                **dict.fromkeys(("project_id", "api_key_id")),
                **{
                    ("api_key_id" if name == "key_id" else name): value or None
                    for name, value in zip(by, owner, strict=True)
                },
            }
            for (*owner, item), nano in amounts.items()
        ]
    return buckets.page(results)


class Buckets:
    """The buckets of one page: `count` of them, from `start` on, and the time before which all of them end."""

    def __init__(self, start: int, end: int, width: int, count: int) -> None:
        self.start = start - start % width
        self.width = width
        self.until = min(end, self.start + count * width)
        self._next = self.until if self.until < end else None

    def page(self, results: Mapping[int, Sequence[Any]]) -> Content:
        data = [
            {
                "object": "bucket",
                "start_time": start // SECOND,
                "end_time": (start + self.width) // SECOND,
                "results": list(results.get(start, ())),
            }
            for start in range(self.start, self.until, self.width)
        ]
        next_page = None if self._next is None else f"page_{self._next // SECOND}"
        return {"object": "page", "data": data, "has_more": next_page is not None, "next_page": next_page}


def _buckets(query: Fields, call: AdminCall, width: Width, default: int, most: int) -> Buckets:
    start, end = query.time("start_time"), query.time("end_time") or call.now + 1
    count, page = query.integer("limit", 1, most) or default, query.text("page")
    query.check()
    if start is None:
        raise missing("start_time")
    if page is not None:
        found = _PAGE.fullmatch(page)
        if found is None:
            raise invalid("page", "Invalid 'page': send the 'next_page' of the answer before.")
        start = int(found[1]) * SECOND
    check_span("start_time", start, "end_time", end)
    return Buckets(start, end, MICROSECONDS[width], count)


def _only(query: Fields) -> dict[Dimension, tuple[str, ...]]:
    """Read the filters that usage and costs share. Drawings are counted by key, not by user."""
    if query.texts("user_ids"):
        raise invalid("user_ids", "'user_ids' is not supported: usage belongs to API keys. Use 'api_key_ids'.")
    found: dict[Dimension, tuple[str, ...]] = {
        "project_id": query.texts("project_ids"),
        "key_id": query.texts("api_key_ids"),
    }
    return {name: values for name, values in found.items() if values}


async def _read(
    call: AdminCall, buckets: Buckets, by: tuple[Dimension, ...], only: Mapping[Dimension, tuple[str, ...]]
) -> Mapping[int, Sequence[UsageRecord]]:
    width = next(name for name, span in MICROSECONDS.items() if span == buckets.width)
    lines = await call.usage(UsageQuery(buckets.start, buckets.until, width, by, only))
    found = dict[int, list[UsageRecord]]()
    for line in lines:
        found.setdefault(line.starts_at, []).append(line)
    return found


def _values(line: UsageRecord, groups: Sequence[GroupBy]) -> dict[str, str | None]:
    """Return a result's members: those that it is not grouped by are null."""
    operations = {operation: source for source, operation in SOURCES.items()}
    found: dict[str, str | None] = dict.fromkeys(GROUPS)
    for group in groups:
        if group in _DIMENSIONS:
            value = line.values[_DIMENSIONS[group]]
            found[group] = (operations.get(value) if group == "source" else value) or None
    return found
