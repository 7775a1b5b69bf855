"""Read the use of limits and budgets, to foresee an admission, and reserve nothing. Plain statements, which both
databases understand."""

from __future__ import annotations

from collections.abc import Sequence

from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders
from app.ledger.values.drawings import Admission, BudgetRefusal, BudgetUse, Claim, Foresight, LimitRefusal
from app.ledger.values.limits import Limit, LimitState, credible, retry_after, states_of

_CLOCK = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint"
_FULL_AT = "select full_at from bucket where scope = {}"
_TAKEN = "select count(*) from lease where scope = {}"
_USED = """select b.amount_nano, b.hard, coalesce(p.spent_nano, 0) + coalesce(p.in_doubt_nano, 0),
    coalesce(p.held_nano, 0) from budget b
    left join budget_period p on p.budget_id = b.id and p.starts_at = {} where b.id = {} and b.removed_at is null"""


async def foresee(
    database: Database, admission: Admission, claims: Sequence[Claim], now: int
) -> Foresight | LimitRefusal | BudgetRefusal:
    """Return what is left of the limits and budgets of a request, or the refusal that it would get."""
    uses, now = await _read_uses(database, admission.limits, now)
    states = states_of(admission.limits, uses, now)
    for limit, use, state in zip(admission.limits, uses, states, strict=True):
        need = limit.needed(admission.n, admission.pixels)
        wait = retry_after(limit, need, use, now)
        if wait != 0:
            return LimitRefusal(state, need, wait, states)
    budgets = list[BudgetUse]()
    sql, most = _USED.format(*placeholders(database, 2)), admission.most or 0
    for claim in claims:
        rows = await database.query(sql, (claim.period.starts_at, claim.budget.id))
        for amount, hard, used, held in rows:  # none, if it was removed a moment ago
            if hard and used + held + most > amount:
                return BudgetRefusal(claim.budget, claim.period, amount, used, held, most, states)
            budgets.append(BudgetUse(claim.budget, claim.period, amount, used, held))
    return Foresight(states, tuple(budgets))


async def limit_states(database: Database, limits: Sequence[Limit], now: int) -> tuple[LimitState, ...]:
    """Return what is left of limits."""
    return states_of(limits, *await _read_uses(database, limits, now))


async def _read_uses(database: Database, limits: Sequence[Limit], now: int) -> tuple[Sequence[int], int]:
    """Return the use of each limit, and the time that counts."""
    if database.dialect == "postgresql" and limits:  # its clock counts for all of its processes
        [[now]] = await database.query(_CLOCK)
    return [await _use(database, limit, now) for limit in limits], now


async def _use(database: Database, limit: Limit, now: int) -> int:
    """Return the time at which the whole burst of a rate is there again, or the number of places that are taken."""
    [mark] = placeholders(database, 1)
    rows = await database.query((_FULL_AT if limit.is_rate else _TAKEN).format(mark), (limit.scope,))
    use = int(rows[0][0]) if rows else 0
    return credible(use, now) if limit.is_rate else use
