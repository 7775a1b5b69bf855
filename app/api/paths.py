"""The paths of the API as clients spell them: without `/v1`, with doubled or trailing slashes, or in Azure's way.
Knows no endpoint's work."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.images import Operation

IMAGES = frozenset(f"/v1/images/{operation}" for operation in Operation)
ESTIMATE = "estimate"  # the rest after the path of an operation
PLAIN = IMAGES | {"/v1/models", "/healthz", "/readyz"}  # they cost one look-up


class Paths:
    """Routes each spelling of an endpoint's path as the plain one. The model that an Azure path names is the path
    parameter `model`. A path that is no such spelling stays as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # no coroutine of its own
        if scope["type"] == "http" and scope["path"] not in PLAIN:
            scope["path"], model = plain_path(scope["path"])  # in place, since the server marks this very scope
            if model is not None:
                scope["path_params"] = {"model": model}
        return self._app(scope, receive, send)


def plain_path(path: str) -> tuple[str, str | None]:
    """Return the path under which an endpoint is routed, and the model that `path` names in Azure's way.

    Slashes within a model's id stay, and a run's id stays as it is.
    """
    step, rest = _next_step(path)
    if step == "openai":
        step, rest = _next_step(rest)
    if step == "v1":
        step, rest = _next_step(rest)
    if step == "deployments":
        return _azure_path(path, rest)
    if step == "models":
        return f"/v1/models/{rest.strip('/')}".rstrip("/"), None
    if step == "images":
        step, rest = _next_step(rest)
        plain = f"/v1/images/{step}"
        if step == "runs" and rest:
            return f"{plain}/{rest}", None
        if plain in IMAGES and rest.strip("/") in ("", ESTIMATE):
            return f"{plain}/{rest.strip('/')}".rstrip("/"), None
    return path, None


def _next_step(path: str) -> tuple[str, str]:
    """Return the first step of a path, and the rest after the slash behind it."""
    step, _, rest = path.lstrip("/").partition("/")
    return step, rest


def _azure_path(path: str, rest: str) -> tuple[str, str | None]:
    """Read `{model}/images/{operation}`, and an estimate behind it, from its end: a model's id may hold slashes."""
    rest, _, operation = rest.rstrip("/").rpartition("/")
    end = f"/{ESTIMATE}" if operation == ESTIMATE else ""
    if end:
        rest, _, operation = rest.rstrip("/").rpartition("/")
    model, _, step = rest.rstrip("/").rpartition("/")
    plain, model = f"/v1/images/{operation}", model.strip("/")
    return (f"{plain}{end}", model) if step == "images" and plain in IMAGES and model else (path, None)
