"""Usage, prices, providers, events, and who the caller is."""

from __future__ import annotations

import csv
import io
from typing import Any

import jsonschema_rs
import pytest

from app.api.docs.openapi import document
from app.catalog.prices import Price, Tier
from app.ledger.database.price_rows import record_prices
from app.ledger.values.drawings import Joined, Outcome
from tests.api.administration.offices import ADMIN, DAY, NOW, ORDINARY, REPORTER, Office
from tests.ledger.samples import REPLICA

pytestmark = pytest.mark.anyio


async def test_usage_is_summed_up_by_day_and_dimension(office: Office) -> None:
    for number in range(3):
        await office.draw(at=NOW - number * DAY, images=2, model=f"m{number % 2}", total_ms=1500, provider="nebula")
    await office.draw(0, in_doubt=5_000_000)
    async with office.client(REPORTER) as client:
        query: dict[str, Any] = {"since": NOW - 2 * DAY, "group_by": ["model", "provider"]}
        found = (await client.get("/v1/gateway/usage", params=query)).json()["data"]
        hours = (await client.get("/v1/gateway/usage", params={"since": NOW, "bucket_width": "1h"})).json()["data"]
    assert [(line["model"], line["provider"], line["images"], line["cost"]) for line in found] == [
        ("m0", "nebula", 2, 0.01), ("m1", "nebula", 2, 0.01), ("flux/schnell", None, 0, 0), ("m0", "nebula", 2, 0.01),
    ]  # fmt: skip
    assert [(line["requests"], line["seconds"], line["cost_in_doubt"]) for line in hours] == [(2, 1.5, 0.005)]


async def test_usage_refuses_too_many_buckets(office: Office) -> None:
    async with office.client() as client:
        refused = await client.get("/v1/gateway/usage", params={"since": 0, "bucket_width": "1h"})
        assert refused.json()["error"]["param"] == "since"
        assert (await client.get("/v1/gateway/usage")).json()["error"]["code"] == "missing_required_parameter"


async def test_prices_are_told_with_their_past(office: Office) -> None:
    for nano in (10, 20):
        stated = {("nebula", "m"): (Price((Tier(per_image=nano),)), "config")}
        await record_prices(office.ledger.database, stated, office.clock.micros)
        office.clock.now += 1
    async with office.client() as client:
        [now] = (await client.get("/v1/gateway/prices")).json()["data"]
        both = (await client.get("/v1/gateway/prices", params={"include_past": "true"})).json()["data"]
        lacking = (await client.get("/v1/gateway/prices")).json()["unpriced"]
        none = (await client.get("/v1/gateway/prices", params={"provider": "other"})).json()["data"]
    assert (now["upstream_model"], now["valid_from"], now["valid_to"]) == ("m", NOW + 1, None)
    assert [price["valid_to"] for price in both] == [NOW + 1, None]
    assert none == []
    assert lacking == [{"provider": "nebula", "upstream_model": "schnell"}]


async def test_events_tell_who_changed_what_budgets_too(office: Office) -> None:
    async with office.client() as client:
        await client.post("/v1/gateway/budgets", json={"amount": 5, "window": "day"})
        await client.post("/v1/organization/projects", json={"name": "design"}, headers={"x-request-id": "mine"})
        page = (await client.get("/v1/gateway/events", params={"limit": 1})).json()
        rest = (await client.get("/v1/gateway/events", params={"after": page["last_id"]})).json()
    [event] = page["data"]
    assert (event["action"], event["object_kind"], event["request_id"]) == ("create", "project", "mine")
    assert event["actor"] == {"kind": "key", "id": "adminkey", "address": "127.0.0.1"}
    assert [(line["object_kind"], line["after"]["amount_nano"]) for line in rest["data"]] == [("budget", 5_000_000_000)]


async def test_providers_are_told_with_their_pauses(office: Office) -> None:
    async with office.client() as client:
        [found] = (await client.get("/v1/gateway/providers")).json()["data"]
    assert (found["id"], found["state"], found["pauses"]) == (
        "nebula/schnell", "paused", [{"reason": "limited", "seconds": 12.3}],
    )  # fmt: skip


async def test_any_key_learns_who_it_is(office: Office) -> None:
    async with office.client(ORDINARY) as client:
        found = (await client.get("/v1/gateway/whoami")).json()
    assert (found["id"], found["project"], found["models"], found["is_admin"]) == (
        "ordinary", {"id": "proj_1", "name": "design"}, ["flux/*"], False,
    )  # fmt: skip
    async with office.client(ADMIN) as client:
        assert (await client.get("/v1/gateway/whoami")).json()["is_admin"] is True


async def test_the_overview_adds_up_a_span(office: Office) -> None:
    for number in range(20):
        await office.draw(images=1, total_ms=(number + 1) * 100, outcome=Outcome.DELIVERED)
    await office.draw(0, in_doubt=5_000_000, outcome=Outcome.PERHAPS_PAID, images=0)
    await office.draw(0, outcome=Outcome.REFUSED, images=0)
    await office.draw(at=NOW - 40 * DAY)
    async with office.client() as client:
        found = (await client.get("/v1/gateway/overview", params={"since": NOW - DAY})).json()
        refused = await client.get("/v1/gateway/overview", params={"since": NOW - 400 * DAY})
    assert (found["requests"], found["images"], found["cost"], found["cost_in_doubt"]) == (22, 20, 0.2, 0.005)
    assert found["success"] == pytest.approx(20 / 21)  # a refusal is the caller's own
    assert (found["median_seconds"], found["p95_seconds"]) == (1.0, 1.9)
    assert found["outcomes"] == {"delivered": 20, "perhaps_paid": 1, "refused": 1}
    assert found["in_doubt"] == {"drawings": 1, "cost": 0.005, "oldest": NOW}
    assert refused.json()["error"]["param"] == "since"


async def test_every_report_counts_answers_of_existing_runs_as_joined_and_saved_alone(office: Office) -> None:
    await office.draw(images=2, n=2)
    for number in range(2):
        which = (f"joined{number}", office.clock.micros, "req_j", "req_1", "key00001", "proj_1", "generations")
        await office.ledger.database.join(Joined(*which, "schnell", "flux/schnell", 2, 2, 10_000_000), REPLICA)
    async with office.client() as client:
        overview = (await client.get("/v1/gateway/overview")).json()
        [usage] = (await client.get("/v1/gateway/usage", params={"since": NOW})).json()["data"]
        query: dict[str, Any] = {"since": NOW, "group_by": ["outcome"]}
        groups = (await client.get("/v1/gateway/usage", params=query)).json()["data"]
        page = (await client.get("/v1/organization/usage/images", params={"start_time": NOW})).json()
    [openai] = page["data"][0]["results"]
    names = ("requests", "joined", "images", "cost", "saved")
    assert [overview[name] for name in names] == [usage[name] for name in names] == [1, 2, 2, 0.01, 0.02]
    assert (openai["num_model_requests"], openai["images"]) == (1, 2)
    assert [(each["outcome"], each["requests"], each["joined"]) for each in groups] == [
        ("delivered", 1, 0), ("joined", 0, 2),
    ]  # fmt: skip
    assert overview["outcomes"] == {"delivered": 1, "joined": 2}


@pytest.mark.parametrize("path", ["usage", "overview"])
@pytest.mark.parametrize("until", [0, NOW - DAY, NOW])
async def test_a_span_that_ends_before_it_begins_is_refused(office: Office, path: str, until: int) -> None:
    async with office.client() as client:
        refused = await client.get(f"/v1/gateway/{path}", params={"since": NOW, "until": until})
        future = await client.get(f"/v1/gateway/{path}", params={"since": NOW + DAY})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, "until", "invalid_value")
    assert error["message"] == "'until' has to be after 'since'."
    assert future.status_code == 200  # nothing is drawn yet


async def test_the_overview_of_nothing_has_no_times(office: Office) -> None:
    async with office.client() as client:
        found = (await client.get("/v1/gateway/overview")).json()
    assert (found["success"], found["median_seconds"], found["p95_seconds"]) == (None, None, None)
    assert found["in_doubt"] == {"drawings": 0, "cost": 0, "oldest": None}


async def test_usage_is_exported_for_a_spreadsheet_without_formulas(office: Office) -> None:
    await office.draw(model="=1+1", images=2)
    async with office.client() as client:
        query: dict[str, Any] = {"since": NOW - DAY, "group_by": ["model", "api_key_id"]}
        found = await client.get("/v1/gateway/usage", params=query, headers={"accept": "text/csv"})
    head, line = found.text.splitlines()
    assert head.startswith("start_time,end_time,api_key_id,model,requests,images,")
    assert found.headers["content-type"].startswith("text/csv")
    assert ",'=1+1,1,2," in line


async def test_exports_of_usage_and_of_drawings_write_money_alike(office: Office) -> None:
    await office.draw(100)
    found = list[dict[str, Any]]()
    async with office.client() as client:
        for path in ("usage", "drawings"):
            table = await client.get(f"/v1/gateway/{path}?since={NOW - DAY}", headers={"accept": "text/csv"})
            found += csv.DictReader(io.StringIO(table.text))
    assert [(row["cost"], row["cost_in_doubt"], row["saved"]) for row in found] == [
        ("0.000000100", "0.000000", "0.000000")
    ] * 2


async def test_a_budget_tells_where_its_period_leads(office: Office) -> None:
    midnight = NOW - NOW % DAY
    await office.draw(1_000_000_000, at=midnight + 60)
    async with office.client() as client:
        found = dict[str, Any]()
        for hour, window in ((0, "day"), (12, "day"), (12, "total")):
            office.clock.now = midnight + hour * 3600 + 120
            budget = (await client.post("/v1/gateway/budgets", json={"amount": 5, "window": window})).json()
            found[f"{window} {hour}"] = budget["period"]["projected"]
    assert found == {"day 0": None, "day 12": pytest.approx(2, rel=0.01), "total 12": None}


async def test_a_provider_is_asked_whether_it_can_be_reached(office: Office) -> None:
    async with office.client() as client:
        found = (await client.post("/v1/gateway/providers/nebula/check")).json()
        unknown = await client.post("/v1/gateway/providers/other/check")
    assert (found["outcome"], found["is_usable"], found["models"], found["not_listed"]) == ("listed", True, 3, ["gone"])
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    async with office.client(ORDINARY) as client:
        assert (await client.post("/v1/gateway/providers/nebula/check")).status_code == 403


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("overview", "Overview"),
        ("configuration", "Configuration"),
        ("whoami", "Caller"),
        ("drawings", "DrawingList"),
        ("keys", "KeyList"),
        ("projects", "GatewayProjectList"),
        ("budgets", "BudgetList"),
        ("prices", "PriceList"),
        (f"usage?since={NOW}", "UsageList"),
        ("providers", "DeploymentList"),
        ("events", "EventList"),
    ],
)
async def test_answers_are_what_the_document_says(office: Office, path: str, schema: str) -> None:
    await office.draw(width=64, height=64)
    stated = {("nebula", "m"): (Price((Tier(per_image=5),)), "config")}
    await record_prices(office.ledger.database, stated, office.clock.micros)
    office.state_key("filekey1", "build")
    async with office.client() as client:
        project = (await client.post("/v1/organization/projects", json={"name": "design"})).json()["id"]
        await client.post("/v1/gateway/keys", json={"name": "ci", "project_id": project})
        await client.post("/v1/gateway/budgets", json={"amount": 5, "window": "day"})
        answer = (await client.get(f"/v1/gateway/{path}")).json()
    assert answer.get("data") != []
    told = document() | {"$ref": f"#/components/schemas/{schema}"}
    jsonschema_rs.validator_for({"$ref": told["$ref"], "components": told["components"]}).validate(answer)
