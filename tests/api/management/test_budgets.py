"""`/v1/gateway/budgets`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.api.administration.offices import Office
from tests.ledger.samples import ME, a_budget

pytestmark = pytest.mark.anyio
BUDGETS = "/v1/gateway/budgets"


async def test_a_budget_counts_what_its_window_has_drawn(office: Office) -> None:
    await office.draw(10_000_000)
    await office.draw(0, in_doubt=5_000_000)
    async with office.client() as client:
        body = {"amount": 50, "window": "month", "timezone": "Europe/Prague", "thresholds": [80, 50, 80]}
        made = (await client.post(BUDGETS, json=body)).json()
        assert (made["scope"], made["amount"], made["hard"], made["thresholds"]) == ("all", 50, True, [50, 80])
        assert made["period"]["left"] == 49.985
        assert (made["period"]["spent"], made["period"]["in_doubt"], made["period"]["held"]) == (0.01, 0.005, 0)
        changed = (await client.post(f"{BUDGETS}/{made['id']}", json={"amount": "0.5", "hard": False})).json()
        assert (changed["amount"], changed["hard"]) == (0.5, False)
        assert (await client.get(BUDGETS)).json()["data"] == [changed]
        assert (await client.delete(f"{BUDGETS}/{made['id']}")).json()["deleted"]
        assert (await client.get(f"{BUDGETS}/{made['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("stated", "told"), [({}, [50, 80, 100]), ({"thresholds": None}, [50, 80, 100]), ({"thresholds": []}, [])]
)
async def test_a_budget_that_states_no_thresholds_has_the_usual_ones(
    office: Office, stated: dict[str, Any], told: list[int]
) -> None:
    async with office.client() as client:
        made = (await client.post(BUDGETS, json={"amount": 1, "window": "day"} | stated)).json()
        changed = (await client.post(f"{BUDGETS}/{made['id']}", json={"amount": 2})).json()
    assert (made["thresholds"], changed["thresholds"]) == (told, told)


async def test_a_budget_belongs_to_a_project_or_a_key(office: Office) -> None:
    async with office.client() as client:
        project = (await client.post("/v1/organization/projects", json={"name": "design"})).json()["id"]
        key = (await client.post("/v1/gateway/keys", json={"name": "ci", "project_id": project})).json()["id"]
        body = {"amount": 1, "window": "day"}
        of_project = (await client.post(BUDGETS, json=body | {"project_id": project})).json()
        of_key = (await client.post(BUDGETS, json=body | {"api_key_id": key, "models": ["flux/*"]})).json()
        assert (of_project["project_id"], of_project["owner"]) == (project, "design")
        assert (of_key["api_key_id"], of_key["models"]) == (key, ["flux/*"])
        found = (await client.get(BUDGETS, params={"api_key_id": key})).json()["data"]
        assert [budget["id"] for budget in found] == [of_key["id"]]


async def test_a_budget_of_a_key_of_the_configuration_has_its_name(office: Office) -> None:
    office.state_key("filekey1", "ci")
    async with office.client() as client:
        made = (await client.post(BUDGETS, json={"amount": 1, "window": "day", "api_key_id": "filekey1"})).json()
        assert (made["scope"], made["api_key_id"], made["owner"]) == ("key", "filekey1", "ci")
        assert (await client.get(BUDGETS)).json()["data"] == [made]


async def test_a_budget_of_the_configuration_is_changed_there(office: Office) -> None:
    registry = await office.registry()
    await registry.add_budget(replace(a_budget(), source="file"), ME)
    async with office.client() as client:
        refused = [await client.post(f"{BUDGETS}/bud_1", json={"amount": 5}), await client.delete(f"{BUDGETS}/bud_1")]
    assert [each.json()["error"]["code"] for each in refused] == ["stated_in_configuration"] * 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"window": "day"}, "amount"),
        ({"amount": 1}, "window"),
        ({"amount": -1, "window": "day"}, "amount"),
        ({"amount": "much", "window": "day"}, "amount"),
        ({"amount": True, "window": "day"}, "amount"),
        ({"amount": 1, "window": "year"}, "window"),
        ({"amount": 1, "window": "day", "timezone": "Mars/Base"}, "timezone"),
        ({"amount": 1, "window": "day", "project_id": "unknown"}, "project_id"),
        ({"amount": 1, "window": "day", "api_key_id": "unknown"}, "api_key_id"),
        ({"amount": 1, "window": "day", "thresholds": ["many"]}, "thresholds"),
        ({"amount": 1, "window": "day", "project_id": "a", "api_key_id": "b"}, "api_key_id"),
    ],
)
async def test_a_wrong_budget_is_refused_by_its_field(office: Office, body: dict[str, Any], param: str) -> None:
    async with office.client() as client:
        refused = await client.post(BUDGETS, json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
