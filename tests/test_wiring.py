"""The composition root: what a reload replaces, and what it leaves."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from app.catalog.fitting import Fitted
from app.config.loading import Settings, load
from app.errors import RateLimited, Unauthenticated
from app.events import Sink
from app.gateway.call import Call, SubmittedJob
from app.images import ImageRequest, Operation
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.ledger import Ledger
from app.ledger.values.directory import Directory
from app.ledger.values.drawings import Outcome, Settlement
from app.telemetry.logs import Log
from app.wiring import Resources, Runtime, adopt, make_runtime, open_resources, steady
from tests.live.servers import written
from tests.waiting import until

pytestmark = pytest.mark.anyio

NOTHING: list[Fitted] = []
A_FOX = ImageRequest(Operation.GENERATIONS, "flux", "a fox")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def settings(folder: Path, *, key: str = "team", **limits: Any) -> Settings:
    config = {
        "providers": {"a": {"base_url": "http://127.0.0.1:9/v1", "api_key": "secret"}},
        "models": {"flux": {"deployments": [{"provider": "a"}]}},
        "keys": [{"name": key, "key": f"the-secret-key-of-{key}", **limits}],
    }
    return load(written(config, folder), {})


async def no_jobs(call: Call, jobs: Sequence[SubmittedJob], sink: Sink) -> None:
    raise AssertionError(f"{call.id} has no job, and so not {jobs}")


@pytest.fixture
async def resources(tmp_path: Path) -> AsyncIterator[Resources]:
    log = Log("json", requests=False, stream=io.StringIO())
    async with open_resources(settings(tmp_path), log, no_jobs) as opened:
        yield opened


async def test_a_reload_replaces_the_runtime_and_keeps_every_resource(resources: Resources, tmp_path: Path) -> None:
    before = make_runtime(resources, settings(tmp_path))
    after = make_runtime(resources, settings(tmp_path), before)
    replaced = {each.name for each in fields(Runtime) if getattr(before, each.name) is not getattr(after, each.name)}
    assert replaced - {"body_limits"} == {
        "settings",
        "page_rules",
        "keyring",
        "administration",
        "admission",
        "catalog",
        "gateway",
    }
    assert before.resources is after.resources is resources


async def test_keys_come_from_the_configuration_and_their_usage_from_the_process(
    resources: Resources, tmp_path: Path
) -> None:
    authorization = "Bearer the-secret-key-of-team"
    before = make_runtime(resources, settings(tmp_path, max_concurrency=2, requests_per_minute=2))
    ticket = await before.admission.admit("1", before.keyring.authenticate(authorization), A_FOX, NOTHING)
    after = make_runtime(resources, settings(tmp_path, max_concurrency=1, requests_per_minute=2), before)
    with pytest.raises(RateLimited, match="running at a time"):
        await after.admission.admit("2", after.keyring.authenticate(authorization), A_FOX, NOTHING)
    await resources.ledger.settle(Settlement(ticket.drawing_id, 0, Outcome.FAILED))
    await after.admission.admit("2", after.keyring.authenticate(authorization), A_FOX, NOTHING)
    with pytest.raises(RateLimited, match="requests a minute"):
        await after.admission.admit("2", after.keyring.authenticate(authorization), A_FOX, NOTHING)
    without = make_runtime(resources, settings(tmp_path, key="other"), after)
    with pytest.raises(Unauthenticated):
        without.keyring.authenticate(authorization)


def with_a_budget(folder: Path) -> Settings:
    config = {
        "providers": {"a": {"base_url": "http://127.0.0.1:9/v1", "api_key": "secret"}},
        "models": {"flux": {"deployments": [{"provider": "a"}]}},
        "projects": {"design": {"requests_per_minute": 5}},
        "budgets": [{"project": "design", "amount": 1}],
    }
    return load(written(config, folder), {})


async def test_a_budget_of_the_configuration_holds_from_the_first_request_on(
    resources: Resources, tmp_path: Path
) -> None:
    await adopt(resources, with_a_budget(tmp_path))
    known = resources.ledger.directory
    assert [budget.amount for budget in known.budgets] == [1_000_000_000]
    assert [project.limits.requests_per_minute for project in known.projects.values()] == [5]


def _away(_: Ledger) -> Database:
    raise DatabaseUnavailable("it is away")


@pytest.mark.parametrize("was_reached", [False, True])
async def test_a_budget_of_the_configuration_holds_once_the_database_is_back(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_reached: bool
) -> None:
    monkeypatch.setattr("app.adoption.RETRY_SECONDS", 0.01)
    with monkeypatch.context() as outage:
        if not was_reached:
            outage.setattr(Ledger, "directory", property(lambda _: Directory()))
        outage.setattr(Ledger, "database", property(_away))
        await adopt(resources, settings(tmp_path))
        await adopt(resources, with_a_budget(tmp_path))
        await asyncio.sleep(0.05)
        assert resources.ledger.directory.budgets == ()
    await until(lambda: resources.ledger.directory.budgets)
    await adopt(resources, settings(tmp_path))
    assert resources.ledger.directory.budgets == ()


def test_a_steady_clock_begins_with_the_wall_clock_and_does_not_jump_with_it() -> None:
    wall, elapsed = 1_000_000.0, 50.0
    clock = steady(lambda: wall, lambda: elapsed)
    assert clock() == 1_000_000
    wall += 86_400
    assert clock() == 1_000_000
    elapsed += 7
    assert clock() == 1_000_007
