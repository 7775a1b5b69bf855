"""What is told of attempts: in the log under the run's own id, in headers and in the request's line the same count."""

import asyncio
import json
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.loops import dead_port
from tests.live.pictures import encoded, heavy, text
from tests.live.scripted import End, Scripted, answer, head, image_json, refusal
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by
from tests.live.wire import Reply, generate, line, post, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"
WANTED = {"model": "flux", "prompt": "a fox", "size": "64x64"}
PNG = text(encoded())


def scripted(upstream: Scripted, *names: str, **of_the_model: Any) -> Config:
    providers = {name: provider(f"{upstream.base_url}/{name}/v1", retries=0) for name in names}
    return {"providers": providers, "models": {"flux": served_by(*names, **of_the_model)}}


def failed_attempts(gateway: Gateway) -> list[dict[str, Any]]:
    return [line for line in gateway.lines() if line["event"] == "attempt failed"]


async def test_a_run_that_another_caller_drives_is_logged_under_its_own_id(start: Start, upstream: Scripted) -> None:
    whole, more, end = json.dumps(image_json(text(heavy(20_000)))).encode(), asyncio.Event(), asyncio.Event()
    upstream.at("a", head(content_length=str(len(whole))), whole[:8000], more, whole[8000:9000], end, End.RESET)
    gateway = await start(scripted(upstream, "a"))
    async with line(gateway.port) as first:
        await first.send(
            request(
                "POST", GENERATIONS, json.dumps(WANTED).encode(), content_type="application/json",
                x_request_id="the-run", idempotency_key="k",
            )
        )  # fmt: skip
        await until(lambda: upstream.received("a"))
        joined = asyncio.create_task(
            post(gateway.port, GENERATIONS, WANTED, x_request_id="who-joins", idempotency_key="k")
        )
        await asyncio.sleep(0.1)
    more.set()
    [left] = await gateway.request_lines(1)
    assert (left["request_id"], left["status"]) == ("the-run", 499)
    end.set()
    assert not (await joined).complete
    [failed] = failed_attempts(gateway)
    assert failed["request_id"] == "the-run"


async def test_attempts_that_failed_before_the_first_image_are_logged_under_the_run_too(
    start: Start, upstream: Scripted
) -> None:
    upstream.at("a", answer(refusal("busy"), 503))
    upstream.at("b", answer(image_json(PNG)))
    gateway = await start(scripted(upstream, "a", "b"))
    await post(gateway.port, GENERATIONS, WANTED, x_request_id="the-run")
    [failed] = failed_attempts(gateway)
    assert (failed["request_id"], failed["provider"], failed["status"]) == ("the-run", "a", 503)


# --- headers and log agree ---


async def counted(gateway: Gateway, reply: Reply, lines: int = 1) -> int | None:
    """The attempts that both the header and the request's line tell."""
    *_, told = await gateway.request_lines(lines)
    header = reply.header("x-gateway-attempts")
    assert told.get("attempts") == (None if header is None else int(header)), (header, told)
    return told.get("attempts")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_picture_after_a_failure(start: Start, upstream: Scripted, stream: bool) -> None:
    upstream.at("a", answer(refusal("busy"), 503))
    upstream.at("b", answer(image_json(PNG)))
    gateway = await start(scripted(upstream, "a", "b"))
    assert await counted(gateway, await generate(gateway.port, stream=stream)) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_after_several_failures(start: Start, upstream: Scripted, stream: bool) -> None:
    upstream.at("a", answer(refusal("busy"), 503))
    upstream.at("b", answer(refusal("no"), 422))
    gateway = await start(scripted(upstream, "a", "b"))
    reply = await generate(gateway.port, stream=stream)
    assert reply.status == 422
    assert await counted(gateway, reply) == 2


async def test_providers_that_nobody_could_reach(start: Start) -> None:
    config = {
        "providers": {"dead": provider(f"http://127.0.0.1:{dead_port()}/v1", retries=2)},
        "models": {"flux": served_by("dead")},
    }
    gateway = await start(config)
    assert await counted(gateway, await generate(gateway.port)) == 3


async def test_what_is_refused_here(start: Start, upstream: Scripted) -> None:
    gateway = await start(scripted(upstream, "a"))
    assert await counted(gateway, await generate(gateway.port, model="nothing")) is None


async def test_several_images(start: Start, sandbox: Sandbox) -> None:
    models = {"flux": {"deployments": [{"provider": "nebula", "model": "black-forest-labs/FLUX.1-schnell"}]}}
    gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": models})
    assert await counted(gateway, await generate(gateway.port, n=3, size="64x64")) == 3


async def test_an_error_that_is_told_again(start: Start, upstream: Scripted) -> None:
    upstream.at("a", answer(refusal("busy"), 503))
    upstream.at("b", head(content_length="10000"), End.CLOSE)
    gateway = await start(scripted(upstream, "a", "b"))
    for lines in (1, 2):
        reply = await post(gateway.port, GENERATIONS, WANTED, idempotency_key="k")
        assert (reply.status, reply.header("x-should-retry")) == (502, "false")
        assert await counted(gateway, reply, lines) == 2
    assert len(upstream.received("a")) == 1


async def test_a_picture_that_is_told_again(start: Start, upstream: Scripted) -> None:
    upstream.at("a", answer(refusal("busy"), 503))
    upstream.at("b", answer(image_json(PNG)))
    gateway = await start(scripted(upstream, "a", "b"))
    for lines in (1, 2):
        reply = await post(gateway.port, GENERATIONS, WANTED, idempotency_key="k")
        assert await counted(gateway, reply, lines) == 2
    assert len(upstream.received("b")) == 1
