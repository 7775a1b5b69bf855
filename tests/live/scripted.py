"""An upstream that does exactly what a test says: bytes, pauses, cuts and resets over a raw socket. Knows no dialect.

The first segment of a path names the script, so that one of these can play several providers at a time.
"""

import asyncio
import json
import os
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self

from tests.live.loops import bound, write


class End(Enum):
    CLOSE = auto()  # the connection, wherever the answer is
    RESET = auto()  # the connection, with an RST
    HANG = auto()  # says nothing more, until the gateway leaves


# bytes are sent, a number of seconds is waited, and so is an event.
Step = bytes | float | asyncio.Event | End


@dataclass(slots=True)
class Received:
    """A request as it came. `left` is set if the gateway leaves before the script is over."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Script:
    steps: tuple[Step, ...]
    early: bool = False  # is played without reading the request's body


class Scripted:
    """An async context manager. Scripts of a name queue; the last one stays."""

    def __init__(self) -> None:
        self.base_url = ""
        self.connections = 0  # that are open
        self._scripts: dict[str, list[Script]] = {}
        self._received: dict[str, list[Received]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        listener = bound()
        self.base_url = "http://{}:{}".format(*listener.getsockname())
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=1 << 20, backlog=256)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def at(self, name: str, *steps: Step, early: bool = False) -> str:
        """Queues a script; returns the base URL under which it is played."""
        self._scripts.setdefault(name, []).append(Script(steps, early))
        return f"{self.base_url}/{name}/v1"

    def clear(self, name: str) -> None:
        """Forgets the scripts and the requests of a name."""
        self._scripts.pop(name, None)
        self._received.pop(name, None)

    def received(self, name: str) -> list[Received]:
        return self._received.get(name, [])

    def all_received(self) -> list[Received]:
        """Return the requests to every address, one address after the other."""
        return [received for each in self._received.values() for received in each]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway left, or the test is over
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its script. Whether the connection can be used once more."""
        received = _parsed(await reader.readuntil(b"\r\n\r\n"))
        name = received.target.split("/")[1]
        queue = self._scripts[name]
        script = queue.pop(0) if len(queue) > 1 else queue[0]
        self._received.setdefault(name, []).append(received)
        if not script.early:
            received.body = await reader.readexactly(int(received.headers.get("content-length", "0")))
        playing = asyncio.create_task(_play(script, writer))
        gone = asyncio.create_task(_gone(reader, discard=script.early))
        try:
            await asyncio.wait({playing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                return await playing
            received.left.set()
            return False
        finally:
            playing.cancel()
            gone.cancel()
            await asyncio.gather(playing, gone, return_exceptions=True)


async def _play(script: Script, writer: asyncio.StreamWriter) -> bool:
    for step in script.steps:
        if isinstance(step, bytes):
            await write(writer, step)
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif isinstance(step, End):
            if step is End.HANG:
                await asyncio.Event().wait()
            if step is End.RESET:
                _reset(writer)
            return False
        else:
            await asyncio.sleep(step)
    return not script.early


async def _gone(reader: asyncio.StreamReader, *, discard: bool) -> None:
    while discard and await reader.read(65_536):
        pass
    await reader.read(1)


def _reset(writer: asyncio.StreamWriter) -> None:
    # A duplicate of the descriptor, because transports hand out sockets without setsockopt.
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _parsed(head: bytes) -> Received:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Received(method, target, headers, b"")


# What upstreams say.


def answer(body: bytes | dict[str, Any], status: int = 200, type: str = "application/json", **headers: str) -> bytes:
    """A whole answer with a Content-Length."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(status, type, content_length=str(len(text)), **headers) + text


def head(status: int = 200, type: str = "application/json", **headers: str) -> bytes:
    """Status line and headers; `_` in a name is written as `-`."""
    lines = [f"HTTP/1.1 {status} Said", f"content-type: {type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def image_json(base64: str, **more: Any) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": base64}], **more}


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


def refusal(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None, **more}}
