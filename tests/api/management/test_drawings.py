"""`/v1/gateway/drawings`: pages, filters, exports, one drawing, and the resolution of what is in doubt."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from app.api.docs.openapi import document
from tests.api.administration.offices import ADMIN, NOW, ORDINARY, REPORTER, Office

pytestmark = pytest.mark.anyio
DRAWINGS = "/v1/gateway/drawings"


async def test_a_row_says_everything_that_the_document_promises(office: Office) -> None:
    id = await office.draw(
        38_000_000, provider="nebula", upstream_model="schnell", width=1024, height=1024, images=2, n=2,
        end_user="u1", tags={"team": "blue"}, total_ms=2500,
    )  # fmt: skip
    async with office.client() as client:
        page = (await client.get(DRAWINGS)).json()
    schema = document()["components"]["schemas"]["Drawing"]
    assert list(page["data"][0]) == schema["required"]
    assert page["data"][0] == {
        "id": id,
        "object": "drawing",
        "created_at": NOW,
        "ended_at": NOW + 1,
        "request_id": f"req_{id}",
        "project_id": "proj_1",
        "api_key_id": "key00001",
        "user": "u1",
        "tags": {"team": "blue"},
        "operation": "generations",
        "model": "flux/schnell",
        "provider": "nebula",
        "upstream_model": "schnell",
        "state": "settled",
        "outcome": "delivered",
        "error_code": None,
        "n": 2,
        "images": 2,
        "size": "1024x1024",
        "megapixels": 2.097152,
        "cost": 0.038,
        "cost_in_doubt": 0,
        "saved": 0,
        "currency": "USD",
        "attempts": 1,
        "queue_seconds": None,
        "first_image_seconds": None,
        "seconds": 2.5,
    }


async def test_the_detail_says_what_was_asked_dropped_and_mapped(office: Office) -> None:
    asked = {"size": "512x512", "quality": "high"}
    id = await office.draw(asked=json.dumps(asked), dropped="style,quality", mapped="size=512x512")
    plain = await office.draw()
    async with office.client() as client:
        found = (await client.get(f"{DRAWINGS}/{id}")).json()
        other = (await client.get(f"{DRAWINGS}/{plain}")).json()
    assert found["asked"] == asked
    assert found["attempts"][0]["dropped"] == ["style", "quality"]
    assert found["attempts"][0]["mapped"] == ["size=512x512"]
    assert (other["asked"], other["attempts"][0]["dropped"], other["attempts"][0]["mapped"]) == ({}, [], [])


async def test_pages_go_on_after_the_last_id(office: Office) -> None:
    ids = [await office.draw(at=NOW + number) for number in range(5)]
    found, after = list[str](), dict[str, str]()
    async with office.client() as client:
        while True:
            page = (await client.get(DRAWINGS, params={"limit": 2, **after})).json()
            found += [row["id"] for row in page["data"]]
            if not page["has_more"]:
                break
            after = {"after": page["last_id"]}
            await office.draw(at=NOW + 100)  # rows arrive meanwhile
    assert found == ids[::-1]


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("state=open", "state", "invalid_value"),
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=5&limit=6", "limit", "invalid_value"),
        ("since=yesterday", "since", "invalid_type"),
        ("after=nothing", "after", "invalid_value"),
        ("projectid=p", "projectid", "unknown_parameter"),
    ],
)
async def test_a_wrong_query_is_refused_by_its_name(office: Office, query: str, param: str, code: str) -> None:
    async with office.client() as client:
        refused = await client.get(f"{DRAWINGS}?{query}")
    assert refused.status_code == 400
    assert (refused.json()["error"]["param"], refused.json()["error"]["code"]) == (param, code)


async def test_an_ordinary_key_sees_its_own_drawings_alone(office: Office) -> None:
    own = await office.draw(key_id="ordinary")
    other = await office.draw(key_id="key00002")
    async with office.client(ORDINARY) as client:
        assert [row["id"] for row in (await client.get(DRAWINGS)).json()["data"]] == [own]
        assert (await client.get(DRAWINGS, params={"api_key_id": "key00002"})).json()["data"] == []
        assert (await client.get(f"{DRAWINGS}/{own}")).status_code == 200
        assert (await client.get(f"{DRAWINGS}/{other}")).status_code == 404
        exported = await client.get(DRAWINGS, headers={"accept": "application/x-ndjson"})
        assert [json.loads(line)["id"] for line in exported.text.splitlines()] == [own]
        assert (await client.post(f"{DRAWINGS}/{own}/resolve", json={"paid": True})).status_code == 403


async def test_the_scope_usage_reads_of_its_project(office: Office) -> None:
    own = await office.draw(key_id="key00002", project_id="proj_1", images=1)
    other = await office.draw(key_id="key00003", project_id="proj_2", images=5)
    usage = f"/v1/organization/usage/images?start_time={NOW}"
    async with office.client(REPORTER) as client:
        assert [row["id"] for row in (await client.get(DRAWINGS)).json()["data"]] == [own]
        assert (await client.get(DRAWINGS, params={"project_id": "proj_2"})).json()["data"] == []
        assert (await client.get(f"{DRAWINGS}/{other}")).status_code == 404
        [bucket] = (await client.get(usage)).json()["data"]
        assert [result["images"] for result in bucket["results"]] == [1]
        [bucket] = (await client.get(f"{usage}&project_ids=proj_2")).json()["data"]
        assert bucket["results"] == []


@pytest.mark.parametrize("kind", ["text/csv", "application/x-ndjson"])
@pytest.mark.parametrize("paging", [{"limit": "1"}, {"after": "0" * 32}])
async def test_an_export_is_whole_and_refuses_to_be_a_page(office: Office, kind: str, paging: dict[str, str]) -> None:
    async with office.client() as client:
        refused = await client.get(DRAWINGS, headers={"accept": kind}, params=paging)
    [name] = paging
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    assert "Leave it out" in refused.json()["error"]["message"]


async def test_exports_have_every_row_in_csv_and_ndjson(office: Office) -> None:
    ids = [await office.draw(at=NOW + number, end_user="=cmd()") for number in range(30)]
    async with office.client() as client:
        lines = await client.get(DRAWINGS, headers={"accept": "application/x-ndjson"}, params={"since": NOW + 10})
        table = await client.get(DRAWINGS, headers={"accept": "text/csv"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["id"] for line in lines.text.splitlines()] == ids[:9:-1]
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["id"] for row in rows] == ids[::-1]
    assert (rows[0]["cost"], rows[0]["user"]) == ("0.010000", "'=cmd()")  # for a spreadsheet it is text


async def test_an_empty_csv_has_its_head(office: Office) -> None:
    async with office.client() as client:
        table = await client.get(DRAWINGS, headers={"accept": "text/csv"})
    assert re.fullmatch(r"id,created_at,.*,seconds\r\n", table.text)


async def test_what_is_in_doubt_is_resolved_once(office: Office) -> None:
    id = await office.draw(0, in_doubt=50_000_000)
    async with office.client(ADMIN) as client:
        refused = await client.post(f"{DRAWINGS}/{id}/resolve", json={})
        assert refused.json()["error"]["param"] == "paid"
        resolved = await client.post(f"{DRAWINGS}/{id}/resolve", json={"paid": True, "note": "on the bill"})
        assert (resolved.json()["state"], resolved.json()["cost"], resolved.json()["cost_in_doubt"]) == (
            "settled", 0.05, 0,
        )  # fmt: skip
        again = await client.post(f"{DRAWINGS}/{id}/resolve", json={"paid": False})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "not_in_doubt")
        detail = (await client.get(f"{DRAWINGS}/{id}")).json()
        assert (await client.post(f"{DRAWINGS}/unknown/resolve", json={"paid": True})).status_code == 404
    assert [(entry["kind"], entry["by"], entry["note"]) for entry in detail["entries"]][-1] == (
        "resolve", "key:adminkey", "on the bill",
    )  # fmt: skip
    assert detail["attempts"][0]["provider_request_id"] == "up-1"
    async with office.client(ADMIN) as client:
        [event] = (await client.get("/v1/gateway/events")).json()["data"]
    assert (event["action"], event["object_kind"], event["object_id"]) == ("resolve", "drawing", id)
    assert event["after"] == {"paid": True, "note": "on the bill"}
