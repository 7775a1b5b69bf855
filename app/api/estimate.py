"""Estimate a request: `POST /v1/images/{operation}/estimate` takes the same body as the operation, draws nothing and
uses up nothing. A request that would be refused gets that refusal. Plain ASGI, like the image endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.access.max_cost import excess, within
from app.access.refusals import rate_limit_headers
from app.api.administration.endpoint import DeploymentStatus
from app.api.images import announced_length, read_call
from app.api.runtime import Runtime
from app.catalog.deployments import Deployment
from app.catalog.estimates import least, most, pixels_of
from app.catalog.fitting import Fitted, Misfit
from app.catalog.money import to_number
from app.gateway.call import Call
from app.images import Operation
from app.ledger.values.drawings import BudgetUse, Foresight
from app.ledger.values.limits import MEGAPIXEL, LimitState, Measure
from app.microseconds import SECOND

_PAUSES = {"limited": "rate limit", "account": "account refused", "failing": "failures"}


@dataclass(frozen=True, slots=True)
class Prospect:
    """One deployment: the request as it would get it, or the reason why it would not."""

    deployment: Deployment
    fitted: Fitted | None
    reason: str | None = None


class EstimateEndpoint:
    """Reads a request as the operation's endpoint does, and goes as far as its admission."""

    def __init__(self, operation: Operation, runtime: Callable[[], Runtime]) -> None:
        self._operation = operation
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime, request_id = self._runtime(), scope["state"]["request_id"]
        log = scope["state"]["log"]
        key = runtime.authenticate(scope)
        key.require("draw")
        key.require_operation(self._operation)
        with ExitStack() as stack:
            uploads = stack.enter_context(runtime.resources.uploads())
            async with runtime.resources.body_gate.enter(key, announced_length(scope)):
                call = await read_call(self._operation, runtime, request_id, key, scope, receive, uploads)
            log.model = call.request.model
            prospects = await _look_ahead(runtime, call)
            able = [prospect.fitted for prospect in prospects if prospect.fitted is not None]
            name = runtime.catalog.own_name(call.request.model, key)
            foresight = await runtime.admission.foresee(request_id, key, call.request, able, name)
        told = _describe(runtime, call, prospects, able, foresight)
        await JSONResponse(told, headers=dict(rate_limit_headers(foresight.limits)))(scope, receive, send)


async def _look_ahead(runtime: Runtime, call: Call) -> list[Prospect]:
    """Return the prospects of all deployments of the model. Raises the ApiError of a request that none can serve."""
    request, currency = call.request, runtime.admission.currency
    runtime.gateway.candidates(request, call.key)  # raises, if there is none
    found = list[Prospect]()
    for deployment, fit in runtime.catalog.fits(request, call.key):
        if isinstance(fit, Misfit):
            found.append(Prospect(deployment, None, "; ".join(filter(None, (fit.reason, fit.works)))))
            continue
        fitted = await call.preparation.foresee(fit) if call.preparation is not None else fit
        found.append(Prospect(deployment, fitted))
    within(request, [prospect.fitted for prospect in found if prospect.fitted is not None], currency)  # raises, too
    return [
        Prospect(each.deployment, None, reason)
        if each.fitted is not None and (reason := excess(request, each.fitted, currency))
        else each
        for each in found
    ]


def _describe(
    runtime: Runtime, call: Call, prospects: Sequence[Prospect], able: Sequence[Fitted], foresight: Foresight
) -> dict[str, Any]:
    request, n = call.request, call.request.n
    states = {(each.provider, each.model): each for each in runtime.administration.deployments()}
    size = able[0].request.size or request.size
    pixels = pixels_of(request, able[0])
    return {
        "object": "image.estimate",
        "model": request.model,
        "operation": str(request.operation),
        "n": n,
        "size": str(size) if size else None,
        "cost": {
            "least": _bound(min, [least(fitted, n) for fitted in able]),
            "most": _bound(max, [most(fitted, n) for fitted in able]),
            "currency": runtime.admission.currency,
        },
        "deployments": [
            _deployment(each, n, states.get((each.deployment.provider.name, each.deployment.model)))
            for each in prospects
        ],
        "limits": [_limit(state, n, pixels) for state in foresight.limits],
        "budget": _budget(foresight.budgets),
    }


def _bound(choose: Callable[[list[int]], int], amounts: Sequence[int | None]) -> float | None:
    """Return the least or the most of amounts; None if one of them is not known."""
    known = [amount for amount in amounts if amount is not None]
    return to_number(choose(known)) if known and len(known) == len(amounts) else None


def _deployment(prospect: Prospect, n: int, state: DeploymentStatus | None) -> dict[str, Any]:
    deployment, fitted, reason = prospect.deployment, prospect.fitted, prospect.reason
    amount = None if fitted is None else most(fitted, n)
    if fitted is not None and state is not None and state.is_paused:
        pauses = ", ".join(f"{_PAUSES.get(why, why)}, {left:.0f} s" for why, left in state.pauses.items())
        reason = f"it is passed over for the moment ({pauses})"
    return {
        "provider": deployment.provider.name,
        "model": deployment.model,
        "eligible": fitted is not None,
        "reason": reason,
        "cost": None if amount is None else to_number(amount),
        "dropped": list(fitted.dropped) if fitted else [],
        "mapped": list(fitted.mapped) if fitted else [],
        "typical_seconds": typical_seconds(deployment, state),
        "waiting": state.waiting if state else 0,
    }


def typical_seconds(deployment: Deployment, state: DeploymentStatus | None) -> float | None:
    """Return the seconds for which a request recently held its place at the deployment, or else the profile's."""
    lately = state.lately_seconds if state else None
    return deployment.profile.typical_seconds if lately is None else round(lately, 3)


def _limit(state: LimitState, n: int, pixels: int) -> dict[str, Any]:
    limit = state.limit
    needed: float = limit.needed(n, pixels)
    if limit.measure is Measure.MEGAPIXELS:
        needed /= MEGAPIXEL
    return {
        "measure": str(limit.measure),
        "scope": limit.owner.kind,
        "owner": limit.owner.name,
        "limit": limit.amount,
        "remaining": state.remaining,
        "needed": needed,
        "reset_seconds": round(state.reset, 3),
    }


def _budget(budgets: Sequence[BudgetUse]) -> dict[str, Any] | None:
    """Return the budget with the least left, a hard one if there is any."""
    tightest = min(budgets, key=lambda use: (not use.budget.hard, use.left), default=None)
    return None if tightest is None else dict(_budget_members(tightest))


def _budget_members(use: BudgetUse) -> Iterator[tuple[str, Any]]:
    budget, ends_at = use.budget, use.period.ends_at
    yield "id", budget.id
    yield "scope", budget.scope
    yield "owner", budget.owner or budget.scope_id
    yield "models", list(budget.models)
    yield from ((name, to_number(getattr(use, name))) for name in ("amount", "used", "held", "left"))
    yield "window", budget.window
    yield "resets_at", None if ends_at is None else ends_at // SECOND
    yield "hard", budget.hard
