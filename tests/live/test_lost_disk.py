"""The data directory is away while the gateway serves: a volume that was unmounted, or a folder that was removed."""

from pathlib import Path

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.crowds import GENERATIONS, asking, drawn_by, simulated
from tests.live.servers import Gateway
from tests.live.wire import Reply, ask, post, request

pytestmark = pytest.mark.anyio


async def draw(gateway: Gateway, response_format: str = "b64_json", **headers: str) -> Reply:
    return await post(gateway.port, GENERATIONS, asking(response_format=response_format), **headers)


async def away(start: Start, sandbox: Sandbox, folder: Path) -> Gateway:
    """A gateway that has a delivered run on its disk, and then no disk."""
    models = {"flux": drawn_by("openai")}
    gateway = await start({"providers": {"openai": simulated(sandbox.base_url)}, "models": models})
    assert (await draw(gateway, idempotency_key="one")).status == 200
    (folder / "data").rename(folder / "away")
    return gateway


async def test_requests_are_served_without_the_disk(start: Start, sandbox: Sandbox, tmp_path: Path) -> None:
    gateway = await away(start, sandbox, tmp_path)
    assert (await draw(gateway)).status == 200
    assert (await draw(gateway, idempotency_key="two")).status == 200
    told = [line["reason"] for line in gateway.lines() if line["event"] == "the disk cannot be written to"]
    assert told == ["No such file or directory"]


async def test_links_are_refused_before_anything_is_drawn(start: Start, sandbox: Sandbox, tmp_path: Path) -> None:
    gateway = await away(start, sandbox, tmp_path)
    refused = await draw(gateway, response_format="url")
    assert (refused.status, refused.error()["code"]) == (503, "no_room_for_files")
    assert "b64_json" in refused.error()["message"]
    assert refused.header("x-should-retry") is None


async def test_metrics_are_told_without_those_of_the_disk(start: Start, sandbox: Sandbox, tmp_path: Path) -> None:
    gateway = await away(start, sandbox, tmp_path)
    reply = await ask(gateway.port, request("GET", "/metrics"))
    assert reply.status == 200
    assert b"imagegw_http_requests_total" in reply.body and b"\nimagegw_disk_free_bytes " not in reply.body
