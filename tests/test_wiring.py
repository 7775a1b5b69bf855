"""The composition root: what a reload replaces, and what it leaves."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from app.access.limits import KeyUsage
from app.catalog.fitting import Fitted
from app.config.loading import Settings, load
from app.errors import RateLimited, Unauthenticated
from app.events import Event
from app.gateway.call import Call, SubmittedJob
from app.telemetry.logs import Log
from app.wiring import Resources, Runtime, make_runtime, open_resources, steady
from tests.live.servers import written

pytestmark = pytest.mark.anyio

NOTHING: list[Fitted] = []


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


def no_jobs(call: Call, jobs: Sequence[SubmittedJob]) -> AsyncGenerator[Event, None]:
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
    assert replaced - {"body_limits"} == {"settings", "keyring", "admission", "catalog", "gateway"}
    assert before.resources is after.resources is resources


async def test_keys_come_from_the_configuration_and_their_usage_from_the_process(
    resources: Resources, tmp_path: Path
) -> None:
    authorization = "Bearer the-secret-key-of-team"
    before = make_runtime(resources, settings(tmp_path, max_concurrency=2, requests_per_minute=2))
    ticket = await before.admission.admit(before.keyring.authenticate(authorization), NOTHING, 1)
    after = make_runtime(resources, settings(tmp_path, max_concurrency=1, requests_per_minute=2), before)
    with pytest.raises(RateLimited, match="running at a time"):
        await after.admission.admit(after.keyring.authenticate(authorization), NOTHING, 1)
    ticket.release()
    assert after.resources.limits.snapshot() == {"team": KeyUsage(running=0, reading=0)}
    await after.admission.admit(after.keyring.authenticate(authorization), NOTHING, 1)
    with pytest.raises(RateLimited, match="requests a minute"):
        await after.admission.admit(after.keyring.authenticate(authorization), NOTHING, 1)
    without = make_runtime(resources, settings(tmp_path, key="other"), after)
    with pytest.raises(Unauthenticated):
        without.keyring.authenticate(authorization)


def test_a_steady_clock_begins_with_the_wall_clock_and_does_not_jump_with_it() -> None:
    wall, elapsed = 1_000_000.0, 50.0
    clock = steady(lambda: wall, lambda: elapsed)
    assert clock() == 1_000_000
    wall += 86_400
    assert clock() == 1_000_000
    elapsed += 7
    assert clock() == 1_000_007
