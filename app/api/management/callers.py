"""`GET /v1/gateway/whoami`: the caller's key and its permissions."""

from __future__ import annotations

from typing import Any

from app.api.administration.endpoint import AdminCall, Content
from app.ledger.values.limits import Limits


async def whoami(call: AdminCall) -> Content:
    caller = call.caller
    project = caller.project
    return {
        "object": "caller",
        "id": caller.id,
        "name": caller.name,
        "project": None if project is None else {"id": project.id, "name": project.name},
        "scopes": list(caller.scopes),
        "is_admin": call.is_admin,
        "models": list(caller.models),
        "operations": list(caller.operations),
        "limits": describe_limits(caller.limits),
        "currency": call.currency,
    }


def describe_limits(limits: Limits) -> dict[str, Any]:
    return {
        "requests_per_minute": limits.requests_per_minute,
        "images_per_minute": limits.images_per_minute,
        "megapixels_per_minute": limits.megapixels_per_minute,
        "max_concurrency": limits.max_concurrency,
    }
