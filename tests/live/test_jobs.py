"""Jobs of a provider that is polled, and a gateway process that is killed meanwhile."""

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.sandbox.server import Sandbox
from tests.live.loops import in_thread
from tests.live.servers import Config, Process, process, sandbox_providers
from tests.live.test_runs import GENERATIONS, asking, drawings, only, run_of
from tests.live.wire import Reply, ask, post, request
from tests.waiting import until

pytestmark = pytest.mark.slow

MODELS: Config = {"flux": {"deployments": [{"provider": "bfl", "model": "flux-2-pro"}]}}
PENDING = 4  # status calls: some seconds, as the pauses between them grow


def fields(**more: Any) -> dict[str, Any]:
    prompt = f"a red fox [[fault@bfl:pending:{PENDING}]]"
    return {"model": "flux", "prompt": prompt, "size": "256x256", **more}


def config(sandbox: Sandbox) -> Config:
    return {"providers": {"bfl": sandbox_providers(sandbox.base_url)["bfl"]}, "models": MODELS}


def book(folder: Path) -> list[Any]:
    """The drawings that the ledger has; the preset states the price."""
    sql = "select state, outcome, cost_nano, in_doubt_nano, held_nano, images from drawing order by id"
    with closing(sqlite3.connect(folder / "data" / "gateway.db")) as db:
        return db.execute(sql).fetchall()


def noted(folder: Path) -> bool:
    """True if a note of a run holds a job."""
    return any(b"polling_url" in file.read_bytes() for file in (folder / "data" / "runs").glob("*.sent"))


def stop_while_pending(
    sandbox: Sandbox, folder: Path, end: signal.Signals, drain_seconds: float = 30, **more: Any
) -> None:
    """Ask for an image, and end the gateway when its job is known on disk."""

    async def leave(port: int, running: Process) -> None:
        headers = {"x_request_id": "one", **more.pop("headers", {})}
        async with asking(port, fields(**more), **headers):
            await until(lambda: noted(folder))
            os.kill(running.process.pid, end)

    with process({**config(sandbox), "server": {"drain_seconds": drain_seconds}}, folder) as first:
        asyncio.run(leave(first.port, first))
        first.process.wait(20)


@pytest.mark.parametrize("named", [True, False], ids=["idempotency key", "request id alone"])
def test_the_image_of_a_job_outlives_a_killed_process(tmp_path: Path, named: bool) -> None:
    headers = {"idempotency_key": "k"} if named else {}
    with in_thread(Sandbox) as sandbox:
        stop_while_pending(sandbox, tmp_path, signal.SIGKILL, headers=headers)
        with process(config(sandbox), tmp_path) as second:

            async def come_back() -> list[Reply]:
                found = [await run_of(second.port, "one")]
                if named:
                    found.append(await post(second.port, GENERATIONS, fields(), idempotency_key="k"))
                return found

            images = [only(reply) for reply in asyncio.run(come_back())]
        assert len(set(images)) == 1
        assert drawings(sandbox) == 1
        assert book(tmp_path)[0] == ("settled", "delivered", 30_000_000, 0, 0, 1)
        assert [row[1] for row in book(tmp_path)[1:]] == ["joined"] * named  # the first one got what was owed


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_caller_that_wanted_a_link_gets_one_after_the_restart(tmp_path: Path, end: signal.Signals) -> None:
    with in_thread(Sandbox) as sandbox:
        stop_while_pending(sandbox, tmp_path, end, drain_seconds=0.2, response_format="url")
        with process(config(sandbox), tmp_path) as second:
            reply = asyncio.run(run_of(second.port, "one"))
            link = urlsplit(reply.json()["data"][0]["url"])
            image = asyncio.run(ask(second.port, request("GET", f"{link.path}?{link.query}")))
        assert (image.status, image.header("content-type")) == (200, "image/jpeg")
        assert drawings(sandbox) == 1
        assert book(tmp_path) == [("settled", "delivered", 30_000_000, 0, 0, 1)]
