"""A run, for the caller whose request began it: `GET /v1/images/runs/{id}` has its answer, `…/status` tells how far it
is, `…/cancel` ends it. Plain ASGI, like the image endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.access.keyring import Key
from app.api.estimate import typical_seconds
from app.api.following import count_joined, serve
from app.api.runtime import Runtime
from app.catalog.money import to_number
from app.errors import ApiError, Conflict
from app.gateway.account import Account
from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.values.records import DrawingFilter
from app.runs.run import Run
from app.runs.state import State

STATES = {
    State.WAITING: "waiting",
    State.SENT: "drawing",
    State.FINISHED: "finished",
    State.DELIVERED: "finished",
    State.RETURNED: "finished",
    State.FAILED: "failed",
    State.OWED: "failed",
    State.UNCERTAIN: "perhaps_paid",
}
# While it has no cost.
PAID = {"waiting": "no", "drawing": "perhaps", "finished": "yes", "failed": "no", "perhaps_paid": "perhaps"}


class RunEndpoint:
    """Waits for a run and gives the answer that its first caller would have got."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self._runtime()
        key = runtime.authenticate(scope)
        entry = runtime.resources.retention.get(scope["path_params"]["run"], key)
        run = entry.run
        is_first = not run.state.is_delivered and not run.present  # it is owed: nothing is saved by its delivery
        scope["state"]["log"].joined = "by_id"
        await serve(runtime, entry, scope, receive, send, is_replay=True)
        if not is_first:
            await count_joined(runtime, scope["state"]["request_id"], run, key, run.call.request)


class RunStatusEndpoint:
    """Tells how far a run is, and does not wait for it."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self._runtime()
        key = runtime.authenticate(scope)
        run = runtime.resources.retention.get(scope["path_params"]["run"], key).run
        await JSONResponse(await _describe(runtime, run, key))(scope, receive, send)


class RunCancelEndpoint:
    """Ends a run for all of its callers, and says whether it will be paid for."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self._runtime()
        key = runtime.authenticate(scope)
        run = runtime.resources.retention.get(scope["path_params"]["run"], key).run
        is_under_way = not run.has_ended
        if is_under_way:
            run.abort(_cancelled(run))
            await run.wait_until_over()
        is_cancelled = is_under_way and run.recording.error is not None
        told = await _describe(runtime, run, key)
        await JSONResponse(told | {"cancelled": is_cancelled})(scope, receive, send)


async def _describe(runtime: Runtime, run: Run, key: Key) -> dict[str, Any]:
    told = describe(run, runtime.resources.clock())
    told |= {
        "place": runtime.gateway.place_of(run.id, run.call.key.id),
        "typical_seconds": _typical_seconds(runtime, run, key),
    }
    account = run.call.account
    if account is None:  # an earlier process began it
        told |= {"cost_at_most": None} | await _recorded_money(runtime, run, key)
    else:
        told |= _money(account, runtime.admission.currency, has_ended=run.has_ended)
    return told | {"paid": "yes"} if told["cost"] else told


def _money(account: Account, currency: str, *, has_ended: bool) -> dict[str, Any]:
    cost, most = account.told, account.cost + account.in_doubt if has_ended else account.held
    return {
        "cost": None if cost is None else to_number(cost),
        "cost_in_doubt": to_number(account.in_doubt),
        "cost_at_most": to_number(most) if most or cost is not None else None,
        "currency": currency,
    }


def _typical_seconds(runtime: Runtime, run: Run, key: Key) -> float | None:
    """Return how long a request takes at the first deployment of which that is known."""
    model = runtime.catalog.find(run.call.request.model, key)
    known = {(each.provider, each.model): each for each in runtime.administration.deployments()}
    for deployment in model.deployments if model else ():
        seconds = typical_seconds(deployment, known.get((deployment.provider.name, deployment.model)))
        if seconds is not None:
            return seconds
    return None


def describe(run: Run, now: float) -> dict[str, Any]:
    """Return a run as JSON. `now` is Unix time."""
    state, error = STATES[run.state], run.recording.error
    since_its_end = 0.0 if run.ended_at is None else run.clock() - run.ended_at
    return {
        "id": run.id,
        "object": "image.run",
        "state": state,
        "paid": PAID[state],
        "model": run.call.request.model,
        "operation": str(run.call.request.operation),
        "n": run.call.request.n,
        "attempts": run.call.sent,
        "created_at": run.created,
        "seconds": round(max(now - run.created - since_its_end, 0.0), 1),
        "error": None if error is None else error.envelope()["error"],
    }


async def _recorded_money(runtime: Runtime, run: Run, key: Key) -> dict[str, Any]:
    """Return the money of the run so far, from the ledger; nulls while its database is away."""
    book = runtime.administration.book
    told: dict[str, Any] = {"cost": None, "cost_in_doubt": None, "currency": None}
    which = DrawingFilter(request_id=run.id, key_id=key.id)
    try:
        found = await (await book.reports()).drawings(which, limit=1)
    except DatabaseUnavailable:
        return told
    for row in found.items:
        money = {"cost": to_number(row.cost_nano), "cost_in_doubt": to_number(row.in_doubt_nano)}
        told |= money | {"currency": book.currency}
    return told


def _cancelled(run: Run) -> ApiError:
    error = Conflict("The run was cancelled.", code="run_cancelled")
    return error.paid() if run.state is State.SENT else error
