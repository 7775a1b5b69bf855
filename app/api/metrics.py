"""`GET /metrics`: for an admin key, or one with the scope `metrics`, while callers need keys; or at a port of its own.
Plain ASGI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from app.api.connection import header
from app.api.runtime import Exposition, Runtime
from app.errors import NotFound

PATH = "/metrics"


class MetricsEndpoint:
    """The metrics at the gateway's own port."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self._runtime()
        if runtime.exposition is None:
            raise NotFound(
                "Metrics are served at a port of their own: the one of the setting 'metrics.port'.", code="not_found"
            )
        if runtime.keyring.is_closed:
            runtime.authenticate(scope).require("metrics")
        await (await _answer(runtime.exposition, scope))(scope, receive, send)


@dataclass(frozen=True, slots=True)
class MetricsApp:
    """An application that has nothing but the metrics, for a port of its own. It asks for no key."""

    exposition: Exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        response: Response = PlainTextResponse("There is nothing here but GET /metrics.\n", 404)
        if scope["path"] == PATH:
            is_read = scope["method"] in ("GET", "HEAD")
            refusal = PlainTextResponse("Use GET.\n", 405, {"allow": "GET, HEAD"})
            response = await _answer(self.exposition, scope) if is_read else refusal
        await response(scope, receive, send)


async def _answer(exposition: Exposition, scope: Scope) -> Response:
    media_type, text = await exposition.render(header(scope, b"accept") or "")
    body = b"" if scope["method"] == "HEAD" else text
    headers = {"content-type": media_type, "content-length": str(len(text)), "cache-control": "no-store"}
    return Response(body, headers=headers)
