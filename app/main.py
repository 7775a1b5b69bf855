"""The application: routes, and the layers around them. Nothing happens at import."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from app.api import models
from app.api.docs import openapi
from app.api.files import FileEndpoint
from app.api.images import ImageEndpoint
from app.api.layers import Envelope, Frame
from app.api.responses.sending import HEADERS_FOR_BROWSERS
from app.api.runs import RunEndpoint
from app.api.web_pages import PageGuard
from app.config.loading import Settings
from app.errors import ApiError, InvalidRequest, NotFound, shortened
from app.images import Operation
from app.telemetry.logs import Log
from app.wiring import Runtime, make_runtime, new_log, open_resources


def create_app(settings: Settings, log: Log | None = None) -> FastAPI:
    log = log or new_log(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings, log, lambda call, jobs: runtime().gateway.resume(call, jobs)) as resources:
            app.state.runtime = make_runtime(resources, settings)
            resources.retention.take_up()
            yield
            del app.state.runtime

    app = FastAPI(
        title="Image Gateway",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # no setting says where it would go
    )
    app.state.draining = False

    def runtime() -> Runtime:
        present: Runtime = app.state.runtime
        return present

    for operation in Operation:
        endpoint = ImageEndpoint(operation, runtime)
        # Both paths, since a redirect from one to the other would trust the Host header.
        for path in (f"/v1/images/{operation}", f"/v1/images/{operation}/"):
            app.router.routes.append(Route(path, endpoint, methods=["POST"]))
    runs = Route("/v1/images/runs/{run:path}", RunEndpoint(runtime), methods=["GET"])
    runs.methods = {"GET"}  # Starlette adds HEAD, which would take the answer and leave it
    app.router.routes.append(runs)
    app.router.routes.append(Route("/files/{name}", FileEndpoint(runtime), methods=["GET"]))
    app.include_router(models.router(runtime))
    _add_health(app)
    _add_errors(app)
    app.add_middleware(PageGuard, rules=lambda: runtime().page_rules)
    app.add_middleware(Envelope, journal=log)
    if settings.server.cors_origins:
        app.add_middleware(
            Cors,
            allow_origins=list(settings.server.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=HEADERS_FOR_BROWSERS,
        )
        app.add_middleware(Envelope, journal=log)
    app.add_middleware(
        Frame, journal=log, new_id=lambda: f"req_{os.urandom(16).hex()}", logs_client=settings.logging.client
    )
    openapi.describe(app)
    return app


def replace_settings(app: FastAPI, settings: Settings) -> None:
    """Apply new settings to the requests that come from now on. Those under way end as they began."""
    before: Runtime = app.state.runtime
    app.state.runtime = make_runtime(before.resources, settings, before)


class Cors(CORSMiddleware):
    def preflight_response(self, request_headers: Headers) -> Response:
        """A refused preflight wears the envelope too."""
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
            raise NotFound(
                f"There is nothing at {request.method} {path}. The API is described at /docs.", code="not_found"
            )
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
