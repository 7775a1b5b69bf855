"""Requests are counted under few labels, whatever they are."""

from dataclasses import dataclass

import pytest

from app.telemetry.metrics.families import Metrics
from app.telemetry.metrics.requests import Requests, route_of


@dataclass
class Facts:
    status: int = 200
    bytes: int = 10
    received: int = 5
    key: str | None = "key"
    operation: str | None = None
    model: str | None = None
    is_admitted: bool = False
    joined: str | None = None
    error: str | None = None


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/images/edits", "/v1/images/edits"),
        ("/v1/images/runs/req_1/status", "/v1/images/runs/{id}"),
        ("/v1/models/a/b", "/v1/models/{id}"),
        ("/v1/gateway/drawings/1", "/v1/gateway"),
        ("/files/a.png", "/files/{name}"),
        ("/v1/images/edits/estimate", "/v1/images/edits/estimate"),
        ("/pages/0f0f/playground.js", "/pages"),
        ("/admin", "/admin"),
        ("/administer", "other"),
        ("/wp-login.php", "other"),
    ],
)
def test_a_path_is_one_of_a_few_routes(path: str, route: str) -> None:
    assert route_of(path) == route


@pytest.mark.parametrize(
    ("facts", "outcome", "model"),
    [
        (Facts(status=400, error="invalid_value", model="quick"), "refused_caller", "flux"),
        (Facts(status=400, error="invalid_value", model="no such"), "refused_caller", "other"),
        (Facts(status=400, error="invalid_json"), "refused_caller", "none"),
        (Facts(status=429, error="rate_limit_exceeded", model="quick"), "limited", "flux"),
        (Facts(status=429, error="insufficient_quota", model="quick"), "over_budget", "flux"),
        (Facts(status=503, error="no_room", model="quick"), "failed_unpaid", "flux"),
        (Facts(status=0, error="client_gone"), "cancelled", "none"),
    ],
)
def test_a_request_for_images_that_was_not_admitted_is_a_drawing_that_was_refused(
    facts: Facts, outcome: str, model: str
) -> None:
    facts.operation = "generations"
    metrics = Metrics()
    Requests(metrics, {"quick": "flux"}.get).request_ended("POST", "/v1/images/generations", facts, 0.1)
    assert metrics.drawings.values == {("generations", model, "none", outcome): 1}


@pytest.mark.parametrize("facts", [Facts(is_admitted=True, error="x"), Facts(joined="by_id", error="x"), Facts()])
def test_a_request_that_the_ledger_knows_is_not_counted_again(facts: Facts) -> None:
    facts.operation, metrics = "edits", Metrics()
    Requests(metrics).request_ended("POST", "/v1/images/edits", facts, 0.1)
    assert metrics.drawings.values == {}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (Facts(status=401, key=None, error="invalid_api_key"), "wrong"),
        (Facts(status=401, key=None, error="invalid_request_error"), "missing"),
        (Facts(status=429, key=None, error="rate_limit_exceeded"), "slowed"),
        (Facts(status=403, error="insufficient_scope"), "insufficient_scope"),
    ],
)
def test_a_refused_key_is_counted_by_its_fault(facts: Facts, why: str) -> None:
    metrics = Metrics()
    Requests(metrics).request_ended("POST", "/v1/images/edits", facts, 0.1)
    assert {labels: count for labels, count in metrics.auth_failures.values.items() if count} == {(why,): 1}


@pytest.mark.parametrize(
    ("facts", "phase"),
    [(Facts(status=0), "sending"), (Facts(status=0, is_admitted=True), "waiting"), (Facts(), "receiving")],
)
def test_a_client_that_left_is_counted_by_the_phase(facts: Facts, phase: str) -> None:
    facts.error, metrics = "client_gone", Metrics()
    Requests(metrics).request_ended("POST", "/v1/images/edits", facts, 0.1)
    assert {labels: count for labels, count in metrics.clients_gone.values.items() if count} == {(phase,): 1}
    assert metrics.http_requests.values == {("/v1/images/edits", "POST", "499"): 1}
