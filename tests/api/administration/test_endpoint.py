"""Who may ask, and what is answered while the book cannot be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.access.keyring import Key
from app.ledger.database.protocol import DatabaseUnavailable
from tests.api.administration.offices import ADMIN, KEYS, NOW, ORDINARY, REPORTER, Office, open_office

pytestmark = pytest.mark.anyio


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as opened:
        yield opened


PATHS = ("/v1/organization/projects", "/v1/organization/audit_logs", "/v1/gateway/keys", "/v1/gateway/events")
REPORTS = ("/v1/organization/usage/images?start_time=1789990000", "/v1/gateway/usage?since=1789990000")


@pytest.mark.parametrize("path", [*PATHS, *REPORTS])
@pytest.mark.parametrize(
    ("key", "status"), [(ADMIN, 200), (ORDINARY, 403), (REPORTER, 403), (None, 403), ("wrong", 401)]
)
async def test_the_administration_wants_an_admin_key(office: Office, path: str, key: str | None, status: int) -> None:
    expected = 200 if key == REPORTER and path in REPORTS else status
    async with office.client(key) as client:
        answer = await client.get(path)
    assert answer.status_code == expected
    if expected != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_where_it_is_open_a_caller_without_a_key_administrates(office: Office) -> None:
    office.use(office.administration(is_open=True))
    async with office.client(None) as client:
        assert (await client.post("/v1/organization/projects", json={"name": "design"})).status_code == 200
        assert (await client.get("/v1/gateway/whoami")).json()["is_admin"] is True
    async with office.client(ORDINARY) as client:
        assert (await client.get("/v1/organization/projects")).status_code == 403


async def test_while_the_database_is_away_the_answer_is_503(office: Office) -> None:
    class Away:
        currency = "USD"

        async def registry(self) -> Any:
            raise DatabaseUnavailable("it is away")

    office.use(office.administration(book=Away()))
    async with office.client() as client:
        answer = await client.get("/v1/organization/projects")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["code"] == "ledger_unavailable"


@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
async def test_a_database_that_falls_away_is_told_before_an_answer_begins(office: Office, kind: str) -> None:
    (office.folder / "book" / "gateway.db").unlink()
    (office.folder / "book" / "gateway.db").mkdir()
    async with office.client() as client:
        answer = await client.get("/v1/gateway/drawings", headers={"accept": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")


async def test_answers_are_kept_by_no_cache(office: Office) -> None:
    async with office.client() as client:
        assert (await client.get("/v1/gateway/whoami")).headers["cache-control"] == "no-store"


async def test_two_projects_cannot_have_one_name(office: Office) -> None:
    async with office.client() as client:
        first, _ = [await client.post("/v1/organization/projects", json={"name": name}) for name in ("a", "b")]
        for refused in (
            await client.post("/v1/organization/projects", json={"name": "b"}),
            await client.post(f"/v1/organization/projects/{first.json()['id']}", json={"name": "b"}),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "already_exists")


@pytest.mark.parametrize(("method", "allowed"), [("PUT", "GET, POST"), ("HEAD", "GET, POST")])
async def test_another_method_is_refused_with_those_that_are_there(office: Office, method: str, allowed: str) -> None:
    async with office.client() as client:
        refused = await client.request(method, "/v1/organization/projects")
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)


async def test_no_answer_and_no_log_has_a_keys_text(office: Office) -> None:
    async with office.client() as client:
        project = (await client.post("/v1/organization/projects", json={"name": "design"})).json()["id"]
        made = await client.post("/v1/gateway/keys", json={"name": "ci", "project_id": project})
        secret = made.json()["value"]
        seen = [
            (await client.get(path)).text
            for path in ("/v1/gateway/keys", "/v1/gateway/events", f"/v1/organization/projects/{project}/api_keys")
        ]
    await office.gateway.request_lines(5)
    assert not [text for text in [*seen, office.gateway.log.getvalue()] if secret in text]


async def test_the_scope_usage_without_a_project_reads_no_other_keys(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KEYS, "igk_stray", Key("stray", "stray", scopes=("usage",)))
    other = await office.draw(images=5)
    async with office.client("igk_stray") as client:
        assert (await client.get("/v1/gateway/drawings")).json()["data"] == []
        assert (await client.get(f"/v1/gateway/drawings/{other}")).status_code == 404
        assert (await client.get(f"/v1/gateway/usage?since={NOW}")).json()["data"] == []
