"""The book as a platform team uses it: commands beside a running gateway, real processes throughout."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.books import command
from tests.live.crowds import drawn_by, simulated
from tests.live.servers import Process, process
from tests.live.wire import Reply, ask, request
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BODY = json.dumps({"model": "flux", "prompt": "a fox", "size": "64x64", "quality": "low"}).encode()
PRICE = {"profile": {"price": 0.04}}


async def draw(gateway: Process, key: str) -> Reply:
    head = {"authorization": f"Bearer {key}", "content_type": "application/json"}
    return await ask(gateway.port, request("POST", "/v1/images/generations", BODY, **head))


async def answered(gateway: Process, key: str, status: int) -> Reply:
    """Draw until the answer has the status: what is changed works within seconds."""
    async with asyncio.timeout(PATIENCE):
        while (reply := await draw(gateway, key)).status != status:
            await asyncio.sleep(0.2)
    return reply


async def test_a_project_draws_within_its_budget_and_the_book_adds_up(sandbox: Sandbox, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "data_dir": str(tmp_path / "data"),
        "providers": {"openai": simulated(sandbox.base_url)},
        "models": {"flux": drawn_by("openai") | PRICE},
        "keys": [{"name": "file", "key": "the-secret-key-of-file"}],
    }
    with process(config, tmp_path) as gateway:
        assert (await draw(gateway, "the-secret-key-of-file")).status == 200
        issued = command(tmp_path, "keys", "create", "--project", "design", "--name", "laptop")
        assert issued.startswith("igk_")
        command(tmp_path, "budgets", "set", "--project", "design", "--amount", "0.1", "--window", "month")
        await answered(gateway, issued, 200)
        await answered(gateway, issued, 200)
        refused = await answered(gateway, issued, 429)
        assert refused.error()["code"] == "insufficient_quota"
        assert refused.header("x-should-retry") == "false"
        usage = json.loads(command(tmp_path, "usage", "--by", "key", "--json"))
        assert "laptop" in json.dumps(usage)
        command(tmp_path, "ledger", "verify")
        command(tmp_path, "keys", "disable", "laptop")
        await answered(gateway, issued, 401)
        admin = command(tmp_path, "keys", "create", "--admin", "--name", "root")
        head = {"authorization": f"Bearer {admin}"}
        async with asyncio.timeout(10):
            while (
                found := await ask(gateway.port, request("GET", "/v1/gateway/drawings", None, **head))
            ).status != 200:
                await asyncio.sleep(0.2)
        drawings = found.json()["data"]
        assert [drawing["cost"] for drawing in drawings if drawing["state"] == "settled"].count(0.04) >= 3
        path = f"/v1/gateway/drawings/{drawings[-1]['id']}"
        detail = (await ask(gateway.port, request("GET", path, None, **head))).json()
        assert detail["asked"] == {"size": "64x64", "quality": "low"}
        assert detail["queue_seconds"] is not None
        text = gateway.printed()
        assert "a fox" not in text and issued not in text and admin not in text
