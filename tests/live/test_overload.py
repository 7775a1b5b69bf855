"""More callers than places: bounded, fair, answered, and told honestly when to come back."""

import asyncio
import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.sandbox.server import Sandbox
from tests.live.crowds import (
    EDITS,
    Outcome,
    asking,
    assert_said_nothing_odd,
    call,
    drawn_by,
    fault,
    simulated,
    tally,
    together,
)
from tests.live.loops import in_thread
from tests.live.pictures import heavy, text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, Process, process, provider, served_by
from tests.live.wire import form, line, request
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

BATCH, OTHER = "the-key-of-batch", "the-key-of-other"
KEYS = [{"name": "batch", "key": BATCH}, {"name": "other", "key": OTHER}]
MEGABYTE = 1024 * 1024


@asynccontextmanager
async def crowded(sandbox: Sandbox, folder: Path, keys: Any = KEYS, **queue: Any) -> AsyncIterator[Process]:
    """Two places."""
    config: Config = {
        "providers": {"openai": simulated(sandbox.base_url, max_concurrency=2)},
        "models": {"flux": drawn_by("openai")},
        "queue": queue,
        "keys": keys,
    }
    with process(config, folder) as gateway:
        try:
            yield gateway
            assert_said_nothing_odd(gateway)
        finally:
            gateway.process.kill()


def taking(seconds: float, **fields: Any) -> Config:
    return asking(fault(f"slow:{seconds}"), **fields)


async def one_by_one(gateway: Process, count: int, key: str, seconds: float) -> list[asyncio.Task[Outcome]]:
    """Callers in an order that the gateway sees too."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(call(gateway.port, taking(seconds, stream=number % 3 == 0), key=key)))
        await asyncio.sleep(0.005)
    return tasks


@pytest.mark.slow
async def test_keys_take_turns_and_everybody_is_served(sandbox: Sandbox, tmp_path: Path) -> None:
    async with crowded(sandbox, tmp_path, max_length=100, max_seconds=30) as gateway:
        many = await one_by_one(gateway, 30, BATCH, 0.1)
        few = await together(await one_by_one(gateway, 10, OTHER, 0.1))
        served_before = sum(task.done() for task in many)
        outcomes = [*few, *await together(many)]
        assert tally(outcomes) == {"200 images": 40}
        # Turn by turn, so ten and a few that were served first; not all thirty.
        assert served_before < 22, served_before
        assert sandbox.world.journal.drawings["openai"] == 40


@pytest.mark.slow
async def test_who_finds_no_room_is_told_at_once_and_when_to_come_back(sandbox: Sandbox, tmp_path: Path) -> None:
    async with crowded(sandbox, tmp_path, max_length=10, max_seconds=30) as gateway:
        await together(call(gateway.port, taking(0.3), key=BATCH) for _ in range(2))  # how long it takes is known now
        callers = [asyncio.create_task(call(gateway.port, taking(0.3), key=BATCH)) for _ in range(50)]
        done, _ = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
        refused = next(iter(done)).result()
        assert refused.status == 503
        honest = float(refused.header("retry-after") or "nothing")
        assert 1 <= honest <= 5  # ten who wait for 0.3 s each at two places
        await asyncio.sleep(honest + 0.5)
        assert (await call(gateway.port, taking(0.0), key=BATCH)).kind == "images"  # and it was true
        outcomes = await together(callers)
        assert tally(outcomes) == {"200 images": 12, "503 server_is_overloaded": 38}
        told = [each for each in outcomes if each.status == 503]
        assert all(1 <= float(each.header("retry-after") or 0) <= 60 for each in told)
        assert all(each.header("x-should-retry") is None for each in told)  # nothing was drawn: SDKs come back
        assert sandbox.world.journal.drawings["openai"] == 2 + 12 + 1


async def test_nobody_waits_longer_than_the_queue_allows(sandbox: Sandbox, tmp_path: Path) -> None:
    async with crowded(sandbox, tmp_path, max_length=100, max_seconds=0.7) as gateway:
        outcomes = await together(call(gateway.port, taking(0.5), key=BATCH) for _ in range(50))
        counts = tally(outcomes)
        assert set(counts) == {"200 images", "503 server_is_overloaded"}
        assert counts["200 images"] == sandbox.world.journal.drawings["openai"]
        assert counts["200 images"] >= 2
        assert all(1 <= float(each.header("retry-after") or 0) <= 60 for each in outcomes if each.status == 503)
        assert (await call(gateway.port, asking(), key=BATCH)).kind == "images"  # no place was lost


async def test_a_key_that_fills_the_queue_does_not_shut_the_others_out(upstream: Scripted, tmp_path: Path) -> None:
    drawn = asyncio.Event()
    config: Config = {
        "providers": {"a": provider(upstream.at("a", drawn, answer(image_json(text(heavy(1000))))), max_concurrency=2)},
        "models": {"flux": served_by("a")},
        "queue": {"max_length": 10, "max_seconds": 600},
        "keys": KEYS,
    }
    with process(config, tmp_path) as gateway:
        fields = {"model": "flux", "prompt": "x"}
        many = [asyncio.create_task(call(gateway.port, fields, key=BATCH)) for _ in range(30)]
        await until(lambda: sum(task.done() for task in many) == 18, gateway.printed)
        few = [asyncio.create_task(call(gateway.port, fields, key=OTHER)) for _ in range(3)]
        await until(lambda: sum(task.done() for task in many) == 21, gateway.printed)
        drawn.set()
        outcomes = await together(few), await together(many)
        assert_said_nothing_odd(gateway)
        gateway.process.kill()
    assert [found.error or found.images for found in outcomes[0]] == [1] * 3
    assert Counter(found.error or found.images for found in outcomes[1]) == {1: 9, "server_is_overloaded": 21}


@pytest.mark.slow
async def test_who_leaves_the_queue_makes_room(sandbox: Sandbox, tmp_path: Path) -> None:
    async with crowded(sandbox, tmp_path, max_length=10, max_seconds=30) as gateway:
        drawn = await one_by_one(gateway, 2, BATCH, 1.0)
        waiting = await one_by_one(gateway, 10, BATCH, 1.0)
        await until(lambda: sandbox.world.journal.drawings["openai"] == 2, gateway.printed)
        assert (await call(gateway.port, asking(), key=BATCH)).status == 503
        for task in waiting:
            task.cancel()
        await asyncio.sleep(0.3)
        await together([*await one_by_one(gateway, 10, BATCH, 0.0), *drawn])
        assert sandbox.world.journal.drawings["openai"] == 12  # nothing was drawn for those who left


# --- a key's own limits ---


async def test_a_keys_limits_hold_and_to_come_back_for_a_run_costs_none(sandbox: Sandbox, tmp_path: Path) -> None:
    keys = [
        {"name": "batch", "key": BATCH, "max_concurrency": 2},
        {"name": "other", "key": OTHER, "requests_per_minute": 5},
    ]
    async with crowded(sandbox, tmp_path, keys) as gateway:
        outcomes = await together(call(gateway.port, taking(0.5), key=BATCH) for _ in range(20))
        assert tally(outcomes) == {"200 images": 2, "429 rate_limit_exceeded": 18}
        assert {each.header("retry-after") for each in outcomes if each.status == 429} == {"1"}
        assert (await call(gateway.port, asking(), key=BATCH)).kind == "images"

        named = [await call(gateway.port, asking(), key=OTHER, idempotency_key="once") for _ in range(10)]
        assert tally(named) == {"200 images": 10}
        rest = [await call(gateway.port, asking(str(number)), key=OTHER) for number in range(6)]
        assert tally(rest) == {"200 images": 4, "429 rate_limit_exceeded": 2}
        told = float(rest[-1].header("retry-after") or 0)
        assert 1 <= told <= 12  # five a minute: one every twelve seconds
        assert rest[-1].reply and rest[-1].reply.error()["type"] == "requests"
        assert sandbox.world.journal.drawings["openai"] == 2 + 1 + 1 + 4


async def test_a_request_that_is_being_sent_takes_one_of_its_keys_places(sandbox: Sandbox, tmp_path: Path) -> None:
    async with crowded(sandbox, tmp_path, [{"name": "batch", "key": BATCH, "max_concurrency": 1}]) as gateway:
        body = json.dumps(asking()).encode()
        ways: list[dict[str, Any]] = [{}, {"idempotency_key": "once"}, {"x_stainless_retry_count": "1"}]
        for coming_back in ways:
            headers = {"authorization": f"Bearer {BATCH}", "content_type": "application/json", **coming_back}
            async with line(gateway.port) as opened:
                await opened.send(request("POST", "/v1/images/generations", body, **headers)[:-1])
                async with asyncio.timeout(PATIENCE):
                    while (await call(gateway.port, asking(), key=BATCH, **coming_back)).status != 429:
                        pass
                await opened.send(body[-1:])
                assert (await opened.reply()).status == 200


# --- alive all the while ---

PROBE = """
import json, socket, sys, time
port, seconds, times = int(sys.argv[1]), float(sys.argv[2]), []
until = time.monotonic() + seconds
while time.monotonic() < until:
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall(b"GET /healthz HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
        said = b""
        while piece := line.recv(65536):
            said += piece
    assert said.startswith(b"HTTP/1.1 200"), said
    times.append(time.perf_counter() - began)
    time.sleep(0.02)
print(json.dumps(times))
"""


@pytest.fixture(scope="module")
def canned() -> Iterator[Scripted]:
    with in_thread(Scripted) as running:
        yield running


def large_picture() -> bytes:
    """2048×2048, with something to compress in it."""
    out = io.BytesIO()
    noise = Image.effect_noise((512, 512), 60).resize((2048, 2048))
    Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180))).save(out, "PNG", compress_level=1)
    return out.getvalue()


async def probed(port: int, seconds: float) -> list[float]:
    """How long /healthz took each time, asked by a process of its own; sorted."""
    command = [sys.executable, "-c", PROBE, str(port), str(seconds)]
    probe = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert probe.returncode == 0, probe.stderr
    return sorted(json.loads(probe.stdout))


@pytest.mark.slow
async def test_it_says_that_it_is_alive_while_everything_is_busy(canned: Scripted, tmp_path: Path) -> None:
    """Places and queue full, pictures converted, and 40 MB uploaded at a time."""
    base = canned.base_url
    canned.at("large", answer(image_json(text(large_picture()))))
    canned.at("small", answer(image_json(text(heavy(1000)))))
    canned.at("slow", 1.0, answer(image_json(text(heavy(1000)))))
    config: Config = {
        "providers": {
            "large": provider(f"{base}/large/v1"),
            "small": provider(f"{base}/small/v1"),
            "slow": provider(f"{base}/slow/v1", max_concurrency=2),
        },
        "models": {
            "large": served_by("large", profile={"output_formats": ["png"], "parameters": ["n", "size"]}),
            "small": served_by("small"),
            "slow": served_by("slow"),
        },
        "queue": {"max_length": 20, "max_seconds": 1},
        "server": {"max_upload_mb": 50},
    }
    upload, over = heavy(40 * MEGABYTE), time.monotonic() + 4
    content_type, body = form(("image", ("a.png", upload)), ("model", "small"), ("prompt", "x"))

    async def again(*arguments: Any, **more: Any) -> list[Outcome]:
        found = []
        while time.monotonic() < over:
            found.append(await call(*arguments, **more))
        return found

    with process(config, tmp_path) as gateway:
        port = gateway.port
        convert = {"model": "large", "prompt": "x", "output_format": "webp"}
        probing = asyncio.create_task(probed(port, 4))
        busy = await together(
            [
                *(again(port, convert) for _ in range(3)),
                *(again(port, body, EDITS, content_type=content_type) for _ in range(2)),
                *(again(port, {"model": "slow", "prompt": "x"}) for _ in range(25)),
            ]
        )
        times = await probing
        converted, uploaded = busy[:3], busy[3:5]
        gateway.process.kill()
    for found in (*converted, *uploaded):
        assert set(tally(found)) == {"200 images"}
    assert len(times) > 20
    median, nearly_all = times[len(times) // 2], times[len(times) * 9 // 10]
    assert median < 0.5, times[-20:]  # seconds, each of them, if pictures were converted in the loop
    assert nearly_all < 3, times[-20:]
