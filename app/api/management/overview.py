"""`GET /v1/gateway/overview`: the sums, the times and the doubts of a span of time, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.fields import check_span
from app.api.requests.rules import invalid
from app.catalog.money import to_number
from app.ledger.values.drawings import Outcome
from app.ledger.values.records import MICROSECONDS, UsageQuery, UsageRecord
from app.microseconds import SECOND

DAYS = 30  # of the span, if none is said
MOST_DAYS = 366
# The gateway or a provider owed a picture and did not give one. A refusal or a caller that leaves is no failure.
FAILURES = (Outcome.FAILED, Outcome.PERHAPS_PAID, Outcome.INTERRUPTED, Outcome.UNDELIVERED)


async def summarize(call: AdminCall) -> Content:
    query = call.query()
    since, until = query.time("since"), query.time("until")
    query.check()
    if since is not None:
        check_span("since", since, "until", until)
    day = MICROSECONDS["day"]
    until = call.now + 1 if until is None else until
    if since is None:
        since = max(until - DAYS * day, 0)
    if until - since > MOST_DAYS * day:
        raise invalid("since", f"Invalid 'since': at most {MOST_DAYS} days are told at once.")
    lines = await call.usage(UsageQuery(since, until, "hour", ("outcome",)))
    reports = await call.reports()
    timing, doubts = await reports.timing(since, until), await reports.doubts()
    return {
        "object": "overview",
        "start_time": since // SECOND,
        "end_time": until // SECOND,
        "currency": call.currency,
        **_sums(lines),
        "median_seconds": _from_ms(timing.median_ms),
        "p95_seconds": _from_ms(timing.p95_ms),
        "in_doubt": {
            "drawings": doubts.drawings,
            "cost": to_number(doubts.nano),
            "oldest": None if doubts.oldest_at is None else doubts.oldest_at // SECOND,
        },
    }


def _sums(lines: Sequence[UsageRecord]) -> dict[str, Any]:
    """Return requests by their outcome, with their images and their cost."""
    outcomes = dict[str, int]()
    for line in lines:
        name = line.values["outcome"] or "running"
        outcomes[name] = outcomes.get(name, 0) + line.requests + line.joined
    delivered, failed = outcomes.get(Outcome.DELIVERED, 0), sum(outcomes.get(name, 0) for name in FAILURES)
    return {
        "requests": sum(line.requests for line in lines),
        "joined": sum(line.joined for line in lines),
        "outcomes": outcomes,
        "images": sum(line.images for line in lines),
        "success": delivered / (delivered + failed) if delivered + failed else None,
        "cost": to_number(sum(line.cost for line in lines)),
        "cost_in_doubt": to_number(sum(line.in_doubt for line in lines)),
        "saved": to_number(sum(line.saved for line in lines)),
    }


def _from_ms(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
