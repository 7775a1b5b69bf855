"""What requests hold in memory while they wait, and what they leave behind: a failure whose frames stay alive keeps the
pieces of images in them."""

import asyncio
import gc
import json
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from app.server.protocol import Protocol
from tests.live.conftest import Start
from tests.live.crowds import (
    GENERATIONS,
    asking,
    call,
    drawn_by,
    fault,
    holdings,
    simulated,
    together,
)
from tests.live.house import GPT_IMAGE_2
from tests.live.loops import in_thread
from tests.live.pictures import encoded, text
from tests.live.scripted import End, Scripted, answer, image_json
from tests.live.servers import Config, process, provider, sandbox_providers, served_by, serving
from tests.live.wire import Line, line, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024
APP = str(Path(__file__).parents[2] / "app") + "/"


def ours(objects: list[Any]) -> Counter[str]:
    """The frames of the gateway's code among them. The sandbox runs in the same process and does not count."""
    files = [each.f_code.co_filename for each in objects if isinstance(each, FrameType)]
    return Counter(name.removeprefix(APP) for name in files if name.startswith(APP) and "/sandbox/" not in name)


MISHAPS = ("500", "moderation", "failed200", "html200", "cut", "reset", "truncated_image", "badbase64")


@pytest.mark.parametrize("mishap", MISHAPS)
async def test_a_failed_request_leaves_no_frames(tmp_path: Path, mishap: str) -> None:
    with in_thread(Sandbox) as sandbox:
        config = {
            "providers": {"openai": simulated(sandbox.base_url, "openai")},
            "models": {"gpt": {**drawn_by("openai"), "profile": GPT_IMAGE_2}},
        }
        async with serving(config, tmp_path) as gateway:
            gc.collect()
            before = ours(gc.get_objects())  # what other tests of this process have left
            outcome = await call(gateway.port, asking(fault(mishap), "gpt"))
            assert outcome.kind != "images"
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await call(gateway.port, asking(fault(mishap), "gpt"))
                kept = ours(gc.get_objects()) - before
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                garbage = ours(gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            assert not garbage
            # The failed runs are known for a while; what is at work here is the watch over the store.
            assert sum(kept.values()) < 3, kept


# --- what waits ---


async def test_an_idle_connection_keeps_nothing_of_the_request_that_it_answered(start: Start, sandbox: Sandbox) -> None:
    gateway = await start({"providers": sandbox_providers(sandbox.base_url)})
    async with line(gateway.port) as opened:
        await opened.send(request("GET", "/healthz"))
        assert (await opened.reply()).status == 200
        [connection] = gateway.state.connections
        assert isinstance(connection, Protocol)
        assert connection.is_between
        assert [what for what in (connection.cycle, connection.scope, connection.headers) if what is not None] == []


@pytest.fixture
def files() -> Iterator[int]:
    """How many files this process may open: as many as the system allows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def drawing(upstream: Scripted) -> Config:
    """`flux` is drawn, `never` is not."""
    drawn, hanging = upstream.at("drawn", answer(image_json(text(encoded())))), upstream.at("hanging", End.HANG)
    return {
        "providers": {"drawn": provider(drawn), "hanging": provider(hanging)},
        "models": {"flux": served_by("drawn"), "never": served_by("hanging")},
    }


def asked(model: str, number: int) -> bytes:
    """As the SDKs ask."""
    headers = {"content_type": "application/json", "accept": "application/json", "user_agent": "OpenAI/Python 3.54.0"}
    headers |= {f"x_stainless_{name}": "unknown" for name in ("arch", "async", "lang", "os", "package_version")}
    body = json.dumps({**asking("a red fox", model), "stream": number % 2 == 0}).encode()
    return request("POST", GENERATIONS, body, **headers)


@pytest.mark.slow
async def test_ten_thousand_idle_connections_take_150_mib_at_most(
    upstream: Scripted, files: int, tmp_path: Path
) -> None:
    """Each has had an answer. Where the system allows fewer files, fewer connections take as much each."""
    opened: list[asyncio.StreamWriter] = []

    async def idle(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=8192)
        opened.append(writer)
        writer.write(asked("flux", number))
        assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"

    with process(drawing(upstream), tmp_path) as gateway:
        try:
            await together(idle(number) for number in range(100))
            before = holdings(gateway)
            for _ in range(min(10_000, files - 500) // 100 - 1):
                await together(idle(number) for number in range(100))
            after = holdings(gateway)
        finally:
            for writer in opened:
                writer.transport.abort()
        assert after.memory - before.memory < 150 * MEGABYTE * (after.sockets - before.sockets) / 10_000, after
        gateway.process.kill()


@pytest.mark.slow
async def test_a_thousand_requests_that_wait_for_a_provider_take_64_mib_at_most(
    upstream: Scripted, files: int, tmp_path: Path
) -> None:
    async with AsyncExitStack() as lines:

        async def ask(model: str, number: int) -> Line:
            opened = await lines.enter_async_context(line(gateway.port))
            await opened.send(asked(model, number))
            return opened

        with process(drawing(upstream), tmp_path) as gateway:
            for number in range(100):
                assert (await (await ask("flux", number)).head()).status == 200
            before = gateway.memory("VmRSS")
            for number in range(1_000):
                await ask("never", number)
            await until(lambda: len(upstream.received("hanging")) == 1_000, gateway.printed)
            assert gateway.memory("VmRSS") - before < 64 * MEGABYTE
            gateway.process.kill()
