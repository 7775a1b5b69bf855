"""Runs: callers who leave and come back, and what is left of a paid drawing in the meantime."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.loops import dead_port, in_thread
from tests.live.pictures import encoded, heavy, text
from tests.live.scripted import End, Scripted, answer, head, image_json
from tests.live.servers import Config, Gateway, process, provider, sandbox_providers, served_by
from tests.live.wire import Line, Reply, ask, events, form, generate, line, post, request
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PNG = text(encoded())
RETRY = {"x_stainless_retry_count": "1"}
MODELS: Config = {
    "flux": {"deployments": [{"provider": "nebula", "model": "black-forest-labs/FLUX.1-schnell"}]},
    "gpt": {
        "deployments": [{"provider": "openai", "model": "gpt-image-2"}],
        "profile": {"operations": ["generations", "edits"], "streaming": True, "max_n": 10},
    },
}


def simulated(sandbox: Sandbox, **sections: Any) -> Config:
    return {"providers": sandbox_providers(sandbox.base_url), "models": MODELS, **sections}


def scripted(upstream: Scripted, name: str = "a", **sections: Any) -> Config:
    """One model, `flux`, drawn by the script of that name."""
    base_url = f"{upstream.base_url}/{name}/v1"
    providers = {name: provider(base_url, timeout={"read": 30})}
    return {"providers": providers, "models": {"flux": served_by(name)}, **sections}


def wanted(**fields: Any) -> dict[str, Any]:
    return {"model": "flux", "prompt": "a red fox", "size": "64x64", **fields}


def generation(fields: dict[str, Any], **headers: str) -> bytes:
    return request("POST", GENERATIONS, json.dumps(fields).encode(), content_type="application/json", **headers)


def without_cost(reply: Reply) -> bytes:
    """The body, but for what an image costs: an answer from an existing run costs nothing."""
    return re.sub(rb'"cost":[0-9.]+', b'"cost":0', reply.body)


async def run_of(port: int, id: str, **headers: str) -> Reply:
    return await ask(port, request("GET", f"/v1/images/runs/{id}", None, **headers))


@asynccontextmanager
async def asking(port: int, fields: dict[str, Any], limit: int = 65_536, /, **headers: str) -> AsyncIterator[Line]:
    """Who leaves at the end of the block, and reads `limit` bytes ahead."""
    async with line(port, limit=limit) as opened:
        await opened.send(generation(fields, **headers))
        yield opened


def drawings(sandbox: Sandbox) -> int:
    return sum(sandbox.world.journal.drawings.values())


def asked(sandbox: Sandbox) -> int:
    return len(sandbox.world.journal.last(200))


def only(reply: Reply) -> str:
    """The one image of an answer in JSON."""
    assert reply.status == 200 and reply.complete, reply
    [image] = reply.json()["data"]
    found: str = image["b64_json"]
    return found


# --- coming back ---


async def test_who_leaves_while_it_is_drawn_and_retries_joins_the_same_drawing(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(prompt="a fox [[fault:slow:0.5]]")
    async with asking(gateway.port, fields):
        await until(lambda: asked(sandbox))
    reply = await post(gateway.port, GENERATIONS, fields, **RETRY)
    assert only(reply)
    assert (drawings(sandbox), asked(sandbox)) == (1, 1)
    fresh = await post(gateway.port, GENERATIONS, fields)  # not a retry, and the other one was delivered
    assert only(fresh)
    assert drawings(sandbox) == 2


async def test_a_retry_after_the_drawing_has_ended_gets_it(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(prompt="a fox [[fault:slow:0.2]]")
    async with asking(gateway.port, fields):
        await until(lambda: asked(sandbox))
    await gateway.request_lines(1)
    first = await post(gateway.port, GENERATIONS, fields, **RETRY)
    assert only(first)
    assert drawings(sandbox) == 1
    second = await post(gateway.port, GENERATIONS, fields, x_stainless_retry_count="2")
    assert only(second)
    assert drawings(sandbox) == 2  # the first was delivered


async def test_a_retry_of_an_upload_joins_although_its_boundary_is_another(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    parts = (("model", "gpt"), ("prompt", "a fox [[fault:slow:0.4]]"), ("image", ("a.png", heavy(MEGABYTE))))
    content_type, body = form(*parts)
    async with line(gateway.port) as opened:
        await opened.send(request("POST", EDITS, body, content_type=content_type))
        await until(lambda: asked(sandbox))
    body, content_type = body.replace(b"a-boundary", b"another"), content_type.replace("a-boundary", "another")
    other = body.replace(b"fault:slow:0.4", b"fault:slow:0.0")
    reply = await ask(gateway.port, request("POST", EDITS, body, content_type=content_type, **RETRY))
    assert only(reply)
    assert drawings(sandbox) == 1
    assert only(await ask(gateway.port, request("POST", EDITS, other, content_type=content_type, **RETRY)))
    assert drawings(sandbox) == 2


async def test_each_run_is_joined_by_one_caller(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(prompt="a fox [[fault:slow:0.5]]")
    async with asking(gateway.port, fields):
        await until(lambda: asked(sandbox))
    replies = await asyncio.gather(*(post(gateway.port, GENERATIONS, fields, **RETRY) for _ in range(2)))
    assert all(map(only, replies))
    assert drawings(sandbox) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_idempotency_key_used_twice_at_once_is_one_drawing(
    start: Start, sandbox: Sandbox, stream: bool
) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(prompt="a fox [[fault:slow:0.3]]", stream=stream)
    both = await asyncio.gather(*(post(gateway.port, GENERATIONS, fields, idempotency_key="k") for _ in range(2)))
    later = await post(gateway.port, GENERATIONS, fields, idempotency_key="k")
    assert [reply.status for reply in (*both, later)] == [200, 200, 200]
    assert len({without_cost(reply) for reply in (*both, later)}) == 1
    assert drawings(sandbox) == 1


async def test_an_idempotency_key_of_an_upload_is_known_after_its_answer_was_delivered(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(simulated(sandbox))
    content_type, body = form(("model", "gpt"), ("prompt", "x"), ("image", ("a.png", encoded())))
    whole = request("POST", EDITS, body, content_type=content_type, idempotency_key="k")
    replies = [await ask(gateway.port, whole) for _ in range(3)]
    assert replies[0].body == replies[1].body == replies[2].body
    assert drawings(sandbox) == 1


async def test_an_idempotency_key_under_another_request_is_a_conflict(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    assert only(await post(gateway.port, GENERATIONS, wanted(), idempotency_key="k"))
    reply = await post(gateway.port, GENERATIONS, wanted(prompt="a blue fox"), idempotency_key="k")
    assert reply.status == 409
    assert reply.error()["code"] == "idempotency_key_reused"
    assert reply.header("x-should-retry") == "false"
    assert drawings(sandbox) == 1


@pytest.mark.parametrize("key", ["k" * 256, "k" * 60_000, "k\tk", "Schlüssel", "\xa0k"])
async def test_an_idempotency_key_that_is_long_or_not_printable_is_refused(
    start: Start, sandbox: Sandbox, key: str
) -> None:
    gateway = await start(simulated(sandbox))
    reply = await post(gateway.port, GENERATIONS, wanted(), idempotency_key=key)
    assert (reply.status, reply.error()["param"], reply.error()["code"]) == (400, "Idempotency-Key", "invalid_value")
    assert "255" in reply.error()["message"]
    assert only(await post(gateway.port, GENERATIONS, wanted(), idempotency_key="~ k" * 85))
    assert drawings(sandbox) == 1


async def test_an_empty_idempotency_key_or_retry_count_is_none(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    for prompt in ("a fox", "a hen", "a fox"):
        reply = await post(
            gateway.port, GENERATIONS, wanted(prompt=prompt), idempotency_key="", x_stainless_retry_count=""
        )
        assert reply.status == 200
    assert drawings(sandbox) == 3


async def test_coming_back_costs_no_limit(start: Start, sandbox: Sandbox) -> None:
    limited = {"name": "a", "key": "secret-of-caller-a", "requests_per_minute": 1, "max_concurrency": 1}
    gateway = await start(simulated(sandbox, keys=[limited]))
    headers = {"authorization": "Bearer secret-of-caller-a", "idempotency_key": "k"}
    fields = wanted(prompt="a fox [[fault:slow:0.3]]")
    replies = await asyncio.gather(*(post(gateway.port, GENERATIONS, fields, **headers) for _ in range(4)))
    assert all(map(only, replies))
    refused = await post(gateway.port, GENERATIONS, wanted(), authorization="Bearer secret-of-caller-a", **RETRY)
    assert refused.status == 429
    assert drawings(sandbox) == 1


@pytest.mark.parametrize("headers", [{}, RETRY, {"idempotency_key": "k"}], ids=["first", "retry", "named"])
async def test_a_request_that_cannot_be_served_does_not_count_against_the_rate(
    start: Start, sandbox: Sandbox, headers: dict[str, str]
) -> None:
    limited = {"name": "a", "key": "secret-of-caller-a", "requests_per_minute": 1}
    gateway = await start(simulated(sandbox, keys=[limited]))
    sent = {**headers, "authorization": "Bearer secret-of-caller-a"}
    malformed = [wanted(n="many"), {"prompt": "no model"}, b"{", b"{"]
    unservable = [wanted(model="unknown"), wanted(size="7x7"), wanted(n=11)]
    replies = [await post(gateway.port, GENERATIONS, body, **sent) for body in [*malformed, *unservable] * 2]
    assert {reply.status for reply in replies} == {400}
    only(await post(gateway.port, GENERATIONS, wanted(), **sent))
    refused = await post(gateway.port, GENERATIONS, wanted(prompt="another"), authorization=sent["authorization"])
    assert refused.status == 429
    assert drawings(sandbox) == 1


async def test_a_name_that_was_used_for_another_request_does_not_count_against_the_rate(
    start: Start, sandbox: Sandbox
) -> None:
    limited = {"name": "a", "key": "secret-of-caller-a", "requests_per_minute": 2}
    gateway = await start(simulated(sandbox, keys=[limited]))
    sent = {"authorization": "Bearer secret-of-caller-a", "idempotency_key": "k"}
    prompts = ("a fox", "a hen", "a hare", "a fox")
    replies = [await post(gateway.port, GENERATIONS, wanted(prompt=prompt), **sent) for prompt in prompts]
    assert [reply.status for reply in replies] == [200, 409, 409, 200]
    other = {**sent, "idempotency_key": "another"}
    replies = [await post(gateway.port, GENERATIONS, wanted(prompt=prompt), **other) for prompt in ("a hen", "a hare")]
    assert [reply.status for reply in replies] == [200, 409]
    assert (await post(gateway.port, GENERATIONS, wanted(), **{**sent, "idempotency_key": "third"})).status == 429


# --- the run's own address ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_gives_the_same_answer_in_the_same_shape(start: Start, sandbox: Sandbox, stream: bool) -> None:
    gateway = await start(simulated(sandbox))
    first = await post(gateway.port, GENERATIONS, wanted(model="gpt", stream=stream), x_request_id="the/run")
    again = await run_of(gateway.port, "the/run")
    assert first.status == again.status == 200
    assert without_cost(first) == without_cost(again)
    told = ["content-type", "x-gateway-provider", "x-gateway-model", "x-gateway-attempts"]
    assert [first.header(name) for name in told] == [again.header(name) for name in told]
    assert drawings(sandbox) == 1


async def test_a_run_is_waited_for_and_who_comes_back_to_it_gets_it_all(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    async with asking(gateway.port, wanted(prompt="a fox [[fault:slow:0.4]]"), x_request_id="one"):
        await until(lambda: asked(sandbox))
        early = asyncio.create_task(run_of(gateway.port, "one"))
        await until(lambda: present(gateway) == 2)
    late = await run_of(gateway.port, "one")
    assert only(late) == only(await early)
    assert drawings(sandbox) == 1


async def test_a_run_is_known_under_the_ids_of_all_who_were_answered_from_it(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    for id in ("one", "two"):
        assert only(await post(gateway.port, GENERATIONS, wanted(), idempotency_key="k", x_request_id=id))
    assert (await run_of(gateway.port, "two")).body == (await run_of(gateway.port, "one")).body


async def test_another_keys_run_does_not_exist(start: Start, sandbox: Sandbox) -> None:
    keys = [{"name": name, "key_sha256": sha256(f"secret-of-caller-{name}".encode()).hexdigest()} for name in "ab"]
    gateway = await start(simulated(sandbox, keys=keys))
    headers = {"authorization": "Bearer secret-of-caller-a", "x_request_id": "one", "idempotency_key": "k"}
    assert only(await post(gateway.port, GENERATIONS, wanted(), **headers))
    assert only(await run_of(gateway.port, "one", authorization="Bearer secret-of-caller-a"))
    for id in ("one", "none"):
        reply = await run_of(gateway.port, id, authorization="Bearer secret-of-caller-b")
        assert (reply.status, reply.error()["code"]) == (404, "run_not_found")
    assert (await run_of(gateway.port, "one")).status == 401
    # Nor does its idempotency key.
    assert only(
        await post(
            gateway.port, GENERATIONS, wanted(prompt="b"), **headers | {"authorization": "Bearer secret-of-caller-b"}
        )
    )
    assert drawings(sandbox) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_in_the_middle_of_a_picture_gets_it_whole_later(
    start: Start, upstream: Scripted, stream: bool
) -> None:
    picture = text(heavy(3 * MEGABYTE))
    whole = answer(image_json(picture))
    more = asyncio.Event()
    upstream.at("a", whole[:MEGABYTE], more, whole[MEGABYTE:])
    gateway = await start(scripted(upstream))
    async with asking(gateway.port, wanted(stream=stream), x_request_id="one") as opened:
        assert (await opened.head()).status == 200
        assert await opened.piece()
    await until(lambda: not gateway.connections)
    more.set()
    reply = await run_of(gateway.port, "one")
    if stream:
        [(name, document)] = events(reply.body)
        assert name == "image_generation.completed"
        assert document["b64_json"] == picture
    else:
        assert only(reply) == picture
    assert len(upstream.received("a")) == 1


async def test_who_does_not_take_the_last_bytes_has_not_had_the_picture(start: Start, upstream: Scripted) -> None:
    """The gateway has sent all of it, but the socket has not taken it."""
    picture = text(heavy(12 * MEGABYTE))
    upstream.at("a", answer(image_json(picture)))
    gateway = await start(scripted(upstream))
    async with asking(gateway.port, wanted(), 4096) as opened:
        assert (await opened.head()).status == 200
        await until(lambda: gateway.app.state.runtime.resources.ledger.snapshot().open_drawings == 0)
    reply = await post(gateway.port, GENERATIONS, wanted(), **RETRY)
    assert only(reply) == picture
    assert len(upstream.received("a")) == 1


# --- leaving ---


async def test_who_breaks_the_connection_with_bytes_unread_gets_the_picture_with_its_retry(
    start: Start, upstream: Scripted
) -> None:
    """All of it was in the buffers of two kernels."""
    upstream.at("a", answer(image_json(text(heavy(500_000)))))
    gateway = await start(scripted(upstream))
    fields = wanted(prompt="a fox")

    def reads_a_little() -> None:
        with socket.create_connection(("127.0.0.1", gateway.port)) as opened:
            opened.sendall(generation(fields))
            assert opened.recv(1000)
            time.sleep(0.3)

    await asyncio.to_thread(reads_a_little)
    await gateway.request_lines(1)
    await until(lambda: not gateway.connections)
    again = await post(gateway.port, GENERATIONS, fields, **RETRY)
    assert again.complete
    assert len(upstream.received("a")) == 1
    await until(lambda: not gateway.connections)
    await post(gateway.port, GENERATIONS, fields, **RETRY)  # now it had everything
    assert len(upstream.received("a")) == 2


def waiting(gateway: Gateway) -> bool:
    return any(queue.waiting for queue in gateway.app.state.runtime.resources.queues.snapshot())


def present(gateway: Gateway) -> int:
    """The callers who wait for a run, or read of one."""
    return sum(entry.run.present for entry in gateway.app.state.runtime.resources.retention.entries())


def one_at_a_time(upstream: Scripted) -> Config:
    config = scripted(upstream)
    config["providers"]["a"]["max_concurrency"] = 1
    return config


async def test_who_leaves_while_it_is_uploaded_or_queued_draws_nothing(start: Start, upstream: Scripted) -> None:
    drawn = asyncio.Event()
    upstream.at("a", drawn, answer(image_json(PNG)))
    gateway = await start(one_at_a_time(upstream))
    first = asyncio.create_task(post(gateway.port, GENERATIONS, wanted()))
    await until(lambda: upstream.received("a"))
    async with asking(gateway.port, wanted(prompt="queued"), x_request_id="queued"):
        await until(lambda: waiting(gateway))
        together = asyncio.create_task(run_of(gateway.port, "queued"))
        await asyncio.sleep(0.05)
        together.cancel()
        await asyncio.gather(together, return_exceptions=True)
    content_type, body = form(("model", "flux"), ("prompt", "x"), ("image", ("a.png", heavy(MEGABYTE))))
    async with line(gateway.port) as opened:
        await opened.send(request("POST", EDITS, body, content_type=content_type)[: len(body) // 2])
    await until(lambda: not waiting(gateway) and gateway.connections == 1)
    drawn.set()
    assert only(await first)
    async with asyncio.timeout(PATIENCE):  # its end may still be told
        while (await run_of(gateway.port, "queued")).status != 404:
            await asyncio.sleep(0.01)
    await until(lambda: not gateway.connections)
    assert len(upstream.received("a")) == 1


async def test_who_waits_in_the_queue_with_another_gets_the_picture_when_the_other_leaves(
    start: Start, upstream: Scripted
) -> None:
    drawn = asyncio.Event()
    upstream.at("a", drawn, answer(image_json(PNG)))
    gateway = await start(one_at_a_time(upstream))
    first = asyncio.create_task(post(gateway.port, GENERATIONS, wanted()))
    await until(lambda: upstream.received("a"))
    async with asking(gateway.port, wanted(prompt="queued"), x_request_id="queued"):
        await until(lambda: waiting(gateway))
        second = asyncio.create_task(run_of(gateway.port, "queued"))
        await until(lambda: present(gateway) == 3)
    drawn.set()
    assert only(await first)
    assert only(await second)


async def test_with_cancel_a_drawing_ends_with_its_caller_and_is_drawn_afresh(start: Start, upstream: Scripted) -> None:
    upstream.at("a", End.HANG)
    upstream.at("a", answer(image_json(PNG)))
    gateway = await start(scripted(upstream, runs={"on_disconnect": "cancel"}))
    async with asking(gateway.port, wanted()):
        await until(lambda: upstream.received("a"))
    await until(lambda: upstream.received("a")[0].left.is_set())
    assert only(await post(gateway.port, GENERATIONS, wanted(), **RETRY)) == PNG


async def test_what_goes_on_without_its_caller_counts_against_the_key(start: Start, upstream: Scripted) -> None:
    drawn = asyncio.Event()
    upstream.at("a", drawn, answer(image_json(PNG)))
    keys = [{"name": "a", "key": "secret-of-caller-a", "max_concurrency": 1}]
    gateway = await start(scripted(upstream, keys=keys))
    headers = {"authorization": "Bearer secret-of-caller-a"}
    async with asking(gateway.port, wanted(), **headers):
        await until(lambda: upstream.received("a"))
    await until(lambda: not gateway.connections)
    assert (await post(gateway.port, GENERATIONS, wanted(prompt="b"), **headers)).status == 429
    drawn.set()
    async with asyncio.timeout(PATIENCE):
        while (reply := await post(gateway.port, GENERATIONS, wanted(prompt="b"), **headers)).status == 429:
            await asyncio.sleep(0.05)
    assert only(reply) == PNG


@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_the_answer_has_the_keys_place_back(start: Start, upstream: Scripted, stream: bool) -> None:
    event = b"event: image_generation.completed\ndata: " + json.dumps({"b64_json": PNG}).encode() + b"\n\n"
    told = head(200, "text/event-stream", transfer_encoding="chunked"), b"%x\r\n%b\r\n" % (len(event), event)
    for _ in range(3):
        upstream.at("a", *told, End.HANG)  # for a moment it is waited for the end, so that the connection can be kept
    keys = [{"name": "a", "key": "secret-of-caller-a", "max_concurrency": 1}]
    gateway = await start(scripted(upstream, keys=keys))
    for number in range(3):
        fields = wanted(prompt=str(number), stream=stream)
        reply = await post(gateway.port, GENERATIONS, fields, authorization="Bearer secret-of-caller-a")
        assert (reply.status, reply.complete) == (200, True), reply.body


async def test_a_slow_reader_holds_neither_the_upstreams_connection_nor_the_keys_place(
    start: Start, upstream: Scripted
) -> None:
    picture = text(heavy(12 * MEGABYTE))
    upstream.at("a", answer(image_json(picture), connection="close"), End.CLOSE)
    upstream.at("a", answer(image_json(PNG)))
    keys = [{"name": "a", "key": "secret-of-caller-a", "max_concurrency": 1}]
    gateway = await start(scripted(upstream, keys=keys))
    headers = {"authorization": "Bearer secret-of-caller-a"}
    async with asking(gateway.port, wanted(), 4096, **headers) as slow:
        head = await slow.head()
        await until(lambda: upstream.received("a") and not upstream.connections)
        await until(lambda: gateway.app.state.runtime.resources.ledger.snapshot().open_drawings == 0)
        assert only(await post(gateway.port, GENERATIONS, wanted(prompt="b"), **headers)) == PNG
        body = b""
        while piece := await slow.piece():
            body += piece
        head.body, head.complete = body, True
        assert only(head) == picture


async def test_signs_of_life_do_not_follow_the_end_of_what_a_slow_reader_has_not_read_yet(
    start: Start, upstream: Scripted
) -> None:
    picture = text(heavy(8 * MEGABYTE))
    upstream.at("a", answer(image_json(picture)))
    gateway = await start(scripted(upstream, server={"keepalive_seconds": 0.02}))
    async with asking(gateway.port, wanted(stream=True), 4096) as slow:
        reply = await slow.head()
        await asyncio.sleep(0.3)
        body = b""
        while piece := await slow.piece():
            body += piece
            if len(body) < MEGABYTE:
                await asyncio.sleep(0.001)
        [(_, document)] = events(body)
        assert (reply.status, document["b64_json"]) == (200, picture)
    assert [line["event"] for line in gateway.lines()] == ["request"]  # and no crash


# --- failures ---


async def test_a_failure_that_may_have_been_paid_is_told_again_and_not_drawn_again(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(prompt="a fox [[fault:cut]]", model="gpt")
    first = await post(gateway.port, GENERATIONS, fields)
    again = await post(gateway.port, GENERATIONS, fields, **RETRY)
    more = await post(gateway.port, GENERATIONS, fields, x_stainless_retry_count="2")
    assert (again.status, again.header("x-should-retry")) == (502, "false")
    assert again.error() == more.error()
    assert not first.complete or first.status == 502
    assert asked(sandbox) == 1


async def test_a_retry_is_not_told_of_an_older_failure_than_its_own(start: Start, upstream: Scripted) -> None:
    """An SDK is told that its drawing was perhaps paid for. Later it asks again, and is asked to try once more."""
    upstream.at("a", End.RESET)
    upstream.at("a", answer({"error": {"message": "not now"}}, status=500))
    upstream.at("a", answer(image_json(PNG)))
    gateway = await start(scripted(upstream))
    assert (await post(gateway.port, GENERATIONS, wanted())).status == 502
    assert (await post(gateway.port, GENERATIONS, wanted())).status == 502
    assert only(await post(gateway.port, GENERATIONS, wanted(), **RETRY)) == PNG
    assert len(upstream.received("a")) == 3


async def test_who_leaves_before_anything_was_sent_has_nothing_drawn_by_the_next_deployment(
    start: Start, upstream: Scripted
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes the connection, and never a handshake
    silent.setblocking(False)
    upstream.at("a", answer(image_json(PNG)))
    config = scripted(upstream)
    config["providers"]["silent"] = provider(f"https://127.0.0.1:{silent.getsockname()[1]}/v1", timeout={"connect": 1})
    config["models"]["flux"]["deployments"].insert(0, {"provider": "silent"})
    with silent:
        gateway = await start(config)
        async with asking(gateway.port, wanted()):
            handshake, _ = await asyncio.get_running_loop().sock_accept(silent)
        with handshake:
            [told] = await gateway.request_lines()
            assert told["status"] == 499
            await until(lambda: gateway.app.state.runtime.resources.ledger.snapshot().open_drawings == 0)
            assert not upstream.received("a")
    assert only(await post(gateway.port, GENERATIONS, wanted())) == PNG


async def test_a_failure_that_could_not_be_told_is_told_to_the_retry(start: Start, sandbox: Sandbox) -> None:
    server = {"json_keepalive_after": 0.1, "keepalive_seconds": 0.1}
    gateway = await start(simulated(sandbox, server=server))
    for mishap, status in (("moderation", 400), ("503", 503)):
        fields, before = wanted(prompt=f"a fox [[fault:slow:0.4]] [[fault:{mishap}]]"), asked(sandbox)
        first = await post(gateway.port, GENERATIONS, fields)
        assert (first.status, first.complete) == (200, False)
        assert (await post(gateway.port, GENERATIONS, fields, **RETRY)).status == status
        assert asked(sandbox) == before + 1
        third = await post(gateway.port, GENERATIONS, fields, x_stainless_retry_count="2")
        assert not third.complete  # it was told, and so it is asked again
        assert asked(sandbox) == before + 2


async def test_a_refusal_is_told_to_whoever_left_before_it_came(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(prompt="a fox [[fault:slow:0.3]] [[fault:moderation]]")
    async with asking(gateway.port, fields, x_request_id="left"):
        await until(lambda: asked(sandbox))
    assert (await run_of(gateway.port, "left")).status == 400
    assert (await run_of(gateway.port, "left")).status == 404
    assert asked(sandbox) == 1


async def test_a_failure_that_was_not_paid_is_drawn_afresh(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(prompt="a fox [[fault*1:503]]")
    first = await post(gateway.port, GENERATIONS, fields, idempotency_key="k")
    assert first.status == 503, first.body
    assert only(await post(gateway.port, GENERATIONS, fields, idempotency_key="k"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("come_back", [{"idempotency_key": "k"}, RETRY])
async def test_of_several_images_only_the_missing_ones_are_drawn_again(
    start: Start, sandbox: Sandbox, stream: bool, come_back: dict[str, str]
) -> None:
    gateway = await start(simulated(sandbox))
    fields = wanted(n=4, stream=stream, prompt="foxes [[fault*1:503]]", seed=7)
    first = await post(gateway.port, GENERATIONS, fields, **come_back)
    assert b"upstream_unavailable" in first.body
    assert (drawings(sandbox), asked(sandbox)) == (3, 4)
    second = await post(gateway.port, GENERATIONS, fields, **come_back)
    assert second.status == 200
    if stream:
        found = [(document["index"], document["b64_json"]) for _, document in events(second.body)]
        assert sorted(index for index, _ in found) == [0, 1, 2, 3]
        assert len({picture for _, picture in found}) == 4
    else:
        assert len({image["b64_json"] for image in second.json()["data"]}) == 4
    assert (drawings(sandbox), asked(sandbox)) == (4, 5)


async def test_an_upstream_that_gives_one_at_a_time_and_then_fails_is_asked_for_the_rest_only(
    start: Start, upstream: Scripted
) -> None:
    """It was asked for all of them at once."""
    pictures = [text(encoded(colour=colour)) for colour in ("red", "green", "blue")]
    upstream.at("a", answer({"data": [{"b64_json": pictures[0]}]}))
    upstream.at("a", answer({"error": {"message": "busy"}}, 503))
    upstream.at("a", answer({"data": [{"b64_json": picture} for picture in pictures[1:]]}))
    gateway = await start(scripted(upstream))
    fields = wanted(n=3)
    first = await post(gateway.port, GENERATIONS, fields, idempotency_key="k")
    assert not first.complete  # one image was passed on already
    second = await post(gateway.port, GENERATIONS, fields, idempotency_key="k")
    assert [image["b64_json"] for image in second.json()["data"]] == pictures
    assert [received.json["n"] for received in upstream.received("a")] == [3, 2, 2]


# --- room and time ---


async def test_without_room_nothing_is_drawn(start: Start, upstream: Scripted) -> None:
    picture = text(heavy(2 * MEGABYTE))
    upstream.at("a", 0.1, answer(image_json(picture)))
    gateway = await start(scripted(upstream, runs={"memory_mb": 1, "disk_mb": 1}))
    async with asking(gateway.port, wanted(), x_request_id="one"):
        await until(lambda: upstream.received("a"))
    await gateway.request_lines(1)
    refused = await post(gateway.port, GENERATIONS, wanted(prompt="b"))
    assert (refused.status, refused.error()["code"]) == (503, "no_room")
    assert refused.header("retry-after")
    assert len(upstream.received("a")) == 1
    assert only(await run_of(gateway.port, "one")) == picture
    assert only(await post(gateway.port, GENERATIONS, wanted(prompt="b"))) == picture  # what was delivered made room


async def test_what_nobody_fetches_is_forgotten_in_time(start: Start, upstream: Scripted, tmp_path: Path) -> None:
    upstream.at("a", 0.1, answer(image_json(PNG)))
    gateway = await start(scripted(upstream, runs={"retain_seconds": 0.5}))
    async with asking(gateway.port, wanted(), x_request_id="one"):
        await until(lambda: upstream.received("a"))
    await gateway.request_lines(1)
    runs = tmp_path / "data" / "runs"
    await until(lambda: not any(runs.iterdir()))  # although nobody asks for anything
    assert (await run_of(gateway.port, "one")).status == 404
    assert only(await post(gateway.port, GENERATIONS, wanted(), **RETRY))
    assert len(upstream.received("a")) == 2


def open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def data_of(folder: Path) -> list[str]:
    return sorted(path.name for name in ("runs", "spool") for path in (folder / "data" / name).iterdir())


# --- a process that ends ---


@pytest.mark.slow
@pytest.mark.parametrize("kill", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_what_ended_undelivered_outlives_the_process(tmp_path: Path, kill: bool, stream: bool) -> None:
    picture = text(heavy(2 * MEGABYTE))
    with in_thread(Scripted) as upstream:
        upstream.at("a", 0.2, answer(image_json(picture)))
        config = scripted(upstream)

        async def leave(port: int) -> None:
            async with asking(port, wanted(stream=stream), x_request_id="one", idempotency_key="k"):
                await until(lambda: upstream.received("a"))

        with process(config, tmp_path) as first:
            asyncio.run(leave(first.port))
            first.lines("one", count=1)  # written when the run has ended
            if kill:
                os.kill(first.process.pid, signal.SIGKILL)
                first.process.wait()
        assert len(data_of(tmp_path)) == 1
        with process(config, tmp_path) as second:
            found = asyncio.run(run_of(second.port, "one"))
            again = asyncio.run(
                post(second.port, GENERATIONS, wanted(stream=stream), idempotency_key="k", x_request_id="two")
            )
            other = asyncio.run(post(second.port, GENERATIONS, wanted(prompt="b"), idempotency_key="k"))
        assert found.status == again.status == 200
        assert found.body == again.body
        assert picture.encode() in found.body
        assert other.status == 409
        assert len(upstream.received("a")) == 1
        assert len(data_of(tmp_path)) == 1  # for its key, as long as runs are kept
        with process(config, tmp_path) as third:
            once_more = asyncio.run(post(third.port, GENERATIONS, wanted(stream=stream), idempotency_key="k"))
        assert once_more.body == again.body
        assert len(upstream.received("a")) == 1


def registered(folder: Path) -> list[tuple[Any, ...]]:
    """The rows of stored runs: state, ids, whether the run has ended, and what became of the drawing."""
    sql = """select run.state, names, run.ended_at is not null, drawing.state from run
        left join drawing on drawing.id = run.drawing_id order by run.began_at, names"""
    with contextlib.closing(sqlite3.connect(folder / "data" / "gateway.db")) as db:
        return db.execute(sql).fetchall()


@pytest.mark.slow
def test_the_table_says_which_runs_have_files_and_what_became_of_them(tmp_path: Path) -> None:
    async def draw(port: int) -> None:
        await post(port, GENERATIONS, wanted(), x_request_id="plain")
        await post(port, GENERATIONS, wanted(), x_request_id="had", idempotency_key="k")
        for id in ("left", "sent"):
            before = len(upstream.received("a"))
            async with asking(port, wanted(), x_request_id=id, idempotency_key=id):
                await until(partial(arrived, before + 1))

    def arrived(count: int) -> bool:
        return len(upstream.received("a")) == count

    with in_thread(Scripted) as upstream:
        for seconds in (0.0, 0.0, 0.2):
            upstream.at("a", seconds, answer(image_json(PNG)))
        upstream.at("a", End.HANG)
        with process(scripted(upstream), tmp_path) as first:
            asyncio.run(draw(first.port))
            rows = [
                ("delivered", '["had"]', 1, "settled"),
                ("finished", '["left"]', 1, "settled"),
                ("sent", '["sent"]', 0, "sent"),
            ]
            asyncio.run(until(lambda: registered(tmp_path) == rows))
            assert len(data_of(tmp_path)) == 3
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        rows[2] = ("uncertain", '["sent"]', 1, "released")  # its model has no price
        with process(scripted(upstream), tmp_path) as second:
            asyncio.run(until(lambda: registered(tmp_path) == rows))
            assert only(asyncio.run(run_of(second.port, "had")))
            assert only(asyncio.run(run_of(second.port, "left")))
            second.stop()
        rows[1] = ("delivered", '["left"]', 1, "settled")
        assert registered(tmp_path) == rows
        with process({**scripted(upstream), "runs": {"retain_seconds": 0.05}}, tmp_path):
            asyncio.run(until(lambda: not data_of(tmp_path) and not registered(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("database", ["lost", "away"])
def test_without_the_table_nothing_is_drawn_twice_and_no_image_is_lost(tmp_path: Path, database: str) -> None:
    async def leave(port: int) -> None:
        for number, id in enumerate(("one", "two"), 1):
            async with asking(port, wanted(), x_request_id=id, idempotency_key=id):
                await until(partial(arrived, number))

    def arrived(count: int) -> bool:
        return len(upstream.received("a")) == count

    with in_thread(Scripted) as upstream:
        upstream.at("a", 0.2, answer(image_json(PNG)))
        upstream.at("a", End.HANG)
        config: Config = {**scripted(upstream), "secret": "s" * 64}
        with process(config, tmp_path) as first:
            asyncio.run(leave(first.port))
            first.lines("one", count=1)
            asyncio.run(until(lambda: len(registered(tmp_path)) == 2))
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        if database == "lost":
            for file in (tmp_path / "data").glob("gateway.db*"):
                file.unlink()
        else:
            config["database"] = {"url": f"postgresql://nobody@127.0.0.1:{dead_port()}/none"}
        for _ in range(2):
            with process(config, tmp_path) as later:
                found = asyncio.run(post(later.port, GENERATIONS, wanted(), idempotency_key="one"))
                assert only(found) == PNG
                told = asyncio.run(post(later.port, GENERATIONS, wanted(), idempotency_key="two"))
                assert (told.status, told.error()["code"]) == (504, "run_interrupted")
        assert len(upstream.received("a")) == 2


def test_a_link_that_nobody_has_fetched_outlives_the_process_however_little_room_there_is(tmp_path: Path) -> None:
    async def leave(port: int) -> None:
        async with asking(port, wanted(response_format="url"), x_request_id="one"):
            await until(lambda: upstream.received("a"))

    with in_thread(Scripted) as upstream:
        for _ in range(5):
            upstream.at("a", 0.2, answer(image_json(text(heavy(MEGABYTE)))))
        config = scripted(upstream, files={"max_mb": 2})
        with process(config, tmp_path) as first:
            asyncio.run(leave(first.port))
            first.lines("one", count=1)
        with process(config, tmp_path) as second:
            for _ in range(4):
                asyncio.run(post(second.port, GENERATIONS, wanted(response_format="url")))
            url = asyncio.run(run_of(second.port, "one")).json()["data"][0]["url"].partition("/files")
            found = asyncio.run(ask(second.port, request("GET", "/files" + url[2], None)))
        assert (found.status, found.complete) == (200, True)


async def test_a_clock_that_jumps_ends_neither_links_nor_runs(
    start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, jump = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    gateway = await start(simulated(sandbox))
    fields = wanted(response_format="url")
    reply = await post(gateway.port, GENERATIONS, fields, idempotency_key="k")
    url = reply.json()["data"][0]["url"]
    jump = 1_000_000.0
    gateway.app.state.runtime.resources.store.sweep()
    found = await ask(gateway.port, request("GET", "/files" + url.partition("/files")[2], None))
    assert (found.status, found.complete) == (200, True)
    again = await post(gateway.port, GENERATIONS, fields, idempotency_key="k")
    assert again.json()["data"][0]["url"] == url


@pytest.mark.slow
def test_what_was_sent_when_the_process_was_killed_is_not_drawn_again(tmp_path: Path) -> None:
    keys = [{"name": name, "key": f"the-key-of-{name}-0123456789"} for name in ("a", "b")]
    mine, theirs = ({"authorization": f"Bearer {key['key']}"} for key in keys)

    async def leave(port: int) -> None:
        async with asking(port, wanted(), x_request_id="one", idempotency_key="k", **mine):
            await until(lambda: upstream.received("a"))

    async def come_back(port: int) -> list[Reply]:
        return [
            await post(port, GENERATIONS, wanted(), idempotency_key="k", **mine),
            await run_of(port, "one", **mine),
            await post(port, GENERATIONS, wanted(), idempotency_key="k", x_stainless_retry_count="1", **mine),
        ]

    with in_thread(Scripted) as upstream:
        upstream.at("a", End.HANG)
        upstream.at("a", answer(image_json(PNG)))
        config = scripted(upstream, keys=keys)
        with process(config, tmp_path) as first:
            asyncio.run(leave(first.port))
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        with process(config, tmp_path) as second:
            for reply in asyncio.run(come_back(second.port)):
                assert (reply.status, reply.error()["code"]) == (504, "run_interrupted")
                assert reply.header("x-should-retry") == "false"
            assert len(upstream.received("a")) == 1
            other = asyncio.run(post(second.port, GENERATIONS, wanted(prompt="b"), idempotency_key="k", **mine))
            assert other.status == 409
            assert only(asyncio.run(post(second.port, GENERATIONS, wanted(), idempotency_key="k", **theirs)))
            assert only(asyncio.run(post(second.port, GENERATIONS, wanted(), idempotency_key="new", **mine)))
            second.stop()
        with process({**config, "runs": {"retain_seconds": 0.05}}, tmp_path) as third:
            time.sleep(0.2)
            assert only(asyncio.run(post(third.port, GENERATIONS, wanted(), idempotency_key="k", **mine)))


async def test_what_was_refused_or_reached_nobody_leaves_no_note(
    start: Start, upstream: Scripted, tmp_path: Path
) -> None:
    upstream.clear("a")
    upstream.at("a", answer({"error": {"message": "busy"}}, 503))
    gateway = await start(scripted(upstream))
    refused = await post(gateway.port, GENERATIONS, wanted(), idempotency_key="k")
    assert refused.status == 503
    await gateway.request_lines(1)
    assert data_of(tmp_path) == []


async def test_a_run_that_cannot_be_kept_is_answered_and_told_in_the_log(
    start: Start, sandbox: Sandbox, tmp_path: Path
) -> None:
    gateway = await start(simulated(sandbox))
    (tmp_path / "data" / "runs").rmdir()
    for id in ("one", "two"):
        assert only(await post(gateway.port, GENERATIONS, wanted(), idempotency_key=id, x_request_id=id))
    await gateway.request_lines(2)
    told = [line for line in gateway.lines() if line["event"] == "run could not be kept"]
    assert sorted(line["request_id"] for line in told) == [
        "one",
        "one",
        "two",
        "two",
    ]  # neither its note nor its images
    assert {line["reason"] for line in told} == {"No such file or directory"}
    [disk] = [line for line in gateway.lines() if line["event"] == "the disk cannot be written to"]
    assert disk["folder"] == "runs"


@pytest.mark.slow
def test_a_drawing_that_the_process_did_not_live_to_see_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    half = answer(image_json(text(heavy(4 * MEGABYTE))))[: 2 * MEGABYTE]
    with in_thread(Scripted) as upstream:
        upstream.at("a", half, End.HANG)

        async def leave(port: int) -> None:
            async with asking(port, wanted(), x_request_id="one") as opened:
                await opened.head()
                assert await opened.piece()

        with process(scripted(upstream), tmp_path) as first:
            asyncio.run(leave(first.port))
            time.sleep(0.2)
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        assert data_of(tmp_path) == []
        with process(scripted(upstream), tmp_path) as second:
            assert asyncio.run(run_of(second.port, "one")).status == 404


def test_slow_readers_hold_little_memory(tmp_path: Path) -> None:
    picture = text(heavy(10 * MEGABYTE))
    with in_thread(Scripted) as upstream:
        upstream.at("a", answer(image_json(PNG), connection="close"), End.CLOSE)
        upstream.at("a", answer(image_json(picture), connection="close"), End.CLOSE)

        async def read_slowly(port: int) -> None:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(12):
                    opened = await stack.enter_async_context(asking(port, wanted(), 4096))
                    assert (await opened.head()).status == 200
                await until(lambda: len(upstream.received("a")) == 13 and not upstream.connections)

        with process(scripted(upstream), tmp_path) as running:
            assert asyncio.run(generate(running.port)).status == 200
            before = running.memory("VmRSS")
            asyncio.run(read_slowly(running.port))
            assert running.memory() - before < 64 * MEGABYTE  # of 160 that were drawn


# --- many ---


@pytest.mark.slow
async def test_two_hundred_callers_who_leave_at_random_leave_nothing_behind(
    start: Start, sandbox: Sandbox, tmp_path: Path
) -> None:
    chance = random.Random(7)
    gateway = await start(simulated(sandbox, runs={"retain_seconds": 1}))
    assert only(await post(gateway.port, GENERATIONS, wanted()))
    await until(lambda: not gateway.connections)
    tasks = len(asyncio.all_tasks())

    async def leaving(number: int) -> None:
        fields = wanted(
            prompt=f"fox {number} [[fault:slow:{chance.random() / 2:.2f}]]",
            n=chance.choice([1, 1, 3]),
            stream=chance.random() < 0.5,
        )
        headers = {} if chance.random() < 0.5 else {"idempotency_key": f"k{number}"}
        with contextlib.suppress(AssertionError, TimeoutError):
            for _ in range(2):
                async with asyncio.timeout(chance.random()), asking(gateway.port, fields, **headers) as opened:
                    await opened.reply()
                headers |= RETRY

    await asyncio.gather(*map(leaving, range(200)))
    retention, meter = gateway.app.state.runtime.resources.retention, gateway.app.state.runtime.resources.meter
    await until(lambda: not gateway.connections and not retention.entries())
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert (meter.memory, meter.disk, meter.growing) == (0, 0, 0)
    assert data_of(tmp_path) == []
    stays = ("lock", "journal", "gateway.db")
    left = [what for what in open_files() if str(tmp_path) in what and not any(name in what for name in stays)]
    assert len(left) == gateway.spare_files, left
    await until(lambda: gateway.app.state.runtime.resources.ledger.snapshot().open_drawings == 0)
