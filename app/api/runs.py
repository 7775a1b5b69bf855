"""`GET /v1/images/runs/{id}`: a run's answer for a caller who comes back. Plain ASGI, like the image endpoints."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from app.api.following import Service, serve
from app.api.requests.reading import header


class RunEndpoint:
    """`GET /v1/images/runs/{id}`: waits for a run and gives the answer that its caller would have had."""

    def __init__(self, service: Callable[[], Service]) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service()
        key = service.keys.authenticate(header(scope, b"authorization"))
        scope["state"]["told"].key = key.name
        kept = service.retention.get(scope["path_params"]["run"], key)
        await serve(service, kept, scope, receive, send)
