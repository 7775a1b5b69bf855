"""The order in which a request is admitted: first known, then read, then held to its key's limits, then drawn."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from app.access.admission import Admission, Ticket
from app.access.keyring import Key
from app.access.limits import MOST_BODIES, SMALL_BODY, KeyUsage
from app.catalog.fitting import Fitted
from app.errors import Unavailable
from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.servers import Config, Gateway, sandbox_providers
from tests.live.wire import ask, line, post, request

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"
AUTHORIZATION = "Bearer the-secret-key-of-team"


def config(sandbox: Sandbox, **limits: Any) -> Config:
    return {
        "providers": sandbox_providers(sandbox.base_url),
        "models": {"flux": {"deployments": [{"provider": "nebula", "model": "black-forest-labs/FLUX.1-schnell"}]}},
        "keys": [{"name": "team", "key": "the-secret-key-of-team", **limits}],
    }


def wanted(prompt: str = "a red fox", **fields: Any) -> dict[str, Any]:
    return {"model": "flux", "prompt": prompt, "size": "64x64", **fields}


def usage(gateway: Gateway) -> KeyUsage:
    found: KeyUsage = gateway.app.state.runtime.resources.limits.snapshot().get("team", KeyUsage(running=0, reading=0))
    return found


async def test_the_log_line_of_each_request_names_the_key(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    await ask(gateway.port, request("GET", "/v1/models", None, authorization=AUTHORIZATION))
    await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION, x_request_id="one")
    await ask(gateway.port, request("GET", "/v1/images/runs/one", None, authorization=AUTHORIZATION))
    assert [found["key"] for found in await gateway.request_lines(3)] == ["team"] * 3


async def test_a_key_without_places_may_send_few_large_bodies_and_any_number_of_small_ones(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox))
    large = json.dumps(wanted()).encode().ljust(SMALL_BODY + 1)
    head = {"authorization": AUTHORIZATION, "content_type": "application/json"}
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line(gateway.port)) for _ in range(MOST_BODIES)]
        for opened in lines:
            await opened.send(request("POST", GENERATIONS, large, **head)[:-1])
        async with asyncio.timeout(5):
            while usage(gateway).reading < MOST_BODIES:
                await asyncio.sleep(0.005)
        refused = await ask(gateway.port, request("POST", GENERATIONS, large, **head))
        assert (refused.status, refused.error()["code"]) == (429, "rate_limit_exceeded")
        assert refused.header("retry-after") == "1"
        small = await asyncio.gather(*(post(gateway.port, GENERATIONS, wanted(str(n)), **head) for n in range(40)))
        assert {reply.status for reply in small} == {200}
        for opened in lines:
            await opened.send(large[-1:])
        assert [(await opened.reply()).status for opened in lines] == [200] * MOST_BODIES
    assert usage(gateway) == KeyUsage(running=0, reading=0)


class SlowAdmission(Admission):
    """As one that asks a database."""

    async def admit(self, key: Key, candidates: Sequence[Fitted], n: int) -> Ticket:
        await asyncio.sleep(0.05)
        return await super().admit(key, candidates, n)


async def test_requests_of_one_name_are_drawn_once_though_all_wait_for_admission(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox))
    runtime = gateway.app.state.runtime
    slow = SlowAdmission(runtime.resources.limits, lambda: 0.0)
    gateway.app.state.runtime = replace(runtime, admission=slow)
    head = {"authorization": AUTHORIZATION, "idempotency_key": "once"}
    replies = await asyncio.gather(*(post(gateway.port, GENERATIONS, wanted(), **head) for _ in range(5)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert sum(sandbox.world.journal.drawings.values()) == 1
    assert usage(gateway) == KeyUsage(running=0, reading=0)


async def test_a_request_for_which_there_is_no_room_gives_its_place_back(
    start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise Unavailable("There is no room.", code="no_room")

    gateway = await start(config(sandbox, max_concurrency=1))
    with monkeypatch.context() as patched:
        patched.setattr(gateway.app.state.runtime.resources.retention, "make_room", refuse)
        for _ in range(2):
            reply = await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)
            assert (reply.status, reply.error()["code"]) == (503, "no_room")
    assert usage(gateway) == KeyUsage(running=0, reading=0)
    assert (await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)).status == 200


async def test_a_run_holds_its_place_until_it_has_ended_and_not_while_it_is_only_read(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox, max_concurrency=1))
    drawing = asyncio.create_task(
        post(gateway.port, GENERATIONS, wanted("a fox [[fault:slow:0.3]]"), authorization=AUTHORIZATION)
    )
    async with asyncio.timeout(5):
        while not sandbox.world.journal.last(1):
            await asyncio.sleep(0.005)
    assert usage(gateway) == KeyUsage(running=1, reading=0)
    invalid = await post(gateway.port, GENERATIONS, wanted(n=99), authorization=AUTHORIZATION)
    assert invalid.status == 400  # it is read, and told what is wrong with it
    assert (await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)).status == 429
    assert (await drawing).status == 200
    assert usage(gateway) == KeyUsage(running=0, reading=0)
