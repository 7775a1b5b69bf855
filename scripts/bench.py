"""The gateway's CPU seconds for each kind of work, beside the figures in bench.json: `make bench`, in under a minute.

Seconds differ between machines, so each figure is a ratio: the CPU seconds of the gateway for 1,000 requests, divided
by those of a calibration loop of plain Python, both of the same minute. `--save` writes the figures anew; commit them
with the change that moved them. Needs Linux, which tells the CPU seconds of a thread to the nanosecond.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httptools
import uvloop

FIGURES = Path(__file__).with_suffix(".json")
ROUNDS = 5
NOISE = 0.1  # a change of less is none
SETTLED = 0.2  # seconds, after which a request that was answered costs nothing more
KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """`answer` and `upload` are the bytes of a picture; `callers` make `count` requests."""

    dialect: str
    count: int
    callers: int
    answer: int
    upload: int = 0


ROWS = {
    "1k": Row("openai", 1_000, 32, KIB),
    "2m": Row("openai", 64, 8, 2 * MIB),
    "20m": Row("openai", 10, 2, 20 * MIB),
    "nebula-2m": Row("nebula_block", 64, 8, 2 * MIB),
    "edit-multipart": Row("openai", 16, 4, KIB, 8 * MIB),
    "edit-base64": Row("nebula_block", 16, 4, KIB, 8 * MIB),
}


def picture(size: int) -> bytes:
    """Return a PNG of so many bytes of noise."""
    noise = random.Random(size).randbytes(size)  # noqa: S311
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(8 * (1 + 8 * 3)))
    parts = ((b"IHDR", header), (b"noIs", noise), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def calibrate() -> float:
    """Return the CPU seconds of work like the gateway's: small objects, JSON, base64, copies of large bytes."""
    large, began = bytes(2 * MIB), time.process_time()
    for number in range(15_000):
        json.loads(json.dumps({"model": "m", "n": number, "headers": [["name", "value"]] * 8}))
    for _ in range(12):
        bytearray(base64.b64decode(base64.b64encode(large)))
    return time.process_time() - began


# --- both ends of the gateway ---


class Wrong(Exception):
    """The gateway did not do what is measured."""


class Upstream(asyncio.Protocol):
    """Answers at /ROW/… with the row's answer. `received` has the last body, while it is not None."""

    received: bytearray | None = None
    _path = b""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_body(self, data: bytes) -> None:
        if Upstream.received is not None:
            Upstream.received += data

    def on_message_complete(self) -> None:
        self._transport.write(self._answers[self._path.decode().split("/")[1]])


class Caller(asyncio.Protocol):
    """Asks one thing again and again over one connection. `body` has the last answer, if it is to be kept."""

    def __init__(self, asked: bytes, count: int, *, keeps: bool = False) -> None:
        self._asked, self._count, self._keeps = asked, count, keeps
        self.body = bytearray()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        if self._keeps:
            self.body += data

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 200:
            self.done.set_exception(Wrong(f"the gateway answered {status}: {bytes(self.body[:500])!r}"))
            return
        self._count -= 1
        if self._count:
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or Wrong("the gateway ended the connection"))


def answer_of(row: Row) -> bytes:
    image = base64.b64encode(picture(row.answer))
    body = b'{"created":1,"data":[{"b64_json":"%b"}]}' % image
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def request_of(name: str, row: Row) -> bytes:
    if not row.upload:
        kind, body = "application/json", json.dumps({"model": name, "prompt": "a red fox"}).encode()
    else:
        kind, head = "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name="
        fields = f'{head}"model"\r\n\r\n{name}\r\n{head}"prompt"\r\n\r\na red fox\r\n{head}"image"; filename="a.png"'
        body = f"{fields}\r\nContent-Type: image/png\r\n\r\n".encode() + picture(row.upload) + b"\r\n--b--\r\n"
    path = "edits" if row.upload else "generations"
    lines = (f"POST /v1/images/{path} HTTP/1.1", "host: 127.0.0.1", f"content-type: {kind}")
    return "\r\n".join((*lines, f"content-length: {len(body)}", "", "")).encode() + body


# --- the gateway ---


@dataclass(frozen=True, slots=True)
class Gateway:
    pid: int
    port: int

    def seconds(self) -> float:
        """Return the CPU seconds of all its threads so far (proc_pid_schedstat). Threads that end take theirs along;
        the gateway's stay."""
        return (
            sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{self.pid}/task").glob("*/schedstat")) / 1e9
        )


@asynccontextmanager
async def gateway(rows: dict[str, Row]) -> AsyncIterator[Gateway]:
    """`image-gateway serve` before an upstream in this process."""
    answers = {name: answer_of(row) for name, row in rows.items()}
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(answers), "127.0.0.1", 0)
    at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    config = {
        "providers": {
            name: {"preset": "none", "dialect": row.dialect, "base_url": f"{at}/{name}/v1"}
            for name, row in rows.items()
        },
        "models": {name: {"deployments": [{"provider": name}]} for name in rows},
    }
    serve = (sys.executable, "-m", "app", "serve", "--port", "0", "--config")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file, tempfile.TemporaryDirectory() as folder:
        file.write(json.dumps({**config, "data_dir": folder}))
        file.flush()
        process = await asyncio.create_subprocess_exec(*serve, file.name, stdout=DEVNULL, stderr=PIPE)
        try:
            said = (await process.stderr.readline()).decode() if process.stderr else ""
            yield Gateway(process.pid, int(said.partition("http://127.0.0.1:")[2].partition("/")[0]))
        finally:
            process.kill()
            await process.communicate()
            server.close()


async def ask(port: int, asked: bytes, count: int, callers: int = 1, *, keeps: bool = False) -> Caller:
    """Make `count` requests. Returns one of the callers. Raises Wrong for any answer but 200."""
    loop = asyncio.get_running_loop()
    share = max(1, count // callers)
    made = [
        await loop.create_connection(lambda: Caller(asked, share, keeps=keeps), "127.0.0.1", port)
        for _ in range(callers)
    ]
    await asyncio.gather(*(caller.done for _, caller in made))
    return made[0][1]


async def check(port: int, name: str, row: Row) -> None:
    """Compare the pictures of one request, on both sides, byte for byte. Raises Wrong."""
    Upstream.received = bytearray()
    answer = json.loads((await ask(port, request_of(name, row), 1, keeps=True)).body)
    sent, received = picture(row.upload), Upstream.received
    Upstream.received = None
    if base64.b64decode(answer["data"][0]["b64_json"]) != picture(row.answer):
        raise Wrong(f"{name}: the caller got another picture")
    if row.upload and (sent if row.dialect == "openai" else base64.b64encode(sent)) not in received:
        raise Wrong(f"{name}: the provider got another picture")


async def measure(rows: dict[str, Row], rounds: int) -> dict[str, float]:
    """Return the ratio of each row. Of all rounds the least counts, above and below the line: whatever else the machine
    does only adds."""
    units: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    async with gateway(rows) as running:
        for name, row in rows.items():
            await check(running.port, name, row)
        for _ in range(rounds):
            for name, row in rows.items():
                units.append(calibrate())
                asked, before = request_of(name, row), running.seconds()
                await ask(running.port, asked, row.count, row.callers)
                await asyncio.sleep(SETTLED)
                seconds[name].append((running.seconds() - before) / (row.count // row.callers * row.callers))
    return {name: round(min(found) * 1_000 / min(units), 2) for name, found in seconds.items()}


def table(found: dict[str, float], kept: dict[str, float]) -> str:
    lines = [f"{'row':16}{'now':>10}{'kept':>10}  change"]
    for name, now in found.items():
        was = kept.get(name)
        change = now / was - 1 if was else 0.0
        word = "slower" if change > NOISE else "faster" if change < -NOISE else ""
        lines.append(f"{name:16}{now:>10}{was or '-':>10}  {f'{change:+.0%} {word}' if was else 'new'}")
    return "\n".join(lines)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    arguments.add_argument("--requests", type=int, help="of each row; its own number otherwise")
    arguments.add_argument("--save", action="store_true", help="write the figures of bench.json anew")
    given = arguments.parse_args()
    rows = {name: ROWS[name] for name in given.only}
    if given.requests:
        rows = {name: replace(row, count=given.requests, callers=1) for name, row in rows.items()}
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    found = uvloop.run(measure(rows, given.rounds))
    sys.stdout.write(table(found, kept) + "\n")
    if given.save:
        FIGURES.write_text(json.dumps({**kept, **found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
