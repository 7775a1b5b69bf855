"""The end of a process, asked for or not: drawings under way are delivered or refused, and load balancers are told."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.crowds import (
    EDITS,
    GENERATIONS,
    Outcome,
    asking,
    assert_said_nothing_odd,
    call,
    drawn_by,
    fault,
    get,
    gone,
    judged,
    ready,
    simulated,
    tally,
    together,
)
from tests.live.servers import Config, Process, process
from tests.live.wire import line, request
from tests.waiting import until

pytestmark = pytest.mark.anyio


def configured(sandbox: Sandbox, **server: Any) -> Config:
    return {
        "providers": {"openai": simulated(sandbox.base_url)},
        "models": {"flux": drawn_by("openai")},
        "server": server,
    }


async def drawing(sandbox: Sandbox, count: int) -> None:
    """Until so many pictures were drawn upstream, which the faults then hold back."""
    await until(lambda: sandbox.world.journal.drawings["openai"] >= count, lambda: sandbox.world.journal.drawings)


def terminate(gateway: Process) -> None:
    gateway.process.send_signal(signal.SIGTERM)


async def seen_from_outside(gateway: Process) -> list[int | None]:
    """What /readyz says until nobody listens any more."""
    seen: list[int | None] = []
    while not seen or seen[-1] is not None:
        seen.append(await ready(gateway.port))
        await asyncio.sleep(0.02)
    return seen


@pytest.mark.slow
async def test_told_to_end_it_finishes_what_is_drawn_and_is_unready_before_it_stops_listening(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with process(configured(sandbox), tmp_path, notice=4) as gateway:
        streams = [number % 2 == 0 for number in range(20)]
        callers = [
            asyncio.create_task(call(gateway.port, asking(fault("slow:5"), stream=stream))) for stream in streams
        ]
        await drawing(sandbox, 20)
        terminate(gateway)
        watching = asyncio.create_task(seen_from_outside(gateway))
        await until(lambda: sandbox.world.journal.drawings["openai"] >= 20)
        late = await call(gateway.port, asking("who comes within the time of notice"))
        seen = await watching
        assert late.kind == "images"
        assert 503 in seen, seen  # load balancers could see it
        assert set(seen[seen.index(503) :]) == {503, None}
        assert tally(await together(callers)) == {"200 images": 20}
        assert await gone(gateway) in (0, -signal.SIGTERM)
        assert sandbox.world.journal.drawings["openai"] == 21
        assert_said_nothing_odd(gateway)


@pytest.mark.slow
async def test_what_is_not_drawn_in_time_is_refused_and_never_looks_like_an_answer(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    server = {"drain_seconds": 0.5, "keepalive_seconds": 0.2, "json_keepalive_after": 5.0}
    config = configured(sandbox, **server)
    with process(config, tmp_path, notice=2) as gateway:
        port, slow = gateway.port, fault("slow:30")
        early = [asyncio.create_task(call(port, asking(slow))) for _ in range(4)]  # white space was sent to them
        streams = [asyncio.create_task(call(port, asking(slow, stream=True))) for _ in range(4)]
        await drawing(sandbox, 8)
        await asyncio.sleep(6.5)
        terminate(gateway)
        while await ready(port) != 503:
            await asyncio.sleep(0.02)
        late = [asyncio.create_task(call(port, asking(slow))) for _ in range(4)]
        assert tally(await together(late)) == {"503 shutting_down": 4}
        assert tally(await together(streams)) == {"200 shutting_down": 4}
        assert tally(await together(early)) == {"200 broken": 4}
        assert {(await each).header("x-should-retry") for each in late} == {"false"}  # they may be paid for
        assert await gone(gateway) in (0, -signal.SIGTERM)
        assert_said_nothing_odd(gateway)


@pytest.mark.slow
async def test_who_waits_in_the_queue_when_it_ends_is_refused_unpaid(sandbox: Sandbox, tmp_path: Path) -> None:
    config = configured(sandbox, drain_seconds=0.5)
    config["providers"]["openai"]["max_concurrency"] = 1
    with process(config, tmp_path) as gateway:
        callers = [asyncio.create_task(call(gateway.port, asking(fault("slow:30")))) for _ in range(5)]
        await drawing(sandbox, 1)
        terminate(gateway)
        outcomes = await together(callers)
        assert tally(outcomes) == {"503 shutting_down": 5}
        # The one that was drawn may be paid for; the others are welcome at another gateway.
        assert sorted(str(each.header("x-should-retry")) for each in outcomes) == ["None"] * 4 + ["false"]
        assert sandbox.world.journal.drawings["openai"] == 1
        assert await gone(gateway) in (0, -signal.SIGTERM)
        assert_said_nothing_odd(gateway)


@pytest.mark.slow
async def test_who_never_stops_sending_or_never_reads_does_not_hold_up_the_end(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with process(configured(sandbox, drain_seconds=0), tmp_path) as gateway:
        async with line(gateway.port) as sending, line(gateway.port, limit=4096) as receiving:
            form = "multipart/form-data; boundary=b"
            await sending.send(request("POST", EDITS, content_type=form, content_length="100000"), b"--b\r\n")
            body = json.dumps(asking(size="2048x2048")).encode()
            await receiving.send(request("POST", GENERATIONS, body, content_type="application/json"))
            assert (await receiving.head()).status == 200
            terminate(gateway)
            assert await gone(gateway) in (0, -signal.SIGTERM)
        assert_said_nothing_odd(gateway)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_what_nobody_fetched_is_there_after_a_restart(
    sandbox: Sandbox, tmp_path: Path, end: signal.Signals
) -> None:
    config = configured(sandbox)
    body = asking(fault("slow:0.4"))
    with process(config, tmp_path) as gateway:
        leaving = asyncio.create_task(call(gateway.port, body, x_request_id="the-lost-one"))
        await drawing(sandbox, 1)
        leaving.cancel()
        await until(lambda: list((tmp_path / "data" / "runs").glob("*.run")), gateway.printed)
        gateway.process.send_signal(end)
        await gone(gateway)
    with process(config, tmp_path) as gateway:
        reply = await get(gateway.port, "/v1/images/runs/the-lost-one")
        assert judged(reply, 1) == (1, None)
        again = await call(gateway.port, body, x_stainless_retry_count="1")  # it was delivered, so this one is new
        assert again.kind == "images"
        assert sandbox.world.journal.drawings["openai"] == 2


class Balanced:
    """Gateways behind a client that asks each for /readyz every 100 ms and uses those that are."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.ready: list[str] = []
        self._turn = 0

    async def watch(self) -> None:
        while True:
            self.ready = [name for name, port in list(self.ports.items()) if await ready(port) == 200]
            await asyncio.sleep(0.1)

    async def ask(self, number: int) -> Outcome:
        while not self.ready:
            await asyncio.sleep(0.02)
        self._turn += 1
        name = self.ready[self._turn % len(self.ready)]
        return await call(self.ports[name], asking(f"{number} {fault('slow:0.2')}", stream=number % 3 == 0))


@pytest.mark.slow
async def test_a_rolling_restart_fails_nobody(sandbox: Sandbox, tmp_path: Path) -> None:
    config, balanced = configured(sandbox), Balanced()
    outcomes: list[Outcome] = []
    rolled = asyncio.Event()
    folders = [tmp_path / name for name in ("one", "other")]

    async def worker(number: int) -> None:
        while not rolled.is_set() or len(outcomes) < 300:
            outcomes.append(await balanced.ask(number))

    def begin(folder: Path) -> Any:
        folder.mkdir(exist_ok=True)
        manager = process(config, folder, notice=1)
        return manager, manager.__enter__()

    running = {folder: await asyncio.to_thread(begin, folder) for folder in folders}
    balanced.ports = {folder.name: gateway.port for folder, (_, gateway) in running.items()}
    watching = asyncio.create_task(balanced.watch())
    workers = [asyncio.create_task(worker(number)) for number in range(8)]
    try:
        for folder in folders:
            manager, gateway = running[folder]
            terminate(gateway)
            assert await gone(gateway) in (0, -signal.SIGTERM)
            assert_said_nothing_odd(gateway)
            manager.__exit__(None, None, None)
            running[folder] = await asyncio.to_thread(begin, folder)
            balanced.ports[folder.name] = running[folder][1].port
            await until(lambda: len(balanced.ready) == 2, lambda: balanced.ready)
        rolled.set()
        await together(workers)
    finally:
        watching.cancel()
        for manager, gateway in running.values():
            gateway.process.kill()
            manager.__exit__(None, None, None)
    assert len(outcomes) >= 300
    assert set(tally(outcomes)) == {"200 images"}, tally(outcomes)
