"""Links while there is room for two pictures only: what was paid for is kept, and no link is dead when it arrives."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.live.conftest import Start
from tests.live.pictures import heavy, text
from tests.live.scripted import Scripted, Step, answer, image_json
from tests.live.servers import Gateway, provider, served_by
from tests.live.wire import Reply, ask, generate, line, request
from tests.waiting import until

pytestmark = pytest.mark.anyio
PICTURE = text(heavy(491_000))


async def serving(start: Start, upstream: Scripted, *steps: Step) -> Gateway:
    models = {"flux": served_by("a", profile={"results": ["b64_json"], "max_n": 1})}
    providers = {"a": provider(upstream.at("a", *steps))}
    return await start({"providers": providers, "models": models, "files": {"max_mb": 1}})


async def linked(gateway: Gateway, **fields: Any) -> Reply:
    return await generate(gateway.port, response_format="url", **fields)


async def fetched(gateway: Gateway, reply: Reply) -> list[int]:
    """The statuses of an answer's links."""
    assert reply.status == 200, reply.body[:500]
    paths = [re.sub(r"^https?://[^/]+", "", image["url"]) for image in reply.json()["data"]]
    return [(await ask(gateway.port, request("GET", path))).status for path in paths]


async def test_what_several_callers_have_drawn_at_once_is_kept_whatever_the_budget(
    start: Start, upstream: Scripted
) -> None:
    go, whole = asyncio.Event(), answer(image_json(PICTURE))
    gateway = await serving(start, upstream, whole[:300_000], go, whole[300_000:])
    calls = [asyncio.create_task(linked(gateway)) for _ in range(4)]
    await until(lambda: len(upstream.received("a")) == 4, lambda: "four requests upstream")
    go.set()
    assert [(await call).status for call in calls] == [200] * 4


async def test_a_picture_above_the_budget_is_kept(start: Start, upstream: Scripted) -> None:
    gateway = await serving(start, upstream, answer(image_json(text(heavy(2_500_000)))))
    assert await fetched(gateway, await linked(gateway)) == [200]


async def test_all_links_of_one_answer_are_alive(start: Start, upstream: Scripted) -> None:
    gateway = await serving(start, upstream, answer(image_json(PICTURE)))
    assert await fetched(gateway, await linked(gateway, n=4)) == [200] * 4
    assert await fetched(gateway, await linked(gateway, n=4)) == [200] * 4


async def test_who_asks_for_links_while_there_is_no_room_is_told_before_anything_is_drawn(
    start: Start, upstream: Scripted
) -> None:
    go, whole = asyncio.Event(), answer(image_json(text(heavy(1_500_000))))
    gateway = await serving(start, upstream, whole[:-100], go, whole[-100:])
    first = asyncio.create_task(linked(gateway))
    store = gateway.app.state.runtime.resources.store
    await until(lambda: store.writing > store.max_bytes, lambda: store.writing)
    refused = await linked(gateway)
    assert (refused.status, refused.error()["code"]) == (503, "no_room_for_files")
    assert refused.header("retry-after")
    assert refused.header("x-should-retry") != "false"
    assert len(upstream.received("a")) == 1
    go.set()
    assert (await generate(gateway.port)).status == 200
    assert (await first).status == 200
    assert (await linked(gateway)).status == 200


async def test_the_links_of_a_run_that_nobody_has_fetched_stay(start: Start, upstream: Scripted) -> None:
    go, whole = asyncio.Event(), answer(image_json(PICTURE))
    gateway = await serving(start, upstream, go, whole)
    body = json.dumps({"model": "flux", "prompt": "a fox", "response_format": "url"}).encode()
    async with line(gateway.port) as caller:
        await caller.send(
            request("POST", "/v1/images/generations", body, content_type="application/json", x_request_id="left")
        )
        await until(lambda: len(upstream.received("a")) == 1, lambda: "nothing arrived upstream")
    go.set()
    store = gateway.app.state.runtime.resources.store
    await until(lambda: store.held > 0, lambda: store.held)
    for _ in range(3):
        assert await fetched(gateway, await linked(gateway)) == [200]
    run = request("GET", "/v1/images/runs/left")
    assert await fetched(gateway, await ask(gateway.port, run)) == [200]
    await until(lambda: store.held == 0, lambda: store.held)
