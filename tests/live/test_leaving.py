"""Callers who leave, at every stage of a request: nothing of it stays behind, neither task nor connection nor file."""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.live.conftest import Start
from tests.live.pictures import encoded, heavy, text
from tests.live.scripted import End, Scripted, Step, answer, event, head, image_json
from tests.live.servers import Gateway, provider, served_by
from tests.live.wire import Line, edit, form, generate, line, request
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

PNG = text(encoded())
MEGABYTE = 1024 * 1024


class Census:
    """What the process holds, counted when the gateway has served for the first time."""

    def __init__(self, gateway: Gateway, upstream: Scripted) -> None:
        self._gateway, self._upstream = gateway, upstream
        self._tasks, self._sockets, self._files = self._now()

    def _now(self) -> tuple[int, int, int]:
        found = list(_descriptors())
        sockets = sum(what.startswith("socket:") for what in found)
        return len(asyncio.all_tasks()), sockets, len(found) - sockets - self._gateway.spare_files

    def _report(self) -> object:
        tasks = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        before = (self._tasks, self._sockets, self._files)
        return self._now(), before, self._gateway.connections, self._upstream.connections, tasks

    async def nothing_more(self, undelivered: int = 0) -> None:
        """`undelivered`: pictures that nobody has had yet are kept, each in at most one open file."""

        def same() -> bool:
            tasks, sockets, files = self._now()
            gone = not self._gateway.connections and not self._upstream.connections
            return gone and tasks <= self._tasks and sockets <= self._sockets and files <= self._files + undelivered

        await until(same, self._report)


def _descriptors() -> Iterator[str]:
    """What each open descriptor is, but for the book's database, which opens its files as it needs them. That of the
    directory itself is gone when its turn comes."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if "/gateway.db" not in (what := os.readlink(f"/proc/self/fd/{name}")):
                yield what


async def begun(start: Start, upstream: Scripted, *steps: Step, **sections: Any) -> tuple[Gateway, Census]:
    """A gateway that has served once, over connections that are closed again, and what it holds then."""
    base_url = upstream.at("a", answer(image_json(PNG), connection="close"), End.CLOSE)
    upstream.at("a", *steps)
    providers = {"a": provider(base_url, timeout={"read": 30})}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a")}, **sections})
    assert (await edit(gateway.port, ("model", "flux"), ("prompt", "x"), ("image", ("a", encoded())))).status == 200
    await until(lambda: not gateway.connections and not upstream.connections, lambda: "the first request")
    return gateway, Census(gateway, upstream)


def generation(**fields: Any) -> bytes:
    body = json.dumps({"model": "flux", "prompt": "a red fox", **fields}).encode()
    return request("POST", "/v1/images/generations", body, content_type="application/json")


async def arrived(upstream: Scripted, count: int = 2) -> None:
    await until(lambda: len(upstream.received("a")) >= count, lambda: "nothing arrived upstream")


ANSWER = answer(image_json(text(heavy(3 * MEGABYTE))), connection="close")
EVENTS = head(200, "text/event-stream", connection="close")
PARTIAL = event("image_generation.partial_image", partial_image_index=0, b64_json=PNG)
COMPLETED = event("image_generation.completed", b64_json=PNG)


async def nothing_is_sent(opened: Line, upstream: Scripted) -> None:
    pass


async def half_a_head_is_sent(opened: Line, upstream: Scripted) -> None:
    await opened.send(generation()[:40])


async def half_the_json_is_sent(opened: Line, upstream: Scripted) -> None:
    await opened.send(generation()[:-10])


async def half_the_form_is_sent(opened: Line, upstream: Scripted) -> None:
    content_type, body = form(("model", "flux"), ("prompt", "x"), ("image", ("a.png", heavy(2 * MEGABYTE))))
    whole = request("POST", "/v1/images/edits", body, content_type=content_type)
    await opened.send(whole[: len(whole) // 2])
    await asyncio.sleep(0.02)


async def too_much_is_being_sent(opened: Line, upstream: Scripted) -> None:
    """The refusal was given, and what is still sent is being read away."""
    await opened.send(request("POST", "/v1/images/edits", b"", content_type="text/plain", content_length="9000000"))
    assert (await opened.head()).status == 400
    await opened.send(b"x" * 1000)


@pytest.mark.parametrize(
    "stage",
    [nothing_is_sent, half_a_head_is_sent, half_the_json_is_sent, half_the_form_is_sent, too_much_is_being_sent],
)
async def test_who_leaves_before_the_request_is_complete_leaves_nothing_behind(
    start: Start, upstream: Scripted, stage: Callable[[Line, Scripted], Awaitable[None]]
) -> None:
    gateway, census = await begun(start, upstream, ANSWER)
    for _ in range(3):
        async with line(gateway.port) as opened:
            await stage(opened, upstream)
    await census.nothing_more()
    assert len(upstream.received("a")) == 1  # nothing was drawn for them


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["finish", "cancel"])
async def test_who_leaves_while_the_upstream_draws_leaves_nothing_behind(
    start: Start, upstream: Scripted, stream: bool, mode: str
) -> None:
    """The drawing ends, or the upstream sees that nobody wants it any more."""
    drawn = asyncio.Event()
    gateway, census = await begun(start, upstream, drawn, ANSWER, End.CLOSE, runs={"on_disconnect": mode})
    async with line(gateway.port) as opened:
        await opened.send(generation(stream=stream))
        await arrived(upstream)
    if mode == "cancel":
        await until(lambda: upstream.received("a")[1].left.is_set())
    drawn.set()
    await census.nothing_more(undelivered=1)
    assert len(upstream.received("a")) == 2


async def test_who_leaves_while_comments_are_sent_leaves_nothing_behind(start: Start, upstream: Scripted) -> None:
    drawn = asyncio.Event()
    gateway, census = await begun(start, upstream, drawn, ANSWER, End.CLOSE, server={"keepalive_seconds": 0.02})
    async with line(gateway.port) as opened:
        await opened.send(generation(stream=True))
        assert (await opened.head()).status == 200
        assert await opened.piece() == b": keep-alive\n\n"
    await until(lambda: not gateway.connections)
    drawn.set()
    await census.nothing_more(undelivered=1)


@pytest.mark.parametrize("mode", ["finish", "cancel"])
async def test_who_leaves_in_the_middle_of_a_picture_leaves_nothing_behind(
    start: Start, upstream: Scripted, mode: str
) -> None:
    drawn = asyncio.Event()
    half = len(ANSWER) // 2
    steps = (ANSWER[:half], drawn, ANSWER[half:], End.CLOSE)
    gateway, census = await begun(start, upstream, *steps, runs={"on_disconnect": mode})
    async with line(gateway.port) as opened:
        await opened.send(generation())
        assert (await opened.head()).status == 200
        assert await opened.piece()
    await until(lambda: not gateway.connections)
    drawn.set()
    await census.nothing_more(undelivered=1)


async def test_who_leaves_between_two_events_leaves_nothing_behind(start: Start, upstream: Scripted) -> None:
    drawn = asyncio.Event()
    gateway, census = await begun(start, upstream, EVENTS, PARTIAL, drawn, COMPLETED, End.CLOSE)
    async with line(gateway.port) as opened:
        await opened.send(generation(stream=True, partial_images=1))
        assert (await opened.head()).status == 200
        assert b"partial_image" in await opened.piece()
    await until(lambda: not gateway.connections)
    drawn.set()
    await census.nothing_more(undelivered=1)


async def test_who_reads_nothing_of_a_large_picture_and_leaves_leaves_nothing_behind(
    start: Start, upstream: Scripted
) -> None:
    large = answer(image_json(text(heavy(12 * MEGABYTE))), connection="close")
    gateway, census = await begun(start, upstream, large, End.CLOSE)
    async with line(gateway.port, limit=4096) as opened:
        await opened.send(generation())
        assert (await opened.head()).status == 200
        await asyncio.sleep(0.1)
    await census.nothing_more(undelivered=1)


async def test_many_callers_who_leave_at_once_leave_nothing_behind(start: Start, upstream: Scripted) -> None:
    drawn = asyncio.Event()
    gateway, census = await begun(start, upstream, drawn, ANSWER, End.CLOSE)

    async def leaving(stream: bool) -> None:
        async with line(gateway.port) as opened:
            await opened.send(generation(stream=stream))
            await arrived(upstream, 31)

    await asyncio.gather(*(leaving(stream=number % 2 == 0) for number in range(30)))
    drawn.set()
    await census.nothing_more(undelivered=30)


async def test_who_closes_the_own_side_after_asking_still_gets_the_picture_or_is_let_go(
    start: Start, upstream: Scripted
) -> None:
    """A half-closed connection cannot be told from a caller who left: it must end, one way or the other."""
    gateway, census = await begun(start, upstream, 0.05, ANSWER, End.CLOSE)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(generation())
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        await reader.read()
    writer.close()
    await census.nothing_more(undelivered=1)


async def test_who_left_is_logged_as_such(start: Start, upstream: Scripted) -> None:
    drawn = asyncio.Event()
    gateway, census = await begun(start, upstream, drawn, ANSWER, End.CLOSE)
    async with line(gateway.port) as opened:
        await opened.send(generation())
        await arrived(upstream)
    await until(lambda: not gateway.connections)
    drawn.set()
    told = (await gateway.request_lines(2))[1]
    assert told["error"] == "client_gone"
    await census.nothing_more(undelivered=1)


@pytest.mark.parametrize("stream", [False, True])
async def test_failures_leave_nothing_behind(start: Start, upstream: Scripted, stream: bool) -> None:
    refused = answer({"error": {"message": "no"}}, 400, connection="close")
    gateway, census = await begun(start, upstream, refused, End.CLOSE)
    upstream.at("a", ANSWER[: len(ANSWER) // 2], End.RESET)
    upstream.at("a", answer({"error": {"message": "no"}}, 503, connection="close"), End.CLOSE)
    upstream.at("a", End.CLOSE)
    for _ in range(6):
        await generate(gateway.port, stream=stream)
    await census.nothing_more()
