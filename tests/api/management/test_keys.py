"""`/v1/gateway/keys`: everything that a key has here."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from app.access.keyring import Key
from tests.api.administration.offices import ADMIN, NOW, Office

pytestmark = pytest.mark.anyio
KEYS = "/v1/gateway/keys"


async def a_project(client: httpx.AsyncClient) -> str:
    made = await client.post("/v1/organization/projects", json={"name": "design"})
    id: str = made.json()["id"]
    return id


async def test_a_key_is_issued_with_all_that_it_may_have_and_shown_once(office: Office) -> None:
    async with office.client() as client:
        project = await a_project(client)
        settings: dict[str, Any] = {"scopes": ["draw", "usage"], "models": ["flux/*"], "operations": ["edits"]}
        limits = {"requests_per_minute": 60, "images_per_minute": 30, "megapixels_per_minute": 90, "max_concurrency": 4}
        body = {"name": "ci", "project_id": project, "expires_at": NOW + 60, **settings, **limits}
        made = (await client.post(KEYS, json=body)).json()
        shown = (await client.get(f"{KEYS}/{made['id']}")).json()
    assert made.pop("value").startswith("igk_")
    assert made == shown
    assert shown["limits"] == limits
    assert {name: shown[name] for name in settings} == settings
    assert (shown["state"], shown["expires_at"], shown["created_by"]) == ("active", NOW + 60, "key:adminkey")
    assert office.ledger.directory.keys[shown["id"]].models == ("flux/*",)  # this process knows at once


async def test_a_change_leaves_what_is_not_said_and_null_takes_away(office: Office) -> None:
    async with office.client() as client:
        project = await a_project(client)
        body = {"name": "ci", "project_id": project, "images_per_minute": 5, "max_concurrency": 2}
        key = (await client.post(KEYS, json=body)).json()["id"]
        changed = (await client.post(f"{KEYS}/{key}", json={"images_per_minute": None, "models": ["a"]})).json()
        assert (changed["limits"]["images_per_minute"], changed["limits"]["max_concurrency"]) == (None, 2)
        assert (changed["models"], changed["name"]) == (["a"], "ci")
        refused = await client.post(f"{KEYS}/{key}", json={"images_per_minute": 0})
        assert refused.json()["error"]["param"] == "images_per_minute"


async def test_a_rotation_keeps_the_id_and_the_old_text_for_a_while(office: Office) -> None:
    async with office.client() as client:
        made = (await client.post(KEYS, json={"name": "ci", "project_id": await a_project(client)})).json()
        rotated = (await client.post(f"{KEYS}/{made['id']}/rotate", json={"grace_seconds": 60})).json()
    assert (rotated["id"], rotated["previous_until"]) == (made["id"], NOW + 60)
    old, new = (hashlib.sha256(each["value"].encode()).digest() for each in (made, rotated))
    assert old != new
    directory, later = office.ledger.directory, (NOW + 61) * 1_000_000
    assert directory.find_key(old, NOW * 1_000_000) == directory.find_key(new, later)
    assert directory.find_key(old, later) is None


async def test_a_key_is_disabled_enabled_and_deleted(office: Office) -> None:
    async with office.client() as client:
        key = (await client.post(KEYS, json={"name": "ci", "project_id": await a_project(client)})).json()["id"]
        disabled = (await client.post(f"{KEYS}/{key}/disable", json={"reason": "it leaked"})).json()
        assert (disabled["state"], disabled["disabled_reason"]) == ("disabled", "it leaked")
        assert (await client.post(f"{KEYS}/{key}/enable")).json()["state"] == "active"
        assert (await client.delete(f"{KEYS}/{key}")).json() == {
            "id": key, "object": "api_key.deleted", "deleted": True,
        }  # fmt: skip
        assert (await client.get(f"{KEYS}/{key}")).status_code == 404
        assert (await client.get(KEYS)).json()["data"] == []


async def test_a_key_of_the_configuration_is_told_beside_the_issued_ones(office: Office) -> None:
    async with office.client() as client:
        project = await a_project(client)
        office.state_key("filekey1", "build", project_id=project)
        issued = (await client.post(KEYS, json={"name": "ci", "project_id": project})).json()["id"]
        stated = (await client.get(f"{KEYS}/filekey1")).json()
        listed = (await client.get(KEYS, params={"project_id": project})).json()["data"]
    assert [(key["id"], key["name"], key["source"]) for key in listed] == [
        ("filekey1", "build", "file"), (issued, "ci", "database"),
    ]  # fmt: skip
    assert stated == listed[0]
    assert (stated["state"], stated["project_id"]) == ("active", project)
    unknown = ("redacted_value", "created_at", "created_by", "expires_at", "last_used_at")
    assert [stated[name] for name in unknown] == [None] * 5


async def test_a_key_of_the_configuration_is_changed_there(office: Office) -> None:
    office.state_key("filekey1", "build")
    async with office.client() as client:
        ways = [f"{KEYS}/filekey1", *(f"{KEYS}/filekey1/{verb}" for verb in ("rotate", "disable", "enable"))]
        refused = [*[await client.post(way) for way in ways], await client.delete(f"{KEYS}/filekey1")]
    assert [(each.status_code, each.json()["error"]["code"]) for each in refused] == [
        (409, "stated_in_configuration")
    ] * 5


async def test_an_admin_key_has_no_project_and_cannot_delete_itself(office: Office) -> None:
    async with office.client() as client:
        made = (await client.post(KEYS, json={"name": "boss", "admin": True})).json()
        assert (made["scopes"], made["project_id"], made["value"][:4]) == (["admin"], None, "iga_")
        office.use(office.administration(authenticate=lambda scope: Key(made["id"], "boss", scopes=("admin",))))
        assert (await client.post(f"{KEYS}/{made['id']}", json={"scopes": ["draw"]})).status_code == 400
        refused = await client.delete(f"{KEYS}/{made['id']}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "own_key")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "ci"}, "project_id"),
        ({"name": "ci", "project_id": "unknown"}, "project_id"),
        ({"name": "ci", "admin": True, "scopes": ["admin"]}, "scopes"),
        ({"name": "ci", "admin": True, "scopes": ["draw"]}, "scopes"),
        ({"name": "ci", "admin": True, "models": ["a"]}, "models"),
        ({"name": "ci", "project_id": "p", "models": ["a\x00"]}, "models"),
        ({"name": "ci", "admin": True, "limit": 5}, "limit"),
        ({"name": "two\nlines", "admin": True}, "name"),
        ([], None),
    ],
)
async def test_a_wrong_body_is_refused_by_its_field(office: Office, body: Any, param: str | None) -> None:
    async with office.client(ADMIN) as client:
        refused = await client.post(KEYS, json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param
