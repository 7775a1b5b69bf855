"""Starting, stopping, and keeping out of the rest of the process."""

import asyncio
import logging
import re
import signal
import sys
import time

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

BODY = {"model": "gpt-image-2", "prompt": "a fox", "size": "64x64"}
HEADERS = {"authorization": "Bearer x"}
PATH = "/openai/v1/images/generations"


async def test_it_leaves_signals_and_logging_to_the_process_it_runs_in() -> None:
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
    before = [(logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    async with Sandbox():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
        assert [(logger.level, logger.handlers, logger.propagate) for logger in loggers] == before


@pytest.mark.parametrize("fault", ["slow:30", "stall:30", "dribble:1", "endless", "gzipbomb:100000"])
async def test_it_stops_at_once_whatever_it_is_doing(caplog: pytest.LogCaptureFixture, fault: str) -> None:
    async with Sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as client:
        headers = {**HEADERS, "x-sandbox-fault": fault}
        asking = asyncio.create_task(client.post(PATH, json=BODY, headers=headers, timeout=30))
        await until(lambda: sandbox.world.journal.drawings["openai"])
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await sandbox.__aexit__(None, None, None)
        assert time.monotonic() - started < 20  # what it was doing takes longer
        with pytest.raises(httpx.TransportError):
            await asking
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_two_of_them_know_nothing_of_each_other() -> None:
    async with Sandbox() as one, Sandbox() as other, httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
        assert one.base_url != other.base_url
        assert (await client.post(f"{one.base_url}{PATH}", json=BODY)).status_code == 200
        assert (one.world.journal.drawings["openai"], other.world.journal.drawings["openai"]) == (1, 0)


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with Sandbox() as sandbox:
        with pytest.raises(OSError, match="in use"):
            await Sandbox(port=int(sandbox.base_url.rpartition(":")[2])).__aenter__()


async def test_a_drawing_takes_as_long_as_was_said_and_the_loop_stays_free() -> None:
    async with Sandbox(seconds_per_drawing=1) as sandbox:
        async with httpx.AsyncClient(base_url=sandbox.base_url, headers=HEADERS, trust_env=False) as client:
            started = time.monotonic()
            answers = await asyncio.gather(*(client.post(PATH, json=BODY) for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert 1 <= time.monotonic() - started < 5  # one after the other


async def test_it_can_be_started_by_itself() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.sandbox", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        address = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
            assert (await client.get(f"{address}/control/drawings")).json()["openai"] == 0
    finally:
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
