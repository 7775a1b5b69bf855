"""Answers while they come: server-sent events as the SDKs need them framed, and pictures that pass in pieces."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.pictures import encoded, heavy, opened, text
from tests.live.scripted import End, Scripted, Step, answer, event, head, image_json
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by
from tests.live.wire import Line, Reply, edit, events, generate, line, request

pytestmark = pytest.mark.anyio

PNG = text(encoded())
MEGABYTE = 1024 * 1024


def drawing(sandbox: Sandbox, **sections: Any) -> Config:
    gpt = {"deployments": [{"provider": "openai", "model": "gpt-image-2"}], "profile": {"results": ["b64_json"]}}
    schnell = {"deployments": [{"provider": "nebula", "model": "black-forest-labs/FLUX.1-schnell"}]}
    return {
        "providers": sandbox_providers(sandbox.base_url),
        "models": {"gpt": gpt, "schnell": schnell},
        **sections,
    }


async def scripted(start: Start, upstream: Scripted, *steps: Step, **server: Any) -> Gateway:
    providers = {"a": provider(upstream.at("a", *steps), timeout={"read": 600})}  # no test bears that
    return await start({"providers": providers, "models": {"flux": served_by("a")}, "server": server})


def generation(**fields: Any) -> bytes:
    body = json.dumps({"model": "flux", "prompt": "a red fox", **fields}).encode()
    return request("POST", "/v1/images/generations", body, content_type="application/json")


async def pieces(opened: Line) -> AsyncIterator[bytes]:
    while piece := await opened.piece():
        yield piece


def assert_stream_head(reply: Reply) -> None:
    assert reply.status == 200
    assert reply.header("content-type") == "text/event-stream; charset=utf-8"
    assert reply.header("cache-control") == "no-cache"
    assert reply.header("x-accel-buffering") == "no"
    assert reply.header("x-request-id")
    assert reply.header("content-encoding") is None


def assert_required_fields(name: str, document: dict[str, Any]) -> None:
    """What both SDKs' types declare as always there."""
    required = {"type", "b64_json", "created_at", "size", "quality", "background", "output_format"}
    assert required <= set(document), document.keys()
    assert document["type"] == name
    assert isinstance(document["created_at"], int)
    assert document["output_format"] in ("png", "webp", "jpeg")
    if name.endswith("partial_image"):
        assert isinstance(document["partial_image_index"], int)


# --- events ---


@pytest.mark.parametrize("partials", [0, 1, 3])
async def test_partial_images_pass_through_and_the_finished_one_comes_last(
    start: Start, sandbox: Sandbox, partials: int
) -> None:
    gateway = await start(drawing(sandbox))
    reply = await generate(gateway.port, model="gpt", size="64x64", stream=True, partial_images=partials)
    assert_stream_head(reply)
    assert reply.complete
    found = events(reply.body)
    names = ["image_generation.partial_image"] * partials + ["image_generation.completed"]
    assert [name for name, _ in found] == names
    assert [document.get("partial_image_index") for _, document in found] == [*range(partials), None]
    for name, document in found:
        assert_required_fields(name, document)
        assert opened(document["b64_json"]).size == (64, 64)
    usage = found[-1][1]["usage"]
    assert {"total_tokens", "input_tokens", "output_tokens", "input_tokens_details"} <= set(usage)
    assert set(usage["input_tokens_details"]) == {"text_tokens", "image_tokens"}
    assert found[-1][1]["index"] == 0
    assert found[-1][1]["gateway"]["provider"] == "openai"


async def test_an_edit_streams_events_of_its_own_names(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    parts = (("image", ("a.png", encoded())), ("model", "gpt"), ("prompt", "x"), ("stream", "true"))
    found = events((await edit(gateway.port, *parts, ("partial_images", "1"))).body)
    assert [name for name, _ in found] == ["image_edit.partial_image", "image_edit.completed"]
    for name, document in found:
        assert_required_fields(name, document)


@pytest.mark.parametrize("said", ["true", "True", "1"])
async def test_a_form_says_stream_in_more_than_one_way(start: Start, sandbox: Sandbox, said: str) -> None:
    gateway = await start(drawing(sandbox))
    parts = (("image", ("a.png", encoded())), ("model", "gpt"), ("prompt", "x"), ("stream", said))
    assert_stream_head(await edit(gateway.port, *parts))


async def test_a_json_upstream_becomes_one_completed_event(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(drawing(sandbox))
    reply = await generate(gateway.port, model="schnell", size="64x64", stream=True, partial_images=2)
    [(name, document)] = events(reply.body)
    assert name == "image_generation.completed"
    assert_required_fields(name, document)
    assert (document["size"], document["output_format"]) == ("64x64", "png")
    assert document["gateway"]["dropped"] == ["partial_images"]
    assert reply.header("x-gateway-dropped") == "partial_images"


async def test_an_event_upstream_becomes_json_for_who_does_not_stream(start: Start, upstream: Scripted) -> None:
    partial = event("image_generation.partial_image", partial_image_index=0, b64_json=PNG)
    completed = event("image_generation.completed", b64_json=PNG, usage={"total_tokens": 3, "input_tokens": 1})
    gateway = await scripted(
        start, upstream, head(200, "text/event-stream", connection="close"), partial + completed, End.CLOSE
    )
    reply = await generate(gateway.port)
    assert reply.header("content-type") == "application/json"
    document = reply.json()
    assert isinstance(document["created"], int)
    assert len(document["data"]) == 1
    assert document["usage"]["output_tokens"] == 2


@pytest.mark.parametrize("stream", [None, False])
async def test_who_does_not_stream_gets_json(start: Start, sandbox: Sandbox, stream: bool | None) -> None:
    reply = await generate((await start(drawing(sandbox))).port, model="gpt", size="64x64", stream=stream)
    assert reply.header("content-type") == "application/json"
    document = reply.json()
    assert isinstance(document["created"], int)
    assert (document["size"], document["output_format"]) == ("64x64", "png")
    assert all(isinstance(document["usage"][name], int) for name in ("total_tokens", "input_tokens", "output_tokens"))
    assert b"\n" not in reply.body


COMPLETED = event("image_generation.completed", b64_json=PNG)


@pytest.mark.parametrize(
    "said",
    [
        COMPLETED,
        COMPLETED + b"data: [DONE]\n\n",
        COMPLETED.replace(b"\n", b"\r\n"),
        COMPLETED.replace(b"\n", b"\r"),
        COMPLETED.removesuffix(b"\n\n"),
        COMPLETED.removesuffix(b"\n"),
        b": hello\n\n" + COMPLETED,
        b"retry: 3000\n\nid: 7\n" + COMPLETED,
        b"event: ping\ndata: {}\n\n" + COMPLETED,
        b"event: ping\n\n" + COMPLETED,
        COMPLETED.partition(b"\n")[2],  # no `event:` line: the type in the JSON says it
        b"\xef\xbb\xbf" + COMPLETED,
    ],
    ids=lambda said: repr(said[:24] + b"..." + said[-12:]),
)
@pytest.mark.parametrize("framing", ["close", "chunked", "bytewise"])
async def test_an_upstreams_events_are_told_in_the_one_framing_that_every_sdk_reads(
    start: Start, upstream: Scripted, said: bytes, framing: str
) -> None:
    steps: Sequence[Step]
    if framing == "close":
        steps = (head(200, "text/event-stream", connection="close"), said, End.CLOSE)
    else:
        step = 1 if framing == "bytewise" else 50
        cut = [said[at : at + step] for at in range(0, len(said), step)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut)
        steps = (head(200, "text/event-stream", transfer_encoding="chunked"), chunks, b"0\r\n\r\n")
    reply = await generate((await scripted(start, upstream, *steps)).port, stream=True)
    [(name, document)] = events(reply.body)
    assert name == "image_generation.completed"
    assert document["b64_json"] == PNG
    assert not re.search(rb"^(id|retry)", reply.body, re.MULTILINE)
    assert b"\r" not in reply.body
    assert b"[DONE]" not in reply.body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = head(200, "text/event-stream", transfer_encoding="chunked")
LATE = event("error", error={"message": "too late", "code": "server_error"})


@pytest.mark.parametrize(
    "after",
    [
        (chunk(b"data: [DONE]\n\n"), End.HANG),
        (End.HANG,),
        (End.CLOSE,),
        (0.05, End.RESET),
        (chunk(LATE), b"0\r\n\r\n"),
        (0.05, chunk(LATE), End.HANG),
    ],
    ids=["done and silence", "silence", "closed", "reset", "an error", "a later error"],
)
@pytest.mark.parametrize("asked", [{}, {"stream": True}, {"n": 2}, {"response_format": "url"}], ids=str)
async def test_an_upstream_that_has_sent_all_images_has_delivered_whatever_follows(
    start: Start, upstream: Scripted, after: Sequence[Step], asked: dict[str, Any]
) -> None:
    n = asked.get("n", 1)
    steps = (CHUNKED, chunk(event("image_generation.partial_image", b64_json=PNG)), chunk(COMPLETED * n), *after)
    reply = await generate((await scripted(start, upstream, *steps)).port, **asked)
    assert (reply.status, reply.complete) == (200, True)
    if "stream" in asked:
        assert [name for name, _ in events(reply.body)][-1] == "image_generation.completed"
        assert b"error" not in reply.body
    else:
        assert len(reply.json()["data"]) == n
    assert len(upstream.received("a")) == 1


async def test_an_upstream_that_is_done_before_all_images_is_not_waited_for(start: Start, upstream: Scripted) -> None:
    done = chunk(COMPLETED + b"data: [DONE]\n\n")
    gateway = await scripted(start, upstream, CHUNKED, done, End.HANG)
    assert len((await generate(gateway.port, n=2)).json()["data"]) == 2
    assert len(upstream.received("a")) == 2


async def test_the_connection_of_a_stream_that_ends_a_moment_after_its_image_is_used_again(
    start: Start, upstream: Scripted
) -> None:
    gateway = await scripted(start, upstream, CHUNKED, chunk(COMPLETED), 0.05, b"0\r\n\r\n")
    for _ in range(3):
        assert (await generate(gateway.port, stream=True)).complete
    assert upstream.connections == 1


# --- while the upstream draws ---


async def test_comments_keep_the_line_alive_and_stand_only_between_events(start: Start, upstream: Scripted) -> None:
    half, comment = len(COMPLETED) // 2, b": keep-alive\n\n"
    partial = event("image_generation.partial_image", partial_image_index=0, b64_json=PNG)
    begin = head(200, "text/event-stream", connection="close")
    begun, drawn = asyncio.Event(), asyncio.Event()
    steps = (begun, begin, partial, drawn, COMPLETED[:half], 0.15, COMPLETED[half:], End.CLOSE)
    gateway = await scripted(start, upstream, *steps, keepalive_seconds=0.04)
    async with line(gateway.port) as opened:
        await opened.send(generation(stream=True, partial_images=1))
        assert_stream_head(await opened.head())
        assert [await opened.piece() for _ in range(3)] == [comment] * 3
        begun.set()
        body = b""
        while body.partition(b"}\n\n")[2].count(comment) < 2:
            body += await opened.piece()
        drawn.set()
        body += b"".join([piece async for piece in pieces(opened)])
    assert [name for name, _ in events(body)] == ["image_generation.partial_image", "image_generation.completed"]
    assert body.endswith(b"}\n\n")


async def test_a_failure_after_a_comment_is_a_nested_error_event(start: Start, upstream: Scripted) -> None:
    refused = answer({"error": {"message": "no", "code": "moderation_blocked", "param": None, "type": "x"}}, 400)
    gateway = await scripted(start, upstream, 0.1, refused, keepalive_seconds=0.03)
    reply = await generate(gateway.port, stream=True)
    assert_stream_head(reply)
    [(name, document)] = events(reply.body)
    assert (name, document["type"]) == ("error", "error")
    assert document["error"]["code"] == "moderation_blocked"
    assert (await gateway.request_lines())[0]["error"] == "moderation_blocked"


async def test_a_failure_before_the_first_comment_is_a_status(start: Start, upstream: Scripted) -> None:
    gateway = await scripted(start, upstream, 0.02, answer({"error": {"message": "no"}}, 400), keepalive_seconds=5)
    reply = await generate(gateway.port, stream=True)
    assert reply.status == 400
    assert reply.error()["message"] == "no"


async def test_json_has_no_byte_before_the_picture_begins(start: Start, upstream: Scripted) -> None:
    """So that a failure until then is a status of its own."""
    begun = asyncio.Event()
    gateway = await scripted(start, upstream, head(200, content_length="500"), b'{"created":1,"data":[{', begun)
    async with line(gateway.port) as opened:
        await opened.send(generation())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await opened.head()
        begun.set()


# --- in pieces ---


@pytest.mark.parametrize("dialect", ["openai", "nebula_block"])
async def test_the_first_bytes_of_a_picture_arrive_before_the_upstream_has_sent_the_last(
    start: Start, upstream: Scripted, dialect: str
) -> None:
    picture = text(heavy(300_000))
    body = json.dumps(image_json(picture)).encode()
    rest = asyncio.Event()
    base_url = upstream.at("a", head(200, content_length=str(len(body))), body[:100_000], rest, body[100_000:])
    providers = {"a": provider(base_url, dialect=dialect)}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}})
    async with line(gateway.port) as opened:
        await opened.send(generation())
        reply = await opened.head()
        assert reply.status == 200
        early = b""
        while len(early) < 90_000:
            early += await opened.piece()
        assert not rest.is_set()
        rest.set()
        whole = early + b"".join([piece async for piece in pieces(opened)])
    assert json.loads(whole)["data"] == [{"b64_json": picture}]


async def test_a_streams_picture_arrives_in_pieces_too(start: Start, upstream: Scripted) -> None:
    picture = text(heavy(300_000))
    body = event("image_generation.completed", b64_json=picture)
    rest = asyncio.Event()
    steps = (head(200, "text/event-stream", connection="close"), body[:100_000], rest, body[100_000:], End.CLOSE)
    gateway = await scripted(start, upstream, *steps)
    async with line(gateway.port) as opened:
        await opened.send(generation(stream=True))
        assert_stream_head(await opened.head())
        early = b""
        while len(early) < 90_000:
            early += await opened.piece()
        rest.set()
        whole = early + b"".join([piece async for piece in pieces(opened)])
    assert events(whole)[0][1]["b64_json"] == picture


@pytest.mark.parametrize("cut", [1, 7, 100])
async def test_where_the_upstreams_answer_is_cut_into_pieces_changes_nothing(
    start: Start, upstream: Scripted, cut: int
) -> None:
    body = json.dumps({"usage": {"total_tokens": 3}, **image_json(PNG.replace("/", "\\/"))}, indent=1).encode()
    body = body.replace(b"\\\\/", b"\\/")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[at : at + cut] for at in range(0, len(body), cut)))
    gateway = await scripted(start, upstream, head(200, transfer_encoding="chunked"), chunks, b"0\r\n\r\n")
    assert (await generate(gateway.port)).json()["data"] == [{"b64_json": PNG}]


async def test_a_twenty_megabyte_picture_arrives_byte_for_byte(start: Start, upstream: Scripted) -> None:
    picture = text(heavy(20 * MEGABYTE))
    gateway = await scripted(start, upstream, answer(image_json(picture)))
    assert (await generate(gateway.port)).json()["data"][0]["b64_json"] == picture


async def test_several_pictures_of_one_answer_keep_their_order_and_their_facts(
    start: Start, upstream: Scripted
) -> None:
    files = [text(encoded((16, 16 + index))) for index in range(3)]
    data = [
        {"revised_prompt": "before", "b64_json": files[0]},
        {"b64_json": files[1], "seed": 8},
        {"url": None, "b64_json": files[2], "revised_prompt": None},
    ]
    gateway = await scripted(start, upstream, answer({"data": data, "usage": {"total_tokens": 9}, "quality": "hd"}))
    document = (await generate(gateway.port, n=3)).json()
    assert [image["b64_json"] for image in document["data"]] == files
    assert document["data"][0]["revised_prompt"] == "before"
    assert document["data"][1]["seed"] == 8
    assert document["usage"]["total_tokens"] == 9
