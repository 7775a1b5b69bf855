"""Hours of a bad day, pressed into a minute: mixed callers, faults and departures at random. Afterwards nothing is left
but what was meant to be kept."""

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from app.storage.spool import KEPT_FILES
from tests.live.crowds import (
    EDITS,
    GENERATIONS,
    Holdings,
    answered,
    asking,
    assert_said_nothing_odd,
    call,
    drawn_by,
    fault,
    get,
    holdings,
    judged,
    logged,
    simulated,
)
from tests.live.house import GPT_IMAGE_2
from tests.live.loops import in_thread
from tests.live.pictures import heavy
from tests.live.servers import Config, Process, process
from tests.live.wire import form, line, request
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WARM_UP, SECONDS, WORKERS = 15.0, 45.0, 40
MEGABYTE = 1024 * 1024
UPLOAD = heavy(700_000)  # more than stays in memory
MISHAPS = (
    *("400", "500", "502:shape=html", "503", "504", "moderation", "failed200", "cut"),
    *("cut_headers", "reset", "short", "badbase64", "truncated_image", "noimage", "html200", "slow:0.5", "chunked"),
    *("gzip", "dribble:100000", "urlonly", "newlines"),
)


def configured(base_url: str, **more: Any) -> Config:
    return {
        "providers": {name: simulated(base_url, name, max_concurrency=12) for name in ("openai", "nebula", "netmind")},
        "models": {
            "gpt": {**drawn_by("openai"), "profile": GPT_IMAGE_2},
            "schnell": {**drawn_by("nebula", "netmind"), "profile": {"streaming": False, "output_formats": ["png"]}},
        },
        "queue": {"max_length": 30, "max_seconds": 3},
        **more,
    }


@dataclass(slots=True)
class Ledger:
    """What the callers did and had."""

    answers: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)  # by request id
    left: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)


class Caller:
    """One of many, each with a randomness of its own."""

    def __init__(self, number: int, port: int, ledger: Ledger) -> None:
        self._number, self._port, self._ledger = number, port, ledger
        self._random = random.Random(number)
        self._count = 0

    async def until(self, over: float) -> None:
        while time.monotonic() < over:
            self._count += 1
            await self._once(f"{self._number}-{self._count}")

    async def _once(self, name: str) -> None:
        asked, n = self._request(name)
        leaving = self._random.random() < 0.15
        if leaving:
            self._ledger.left.add(name)
            with contextlib.suppress(TimeoutError, OSError, EOFError):
                async with asyncio.timeout(self._random.random() * 0.3), line(self._port) as opened:
                    await opened.send(asked[: self._random.randrange(1, len(asked))] if n is None else asked)
                    await opened.reply()
            return
        try:
            reply = await answered(self._port, asked)
        except (OSError, EOFError):
            self._ledger.answers["none"] += 1
            return
        self._ledger.answered.add(name)
        images, error = judged(reply, n or 1)
        self._ledger.answers["images" if images else error or "broken"] += 1
        if error:
            await asyncio.sleep(self._random.random())  # who is refused does not come back at once
        if images and reply.header("content-type") == "application/json":
            self._ledger.links += [image["url"] for image in reply.json()["data"] if "url" in image]

    def _request(self, name: str) -> tuple[bytes, int | None]:
        """And how many images it asks for; None if its caller may leave in the middle of it."""
        chance, headers = self._random.random(), {"x_request_id": name}
        prompt = f"{name} {fault(self._random.choice(MISHAPS))}" if self._random.random() < 0.3 else name
        model = self._random.choice(("gpt", "schnell"))
        if chance < 0.25:
            parts: list[tuple[str, Any]] = [("model", "gpt"), ("prompt", prompt), ("image", ("a.png", UPLOAD))]
            content_type, body = form(*parts, ("stream", self._random.choice(("true", "false"))))
            return request("POST", EDITS, body, content_type=content_type, **headers), None
        fields = asking(prompt, model)
        if chance < 0.45:
            fields |= {"model": "gpt", "stream": True, "partial_images": 2}
        elif chance < 0.6:
            fields |= {"n": 3}
        elif chance < 0.7:
            fields |= {"response_format": "url"}
        elif chance < 0.8:
            fields |= {"model": "schnell", "stream": True}
        elif chance < 0.83:
            fields |= {"size": "1024x1024", "model": "gpt"}
        elif chance < 0.86:
            fields |= {"output_format": "webp", "model": "schnell"}
        body = json.dumps(fields).encode()
        head = request("POST", GENERATIONS, body, content_type="application/json", **headers)
        return head, fields.get("n", 1)


async def at_rest(gateway: Process, wanted: Callable[[Holdings], bool]) -> Holdings:
    """Idle connections to providers are closed after a few seconds, those for downloads after up to thirty."""
    await until(lambda: wanted(holdings(gateway)), lambda: (holdings(gateway), open_files(gateway)))
    return holdings(gateway)


def open_files(gateway: Process) -> list[str]:
    folder = Path(f"/proc/{gateway.process.pid}/fd")
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(folder / name))
    return sorted(found)


def kept(data: Path, name: str) -> list[Path]:
    return [path for path in (data / name).rglob("*") if path.is_file()]


async def test_a_minute_of_everything_leaves_nothing_behind(tmp_path: Path) -> None:
    runs = {"retain_seconds": 5}  # what is kept takes memory: here it is soon as much as it will be
    with in_thread(Sandbox) as sandbox, process(configured(sandbox.base_url, runs=runs), tmp_path) as gateway:
        first, ledger = holdings(gateway), Ledger()
        callers = [Caller(number, gateway.port, ledger) for number in range(WORKERS)]
        warm = time.monotonic() + WARM_UP
        await asyncio.gather(*(caller.until(warm) for caller in callers))
        await asyncio.sleep(5)
        rested = holdings(gateway)
        over = time.monotonic() + SECONDS
        await asyncio.gather(*(caller.until(over) for caller in callers))
        # A delivered run that lies on disk holds a file, up to 64 of them, and some files are kept for later uploads.
        after = await at_rest(gateway, lambda now: now.sockets <= first.sockets)
        told = f"{first}\n{rested}\n{after}\n{ledger.answers}"
        assert after.files <= first.files + 64 + KEPT_FILES, f"{told}\n{open_files(gateway)}"
        assert after.threads <= first.threads + 12, told  # those of two pools, which stay
        assert after.memory - rested.memory < 32 * MEGABYTE, told
        assert_said_nothing_odd(gateway)

        ids = Counter(each["request_id"] for each in logged(gateway))
        assert set(ids) <= ledger.answered | ledger.left
        assert ledger.answered <= set(ids)
        assert set(ids.values()) == {1}
        assert ledger.answers["none"] == 0, ledger.answers
        assert ledger.answers.total() == len(ledger.answered)
        assert ledger.answers["images"] > ledger.answers.total() / 2, ledger.answers
        assert "internal_error" not in ledger.answers

        data = tmp_path / "data"
        assert not kept(data, "spool")
        await until(lambda: not kept(data, "runs"), lambda: kept(data, "runs"))
        assert len(kept(data, "files")) >= len(ledger.links) > 0
        link = ledger.links[-1]
        assert (await get(gateway.port, link[link.index("/files") :])).status == 200
        gateway.process.kill()


# --- those who leave ---

Leaver = Callable[[int, int], Awaitable[None]]


async def while_uploading(port: int, number: int) -> None:
    async with line(port) as opened:
        content_type, body = form(("model", "gpt"), ("prompt", "x"), ("image", ("a.png", UPLOAD)))
        whole = request("POST", EDITS, body, content_type=content_type)
        await opened.send(whole[: random.Random(number).randrange(10, len(whole))])


async def while_it_waits_or_is_drawn(port: int, number: int) -> None:
    chance = random.Random(number)
    async with line(port) as opened:
        fields = asking(f"{number} {fault('slow:0.3')}", chance.choice(("gpt", "schnell")), stream=number % 2 == 0)
        body = json.dumps(fields).encode()
        await opened.send(request("POST", GENERATIONS, body, content_type="application/json"))
        await asyncio.sleep(chance.random())


async def while_receiving(port: int, number: int) -> None:
    async with line(port, limit=1024) as opened:
        body = json.dumps(asking(str(number), "gpt", size="768x768", stream=number % 2 == 0)).encode()
        await opened.send(request("POST", GENERATIONS, body, content_type="application/json"))
        head = await opened.head()
        assert head.status in (200, 503)
        await opened.piece()


async def test_a_thousand_who_leave_at_any_stage_leave_nothing_behind(tmp_path: Path) -> None:
    runs = {"retain_seconds": 1}
    with in_thread(Sandbox) as sandbox, process(configured(sandbox.base_url, runs=runs), tmp_path) as gateway:
        await call(gateway.port, asking(model="gpt"))
        first = await at_rest(gateway, lambda now: now.sockets <= 6)
        stages: tuple[Leaver, ...] = (while_uploading, while_it_waits_or_is_drawn, while_receiving)
        for batch in range(10):
            await asyncio.gather(*(stages[number % 3](gateway.port, batch * 100 + number) for number in range(100)))
        files = first.files + KEPT_FILES + 1
        after = await at_rest(gateway, lambda now: now.sockets <= first.sockets and now.files <= files)
        assert after.memory - first.memory < 96 * MEGABYTE, (first, after)
        data = tmp_path / "data"
        await until(lambda: not kept(data, "runs"), lambda: kept(data, "runs"))
        assert not kept(data, "spool")
        assert not kept(data, "files")
        # Every place is free again: what is asked now is drawn at once, as many as there are places.
        for model, places in (("gpt", 12), ("schnell", 24)):
            began = time.monotonic()
            outcomes = await asyncio.gather(
                *(call(gateway.port, asking(fault("slow:0.5"), model)) for _ in range(places))
            )
            assert {outcome.kind for outcome in outcomes} == {"images"}
            assert time.monotonic() - began < 0.5 + 3
        assert_said_nothing_odd(gateway)
        gateway.process.kill()
