"""The application: routes, and the layers around them. Nothing happens at import."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, State
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import models
from app.api.docs import openapi
from app.api.estimate import EstimateEndpoint
from app.api.files import FileEndpoint
from app.api.images import ImageEndpoint
from app.api.layers import Envelope, Frame, RequestObserver, Tracing
from app.api.management import routes as management
from app.api.metrics import PATH, MetricsEndpoint
from app.api.organization import routes as organization
from app.api.paths import ESTIMATE, Paths
from app.api.responses.sending import HEADERS_FOR_BROWSERS
from app.api.runs import RunCancelEndpoint, RunEndpoint, RunStatusEndpoint
from app.api.web_pages import PageGuard
from app.config.loading import Settings
from app.errors import ApiError, InvalidRequest, NotFound, shortened
from app.images import Operation
from app.pages import routes as pages
from app.telemetry.logs import Log
from app.wiring import Runtime, adopt, make_runtime, new_log, open_resources

# For clients that take this server for one of OpenAI's whole API, and for addresses with a step too much.
PURPOSE = (
    "This server draws images and does nothing else: POST /v1/images/generations, /v1/images/edits or "
    "/v1/images/variations; GET /v1/models, /v1/models/{id} or /v1/images/runs/{id}. /docs describes them."
)


def create_app(settings: Settings, log: Log | None = None) -> FastAPI:
    log = log or new_log(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings, log, lambda *job: runtime().gateway.resume(*job)) as resources:
            await adopt(resources, settings)
            app.state.runtime = make_runtime(resources, settings)
            resources.retention.take_up()
            yield
            del app.state.runtime

    def observer() -> RequestObserver | None:
        return runtime().resources.requests if hasattr(app.state, "runtime") else None

    def tracing() -> Tracing | None:
        return runtime().resources.traces if hasattr(app.state, "runtime") else None

    layers = [
        Middleware(
            Frame,
            journal=log,
            new_id=lambda: f"req_{os.urandom(16).hex()}",
            logs_client=settings.logging.client,
            observer=observer,
            tracing=tracing,
        ),
        Middleware(Paths),
        *_cors(settings, log),
        Middleware(Envelope, journal=log),
        Middleware(PageGuard, rules=lambda: None if runtime().keyring.is_closed else runtime().page_rules),
    ]
    app = Application(
        title="Image Gateway",
        middleware=layers,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # no setting says where it would go
    )

    def runtime() -> Runtime:
        return app.state.runtime

    for operation in Operation:
        path, endpoint = f"/v1/images/{operation}", ImageEndpoint(operation, runtime)
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))
        app.drawing[path] = _wrap(endpoint, layers)
        app.router.routes.append(Route(f"{path}/{ESTIMATE}", EstimateEndpoint(operation, runtime), methods=["POST"]))
    app.router.routes.extend(_runs(runtime))
    app.router.routes.append(Route("/files/{name}", FileEndpoint(runtime), methods=["GET"]))
    app.router.routes.append(Route(PATH, MetricsEndpoint(runtime), methods=["GET"]))
    app.include_router(models.router(runtime))
    app.router.routes.extend(_administration(runtime))
    app.router.routes.extend(pages.routes(lambda: runtime().settings.pages.enabled))
    _add_health(app)
    _add_errors(app)
    openapi.describe(
        app, lambda: runtime().public_url, lambda: "playground" if runtime().settings.pages.enabled else "docs"
    )
    return app


def _runs(runtime: Callable[[], Runtime]) -> list[Route]:
    path = "/v1/images/runs/{run:path}"  # an id may hold slashes
    routes = [
        Route(f"{path}/status", RunStatusEndpoint(runtime), methods=["GET"]),
        Route(f"{path}/cancel", RunCancelEndpoint(runtime), methods=["POST"]),
        Route(path, RunEndpoint(runtime), methods=["GET"]),
    ]
    for each in routes:
        each.methods = (each.methods or set()) - {"HEAD"}  # Starlette adds it; it would take the answer and leave it
    return routes


def _administration(runtime: Callable[[], Runtime]) -> list[Route]:
    return [
        route
        for routes in (organization.routes, management.routes)
        for route in routes(lambda: runtime().administration)
    ]


class Present(State):
    """The application's present state, in plain attributes: they are read several times a request, and Starlette's own
    state looks for each in a dictionary, in Python."""

    runtime: Runtime
    draining: bool = False

    def __setattr__(self, key: Any, value: Any) -> None:
        object.__setattr__(self, key, value)

    def __delattr__(self, key: Any) -> None:
        object.__delattr__(self, key)


class Application(FastAPI):
    """FastAPI, with a shorter way to the image endpoints: they are found by their path, and get none of the layers that
    FastAPI adds for endpoints of its own kind (a stack of exits, two handlers of exceptions, a limit of bodies,
    telemetry). Its router has them too: it refuses other methods and describes them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.state: Present = Present()
        self.drawing: dict[str, ASGIApp] = {}  # path → endpoint, in all layers of our own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.drawing.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (endpoint or super().__call__)(scope, receive, send)


def _wrap(app: ASGIApp, layers: Sequence[Middleware]) -> ASGIApp:
    """Return `app` inside of the layers, of which the first is the outermost."""
    for layer, args, kwargs in reversed(layers):
        app = layer(app, *args, **kwargs)
    return app


def replace_settings(app: FastAPI, settings: Settings) -> None:
    """Apply new settings to the requests that come from now on. Those under way end as they began."""
    before: Runtime = app.state.runtime
    app.state.runtime = make_runtime(before.resources, settings, before)


def _cors(settings: Settings, log: Log) -> list[Middleware]:
    """Return the layers for pages of other origins, if there are any."""
    if not settings.server.cors_origins:
        return []
    cors = Middleware(
        Cors,
        allow_origins=list(settings.server.cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=HEADERS_FOR_BROWSERS,
    )
    return [Middleware(Envelope, journal=log), cors]


class Cors(CORSMiddleware):
    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight. Raises InvalidRequest for a refused one, so that it wears the envelope
        too."""
        response = super().preflight_response(request_headers)
        if response.status_code >= 400:
            raise InvalidRequest(
                f"{bytes(response.body).decode()}. Which origins may call is the setting 'server.cors_origins'.",
                code="cors_refused",
            )
        return response


def _add_health(app: FastAPI) -> None:
    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> JSONResponse:
        ready = hasattr(app.state, "runtime") and not app.state.draining
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)


def _add_errors(app: FastAPI) -> None:
    """Raise the framework's own refusals again as ApiErrors, so that they wear OpenAI's envelope."""

    async def http_error(request: Request, error: Any) -> JSONResponse:
        path, kind = shortened(request.scope["path"], 128), "invalid_request_error"
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))  # Starlette's is in any order
        if error.status_code == 404:
            raise NotFound(f"There is nothing at {request.method} {path}. {PURPOSE}", code="not_found")
        if error.status_code == 405:
            message = f"{request.method} is not allowed at {path}. Use {allowed or 'another method'}."
            headers = {"allow": allowed} if allowed else {}
            raise ApiError(message, status=405, type=kind, code="method_not_allowed", headers=headers)
        raise ApiError(str(error.detail), status=error.status_code, type=kind)

    async def invalid(_: Request, error: Any) -> JSONResponse:
        first = error.errors()[0]
        raise InvalidRequest(first["msg"], param=str(first["loc"][-1]), code="invalid_value")

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
