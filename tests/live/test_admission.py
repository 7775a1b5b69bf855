"""The order in which a request is admitted: first known, then read, then held to its key's limits, then drawn."""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from app.access.admission import Admission
from app.access.body_gate import MOST_BODIES, SMALL_BODY
from app.access.keyring import Key
from app.catalog.fitting import Fitted
from app.config.inventory import key_id
from app.errors import Unavailable
from app.images import ImageRequest
from app.ledger.values.drawings import Ticket
from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.pictures import encoded, text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by
from tests.live.wire import ask, line, post, request
from tests.waiting import PATIENCE, until

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


def reading(gateway: Gateway) -> int:
    """The bodies of the key that are being read."""
    found: int = gateway.app.state.runtime.resources.body_gate.reading(key_id("team"))
    return found


def running(gateway: Gateway) -> int:
    """The requests that were admitted and have not ended."""
    found: int = gateway.app.state.runtime.resources.ledger.snapshot().open_drawings
    return found


async def until_idle(gateway: Gateway) -> None:
    await until(lambda: not (running(gateway) or reading(gateway)))


async def test_the_log_line_of_each_request_names_the_key(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    await ask(gateway.port, request("GET", "/v1/models", None, authorization=AUTHORIZATION))
    await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION, x_request_id="one")
    await ask(gateway.port, request("GET", "/v1/images/runs/one", None, authorization=AUTHORIZATION))
    assert [found["key"] for found in await gateway.request_lines(3)] == ["team"] * 3


async def test_a_key_draws_by_its_operations_alone_and_a_refusal_uses_up_nothing(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox, operations=["edits"], requests_per_minute=1))
    for _ in range(3):
        refused = await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)
        assert (refused.status, refused.error()["code"]) == (403, "operation_not_allowed")
        assert refused.header("x-should-retry") == "false"
        assert "its operations are edits" in refused.error()["message"]


async def test_of_a_key_without_places_few_large_bodies_are_read_at_a_time_and_any_number_of_small_ones(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox))
    large = json.dumps(wanted()).encode().ljust(SMALL_BODY + 1)
    head = {"authorization": AUTHORIZATION, "content_type": "application/json"}
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line(gateway.port)) for _ in range(MOST_BODIES)]
        for opened in lines:
            await opened.send(request("POST", GENERATIONS, large, **head)[:-1])
        await until(lambda: reading(gateway) >= MOST_BODIES)
        waiting = asyncio.create_task(ask(gateway.port, request("POST", GENERATIONS, large, **head)))
        small = await asyncio.gather(*(post(gateway.port, GENERATIONS, wanted(str(n)), **head) for n in range(40)))
        assert {reply.status for reply in small} == {200}
        assert not waiting.done()
        for opened in lines:
            await opened.send(large[-1:])
        assert [(await opened.reply()).status for opened in lines] == [200] * MOST_BODIES
        assert (await waiting).status == 200
    await until_idle(gateway)


class SlowAdmission(Admission):
    """As one that asks a database."""

    async def admit(
        self, request_id: str, key: Key, request: ImageRequest, candidates: Sequence[Fitted], model: str | None = None
    ) -> Ticket:
        await asyncio.sleep(0.05)
        return await super().admit(request_id, key, request, candidates, model)


async def test_requests_of_one_name_are_drawn_once_though_all_wait_for_admission(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox))
    runtime = gateway.app.state.runtime
    slow = SlowAdmission(runtime.resources.ledger, time.time, os.urandom)
    gateway.app.state.runtime = replace(runtime, admission=slow)
    head = {"authorization": AUTHORIZATION, "idempotency_key": "once"}
    replies = await asyncio.gather(*(post(gateway.port, GENERATIONS, wanted(), **head) for _ in range(5)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert sum(sandbox.world.journal.drawings.values()) == 1
    await until_idle(gateway)


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
    await until_idle(gateway)
    assert (await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)).status == 200


async def test_a_run_holds_its_place_until_it_has_ended_and_not_while_it_is_only_read(
    start: Start, upstream: Scripted
) -> None:
    drawn = asyncio.Event()
    providers = {"a": provider(upstream.at("a", drawn, answer(image_json(text(encoded())))))}
    keys = [{"name": "team", "key": "the-secret-key-of-team", "max_concurrency": 1}]
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}, "keys": keys})
    drawing = asyncio.create_task(post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION))
    await until(lambda: upstream.received("a"))
    assert (running(gateway), reading(gateway)) == (1, 0)
    invalid = await post(gateway.port, GENERATIONS, wanted(n=99), authorization=AUTHORIZATION)
    assert invalid.status == 400  # it is read, and told what is wrong with it
    assert (await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)).status == 429
    drawn.set()
    assert (await drawing).status == 200
    await until_idle(gateway)


async def test_answers_tell_what_is_left_of_the_limits(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox, requests_per_minute=2))
    first = await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)
    assert (first.status, first.header("x-ratelimit-limit-requests")) == (200, "2")
    assert (first.header("x-ratelimit-remaining-requests"), first.header("x-ratelimit-reset-requests")) == ("1", "30s")
    await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)
    refused = await post(gateway.port, GENERATIONS, wanted(), authorization=AUTHORIZATION)
    assert (refused.status, refused.header("x-ratelimit-remaining-requests")) == (429, "0")
    assert refused.error()["code"] == "rate_limit_exceeded"


async def test_answers_that_use_no_limit_tell_what_is_left_too(
    start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.ledger.GLANCE_SECONDS", PATIENCE)
    gateway = await start(config(sandbox, requests_per_minute=2))
    headers = {"authorization": AUTHORIZATION, "idempotency_key": "again"}
    await post(gateway.port, GENERATIONS, wanted(), **headers)
    replayed = await post(gateway.port, GENERATIONS, wanted(), **headers)
    assert (replayed.status, replayed.header("x-gateway-cost")) == (200, "0.000000")
    assert replayed.header("x-ratelimit-remaining-requests") == "1"
    invalid = await post(gateway.port, GENERATIONS, wanted(n=99), authorization=AUTHORIZATION)
    assert (invalid.status, invalid.header("x-ratelimit-remaining-requests")) == (400, "1")
    other = await post(gateway.port, GENERATIONS, {**wanted(), "model": "nothing"}, authorization=AUTHORIZATION)
    assert (other.status, other.header("x-ratelimit-limit-requests")) == (400, "2")
