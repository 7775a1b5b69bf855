"""Many callers at once, and what became of each: images, an error that says so, or a broken connection, never anything
else. And what a gateway's process holds."""

import asyncio
import base64
import contextlib
import io
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from tests.live.servers import Config, Process, provider
from tests.live.wire import Reply, events, line, request
from tests.waiting import PATIENCE, until

SCHNELL = "black-forest-labs/FLUX.1-schnell"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one caller had: `images` or an `error` (its code), or neither, because the connection broke. `status` is
    None when there was no answer at all; times are `time.monotonic()`."""

    status: int | None
    images: int = 0
    error: str | None = None
    reply: Reply | None = None
    began: float = 0.0
    ended: float = 0.0

    @property
    def kind(self) -> str:
        return "images" if self.images else "error" if self.error else "broken"

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def header(self, name: str) -> str | None:
        return self.reply.header(name) if self.reply else None


def judged(reply: Reply, n: int) -> tuple[int, str | None]:
    """How many images a caller has, or the error that it was told. Fails for anything that looks like an answer and is
    none."""
    if not reply.complete:
        return 0, None
    if reply.status != 200:
        error = reply.error()
        return 0, error["code"] or error["type"]
    if (reply.header("content-type") or "").startswith("text/event-stream"):
        found = events(reply.body)
        assert found, "a stream without an event"
        for name, document in found:
            assert name != "error" or "error" in document, document
        if found[-1][0] == "error":
            return 0, found[-1][1]["error"]["code"] or found[-1][1]["error"]["type"]
        whole = [document["b64_json"] for name, document in found if name.endswith(".completed")]
    else:
        document = reply.json()
        assert "error" not in document, document
        whole = [image.get("b64_json") or image["url"] for image in document["data"]]
    assert len(whole) == n, f"{len(whole)} images instead of {n}"
    for text in whole:
        if not text.startswith("http"):
            assert_picture(base64.b64decode(text, validate=True))
    return n, None


def assert_picture(data: bytes) -> None:
    """That it can be decoded to its last row."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def simulated(base_url: str, name: str = "openai", **more: Any) -> Config:
    """A simulated provider's entry in the configuration."""
    path, dialect = {
        "openai": ("/openai/v1", "openai"),
        "nebula": ("/nebula/api/v1", "nebula_block"),
        "netmind": ("/netmind/v1", "openai"),
    }[name]
    return provider(base_url + path, dialect=dialect, **more)


def drawn_by(*names: str, **more: Any) -> Config:
    """A model that these providers draw, small pictures in no time."""
    upstream = {"nebula": SCHNELL, "netmind": SCHNELL}
    deployments = [{"provider": name, "model": upstream.get(name.partition("-")[0], "gpt-image-2")} for name in names]
    return {"deployments": deployments, "profile": {"results": ["b64_json"]}, **more}


def asking(prompt: str = "a red fox", model: str = "flux", **fields: Any) -> Config:
    return {"model": model, "prompt": prompt, "size": "64x64", **fields}


def fault(*faults: str) -> str:
    """A prompt with which the sandbox does so."""
    return " ".join(f"[[fault:{each}]]" for each in faults)


async def call(
    port: int,
    fields: Config | bytes,
    path: str = GENERATIONS,
    *,
    key: str | None = None,
    n: int = 1,
    patience: float = PATIENCE,
    **headers: str,
) -> Outcome:
    """JSON, or a form as it is (with its `content_type`)."""
    if key:
        headers["authorization"] = f"Bearer {key}"
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    began = time.monotonic()
    asked = request("POST", path, body, **{"content_type": "application/json", **headers})
    try:
        reply = await answered(port, asked, patience)
    except (OSError, EOFError):
        return Outcome(None, began=began, ended=time.monotonic())
    n = fields.get("n", n) if isinstance(fields, dict) else n
    return Outcome(reply.status, *judged(reply, n), reply, began, time.monotonic())


async def answered(port: int, asked: bytes, patience: float = PATIENCE) -> Reply:
    """The whole answer, or what there is of it. Raises OSError or EOFError if there is none."""
    async with line(port, patience=patience) as opened:
        await opened.send(asked)
        reply, pieces = await opened.head(), []
        with contextlib.suppress(EOFError):
            while piece := await opened.piece():
                pieces.append(piece)
            reply.complete = True
        reply.body = b"".join(pieces)
        return reply


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*calls))


def tally(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How often each status, or error, or `broken` came."""
    return Counter(f"{each.status} {each.error or each.kind}" for each in outcomes)


async def get(port: int, path: str, key: str | None = None) -> Reply:
    return await answered(port, request("GET", path, authorization=f"Bearer {key}"))


async def ready(port: int) -> int | None:
    """The status of /readyz; None when nobody listens."""
    try:
        return (await get(port, "/readyz")).status
    except (OSError, EOFError):
        return None


async def gone(process: Process) -> int:
    """The exit code of a gateway that is ending, without holding up the loop."""
    await until(lambda: process.process.poll() is not None, process.printed)
    code: int = process.process.returncode
    return code


# --- what a process holds ---


@dataclass(frozen=True, slots=True)
class Holdings:
    sockets: int
    files: int  # open ones, pipes and the like included
    threads: int
    memory: int  # bytes that are resident


def holdings(process: Process) -> Holdings:
    folder = Path(f"/proc/{process.process.pid}")
    found = []
    for name in os.listdir(folder / "fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            found.append(os.readlink(folder / "fd" / name))
    sockets = sum(what.startswith("socket:") for what in found)
    return Holdings(sockets, len(found) - sockets, len(os.listdir(folder / "task")), process.memory("VmRSS"))


def working_seconds(process: Process) -> float:
    """Of the processor, so far (proc(5), stat)."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def logged(process: Process, event: str = "request") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.printed().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def assert_said_nothing_odd(process: Process) -> None:
    """Neither an exception that nobody caught, nor a warning."""
    printed = process.printed()
    for odd in ("Traceback", "Warning", "unexpected error", "never retrieved", "never awaited", "Exception in"):
        at = printed.find(odd)
        assert at < 0, printed[max(0, at - 300) : at + 3000]
    assert len(process.said) == 2, process.said  # the two lines of welcome
