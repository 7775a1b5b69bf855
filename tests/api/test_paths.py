"""Spellings of paths: which lead to which endpoint, which stay as they are, and what the plain ones cost."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from app.api.paths import PLAIN, Paths, plain_path

STEPS = st.sampled_from(
    ["", "v1", "openai", "deployments", "images", "generations", "edits", "runs", "models", "files", "..", "a", "é"]
)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/images/edits", "/v1/images/edits"),
        ("/v1/images/edits/", "/v1/images/edits"),
        ("//v1///images//edits//", "/v1/images/edits"),
        ("/openai/images/variations", "/v1/images/variations"),
        ("/openai/v1/images/generations", "/v1/images/generations"),
        ("/models", "/v1/models"),
        ("/v1/models//", "/v1/models"),
        ("/openai/models", "/v1/models"),
        ("/models/flux", "/v1/models/flux"),
        ("//models//owner/flux/", "/v1/models/owner/flux"),
        ("/v1/models/owner//flux", "/v1/models/owner//flux"),
        ("/images/runs/req_1", "/v1/images/runs/req_1"),
        ("/v1/images/runs//a//b/", "/v1/images/runs//a//b/"),
    ],
)
def test_a_spelling_leads_to_the_plain_path(path: str, plain: str) -> None:
    assert plain_path(path) == (plain, None)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/openai/deployments/flux/images/edits", "flux"),
        ("/openai/deployments/owner/flux/images/edits", "owner/flux"),
        ("//openai//deployments//owner/flux//images//edits//", "owner/flux"),
        ("/openai/deployments/a/images/edits/images/edits", "a/images/edits"),
        ("/openai/deployments/../images/edits", ".."),
        ("/openai/v1/deployments/flux/images/edits", "flux"),  # an Azure client whose base URL is Azure's v1
        ("/v1/deployments/flux/images/edits", "flux"),
    ],
)
def test_an_azure_path_names_the_model(path: str, model: str) -> None:
    assert plain_path(path) == ("/v1/images/edits", model)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "///",
        "/v1",
        "/images",
        "/images/",
        "/images/gen",
        "/v1/images/runs",
        "/v1/images/runs/",
        "/images/edits/more",
        "/Images/edits",
        "/v1/v1/images/edits",
        "/v1/openai/images/edits",
        "/v1/../images/edits",
        "/files/a.png",
        "//files//a.png",
        "/files/../v1/models",
        "/healthz/",
        "/openai/deployments/images/edits",
        "/openai/deployments//images/edits",
        "/openai/deployments/flux/models",
        "/openai/deployments/flux/images/runs/a",
        "/openai/deployments/flux/images/edits/more",
        "/openai/files/a.png",
    ],
)
def test_any_other_path_stays_as_it_is(path: str) -> None:
    assert plain_path(path) == (path, None)


@given(st.lists(STEPS, max_size=9).map("/".join))
def test_a_path_is_rewritten_to_one_of_the_api_or_not_at_all(path: str) -> None:
    plain, model = plain_path(path)
    assert plain == path or plain in PLAIN or plain.startswith(("/v1/models/", "/v1/images/runs/"))
    assert model is None or (plain in PLAIN and model in path)
    assert plain_path(plain) == (plain, None)


def test_a_long_path_is_read_in_a_time_that_grows_with_its_length_alone() -> None:
    began = time.process_time()
    for step in ("/", "//images", "/openai/deployments/", "/images/edits", "a/"):
        plain_path("/openai/deployments/" + step * 60_000)
    assert time.process_time() - began < 5  # with quadratic steps: minutes


@pytest.mark.anyio
async def test_the_server_and_the_endpoint_share_one_scope() -> None:
    """The server marks it while a body is read."""
    seen: list[Scope] = []

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scopes: list[Scope] = [
        {"type": "http", "path": "/v1/images/edits"},
        {"type": "http", "path": "/openai/deployments/flux/images/edits"},
        {"type": "lifespan"},
    ]
    for scope in scopes:
        await Paths(endpoint)(scope, None, None)  # type: ignore[arg-type]
    assert all(given is scope for given, scope in zip(seen, scopes, strict=True))
    assert [scope.get("path_params") for scope in scopes] == [None, {"model": "flux"}, None]
