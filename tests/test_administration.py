"""The administration with the gateway's own keyring: a key that is made over HTTP is good at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.access.keyring import IssuedKeys, Keyring
from app.administration import KeyMint, see_deployments
from app.catalog.deployments import Deployment, Model, Provider
from app.catalog.profiles import Profile
from app.errors import Failure, UpstreamError
from app.ledger.values.directory import ApiKey
from app.routing.health import Health
from app.routing.queues import Slots
from tests.api.administration.offices import Office, open_office
from tests.ledger.samples import ME

pytestmark = pytest.mark.anyio
PEPPER = b"pepper"


async def with_own_keyring(office: Office) -> tuple[Callable[..., Any], str]:
    """Let the gateway's own keyring decide; return a way to ask with a key, and the first admin key."""
    mint = KeyMint(PEPPER, secrets.choice)
    first = mint(is_admin=True)
    await (await office.registry()).add_key(ApiKey(first.id, "first", first.digest, scopes=("admin",)), ME)
    await office.ledger.refresh()
    issued = IssuedKeys(PEPPER, lambda: office.ledger.directory, office.clock, office.ledger.note_use)
    state = office.gateway.app.state
    state.runtime = replace(state.runtime, keyring=Keyring(issued=issued))
    office.use(office.administration(mint=mint, authenticate=lambda scope: state.runtime.authenticate(scope)))

    async def ask(key: str, method: str, path: str, **more: Any) -> Any:
        async with office.client(key) as client:
            return await client.request(method, path, **more)

    return ask, first.text


async def test_a_key_made_over_http_is_good_at_once_and_refused_when_it_is_deleted(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        ask, admin = await with_own_keyring(office)
        project = (await ask(admin, "POST", "/v1/organization/projects", json={"name": "design"})).json()["id"]
        accounts = f"/v1/organization/projects/{project}/service_accounts"
        made = (await ask(admin, "POST", accounts, json={"name": "ci"})).json()
        key = made["api_key"]["value"]
        assert (await ask(key, "GET", "/v1/models")).status_code == 200
        assert (await ask(key, "GET", "/v1/gateway/whoami")).json()["project"] == {"id": project, "name": "design"}
        refused = await ask(key, "GET", "/v1/organization/projects")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
        rotated = (await ask(admin, "POST", f"/v1/gateway/keys/{made['id']}/rotate", json={"grace_seconds": 0})).json()
        assert (await ask(key, "GET", "/v1/models")).status_code == 401
        assert (await ask(rotated["value"], "GET", "/v1/gateway/whoami")).json()["id"] == made["id"]
        await ask(admin, "DELETE", f"{accounts}/{made['id']}")
        assert (await ask(rotated["value"], "GET", "/v1/models")).status_code == 401


async def test_a_disabled_key_and_an_archived_project_are_refused(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        ask, admin = await with_own_keyring(office)
        project = (await ask(admin, "POST", "/v1/organization/projects", json={"name": "design"})).json()["id"]
        body = {"name": "ci", "project_id": project}
        made = (await ask(admin, "POST", "/v1/gateway/keys", json=body)).json()
        await ask(admin, "POST", f"/v1/gateway/keys/{made['id']}/disable", json={"reason": "it leaked"})
        refused = await ask(made["value"], "GET", "/v1/models")
        assert refused.status_code == 401
        assert "it leaked" in refused.json()["error"]["message"]
        await ask(admin, "POST", f"/v1/gateway/keys/{made['id']}/enable")
        assert (await ask(made["value"], "GET", "/v1/models")).status_code == 200
        await ask(admin, "POST", f"/v1/organization/projects/{project}/archive")
        assert (await ask(made["value"], "GET", "/v1/models")).json()["error"]["code"] == "project_archived"


def test_a_deployment_is_seen_with_its_pauses_and_its_queue() -> None:
    host = Provider("nebula", "openai", "http://h", max_concurrency=4)
    deployment = Deployment(host, "schnell", Profile())
    health, queues = Health(lambda: 0.0), Slots(lambda: 0.0, 10, 10.0)
    health.failed(deployment, UpstreamError(Failure.RATE_LIMITED, "slow down", retry_after=30.0))
    look = partial(see_deployments, lambda: [Model("m", (deployment,)), Model("n", (deployment,))], health, queues)
    [seen] = look()
    assert (seen.provider, seen.model, seen.max_concurrency, seen.running) == ("nebula", "schnell", 4, 0)
    assert (seen.is_paused, seen.pauses) == (True, {"limited": 30.0})


@pytest.mark.parametrize(
    ("own", "of_provider", "places"), [(8, 2, 2), (2, 8, 2), (8, None, 8), (None, 2, 2), (None, None, None)]
)
def test_a_deployment_is_seen_with_the_places_that_it_really_has(
    own: int | None, of_provider: int | None, places: int | None
) -> None:
    host = Provider("nebula", "openai", "http://h", max_concurrency=of_provider)
    model = Model("m", (Deployment(host, "schnell", Profile(), max_concurrency=own),))
    [seen] = see_deployments(lambda: [model], Health(lambda: 0.0), Slots(lambda: 0.0, 10, 10.0))
    assert seen.max_concurrency == places
