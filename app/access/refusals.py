"""Turn the ledger's refusals into API errors, and the limits that a request has used into headers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from app.catalog.money import to_decimal
from app.errors import ApiError, InvalidRequest, RateLimited, Unavailable
from app.ledger.values.directory import Budget
from app.ledger.values.drawings import BudgetRefusal, LimitRefusal, Refusal, Unpriced
from app.ledger.values.limits import MEGAPIXEL, Limit, LimitState, Measure, Owner
from app.microseconds import SECOND

AWAY_SECONDS = 5.0  # until the database may be back
RESERVED_SECONDS = 5.0  # until a running request may have ended
TOLD = (Measure.REQUESTS, Measure.IMAGES)  # in headers: the measures that OpenAI's limits have

_PER_MINUTE = {
    Measure.REQUESTS: "requests a minute",
    Measure.IMAGES: "images a minute",
    Measure.MEGAPIXELS: "megapixels a minute",
}


def refusal_error(refusal: Refusal, currency: str = "USD") -> ApiError:
    """Return the error for a refusal. It names the limit or budget, its owner, and the remedy."""
    if isinstance(refusal, LimitRefusal):
        return _over_limit(refusal)
    if isinstance(refusal, BudgetRefusal):
        return _over_budget(refusal, currency)
    if isinstance(refusal, Unpriced):
        message = (
            f"This model has no price, and {describe(refusal.budget)} needs one. State `price` in the model's profile, "
            "or let unpriced models through: `ledger: {unpriced: serve}`."
        )
        return InvalidRequest(message, param="model", code="model_unpriced", should_retry=False)
    message = "The ledger cannot be reached, and a budget or limit of this key cannot be kept without it. Try again."
    return Unavailable(message, code="ledger_unavailable", retry_after=AWAY_SECONDS)


def repeat_refused(refusal: BudgetRefusal, currency: str = "USD") -> ApiError:
    """Return the error for a repeat that a budget has no room for, after an attempt that was perhaps paid for. Waiting
    would not help, since money in doubt stays reserved."""
    message = (
        "The image was perhaps paid for at an attempt that failed, and another attempt, which may cost "
        f"{_amount(refusal.needed)} {currency}, does not fit into {describe(refusal.budget)}. So it is not drawn again."
    )
    code = "insufficient_quota"
    return RateLimited(message, type=code, code=code, should_retry=False, headers=rate_limit_headers(refusal.limits))


def rate_limit_headers(states: Iterable[LimitState]) -> Mapping[str, str]:
    """Return `x-ratelimit-{limit,remaining,reset}-{requests,images}`, of the tightest limit of each measure."""
    headers = dict[str, str]()
    for measure in TOLD:
        own = [state for state in states if state.limit.measure is measure]
        if own:
            tightest = min(own, key=lambda state: (state.remaining, state.limit.amount))
            headers[f"x-ratelimit-limit-{measure}"] = str(tightest.limit.amount)
            headers[f"x-ratelimit-remaining-{measure}"] = str(tightest.remaining)
            headers[f"x-ratelimit-reset-{measure}"] = write_duration(tightest.reset)
    return headers


def write_duration(seconds: float) -> str:
    """Write seconds as OpenAI does: `350ms`, `1s`, `6m0s`, `1h0m0s`."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"


def describe(budget: Budget) -> str:
    """Name a budget: its id, its window and its owner."""
    window = "in all" if budget.window == "total" else f"a {budget.window}"
    models = f" for {', '.join(budget.models)}" if budget.models else ""
    owner = "everything" if budget.scope == "all" else f"{budget.scope} {(budget.owner or budget.scope_id)!r}"
    return f"the budget {budget.id} ({_amount(budget.amount)} {window} of {owner}{models})"


def _over_limit(refusal: LimitRefusal) -> ApiError:
    limit, wait = refusal.state.limit, refusal.retry_after
    headers = rate_limit_headers(refusal.limits or (refusal.state,))
    if limit.measure is Measure.CONCURRENCY:
        message = f"{_owner(limit.owner)} may have {limit.amount} requests running at a time. Wait for one to finish."
        return _rate_limited(message, wait or 1.0, headers)
    may = f"{_owner(limit.owner)} may ask for {limit.amount} {_PER_MINUTE[limit.measure]}"
    if limit.measure is Measure.REQUESTS:
        may = f"{_owner(limit.owner)} may make {limit.amount} requests a minute"
    if wait is None:
        message = f"{may}, and this request needs {_needed(limit, refusal.needed)}. Ask for fewer or smaller images."
        return RateLimited(message, type="requests", code="rate_limit_exceeded", should_retry=False, headers=headers)
    left = f", of which {refusal.state.remaining} are left" if limit.measure is not Measure.REQUESTS else ""
    return _rate_limited(f"{may}{left}. Try again in {wait:.1f} s.", wait, headers)


def _rate_limited(message: str, wait: float, headers: Mapping[str, str]) -> RateLimited:
    return RateLimited(message, type="requests", code="rate_limit_exceeded", retry_after=wait, headers=headers)


def _over_budget(refusal: BudgetRefusal, currency: str) -> ApiError:
    budget = refusal.budget
    name, used = describe(budget), f"{_amount(refusal.used)} {currency} are used"
    headers = rate_limit_headers(refusal.limits)
    needed = f"and this request may need {_amount(refusal.needed)}"
    if refusal.is_reserved:
        message = (
            f"Running requests hold what is left of {name}: {used}, {_amount(refusal.held)} held, {needed}. "
            "Try again when one of them has finished."
        )
        return RateLimited(
            message,
            type="insufficient_quota",
            code="budget_reserved",
            retry_after=RESERVED_SECONDS,
            headers=headers,
        )
    message = f"This request does not fit into {name}: {used}, {needed}. {_anew(refusal)}"
    return RateLimited(
        message, type="insufficient_quota", code="insufficient_quota", should_retry=False, headers=headers
    )


def _anew(refusal: BudgetRefusal) -> str:
    ends = refusal.period.ends_at
    if ends is None:
        return "It does not start anew: ask the gateway's operator to raise it."
    when = datetime.fromtimestamp(ends / SECOND, UTC).astimezone(ZoneInfo(refusal.budget.timezone))
    return f"It starts anew at {when.isoformat(timespec='minutes')}, or ask the gateway's operator to raise it."


def _owner(owner: Owner) -> str:
    return f"{owner.kind.capitalize()} {owner.name!r}"


def _needed(limit: Limit, needed: int) -> str:
    amount = f"{needed / MEGAPIXEL:g}" if limit.measure is Measure.MEGAPIXELS else str(needed)
    return f"{amount} {limit.measure}"


def _amount(nano: int) -> str:
    return f"{to_decimal(nano).normalize():f}"
