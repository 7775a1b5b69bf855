"""A caller that sends exactly the bytes it is given, and sees how the answer comes: framing, pieces, breaks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11

from tests.waiting import PATIENCE


@dataclass(slots=True)
class Reply:
    """`complete`: it ended as its framing said it would. `closed`: the connection was closed after it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = False
    closed: bool = False

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The error object, which is checked to be in OpenAI's envelope."""
        assert self.header("content-type") == "application/json", self
        assert self.header("x-request-id"), self
        document = self.json()
        assert list(document) == ["error"], document
        error: dict[str, Any] = document["error"]
        assert {"message", "type", "param", "code"} <= set(error), error
        assert isinstance(error["message"], str) and error["message"], error
        return error


class Line:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float = PATIENCE) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)

    async def send(self, *pieces: bytes) -> None:
        """The first piece that is sent begins with the request line."""
        for piece in pieces:
            if self._http.our_state is h11.IDLE:
                self._expect(piece)
            self._writer.write(piece)
            await self._writer.drain()

    async def head(self) -> Reply:
        event = await self._next()
        assert isinstance(event, h11.Response), event
        headers = [(name.decode(), value.decode()) for name, value in event.headers]
        return Reply(event.status_code, headers)

    async def piece(self) -> bytes:
        """The next bytes of the body; none at its end. Raises EOFError if it is broken off."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        return b""

    async def reply(self) -> Reply:
        """The whole answer, or what there is of it."""
        reply = await self.head()
        pieces = []
        try:
            while piece := await self.piece():
                pieces.append(piece)
            reply.complete = True
        except EOFError:
            pass
        reply.body = b"".join(pieces)
        # Waiting to see what nobody announced would take longer than most answers.
        announced = reply.header("connection") == "close"
        reply.closed = not reply.complete or (announced and await self.is_closed())
        return reply

    async def is_closed(self) -> bool:
        """Return true once the gateway has closed the connection, and false if it says more."""
        try:
            async with asyncio.timeout(self._patience):
                return not await self._reader.read(1)
        except ConnectionError:
            return True

    def leave(self) -> None:
        """With an RST if something was not read: as a caller that is killed does."""
        self._writer.transport.abort()

    def _expect(self, first: bytes) -> None:
        """Tells h11 what was asked, so that it knows how the answer is framed."""
        method = first.split(b" ", 1)[0]
        self._http.send(h11.Request(method=method, target=b"/", headers=[("host", "x")]))
        self._http.send(h11.EndOfMessage())

    async def _next(self) -> Any:
        async with asyncio.timeout(self._patience):
            while True:
                try:
                    event = self._http.next_event()
                except h11.RemoteProtocolError as error:
                    raise EOFError(str(error)) from None
                if event is not h11.NEED_DATA:
                    if isinstance(event, h11.InformationalResponse):
                        continue
                    return event
                try:
                    self._http.receive_data(await self._reader.read(65_536))
                except ConnectionError as error:
                    raise EOFError(str(error)) from None


@asynccontextmanager
async def line(port: int, limit: int = 65_536, patience: float = PATIENCE) -> AsyncIterator[Line]:
    """`limit`: how much is read ahead before the gateway has to wait."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    opened = Line(reader, writer, patience)
    try:
        yield opened
    finally:
        opened.leave()


async def ask(port: int, request: bytes) -> Reply:
    async with line(port) as opened:
        await opened.send(request)
        return await opened.reply()


async def post(port: int, path: str, body: Any, **headers: str) -> Reply:
    """JSON, or the bytes as they are."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await ask(port, request("POST", path, text, **{"content_type": "application/json", **headers}))


async def generate(port: int, **fields: Any) -> Reply:
    return await post(port, "/v1/images/generations", {"model": "flux", "prompt": "a red fox", **fields})


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """A request with a Content-Length if it has a body; `_` in a header's name is written as `-`."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway.localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None and "content_length" not in headers and "transfer_encoding" not in headers:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def form(*parts: tuple[str, str | tuple[str, bytes]]) -> tuple[str, bytes]:
    """Content type and body: text as text, (file name, bytes) as a file of an unknown kind."""
    boundary, body = "a-boundary", []
    for name, value in parts:
        if isinstance(value, str):
            body.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
            continue
        head = f'Content-Disposition: form-data; name="{name}"; filename="{value[0]}"\r\nContent-Type: '
        body.append(f"--{boundary}\r\n{head}application/octet-stream\r\n\r\n".encode() + value[1] + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(body) + f"--{boundary}--\r\n".encode()


async def edit(port: int, *parts: tuple[str, str | tuple[str, bytes]], path: str = "/v1/images/edits") -> Reply:
    content_type, body = form(*parts)
    return await ask(port, request("POST", path, body, content_type=content_type))


def events(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, each of which is checked to be framed as the SDKs need it."""
    assert body.endswith(b"\n\n"), body[-80:]
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            assert "\n" not in block, block[:200]
            continue
        lines = block.split("\n")
        fields = [line.partition(": ")[0] for line in lines]
        assert fields in (["event", "data"], ["event", "data", "event"]), block[:200]
        document = json.loads(lines[1].removeprefix("data: "))
        name = lines[-1] if len(lines) == 3 else lines[0]
        found.append((name.removeprefix("event: "), document))
    return found
