"""`GET /v1/images/runs/{id}`: a run's answer for the caller whose request began it. Plain ASGI, like the image
endpoints."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from app.api.following import serve
from app.api.runtime import Runtime


class RunEndpoint:
    """Waits for a run and gives the answer that its first caller would have got."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self._runtime()
        key = runtime.authenticate(scope)
        entry = runtime.resources.retention.get(scope["path_params"]["run"], key)
        await serve(runtime, entry, scope, receive, send)
