"""The official SDKs' admin clients, unmodified, against a gateway over real connections."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.api.administration.offices import ADMIN, DAY, NOW, ORDINARY, Office, office_in_thread
from tests.ledger.samples import PROJECT
from tests.sdks.environments import required_node_sdk

NODE = Path(__file__).with_name("admin_calls.mjs")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with office_in_thread(tmp_path) as opened:
        yield opened


@pytest.fixture
def admin(office: Office) -> Any:
    with openai.OpenAI(base_url=f"{office.url}/v1", api_key="unused", admin_api_key=ADMIN, max_retries=0) as client:
        yield client.admin.organization


def draw(office: Office, **fields: Any) -> None:
    asyncio.run_coroutine_threadsafe(office.draw(**fields), office.loop).result(10)


def test_projects_are_made_read_changed_listed_and_archived(admin: Any) -> None:
    made = [admin.projects.create(name=f"team {number}") for number in range(5)]
    assert made[0].object == "organization.project"
    assert (made[0].status, made[0].created_at) == ("active", NOW)
    assert admin.projects.retrieve(made[1].id) == made[1]
    assert admin.projects.update(made[1].id, name="blue").name == "blue"
    assert admin.projects.archive(made[2].id).status == "archived"
    listed = list(admin.projects.list(limit=2))  # the SDK asks for the next pages
    assert sorted(project.id for project in listed) == sorted(
        project.id for project in made if project.id != made[2].id
    )
    assert len(list(admin.projects.list(include_archived=True, limit=3))) == 5


def test_a_service_account_is_a_key_that_is_told_once(admin: Any) -> None:
    project = admin.projects.create(name="design")
    account = admin.projects.service_accounts.create(project.id, name="ci", expires_in_seconds=3600)
    assert account.api_key.value.startswith("igk_")
    assert account.api_key.expires_at == NOW + 3600
    [key] = admin.projects.api_keys.list(project.id)
    assert (key.id, key.owner.service_account.name, key.owner_project_access) == (account.id, "ci", "active")
    assert account.api_key.value not in key.redacted_value
    assert admin.projects.service_accounts.update(account.id, project_id=project.id, name="cd").name == "cd"
    assert admin.projects.api_keys.retrieve(key.id, project_id=project.id).name == "cd"
    assert [each.id for each in admin.projects.service_accounts.list(project.id)] == [account.id]
    assert admin.projects.service_accounts.retrieve(account.id, project_id=project.id).role == "member"
    assert admin.projects.api_keys.update(key.id, project_id=project.id, scopes=["draw", "usage"]).id == key.id
    assert admin.projects.api_keys.delete(key.id, project_id=project.id).deleted
    assert list(admin.projects.api_keys.list(project.id)) == []
    with pytest.raises(openai.NotFoundError):
        admin.projects.service_accounts.delete(account.id, project_id=project.id)


def test_a_projects_limits_are_one_row_for_all_models(admin: Any) -> None:
    project = admin.projects.create(name="design")
    [row] = admin.projects.rate_limits.list_rate_limits(project.id)
    assert (row.model, row.max_images_per_1_minute, row.max_tokens_per_1_minute) == ("*", None, 0)
    changed = admin.projects.rate_limits.update_rate_limit(
        row.id, project_id=project.id, max_images_per_1_minute=30, max_requests_per_1_minute=60
    )
    assert (changed.max_images_per_1_minute, changed.max_requests_per_1_minute) == (30, 60)
    assert next(iter(admin.projects.rate_limits.list_rate_limits(project.id))) == changed
    unlimited = admin.projects.rate_limits.update_rate_limit(
        row.id, project_id=project.id, max_requests_per_1_minute=row.max_requests_per_1_minute
    )
    assert unlimited.max_requests_per_1_minute == row.max_requests_per_1_minute
    with pytest.raises(openai.BadRequestError, match="max_tokens_per_1_minute"):
        admin.projects.rate_limits.update_rate_limit(row.id, project_id=project.id, max_tokens_per_1_minute=5)


def test_admin_keys_are_made_listed_and_deleted(admin: Any) -> None:
    made = [admin.admin_api_keys.create(name=f"admin {number}") for number in range(3)]
    assert made[0].value.startswith("iga_")
    assert made[0].object == "organization.admin_api_key"
    assert [key.id for key in admin.admin_api_keys.list(limit=2)] == sorted(key.id for key in made)
    newest = [key.id for key in admin.admin_api_keys.list(order="desc")]
    assert newest == sorted((key.id for key in made), reverse=True)
    assert admin.admin_api_keys.retrieve(made[1].id).owner.name == "admin 1"
    assert admin.admin_api_keys.delete(made[1].id).deleted
    assert len(list(admin.admin_api_keys.list())) == 2


def test_usage_comes_in_buckets_and_groups(office: Office, admin: Any) -> None:
    for day in range(3):
        draw(office, at=NOW - day * DAY, images=day + 1, width=1024, height=1024, model=f"m{day % 2}")
    draw(office, at=NOW - 60, cost=0, operation="edits")
    start = NOW - 3 * DAY
    page = admin.usage.images(start_time=start, group_by=["model", "source", "api_key_id"], bucket_width="1d")
    assert [len(bucket.results) for bucket in page.data] == [0, 1, 1, 2]
    first = page.data[1].results[0]
    assert (first.model, first.source, first.images, first.num_model_requests) == ("m0", "image.generation", 3, 1)
    assert (first.api_key_id, first.project_id, first.size) == ("key00001", None, None)
    whole = admin.usage.images(start_time=start, sources=["image.edit"], project_ids=[PROJECT.id])
    assert [result.num_model_requests for bucket in whole.data for result in bucket.results] == [1]
    hours = admin.usage.images(start_time=NOW - 7200, bucket_width="1h", limit=2)
    assert (len(hours.data), hours.has_more) == (2, True)
    rest = admin.usage.images(start_time=NOW - 7200, bucket_width="1h", limit=2, page=hours.next_page)
    assert (rest.data[0].start_time, rest.has_more) == (hours.data[-1].end_time, False)
    minutes = admin.usage.images(start_time=NOW - 120, bucket_width="1m", end_time=NOW + 60)
    assert [len(bucket.results) for bucket in minutes.data].count(1) == 2


def test_buckets_that_end_before_they_begin_are_refused(admin: Any) -> None:
    for read in (admin.usage.images, admin.usage.costs):
        with pytest.raises(openai.BadRequestError, match="'end_time' has to be after 'start_time'") as refused:
            read(start_time=NOW, end_time=NOW - DAY)
        assert (refused.value.param, refused.value.code) == ("end_time", "invalid_value")


def test_costs_have_a_line_item_for_what_is_in_doubt(office: Office, admin: Any) -> None:
    draw(office, cost=40_000_000, model="a")
    draw(office, cost=2_000_000, model="b")
    draw(office, cost=0, in_doubt=50_000_000, model="a")
    items = admin.usage.costs(start_time=NOW, group_by=["line_item"], end_time=NOW + DAY).data[0].results
    assert {item.line_item: (item.amount.value, item.amount.currency) for item in items} == {
        "a": (0.04, "usd"),
        "b": (0.002, "usd"),
        "in doubt": (0.05, "usd"),
    }
    [whole] = admin.usage.costs(start_time=NOW, group_by=["project_id"], end_time=NOW + DAY).data[0].results
    assert (whole.amount.value, whole.project_id, whole.line_item) == (0.092, PROJECT.id, None)


def test_the_audit_log_tells_who_did_what(admin: Any) -> None:
    project = admin.projects.create(name="design")
    admin.projects.service_accounts.create(project.id, name="ci")
    admin.projects.archive(project.id)
    events = list(admin.audit_logs.list(limit=2))
    assert [event.type for event in events] == ["project.archived", "api_key.created", "project.created"]
    assert events[2].project_created.data.name == "design"
    assert events[0].actor.api_key.id == "adminkey"
    assert events[1].project.id == project.id
    found = admin.audit_logs.list(event_types=["project.created"], effective_at={"gte": NOW, "lt": NOW + 1})
    assert [event.type for event in found] == ["project.created"]
    assert list(admin.audit_logs.list(effective_at={"gt": NOW})) == []
    other = admin.projects.create(name="other")
    account = admin.projects.service_accounts.create(other.id, name="ci")
    admin.projects.service_accounts.delete(account.id, project_id=other.id)
    [deleted] = admin.audit_logs.list(event_types=["api_key.deleted"])
    assert deleted.project.id == other.id
    of_other = admin.audit_logs.list(project_ids=[other.id])
    assert [event.type for event in of_other] == ["api_key.deleted", "api_key.created", "project.created"]
    assert {event.project.id for event in of_other} == {other.id}
    of_account = admin.audit_logs.list(project_ids=[other.id], resource_ids=[account.id, project.id])
    assert [event.type for event in of_account] == ["api_key.deleted", "api_key.created"]
    assert list(admin.audit_logs.list(project_ids=["proj_of_nobody"])) == []
    of_project = admin.audit_logs.list(project_ids=[project.id], limit=1)
    assert [event.type for event in of_project] == ["project.archived", "api_key.created", "project.created"]


def test_a_change_that_contradicts_what_is_there_is_sent_once(office: Office, admin: Any) -> None:
    admin.projects.create(name="design")
    with (
        openai.OpenAI(base_url=f"{office.url}/v1", api_key="unused", admin_api_key=ADMIN) as client,
        pytest.raises(openai.ConflictError) as refused,
    ):
        client.admin.organization.projects.create(name="design")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.code == "already_exists"
    lines = asyncio.run_coroutine_threadsafe(office.gateway.request_lines(2), office.loop).result(10)
    assert [line["status"] for line in lines] == [200, 409]


def test_an_ordinary_key_is_refused(office: Office) -> None:
    client = openai.OpenAI(base_url=f"{office.url}/v1", api_key="unused", admin_api_key=ORDINARY, max_retries=0)
    with client, pytest.raises(openai.PermissionDeniedError) as refused:
        client.admin.organization.projects.list()
    assert refused.value.code == "insufficient_scope"


def test_nodes_admin_client_sees_the_same(office: Office) -> None:
    node = required_node_sdk()
    draw(office, images=2)
    command: list[Any] = [node.binary, "--input-type=module", "-", office.url, ADMIN, str(NOW)]
    script = NODE.read_text(encoding="utf-8")
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=120, cwd=node.folder, env={}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "projects": ["p0", "p1", "p2"],
        "account": "igk_",
        "keys": ["ci"],
        "limit": 30,
        "archived": "archived",
        "images": 2,
        "costs": 0.01,
        "events": ["project.archived", "api_key.created"],
        "deleted": True,
    }
