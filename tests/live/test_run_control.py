"""A run's status and its cancellation, for whoever owns it."""

import asyncio
import json
from typing import Any

import pytest

from app.access.keyring import ANONYMOUS
from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.scripted import End, Scripted
from tests.live.servers import served_by
from tests.live.test_runs import asking, generation, run_of, scripted, simulated, wanted
from tests.live.wire import Reply, ask, request
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio


async def status_of(port: int, id: str, **headers: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await run_of(port, f"{id}/status", **headers)).body)
    return found


async def cancel(port: int, id: str) -> Reply:
    return await ask(port, request("POST", f"/v1/images/runs/{id}/cancel", b""))


async def test_the_status_of_a_run_does_not_wait_for_it(start: Start, upstream: Scripted) -> None:
    upstream.at("a", End.HANG)
    gateway = await start(scripted(upstream))
    async with asking(gateway.port, wanted(), x_request_id="fox"):
        await until(lambda: upstream.received("a"))
        status = await status_of(gateway.port, "fox")
        assert (status["state"], status["paid"], status["model"], status["n"], status["attempts"]) == (
            "drawing", "perhaps", "flux", 1, 1,
        )  # fmt: skip
        assert status["error"] is None
        assert (status["place"], status["cost"], status["cost_at_most"]) == (None, None, None)
        assert (await cancel(gateway.port, "fox")).status == 200


async def test_a_finished_run_is_paid_for(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    assert (await ask(gateway.port, generation(wanted(), x_request_id="fox"))).status == 200
    status = await status_of(gateway.port, "fox")
    assert (status["state"], status["paid"]) == ("finished", "yes")
    assert (status["place"], status["cost"], status["cost_at_most"], status["currency"]) == (None, 0.019, 0.019, "USD")
    assert status["typical_seconds"] is not None
    late = json.loads((await cancel(gateway.port, "fox")).body)
    assert (late["state"], late["cancelled"]) == ("finished", False)


async def test_a_run_that_failed_is_paid_for_if_some_of_its_images_were_drawn(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(n=3, prompt="foxes [[fault*1:422]]")
    assert (await ask(gateway.port, generation(fields, x_request_id="fox"))).status == 422
    late = json.loads((await cancel(gateway.port, "fox")).body)
    assert late["cancelled"] is False
    for told in (await status_of(gateway.port, "fox"), late):
        assert (told["state"], told["paid"], told["cost"], told["cost_in_doubt"]) == ("failed", "yes", 0.038, 0)
    run = gateway.app.state.runtime.resources.retention.get("fox", ANONYMOUS).run
    run.call.account = None  # as if an earlier process had begun it
    told = await status_of(gateway.port, "fox")
    assert (told["paid"], told["cost"], told["cost_at_most"]) == ("yes", 0.038, None)


async def test_a_cancelled_run_tells_whether_it_may_be_paid(start: Start, upstream: Scripted) -> None:
    upstream.at("a", End.HANG)
    config = scripted(upstream)
    config["models"]["flux"]["profile"] = {"price": 0.04}
    gateway = await start(config)
    async with asking(gateway.port, wanted(), x_request_id="fox") as caller:
        await until(lambda: upstream.received("a"))
        told = json.loads((await cancel(gateway.port, "fox")).body)
        assert (told["cancelled"], told["state"], told["paid"]) == (True, "perhaps_paid", "perhaps")
        assert told["error"]["code"] == "run_cancelled"
        assert (told["cost"], told["cost_in_doubt"], told["cost_at_most"]) == (0.0, 0.04, 0.04)
        refused = await caller.reply()
    assert refused.status == 409
    assert refused.header("x-should-retry") == "false"


async def test_a_run_that_still_waits_is_cancelled_for_nothing(start: Start, upstream: Scripted) -> None:
    upstream.at("a", End.HANG)
    config = scripted(upstream)
    config["providers"]["a"]["max_concurrency"] = 1
    config["models"] = {"flux": served_by("a")}
    gateway = await start(config)
    async with asking(gateway.port, wanted(), x_request_id="first"):
        await until(lambda: upstream.received("a"))
        async with asking(gateway.port, wanted(prompt="an owl"), x_request_id="second") as caller:
            while (await run_of(gateway.port, "second/status")).status != 200:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(PATIENCE):
                while (status := await status_of(gateway.port, "second"))["place"] is None:
                    await asyncio.sleep(0.01)
            assert (status["state"], status["place"]) == ("waiting", 1)
            told = json.loads((await cancel(gateway.port, "second")).body)
            assert (told["cancelled"], told["paid"]) == (True, "no")
            assert (await caller.reply()).status == 409
        await cancel(gateway.port, "first")


async def test_the_status_of_a_run_that_is_not_there_is_404(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    assert (await run_of(gateway.port, "nothing/status")).status == 404
    assert (await cancel(gateway.port, "nothing")).status == 404
