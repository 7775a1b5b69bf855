"""`/v1/gateway/providers`: the health, the pauses and the queues of each deployment, in this process; and the question
whether a provider can be reached."""

from __future__ import annotations

from app.api.administration.endpoint import AdminCall, Content, not_found
from app.api.administration.lists import page_of
from app.microseconds import SECOND


async def list_all(call: AdminCall) -> Content:
    call.query().check()
    data = [
        {
            "id": f"{each.provider}/{each.model}",
            "object": "deployment",
            "provider": each.provider,
            "upstream_model": each.model,
            "state": "paused" if each.is_paused else "well",
            "pauses": [{"reason": reason, "seconds": round(left, 1)} for reason, left in each.pauses.items()],
            "failures": each.failures,
            "running": each.running,
            "waiting": each.waiting,
            "max_concurrency": each.max_concurrency,
            "typical_seconds": each.typical_seconds,
        }
        for each in call.administration.deployments()
    ]
    return page_of(data, has_more=False)


async def check(call: AdminCall) -> Content:
    """Ask a provider for its models. Draws nothing."""
    (await call.body()).check()
    name = call.path["provider"]
    found = await call.administration.check(name)
    if found is None:
        raise not_found(name, "provider")
    return {
        "object": "provider.check",
        "provider": name,
        "checked_at": call.now // SECOND,
        "outcome": found.outcome,
        "is_usable": found.outcome not in ("refused", "unreachable"),
        "message": found.message,
        "has_credential": found.has_credential,
        "models": found.models,
        "not_listed": list(found.not_listed),
    }
