"""Several images: one call, however many a provider draws at a time, and all of them or an error."""

import asyncio
import json
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import GPT_IMAGE_2, SCHNELL, SDXL, House, bytes_of, fields_of, picture
from tests.live.pictures import encoded, text
from tests.live.scripted import Received, Scripted, answer, event
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by
from tests.live.wire import Reply, edit, events, generate, line, request

pytestmark = pytest.mark.anyio

SMALL = "64x64"


def pictures(reply: Reply) -> list[bytes]:
    return [bytes_of(reply, index) for index in range(len(reply.json()["data"]))]


def completed(reply: Reply) -> list[dict[str, Any]]:
    return [document for name, document in events(reply.body) if name.endswith(".completed")]


def drawn(*colours: str, **more: Any) -> bytes:
    """An answer with so many pictures."""
    return answer({"created": 1, "data": [{"b64_json": text(encoded(colour=colour))} for colour in colours], **more})


def colours(reply: Reply) -> list[Any]:
    return [picture(reply, index).getpixel((1, 1)) for index in range(len(reply.json()["data"]))]


RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)

# --- one at a time ---


async def test_a_request_is_not_sent_away_from_the_queue_that_it_fills_itself(start: Start, sandbox: Sandbox) -> None:
    providers = sandbox_providers(sandbox.base_url)
    providers["nebula"]["max_concurrency"] = 1
    gateway = await start(
        {
            "providers": providers,
            "models": {"flux": {"deployments": [{"provider": "nebula", "model": SCHNELL}]}},
            "queue": {"max_length": 1, "max_seconds": 0.5},
        }
    )
    reply = await generate(gateway.port, prompt="[[fault:slow:0.3]]", n=4, size=SMALL)
    assert reply.status == 200, reply.body
    assert len(pictures(reply)) == 4


@pytest.mark.parametrize("n", [1, 2, 3, 10])
async def test_seeds_go_on_where_the_last_ended_and_the_order_is_theirs(home: House, n: int) -> None:
    prompt = f"{n} foxes with seeds"
    reply = await generate(home.port, model="schnell", prompt=prompt, n=n, size=SMALL, seed=40)
    assert reply.status == 200, reply.body
    assert [image["seed"] for image in reply.json()["data"]] == list(range(40, 40 + n))
    assert sorted(fields["seed"] for fields in home.seen(prompt)) == list(range(40, 40 + n))
    assert reply.header("x-gateway-attempts") == str(n)
    last = await generate(home.port, model="schnell", prompt=prompt, size=SMALL, seed=40 + n - 1)
    assert pictures(reply)[-1] == pictures(last)[0]
    assert len(set(pictures(reply))) == n


@pytest.mark.parametrize("model", ["schnell", "netmind-schnell", "sdxl", "kontext", "gpt"])
@pytest.mark.parametrize("n", [2, 7])
async def test_every_model_draws_as_many_as_are_asked_for(home: House, model: str, n: int) -> None:
    prompt = f"{n} foxes by {model}"
    reply = await generate(home.port, model=model, prompt=prompt, n=n, size=SMALL)
    assert len(set(pictures(reply))) == n
    asked = home.seen(prompt)
    assert len(asked) == (1 if model in ("kontext", "gpt") else n)
    assert reply.header("x-gateway-attempts") == str(len(asked))
    assert sum(fields.get("n", 1) for fields in asked) == n


@pytest.mark.parametrize("n", ["0", "11", "-1"])
async def test_fewer_than_one_and_more_than_ten_are_refused(home: House, n: str) -> None:
    reply = await generate(home.port, model="schnell", n=int(n))
    assert (reply.status, reply.error()["param"]) == (400, "n")


@pytest.mark.parametrize("model", ["fill", "redux", "kontext", "gpt"])
async def test_edits_and_variations_come_in_several_too(home: House, model: str) -> None:
    mask = (("mask", ("m.png", encoded((64, 64), mode="RGBA", colour="#00000000"))),) if model == "fill" else ()
    prompt = () if model == "redux" else (("prompt", f"3 by {model}"),)
    path = "/v1/images/variations" if model == "redux" else "/v1/images/edits"
    reply = await edit(
        home.port, ("image", ("i.png", encoded())), ("model", model), ("n", "3"), *mask, *prompt, path=path
    )
    assert len(pictures(reply)) == 3


async def test_no_more_are_drawn_at_once_than_the_deployment_takes(start: Start, upstream: Scripted) -> None:
    providers = {"a": provider(upstream.at("a", 0.03, drawn("red")), max_concurrency=3)}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a", profile={"max_n": 1})}})
    asking = asyncio.create_task(generate(gateway.port, n=10))
    most = 0
    while not asking.done():
        most = max(most, upstream.connections)
        await asyncio.sleep(0.002)
    assert len(pictures(await asking)) == 10
    assert most == 3


# --- several in one answer ---


def usage(number: int) -> dict[str, Any]:
    details = {"text_tokens": number, "image_tokens": 0}
    return {"total_tokens": 3 * number, "input_tokens": number, "output_tokens": 2 * number} | {
        "input_tokens_details": details
    }


def host(upstream: Scripted, **profile: Any) -> Config:
    providers = {"a": provider(f"{upstream.base_url}/a/v1")}
    return {"providers": providers, "models": {"flux": served_by("a", profile={"streaming": False, **profile})}}


async def test_usage_is_added_up(start: Start, upstream: Scripted) -> None:
    gateway = await start(host(upstream, max_n=2))
    upstream.at("a", drawn("red", "lime", usage=usage(10)))
    upstream.at("a", drawn("red", "lime", usage=usage(100)))
    upstream.at("a", drawn("red", "lime", usage=usage(1000)))  # one too many for whichever part is the last
    reply = await generate(gateway.port, n=5)
    assert len(pictures(reply)) == 5
    assert sorted(received.json.get("n", 1) for received in upstream.received("a")) == [1, 2, 2]
    assert reply.json()["usage"] == usage(1110)
    assert reply.header("x-gateway-attempts") == "3"


async def test_an_answer_with_fewer_is_topped_up(start: Start, upstream: Scripted) -> None:
    gateway = await start(host(upstream))
    upstream.at("a", drawn("red", usage=usage(1)))
    upstream.at("a", drawn("lime", usage=usage(10)))
    upstream.at("a", drawn("blue", usage=usage(100)))
    reply = await generate(gateway.port, n=3)
    assert colours(reply) == [RED, LIME, BLUE]
    assert [received.json.get("n", 1) for received in upstream.received("a")] == [3, 2, 1]
    assert reply.json()["usage"] == usage(111)


async def test_a_part_with_fewer_is_topped_up(start: Start, upstream: Scripted) -> None:
    gateway = await start(host(upstream, max_n=2))
    for _ in range(3):
        upstream.at("a", drawn("red"))
    reply = await generate(gateway.port, n=3)
    assert colours(reply) == [RED] * 3
    assert sorted(received.json.get("n", 1) for received in upstream.received("a")) == [1, 1, 2]
    assert reply.header("x-gateway-attempts") == "3"


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("max_n", [1, 10])
@pytest.mark.parametrize("stream", [False, True])
async def test_more_than_were_asked_for_are_cut_and_their_usage_is_told(
    start: Start, upstream: Scripted, n: int, max_n: int, stream: bool
) -> None:
    gateway = await start(host(upstream, max_n=max_n))
    upstream.at("a", drawn("red", "lime", "blue", usage=usage(5)))
    reply = await generate(gateway.port, n=n, stream=stream)
    assert reply.status == 200, reply.body
    if stream:
        assert sorted(document["index"] for document in completed(reply)) == list(range(n))
        return
    assert colours(reply) == ([RED, LIME] if (n, max_n) == (2, 10) else [RED] * n)
    assert reply.json()["usage"] == usage(5 * len(upstream.received("a")))


async def test_who_wants_one_picture_as_bytes_gets_no_second(start: Start, upstream: Scripted) -> None:
    gateway = await start(host(upstream))
    upstream.at("a", drawn("red", "lime"))
    body = json.dumps({"model": "flux", "prompt": "x"}).encode()
    async with line(gateway.port) as opened:
        await opened.send(
            request("POST", "/v1/images/generations", body, accept="image/png", content_type="application/json")
        )
        reply = await opened.reply()
    assert reply.body == encoded(colour="red")


# --- parts that fail ---


def two(sandbox: Sandbox, *names: str) -> Config:
    deployments = [{"provider": name, "model": SCHNELL} for name in names]
    return {
        "providers": sandbox_providers(sandbox.base_url),
        "models": {
            "flux": {"deployments": deployments},
            "sdxl": {"deployments": [{"provider": "nebula", "model": SDXL}]},
        },
    }


async def test_a_part_that_fails_is_drawn_by_the_next_deployment(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(two(sandbox, "nebula", "netmind"))
    reply = await generate(gateway.port, n=4, size=SMALL, prompt="foxes [[fault@nebula*1:503]]")
    assert len(set(pictures(reply))) == 4
    assert reply.header("x-gateway-attempts") == "5"
    assert sandbox.world.journal.drawings == {"netmind": 1, "nebula": 3, "nebul": 0, "openai": 0, "bfl": 0}


@pytest.mark.parametrize(
    ("fault", "status", "should_retry"),
    [
        ("503", 503, None),
        ("500", 502, None),
        ("429:retry_after=7", 429, None),
        ("moderation", 400, "false"),
        ("quota", 502, "false"),
        ("cut_headers", 502, "false"),
        ("noimage", 502, "false"),
        ("truncated_image", 502, "false"),
    ],
)
async def test_a_part_that_cannot_be_had_fails_the_call_with_its_own_status(
    start: Start, sandbox: Sandbox, fault: str, status: int, should_retry: str | None
) -> None:
    gateway = await start(two(sandbox, "nebula"))
    reply = await generate(gateway.port, n=3, size=SMALL, prompt=f"foxes [[fault*1:{fault}]]")
    assert reply.status == status
    assert reply.error()["message"]
    assert reply.header("x-should-retry") == should_retry
    assert reply.header("x-gateway-attempts") == "3"


async def test_who_comes_back_after_a_part_failed_gets_only_the_missing_one_drawn(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(two(sandbox, "nebula"))
    body = json.dumps({"model": "flux", "prompt": "foxes [[fault*1:503]]", "n": 4, "size": SMALL, "seed": 9}).encode()
    replies = []
    for retry in "01":
        async with line(gateway.port) as opened:
            said = request(
                "POST",
                "/v1/images/generations",
                body,
                content_type="application/json",
                x_stainless_retry_count=retry,
            )
            await opened.send(said)
            replies.append(await opened.reply())
    assert [reply.status for reply in replies] == [503, 200]
    assert [image["seed"] for image in replies[1].json()["data"]] == [9, 10, 11, 12]
    assert sandbox.world.journal.drawings["nebula"] == 4


@pytest.mark.parametrize("first", [True, False])
async def test_a_failure_that_was_perhaps_paid_for_is_told_before_one_that_was_not(
    start: Start, upstream: Scripted, first: bool
) -> None:
    """Or an SDK would come back, and what was perhaps drawn would be drawn again."""
    gateway = await start(host(upstream, max_n=1))
    scripts = [answer({"error": {"message": "busy"}}, 503), answer({"created": 1, "data": []})]
    for script in reversed(scripts) if first else scripts:
        upstream.at("a", script)
    reply = await generate(gateway.port, n=2)
    assert reply.status == 502
    assert reply.header("x-should-retry") == "false"


# --- streams ---


@pytest.mark.parametrize("model", ["schnell", "kontext", "gpt", "netmind-schnell"])
async def test_a_stream_has_one_completed_event_for_each(home: House, model: str) -> None:
    reply = await generate(home.port, model=model, prompt=f"streamed by {model}", n=3, size=SMALL, stream=True)
    found = completed(reply)
    assert sorted(document["index"] for document in found) == [0, 1, 2]
    assert len({document["b64_json"] for document in found}) == 3
    assert all(document["gateway"]["attempts"] for document in found)


async def test_a_streams_seeds_belong_to_their_indices(home: House) -> None:
    reply = await generate(home.port, model="schnell", prompt="seeded stream", n=4, size=SMALL, seed=70, stream=True)
    assert {document["index"]: document["seed"] for document in completed(reply)} == {0: 70, 1: 71, 2: 72, 3: 73}


async def test_partial_images_say_whose_they_are_and_never_interleave(home: House) -> None:
    reply = await generate(home.port, model="gpt", prompt="partials", n=3, size=SMALL, stream=True, partial_images=2)
    seen = [(name.rpartition(".")[2], document["index"]) for name, document in events(reply.body)]
    assert len(seen) == 9
    for index in range(3):
        assert [name for name, whose in seen if whose == index] == ["partial_image", "partial_image", "completed"]


async def test_an_image_is_told_as_soon_as_it_lands(start: Start, upstream: Scripted) -> None:
    gateway, late = await start(host(upstream, max_n=1)), asyncio.Event()
    upstream.at("a", late, drawn("red"))
    upstream.at("a", drawn("lime"))
    body = json.dumps({"model": "flux", "prompt": "x", "n": 3, "stream": True}).encode()
    async with line(gateway.port) as opened:
        await opened.send(request("POST", "/v1/images/generations", body, content_type="application/json"))
        await opened.head()
        got = b""
        while got.count(b"\n\n") < 2:
            got += await opened.piece()
        early = [document["index"] for _, document in events(got)]
        late.set()
        while piece := await opened.piece():
            got += piece
    assert len(early) == 2
    assert sorted(document["index"] for _, document in events(got)) == [0, 1, 2]


async def test_a_streams_missing_part_is_a_nested_error_after_the_others(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(two(sandbox, "nebula"))
    reply = await generate(gateway.port, n=3, size=SMALL, stream=True, prompt="foxes [[fault*1:503]]")
    names = [name for name, _ in events(reply.body)]
    assert names == ["image_generation.completed", "image_generation.completed", "error"]
    assert events(reply.body)[-1][1]["error"]["code"] == "upstream_unavailable"


async def test_a_streaming_upstream_that_counts_to_n_itself_is_asked_for_one_at_a_time(
    start: Start, sandbox: Sandbox
) -> None:
    """As OpenAI refuses to stream several."""
    gpt: Config = {"deployments": [{"provider": "openai", "model": "gpt-image-2"}], "profile": GPT_IMAGE_2}
    gateway: Gateway = await start({"providers": sandbox_providers(sandbox.base_url), "models": {"gpt": gpt}})
    reply = await generate(gateway.port, model="gpt", n=2, size=SMALL, stream=True)
    asked = [fields_of(entry) for entry in sandbox.world.journal.last(10)]
    assert [fields.get("n", 1) for fields in asked] == [1, 1]
    assert all(fields["stream"] is True for fields in asked)
    usages = [document["usage"]["total_tokens"] for document in completed(reply)]
    assert len(usages) == 2


async def test_a_topped_up_stream_counts_its_requests(start: Start, upstream: Scripted) -> None:
    gateway = await start(host(upstream))
    upstream.at("a", drawn("red"))
    upstream.at("a", drawn("lime"))
    reply = await generate(gateway.port, n=2, stream=True)
    assert [(d["index"], d["gateway"]["attempts"]) for d in completed(reply)] == [(0, 1), (1, 2)]


async def test_an_upstream_that_streams_several_although_asked_for_one_is_cut(start: Start, upstream: Scripted) -> None:
    gateway = await start(host(upstream, streaming=True))
    three = b"".join(event("image_generation.completed", b64_json=text(encoded(colour=c))) for c in ("red", "lime"))
    upstream.at("a", answer(three, type="text/event-stream"))
    reply = await generate(gateway.port, stream=True)
    assert [document["index"] for document in completed(reply)] == [0]
    received: list[Received] = upstream.received("a")
    assert received[0].json["stream"] is True
