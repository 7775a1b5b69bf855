"""`GET /v1/gateway/configuration`: the settings in effect, with the defaults and without any secret."""

from __future__ import annotations

from app.api.administration.endpoint import AdminCall, Content


async def retrieve(call: AdminCall) -> Content:
    call.query().check()
    return {
        "object": "configuration",
        "is_sandbox": call.administration.is_open,
        "settings": call.administration.configuration(),
    }
