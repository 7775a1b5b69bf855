"""The money path in SQLite: functions over a connection inside a transaction, which the writer opens and ends.

Every function first reads, then decides, then writes, so a refusal has written nothing. Statements are few and wide:
each one hands the interpreter to another thread, and may wait to get it back. `functions.sql` does the same in
Postgres; one suite of tests runs over both.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from app.ledger.database.protocol import Full
from app.ledger.values.drawings import (
    Admission,
    AttemptSent,
    Beginning,
    BudgetRefusal,
    Claim,
    Joined,
    LimitRefusal,
    Settlement,
    State,
    Ticket,
    Unfinished,
)
from app.ledger.values.limits import Limit, credible, retry_after, state_of, states_of
from app.ledger.values.windows import Period

_ROOM = """select b.amount_nano, b.hard, p.spent_nano + p.in_doubt_nano, p.held_nano from budget b
    left join budget_period p on p.budget_id = b.id and p.starts_at = ? where b.id = ? and b.removed_at is null"""
_INSERT_DRAWING = """insert into drawing (id, request_id, run_id, at, replica, key_id, project_id, end_user, tags,
    client, operation, asked_model, model, state, n, asked, reserved_nano, held_nano)
    values (?,?,?,?,?,?,?,?,?,?,?,?,?,'held',?,?,?,?)"""
_INSERT_ENTRY = """insert into entry (drawing_id, seq, kind, held_nano, spent_nano, in_doubt_nano, at, made_by, note)
    select ?, coalesce(max(seq) + 1, 0), ?, ?, ?, ?, ?, ?, ? from entry where drawing_id = ?"""
_DRAWING_ROW = "(?,?,?,?,?,?,?,?,?,?,?,?,?,'sent',?,?,?,?,?)"
_ATTEMPT_ROW = "(?,?,?,?,?,?,?,?,?,?)"
_RESULT_ROW = "(?,?,?,?,?,?,?,?,?,?,?,?)"
_SETTLED_ROW = f"({','.join('?' * 22)})"
_BEGIN_DRAWINGS = """insert into drawing (id, request_id, run_id, at, replica, key_id, project_id, end_user, tags,
    client, operation, asked_model, model, state, n, asked, reserved_nano, held_nano, attempts)
    values {} on conflict (id) do nothing"""
_FIRST_ENTRIES = """insert into entry (drawing_id, seq, kind, held_nano, spent_nano, in_doubt_nano, at, made_by)
    values {} on conflict (drawing_id, seq) do nothing"""
_INSERT_ATTEMPTS = """insert into attempt (drawing_id, seq, sent_at, provider, deployment, model, images, dropped,
    mapped, most_nano) values {} on conflict (drawing_id, seq) do nothing"""
_HOLD_IN_PERIODS = """insert into budget_period (budget_id, starts_at, ends_at, held_nano) values {}
    on conflict (budget_id, starts_at) do update set held_nano = held_nano + excluded.held_nano"""
_MOVE_PERIODS = """update budget_period set held_nano = held_nano + ?, spent_nano = spent_nano + ?,
    in_doubt_nano = in_doubt_nano + ? where (budget_id, starts_at) in
    (select budget_id, starts_at from charge where drawing_id = ?)"""
_SETTLE = """update drawing set state = ?, outcome = ?, ended_at = ?, held_nano = 0, cost_nano = ?, in_doubt_nano = ?,
    cost_source = ?, price_id = ?, images = ?, provider = ?, deployment = ?, upstream_model = ?, width = ?, height = ?,
    format = ?, quality = ?, http_status = ?, error_code = ?, queue_ms = ?, first_ms = ?, total_ms = ?,
    attempts = max(attempts, ?) where id = ?"""
_RESOLVED = "select 1 from entry where drawing_id = ? and kind = 'resolve'"
_PLAIN = """select count(*), sum(d.held_nano) from drawing d where d.id in ({}) and d.state = 'sent'
    and not exists (select 1 from charge c where c.drawing_id = d.id)"""
_SETTLE_ALL = """update drawing set state = v.column1, outcome = v.column2, ended_at = v.column3, held_nano = 0,
    cost_nano = v.column4, in_doubt_nano = v.column5, cost_source = v.column6, price_id = v.column7,
    images = v.column8, provider = v.column9, deployment = v.column10, upstream_model = v.column11,
    width = v.column12, height = v.column13, format = v.column14, quality = v.column15, http_status = v.column16,
    error_code = v.column17, queue_ms = v.column18, first_ms = v.column19, total_ms = v.column20,
    attempts = max(attempts, v.column21) from (values {}) v where drawing.id = v.column22"""
_LAST_ENTRIES = """insert into entry (drawing_id, seq, kind, held_nano, spent_nano, in_doubt_nano, at, made_by, note)
    select d.id, (select coalesce(max(seq) + 1, 0) from entry where drawing_id = d.id), v.column2, -d.held_nano,
    v.column3, v.column4, v.column5, v.column6, v.column7 from (values {}) v join drawing d on d.id = v.column1
    where d.held_nano <> 0 or v.column3 <> 0 or v.column4 <> 0"""
_ATTEMPT_RESULTS = """insert into attempt (drawing_id, seq, provider, deployment, model, images, result, http_status,
    provider_request_id, ms, cost_nano, in_doubt_nano) values {}
    on conflict (drawing_id, seq) do update set result = excluded.result, images = excluded.images,
    http_status = excluded.http_status, provider_request_id = excluded.provider_request_id, ms = excluded.ms,
    cost_nano = excluded.cost_nano, in_doubt_nano = excluded.in_doubt_nano"""
_CROSSED = """select b.id, p.starts_at, b.amount_nano, b.thresholds, p.spent_nano + p.in_doubt_nano from charge c
    join budget b on b.id = c.budget_id and b.thresholds <> '[]' and b.removed_at is null
    join budget_period p on p.budget_id = c.budget_id and p.starts_at = c.starts_at where c.drawing_id = ?"""
MOST_ROWS = 32  # of a statement

Row = tuple[Any, ...]
T = TypeVar("T")


def admit(
    db: sqlite3.Connection, admission: Admission, claims: Sequence[Claim], replica: str, now: int
) -> Ticket | LimitRefusal | BudgetRefusal:
    limits = admission.limits
    known, uses = _read_use(db, admission, limits, now)
    needs = [limit.needed(admission.n, admission.pixels) for limit in limits]
    if known is not None:  # a repeat, after a connection was lost
        return Ticket(admission.id, known, states_of(limits, uses, now))
    taken = list[int]()
    for limit, use, need in zip(limits, uses, needs, strict=True):
        wait = retry_after(limit, need, use, now)
        if wait != 0:
            return LimitRefusal(state_of(limit, use, now), need, wait, states_of(limits, uses, now))
        taken.append(max(use, now) + limit.step(need) if limit.is_rate else use + 1)
    most = admission.most or 0
    counted = list[Claim]()
    for claim in claims:
        room = db.execute(_ROOM, (claim.period.starts_at, claim.budget.id)).fetchone()
        if room is None:
            continue  # it was removed a moment ago
        amount, hard, used, held = room[0], room[1], room[2] or 0, room[3] or 0
        if hard and used + held + most > amount:
            states = states_of(limits, uses, now)
            return BudgetRefusal(claim.budget, claim.period, amount, used, held, most, states)
        counted.append(claim)
    _take_limits(db, admission, limits, taken, replica, now)
    _insert_held(db, admission, counted, replica, now)
    return Ticket(admission.id, most, states_of(limits, taken, now))


def _read_use(
    db: sqlite3.Connection, admission: Admission, limits: Sequence[Limit], now: int
) -> tuple[int | None, Sequence[int]]:
    """Return the reservation, if the drawing is known, and the use of each limit: a time or a number of places."""
    row = db.execute(_use_of(tuple(limit.is_rate for limit in limits)), [admission.id, *(x.scope for x in limits)])
    known, *uses = row.fetchone()
    return known, [credible(use or 0, now) if limit.is_rate else use for limit, use in zip(limits, uses, strict=True)]


@lru_cache(maxsize=64)
def _use_of(rates: tuple[bool, ...]) -> str:
    parts = ["(select reserved_nano from drawing where id = ?)"]
    for is_rate in rates:
        wanted = "full_at from bucket" if is_rate else "count(*) from lease"
        parts.append(f"(select {wanted} where scope = ?)")
    return "select " + ", ".join(parts)


def _take_limits(
    db: sqlite3.Connection, admission: Admission, limits: Sequence[Limit], taken: Sequence[int], replica: str, now: int
) -> None:
    buckets, leases = list[Any](), list[Any]()
    for limit, use in zip(limits, taken, strict=True):
        if limit.is_rate:
            buckets += limit.scope, use
        else:
            leases += limit.scope, admission.id, replica, now
    if buckets:
        db.execute(
            _rows("insert or replace into bucket (scope, full_at) values {}", "(?,?)", len(buckets) // 2), buckets
        )
    if leases:
        sql = _rows("insert into lease (scope, drawing_id, replica, at) values {}", "(?,?,?,?)", len(leases) // 4)
        db.execute(sql, leases)


def _insert_held(db: sqlite3.Connection, admission: Admission, claims: Sequence[Claim], replica: str, now: int) -> None:
    most = admission.most or 0
    db.execute(_INSERT_DRAWING, _drawing_values(admission, replica, now))
    if most:
        db.execute(_INSERT_ENTRY, (admission.id, "reserve", most, 0, 0, now, "gateway", None, admission.id))
    if not claims:
        return
    periods, charges = list[Any](), list[Any]()
    for claim in claims:
        periods += claim.budget.id, claim.period.starts_at, claim.period.ends_at, most
        charges += admission.id, claim.budget.id, claim.period.starts_at
    db.execute(_rows(_HOLD_IN_PERIODS, "(?,?,?,?)", len(claims)), periods)
    insert = "insert into charge (drawing_id, budget_id, starts_at) values {}"
    db.execute(_rows(insert, "(?,?,?)", len(claims)), charges)


def _drawing_values(admission: Admission, replica: str, now: int) -> tuple[Any, ...]:
    most = admission.most or 0
    tags = json.dumps(dict(admission.tags)) if admission.tags else None
    return (admission.id, admission.request_id, admission.run_id, now, replica, admission.key_id,
            admission.project_id, admission.end_user, tags, admission.client, admission.operation,
            admission.asked_model, admission.model, admission.n, admission.asked, most, most)  # fmt: skip


@lru_cache(maxsize=256)
def _rows(statement: str, row: str, rows: int) -> str:
    return statement.format(",".join([row] * rows))


def reserve(db: sqlite3.Connection, drawing_id: str, most: int, now: int, has_left: bool) -> bool | Full:
    found = db.execute("select state, held_nano from drawing where id = ?", (drawing_id,)).fetchone()
    if found is None or found[0] not in (State.HELD, State.SENT):
        return False
    more = most - found[1]
    if more <= 0:
        return True
    charged = """select b.id, p.starts_at, p.ends_at, b.amount_nano, p.spent_nano + p.in_doubt_nano, p.held_nano
        from charge c join budget b on b.id = c.budget_id and b.hard = 1 and b.removed_at is null
        join budget_period p on p.budget_id = c.budget_id and p.starts_at = c.starts_at
        where c.drawing_id = ? and p.spent_nano + p.in_doubt_nano + p.held_nano + ? > b.amount_nano order by b.id"""
    full = None if has_left else db.execute(charged, (drawing_id, more)).fetchone()
    if full is not None:
        budget_id, starts_at, ends_at, amount, used, held = full
        return Full(budget_id, Period(starts_at, ends_at), amount, used, held, more)
    sql = "update drawing set held_nano = held_nano + ?, reserved_nano = reserved_nano + ? where id = ?"
    db.execute(sql, (more, more, drawing_id))
    _move(db, drawing_id, "reserve", (more, 0, 0), now, "gateway", "")
    return True


def sent(db: sqlite3.Connection, attempt: AttemptSent) -> bool:
    sql = "update drawing set state = 'sent', attempts = max(attempts, ?) where id = ? and state in ('held', 'sent')"
    if not db.execute(sql, (attempt.seq, attempt.drawing_id)).rowcount:
        return False
    db.execute(_rows(_INSERT_ATTEMPTS, _ATTEMPT_ROW, 1), _attempt_values(attempt))
    return True


def _attempt_values(attempt: AttemptSent) -> tuple[Any, ...]:
    return (attempt.drawing_id, attempt.seq, attempt.at, attempt.provider, attempt.deployment, attempt.model,
            attempt.images, attempt.dropped, attempt.mapped, attempt.most)  # fmt: skip


def record(db: sqlite3.Connection, begun: Sequence[Beginning], ended: Sequence[Settlement], replica: str) -> None:
    _insert(db, _BEGIN_DRAWINGS, _DRAWING_ROW, [
        (*_drawing_values(each.admission, replica, each.at), each.attempt.seq) for each in begun
    ])  # fmt: skip
    held = [(each.admission.id, each.admission.most, each.at) for each in begun if each.admission.most]
    _insert(db, _FIRST_ENTRIES, "(?,0,'reserve',?,0,0,?,'gateway')", held)
    _insert(db, _INSERT_ATTEMPTS, _ATTEMPT_ROW, [_attempt_values(each.attempt) for each in begun])
    for some in _parts(ended):
        _settle_some(db, some)


def _insert(db: sqlite3.Connection, statement: str, row: str, values: Sequence[Row]) -> None:
    for some in _parts(values):
        db.execute(_rows(statement, row, len(some)), [*chain.from_iterable(some)])


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut items into parts of `MOST_ROWS` and a shorter one, so that the statements are few and stay prepared."""
    for start in range(0, len(items), MOST_ROWS):
        yield items[start : start + MOST_ROWS]


def _settle_some(db: sqlite3.Connection, ended: Sequence[Settlement]) -> None:
    """Settle drawings together if all are under way and count in no budget, as nearly always; else one by one. A new
    budget also counts the earlier drawings of its period."""
    ids = [end.drawing_id for end in ended]
    plain, held = db.execute(_rows(_PLAIN, "?", len(ids)), ids).fetchone()
    if plain < len(ended):
        for end in ended:
            settle(db, end)
        return
    if held or any(end.cost or end.in_doubt for end in ended):
        moved = [(end.drawing_id, end.kind, end.cost, end.in_doubt, end.at, end.by, end.note or None) for end in ended]
        _insert(db, _LAST_ENTRIES, "(?,?,?,?,?,?,?)", moved)
    _insert(db, _SETTLE_ALL, _SETTLED_ROW, [_settled_values(end) for end in ended])
    _insert(db, _ATTEMPT_RESULTS, _RESULT_ROW, [*chain.from_iterable(map(_result_values, ended))])


def settle(db: sqlite3.Connection, end: Settlement) -> bool:
    sql = "select state, outcome, held_nano, cost_nano, in_doubt_nano from drawing where id = ?"
    found = db.execute(sql, (end.drawing_id,)).fetchone()
    if found is None:
        return False
    state, outcome, held, cost, in_doubt = found
    has_ended = state not in (State.HELD, State.SENT)
    was_given_up = outcome == "interrupted" and end.outcome != "interrupted"  # its process was thought to be dead
    if has_ended and not (was_given_up and db.execute(_RESOLVED, (end.drawing_id,)).fetchone() is None):
        return False
    db.execute(_SETTLE, _settled_values(end))
    _move(db, end.drawing_id, end.kind, (-held, end.cost - cost, end.in_doubt - in_doubt), end.at, end.by, end.note)
    db.execute("delete from lease where drawing_id = ?", (end.drawing_id,))
    _insert(db, _ATTEMPT_RESULTS, _RESULT_ROW, _result_values(end))
    return True


def _settled_values(end: Settlement) -> Row:
    return (end.state.value, end.outcome.value, end.at, end.cost, end.in_doubt, end.cost_source, end.price_id,
            end.images, end.provider, end.deployment, end.upstream_model, end.width, end.height, end.format,
            end.quality, end.http_status, end.error_code, end.queue_ms, end.first_ms, end.total_ms,
            max([attempt.seq for attempt in end.attempts], default=0), end.drawing_id)  # fmt: skip


def _result_values(end: Settlement) -> list[Row]:
    return [(end.drawing_id, attempt.seq, attempt.provider, attempt.deployment, attempt.model, attempt.images,
             attempt.result, attempt.http_status, attempt.provider_request_id, attempt.ms, attempt.cost,
             attempt.in_doubt) for attempt in end.attempts]  # fmt: skip


def resolve(db: sqlite3.Connection, drawing_id: str, at: int, by: str, note: str, paid: bool) -> bool:
    sql = "select in_doubt_nano, cost_nano, images from drawing where id = ? and state = 'in_doubt'"
    found = db.execute(sql, (drawing_id,)).fetchone()
    if found is None:
        return False
    in_doubt, cost, images = found
    state = State.SETTLED if paid or cost or images else State.RELEASED
    change = "update drawing set state = ?, in_doubt_nano = 0, cost_nano = cost_nano + ? where id = ?"
    db.execute(change, (state, in_doubt if paid else 0, drawing_id))
    _move(db, drawing_id, "resolve", (0, in_doubt if paid else 0, -in_doubt), at, by, note)
    return True


def defer(db: sqlite3.Connection, admission: Admission, claims: Sequence[Claim], replica: str, at: int) -> None:
    if db.execute("select 1 from drawing where id = ?", (admission.id,)).fetchone() is None:
        _insert_held(db, admission, claims, replica, at)


def join(db: sqlite3.Connection, joined: Joined, replica: str) -> None:
    sql = """insert into drawing (id, request_id, run_id, at, ended_at, replica, key_id, project_id, operation,
        asked_model, model, state, outcome, n, images, saved_nano, cost_source, end_user, tags)
        values (?,?,?,?,?,?,?,?,?,?,?,'settled','joined',?,?,?,'none',?,?) on conflict (id) do nothing"""
    values = (joined.id, joined.request_id, joined.run_id, joined.at, joined.at, replica, joined.key_id,
              joined.project_id, joined.operation, joined.asked_model, joined.model, joined.n, joined.images,
              joined.saved, joined.end_user, joined.tags)  # fmt: skip
    db.execute(sql, values)


UNFINISHED = """select d.id, d.run_id, d.state, d.held_nano,
    min(d.held_nano, coalesce((select sum(a.most_nano) from attempt a where a.drawing_id = d.id), 0))
    from drawing d where d.state in ('held', 'sent', 'in_doubt') and d.state <> 'in_doubt' and d.replica = ?
    order by d.at, d.id"""  # by the words of the index of open drawings, without which SQLite does not use it


def unfinished(db: sqlite3.Connection, replica: str) -> Sequence[Unfinished]:
    rows = db.execute(UNFINISHED, (replica,)).fetchall()
    return [Unfinished(id, run_id, State(state), held, at_stake) for id, run_id, state, held, at_stake in rows]


def _move(
    db: sqlite3.Connection, drawing_id: str, kind: str, change: tuple[int, int, int], at: int, by: str, note: str
) -> None:
    """Write an entry, and move the same money in each budget that the drawing counts in. `change`: of what is held,
    spent and in doubt."""
    if change == (0, 0, 0):
        return
    db.execute(_INSERT_ENTRY, (drawing_id, kind, *change, at, by, note or None, drawing_id))
    if not db.execute(_MOVE_PERIODS, (*change, drawing_id)).rowcount or not (change[1] or change[2]):
        return
    for budget_id, starts_at, amount, thresholds, used in db.execute(_CROSSED, (drawing_id,)).fetchall():
        for threshold in json.loads(thresholds):
            if used * 100 < threshold * amount:
                continue
            sql = (
                "insert into budget_alert (budget_id, starts_at, threshold, at) values (?,?,?,?) on conflict do nothing"
            )
            if db.execute(sql, (budget_id, starts_at, threshold, at)).rowcount:
                body = {"budget_id": budget_id, "starts_at": starts_at, "threshold": threshold, "used_nano": used,
                        "amount_nano": amount}  # fmt: skip
                insert = "insert into outbox (kind, body, next_at) values ('budget_alert', ?, ?)"
                db.execute(insert, (json.dumps(body, sort_keys=True), at))
