"""Reports over the book: pages of drawings, usage, prices, the audit log. They read, and change nothing.

A list is sorted by (time, id), and its next page begins after the last row of this one. So it neither skips nor repeats
a row while others arrive. Usage comes from the rollups as far as these reach, and beyond from the drawings themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Text,
    TextClause,
    and_,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from app.ledger.book.rollups import next_start, read_mark, read_number
from app.ledger.database import tables
from app.ledger.database.protocol import Database
from app.ledger.database.statements import fetch
from app.ledger.values.drawings import Outcome, State
from app.ledger.values.records import (
    DIMENSIONS,
    MICROSECONDS,
    AttemptRecord,
    Dimension,
    Doubts,
    DrawingDetail,
    DrawingFilter,
    DrawingRecord,
    EntryRecord,
    EventFilter,
    EventRecord,
    Page,
    PriceRecord,
    Timing,
    UnknownRow,
    UsageQuery,
    UsageRecord,
    Width,
)
from app.microseconds import DAY, HOUR

TIMED = 10_000  # drawings of which the times are compared
EXPORTED_AT_ONCE = 500  # rows in memory, and between two looks at other requests

Kind = TypeVar("Kind", bound=Any)


@dataclass(frozen=True, slots=True)
class Reports:
    """Reads the book. Every method raises DatabaseUnavailable."""

    database: Database

    # --- drawings ---

    async def drawings(self, which: DrawingFilter, after: str | None = None, limit: int = 100) -> Page[DrawingRecord]:
        """Return the newest drawings, or those that come after the one with the id `after`. Raises UnknownRow."""
        c = tables.drawing.c
        statement = _drawings().where(*_conditions(which)).order_by(c.at.desc(), c.id.desc()).limit(limit + 1)
        if after is not None:
            at = await self._time_of(tables.drawing, after)
            statement = statement.where(tuple_(c.at, c.id) < tuple_(at, after))
        return _page(DrawingRecord, await fetch(self.database, statement), limit)

    async def export(self, which: DrawingFilter) -> AsyncIterator[Sequence[DrawingRecord]]:
        """Yield all of these drawings, the newest first, in chunks. Each is a query of its own, so a slow reader holds
        neither a connection nor a moment of the database."""
        c, last = tables.drawing.c, None
        while True:
            statement = _drawings().where(*_conditions(which)).order_by(c.at.desc(), c.id.desc())
            if last is not None:
                statement = statement.where(tuple_(c.at, c.id) < tuple_(last.at, last.id))
            found = _page(
                DrawingRecord, await fetch(self.database, statement.limit(EXPORTED_AT_ONCE + 1)), EXPORTED_AT_ONCE
            )
            if found.items:
                yield found.items
                last = found.items[-1]
            if not found.has_more:
                return

    async def drawing(self, id: str) -> DrawingDetail:
        """Raises UnknownRow."""
        rows = await fetch(self.database, _drawings().where(tables.drawing.c.id == id))
        if not rows:
            raise UnknownRow(id)
        attempts = select(*_columns(tables.attempt, AttemptRecord)).where(tables.attempt.c.drawing_id == id)
        entries = select(*_columns(tables.entry, EntryRecord)).where(tables.entry.c.drawing_id == id)
        return DrawingDetail(
            DrawingRecord(**rows[0]),
            tuple(AttemptRecord(**row) for row in await fetch(self.database, attempts.order_by(tables.attempt.c.seq))),
            tuple(EntryRecord(**row) for row in await fetch(self.database, entries.order_by(tables.entry.c.seq))),
        )

    # --- usage ---

    async def usage(self, query: UsageQuery) -> Sequence[UsageRecord]:
        """Return the sums of each bucket that has any, in the order of time. Where drawings were cleaned away, the span
        begins and ends with an hour."""
        cleaned = await read_number(self.database, "cleaned")
        if query.since < cleaned:
            query = replace(query, since=query.since - query.since % HOUR)
        if query.until < cleaned:
            query = replace(query, until=next_start(query.until, HOUR))
        source = _sources(query, await read_mark(self.database)).subquery()
        by = [source.c[name] for name in query.by]
        sums = [func.sum(source.c[name]).label(name) for name in _SUMS]
        statement = select(source.c.starts_at, *by, *sums).group_by(source.c.starts_at, *by)
        rows = await fetch(self.database, statement.order_by(source.c.starts_at, *by))
        return [
            UsageRecord(
                row["starts_at"], {name: row[name] for name in query.by}, *(int(row[name] or 0) for name in _SUMS)
            )
            for row in rows
        ]

    async def timing(self, since: int, until: int) -> Timing:
        """Return the median and the 95th percentile, by nearest rank, of the newest delivered drawings of a span."""
        c = tables.drawing.c
        newest = (
            select(c.total_ms)
            .where(c.at >= since, c.at < until, c.outcome == Outcome.DELIVERED, c.total_ms.is_not(None))
            .order_by(c.at.desc(), c.id.desc())
            .limit(TIMED)
            .subquery()
        )
        ranked = select(
            newest.c.total_ms,
            func.row_number().over(order_by=newest.c.total_ms).label("rank"),
            func.count().over().label("number"),
        ).subquery()
        # By the nearest rank the 95th percentile is the first value for which 20 * rank >= 19 * number.
        at = [
            func.min(case((share * ranked.c.rank >= part * ranked.c.number, ranked.c.total_ms))).label(name)
            for name, share, part in (("median_ms", 2, 1), ("p95_ms", 20, 19))
        ]
        return Timing(**(await fetch(self.database, select(*at)))[0])

    async def doubts(self) -> Doubts:
        """Return the drawings that are in doubt now."""
        c = tables.drawing.c
        sums = [
            func.count().label("drawings"),
            func.sum(c.in_doubt_nano).label("nano"),
            func.min(c.at).label("oldest_at"),
        ]
        row = (await fetch(self.database, select(*sums).where(c.state == State.IN_DOUBT, tables.OPEN)))[0]
        return Doubts(row["drawings"], int(row["nano"] or 0), row["oldest_at"])

    # --- prices, and what was changed ---

    async def prices(self, *, with_past: bool = False) -> Sequence[PriceRecord]:
        """Return the prices that hold now, or all that ever held."""
        c = tables.price.c
        statement = select(*_columns(tables.price, PriceRecord)).order_by(c.provider, c.model, c.valid_from)
        if not with_past:
            statement = statement.where(c.valid_to.is_(None))
        return [PriceRecord(**row) for row in await fetch(self.database, statement)]

    async def events(
        self, which: EventFilter, *, after: int | None = None, before: int | None = None, limit: int = 20
    ) -> Page[EventRecord]:
        """Return the newest lines of the audit log, or those that come after (before) the one with that id."""
        c = tables.audit.c
        conditions: list[ColumnElement[bool]] = [
            *([c.at >= which.since] if which.since is not None else []),
            *([c.at < which.until] if which.until is not None else []),
            *([c.actor_id.in_(which.actor_ids)] if which.actor_ids else []),
            *([c.object_id.in_(which.object_ids)] if which.object_ids else []),
            *([_is_of(which.project_ids)] if which.project_ids else []),
            *([c.id < after] if after is not None else []),
            *([c.id > before] if before is not None else []),
        ]
        if which.actions:
            pairs = [and_(c.object_kind == kind, c.action == action) for kind, action in which.actions]
            conditions.append(or_(*pairs))
        order = c.id.asc() if before is not None else c.id.desc()
        statement = select(*_columns(tables.audit, EventRecord)).where(*conditions).order_by(order).limit(limit + 1)
        page = _page(EventRecord, await fetch(self.database, statement), limit)
        return Page(page.items[::-1], page.has_more) if before is not None else page

    async def _time_of(self, table: Table, id: str) -> int:
        rows = await fetch(self.database, select(table.c.at).where(table.c.id == id))
        if not rows:
            raise UnknownRow(id)
        at: int = rows[0]["at"]
        return at


# --- statements ---

_STORED = ("requests", "images", "pixels", "milliseconds", "cost_nano", "in_doubt_nano", "saved_nano")
_SUMS = (*_STORED, "joined")


def _columns(table: Table, kind: Any) -> list[Column[Any]]:
    """Return the columns that are fields of a record."""
    return [table.c[field.name] for field in fields(kind)]


def _page(kind: type[Kind], rows: Sequence[Any], limit: int) -> Page[Kind]:
    return Page(tuple(kind(**row) for row in rows[:limit]), len(rows) > limit)


def _drawings() -> Select[Any]:
    return select(*_columns(tables.drawing, DrawingRecord))


def _is_of(projects: Sequence[str]) -> ColumnElement[bool]:
    """True of an event of one of these projects, or of a key of theirs."""
    key, object_id = tables.api_key.c, tables.audit.c.object_id
    return or_(object_id.in_(projects), object_id.in_(select(key.id).where(key.project_id.in_(projects))))


def _conditions(which: DrawingFilter) -> Iterable[ColumnElement[bool] | TextClause]:
    c = tables.drawing.c
    if which.request_id is not None:
        yield c.request_id == which.request_id
    for name in ("outcome", "project_id", "key_id", "model", "provider", "operation"):
        if (value := getattr(which, name)) is not None:
            # A request has a row or two: SQLite would rather look through all rows of a key, which are in order.
            yield (c[name] if which.request_id is None else func.coalesce(c[name], literal_column("''"))) == value
    if which.state is not None:
        yield c.state == which.state
    if which.state in ("held", "sent", "in_doubt"):
        yield tables.OPEN  # by these words SQLite knows that the index of open drawings has them all
    if which.since is not None:
        yield c.at >= which.since
    if which.until is not None:
        yield c.at < which.until


def _sources(query: UsageQuery, rolled_up: int) -> Any:
    """Return the rows that are summed up: whole days and hours of the rollups, as far as these go, and the drawings of
    what is left at both ends."""
    since, until = query.since, query.until
    first, last = next_start(since, HOUR), min(until - until % HOUR, rolled_up)
    if query.width == "minute" or first >= last:
        return union_all(_drawn(query, since, until))
    days = (next_start(first, DAY), last - last % DAY)
    if query.width == "hour" or days[0] >= days[1]:
        days = (last, last)
    spans = [(tables.usage_hour, first, days[0]), (tables.usage_day, *days), (tables.usage_hour, days[1], last)]
    sums = [_rolled_up(table, query, begin, end) for table, begin, end in spans if begin < end]
    drawn = [_drawn(query, begin, end) for begin, end in ((since, first), (last, until)) if begin < end]
    return union_all(*sums, *drawn)


def _rolled_up(table: Table, query: UsageQuery, since: int, until: int) -> Select[Any]:
    c = table.c
    values = {name: c[name] for name in DIMENSIONS}
    sums = {name: c[name] for name in _STORED}
    return _narrowed(query, table, values, _bucket(c.starts_at, query.width), sums, c.starts_at, since, until)


def _drawn(query: UsageQuery, since: int, until: int) -> Select[Any]:
    c = tables.drawing.c
    size = case(
        (c.width.is_(None), literal_column("''")),
        else_=cast(c.width, Text).op("||")(literal_column("'x'")).op("||")(cast(c.height, Text)),
    )
    values: dict[Dimension, Any] = {
        "project_id": func.coalesce(c.project_id, literal_column("''")),
        "key_id": c.key_id,
        "model": c.model,
        "provider": func.coalesce(c.provider, literal_column("''")),
        "operation": c.operation,
        "size": size,
        "outcome": func.coalesce(c.outcome, literal_column("''")),
    }
    pixels = (
        cast(c.images, BigInteger)
        * func.coalesce(c.width, literal_column("0"))
        * func.coalesce(c.height, literal_column("0"))
    )
    sums = {
        "requests": literal_column("1"),
        "images": c.images,
        "pixels": pixels,
        "milliseconds": func.coalesce(c.total_ms, literal_column("0")),
        "cost_nano": c.cost_nano,
        "in_doubt_nano": c.in_doubt_nano,
        "saved_nano": c.saved_nano,
    }
    return _narrowed(query, tables.drawing, values, _bucket(c.at, query.width), sums, c.at, since, until)


def _narrowed(
    query: UsageQuery,
    table: FromClause,
    values: dict[Dimension, Any],
    bucket: Any,
    sums: Mapping[str, Any],
    at: Any,
    since: int,
    until: int,
) -> Select[Any]:
    nothing: ColumnElement[int] = literal_column("0")
    is_joined = values["outcome"] == literal_column(f"'{Outcome.JOINED}'")
    counted = {
        **sums,
        # An answer from an existing run: nothing was drawn for it.
        **{name: case((is_joined, nothing), else_=sums[name]) for name in ("requests", "images")},
        "joined": case((is_joined, sums["requests"]), else_=nothing),
    }
    columns = [values[name].label(name) for name in query.by] + [counted[name].label(name) for name in _SUMS]
    only = [values[name].in_(wanted) for name, wanted in query.only.items()]
    return select(bucket.label("starts_at"), *columns).select_from(table).where(at >= since, at < until, *only)


def _bucket(at: Any, width: Width) -> Any:
    span: ColumnElement[int] = literal_column(str(MICROSECONDS[width]))
    return at - at % span
