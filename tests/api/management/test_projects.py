"""Projects with all of their limits."""

from __future__ import annotations

import pytest

from tests.api.administration.offices import Office
from tests.ledger.samples import a_project

pytestmark = pytest.mark.anyio
PROJECTS = "/v1/gateway/projects"


async def test_a_projects_limits_are_set_and_taken_away_and_the_audit_log_tells_it(office: Office) -> None:
    async with office.client() as client:
        project = (await client.post("/v1/organization/projects", json={"name": "design"})).json()["id"]
        limits = {"images_per_minute": 60, "megapixels_per_minute": 90, "max_concurrency": 4}
        changed = (await client.post(f"{PROJECTS}/{project}", json={"name": "Design", **limits})).json()
        assert (changed["name"], changed["limits"]) == ("Design", {"requests_per_minute": None, **limits})
        changed = (await client.post(f"{PROJECTS}/{project}", json={"images_per_minute": None})).json()
        assert changed["limits"] == {"requests_per_minute": None, **limits, "images_per_minute": None}
        assert (await client.get(f"{PROJECTS}/{project}")).json() == changed
        assert (await client.post(f"{PROJECTS}/{project}", json={})).json() == changed
        events = (await client.get("/v1/gateway/events")).json()["data"]
    assert [(event["action"], event["after"].get("images_per_minute", "-")) for event in events] == [
        ("update", None), ("update", 60), ("create", None),
    ]  # fmt: skip


async def test_archived_projects_are_listed_when_they_are_asked_for(office: Office) -> None:
    async with office.client() as client:
        project = (await client.post("/v1/organization/projects", json={"name": "old"})).json()["id"]
        await client.post(f"/v1/organization/projects/{project}/archive")
        assert (await client.get(PROJECTS)).json()["data"] == []
        [found] = (await client.get(PROJECTS, params={"include_archived": "true"})).json()["data"]
    assert (found["id"], found["status"], found["source"]) == (project, "archived", "database")


@pytest.mark.parametrize("is_named_by_the_body", [True, False])
async def test_a_key_of_an_archived_project_is_refused_by_the_field_that_names_it(
    office: Office, is_named_by_the_body: bool
) -> None:
    async with office.client() as client:
        project = (await client.post("/v1/organization/projects", json={"name": "old"})).json()["id"]
        await client.post(f"/v1/organization/projects/{project}/archive")
        if is_named_by_the_body:
            refused = await client.post("/v1/gateway/keys", json={"name": "ci", "project_id": project})
        else:
            accounts = f"/v1/organization/projects/{project}/service_accounts"
            refused = await client.post(accounts, json={"name": "ci"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_value")
    assert error["param"] == ("project_id" if is_named_by_the_body else None)


async def test_a_project_of_the_configuration_is_changed_there(office: Office) -> None:
    await (await office.registry()).adopt([a_project(source="file")], [])
    async with office.client() as client:
        refused = await client.post(f"{PROJECTS}/proj_1", json={"images_per_minute": 5})
        unknown = await client.post(f"{PROJECTS}/proj_2", json={"images_per_minute": 5})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "stated_in_configuration")
    assert unknown.status_code == 404
