"""Counts HTTP requests at the outermost layer, and the requests for images that were refused before their admission."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.telemetry.metrics.families import Metrics
from app.telemetry.metrics.series import NONE, OTHER

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ROUTES = frozenset(
    {
        *(f"/v1/images/{operation}" for operation in ("generations", "edits", "variations")),
        *(f"/v1/images/{operation}/estimate" for operation in ("generations", "edits", "variations")),
        *("/v1/models", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/", "/playground", "/admin"),
    }
)
# Everything below such a path is one route: ids are no labels.
BELOW = {
    "/v1/images/runs/": "/v1/images/runs/{id}",
    "/v1/models/": "/v1/models/{id}",
    "/files/": "/files/{name}",
    "/v1/organization/": "/v1/organization",
    "/v1/gateway/": "/v1/gateway",
    "/docs/": "/docs",
    "/playground/": "/playground",
    "/admin/": "/admin",
    "/pages/": "/pages",
}
TIMED = frozenset({"/v1/organization", "/v1/gateway", "/files/{name}", "/metrics"})
OVER_BUDGET = frozenset({"insufficient_quota", "budget_reserved"})


class RequestFacts(Protocol):
    """The facts of one request, as its log line has them. Counts are bytes."""

    @property
    def status(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def received(self) -> int: ...
    @property
    def key(self) -> str | None: ...
    @property
    def operation(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def is_admitted(self) -> bool: ...
    @property
    def joined(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...


@dataclass(slots=True)
class Requests:
    """`model_name` returns the configured name of a model that a caller asked for, or None."""

    metrics: Metrics
    model_name: Callable[[str], str | None] = lambda _: None

    def request_ended(self, method: str, path: str, facts: RequestFacts, seconds: float) -> None:
        """Count one request. `path` is the one that it was routed by."""
        metrics, route = self.metrics, route_of(path)
        is_gone = facts.error == "client_gone"
        status = 499 if is_gone else facts.status
        metrics.http_requests.add(route, method if method in METHODS else OTHER, str(status))
        if route in TIMED:
            metrics.http_request_seconds.observe(seconds, route)
        metrics.uploads_bytes.add(amount=facts.received)
        metrics.answers_bytes.add(amount=facts.bytes)
        if is_gone:
            metrics.clients_gone.add("receiving" if facts.status else "waiting" if facts.is_admitted else "sending")
        if facts.joined is not None:
            metrics.runs_joined.add(facts.joined)
        if facts.key is None and status in (401, 429):
            metrics.auth_failures.add("slowed" if status == 429 else _wrong(facts.error))
        elif facts.error in ("insufficient_scope", "operation_not_allowed", "project_archived"):
            metrics.auth_failures.add(facts.error)
        elif facts.operation is not None and facts.error is not None and not facts.is_admitted and not facts.joined:
            name = self.model_name(facts.model) if facts.model else None
            model = self.metrics.models(name) if name else OTHER if facts.model else NONE
            metrics.drawings.add(facts.operation, model, NONE, _refusal(status, facts.error))


def route_of(path: str) -> str:
    """Return the route of a path: one of a few, whatever the path."""
    if path in ROUTES:
        return path
    for beginning, route in BELOW.items():
        if path.startswith(beginning):
            return route
    return OTHER


def _wrong(code: str | None) -> str:
    return "wrong" if code == "invalid_api_key" else "missing"


def _refusal(status: int, code: str) -> str:
    """Return the outcome of a request for images that was never admitted."""
    if code in OVER_BUDGET:
        return "over_budget"
    if status == 429:
        return "limited"
    if status == 499:
        return "cancelled"
    return "refused_caller" if status < 500 else "failed_unpaid"
