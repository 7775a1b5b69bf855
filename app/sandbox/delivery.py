"""How an answer goes over the wire, and how the wire breaks: pauses, cuts, resets, bodies that end early or never.

Knows nothing of providers. Breaking a connection needs its transport, which server.py puts into the scope.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from app.sandbox.damage import gzip_bomb
from app.sandbox.faults import Faults

TRANSPORT = "sandbox.transport"  # the scope's extension
RESET_WHEN_CLOSED = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
SEEN_BEFORE_RESET = 0.05  # seconds; what is unsent at a reset is thrown away, so the head is given time to leave
DRIBBLE_STEP = 0.05  # seconds between two pieces
BOMB_MEGABYTES = 64


class ClientGone(Exception):
    """The client has left: there is no connection to answer on."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a body, and the seconds to wait before they are sent."""

    data: bytes
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `wait`: seconds before its head. Without `sized`, the body is chunked."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[Piece, ...]
    wait: float = 0.0
    sized: bool = True

    @property
    def length(self) -> int:
        return sum(len(piece.data) for piece in self.pieces)


class Line:
    """The answering side of one connection, after the request was read to its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        extension = scope.get("extensions", {}).get(TRANSPORT, {})
        self._transport: asyncio.Transport | None = extension.get("transport")

    async def rest(self, seconds: float) -> None:
        """Wait, but no longer than the client does. Raises ClientGone."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._gone()
        except TimeoutError:
            return
        raise ClientGone

    async def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        """Write to the connection. Raises ClientGone."""
        if self._transport is not None and self._transport.is_closing():
            await self._gone()  # until uvicorn knows it too, which would complain of an answer without an end
            raise ClientGone
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def close(self) -> None:
        """End the connection after what was written, wherever the answer is. Raises ClientGone."""
        self._opened().close()
        await self._gone()
        raise ClientGone

    async def reset(self) -> None:
        """Break the connection with an RST. Raises ClientGone."""
        await self.rest(SEEN_BEFORE_RESET)
        transport = self._opened()
        # A duplicate of the descriptor, because transports hand out sockets without setsockopt.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_WHEN_CLOSED)
        transport.abort()
        await self._gone()
        raise ClientGone

    def _opened(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError(f"The scope has no extension {TRANSPORT!r}: serve the sandbox with app.sandbox.server.")
        return self._transport

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def deliver(line: Line, answer: Answer, faults: Faults) -> None:
    """Send the answer as the faults will have it. Raises ClientGone when either side has ended the connection."""
    await line.rest(answer.wait + (faults.number("slow") or 0.0))
    if "cut_headers" in faults:
        await line.close()
    if "endless" in faults:
        await _endless(line, answer, faults)
    if "gzipbomb" in faults:
        await _bomb(line, answer, faults)
        return
    await line.begin(answer.status, _headers(answer, faults))
    rate = faults.number("dribble")
    before, after = _halves(answer)
    await _write(line, before, rate)
    await _in_the_middle(line, faults)
    await _write(line, after, rate)
    if "short" in faults:
        await line.close()
    await line.finish()


def _headers(answer: Answer, faults: Faults) -> list[tuple[str, str]]:
    headers = list(answer.headers)
    if answer.sized and "chunked" not in faults:
        headers.append(("content-length", str(answer.length + (1000 if "short" in faults else 0))))
    return headers


async def _in_the_middle(line: Line, faults: Faults) -> None:
    await line.rest(faults.number("stall") or 0.0)
    if "cut" in faults:
        await line.close()
    if "reset" in faults:
        await line.reset()


async def _write(line: Line, pieces: list[Piece], rate: float | None) -> None:
    for piece in pieces:
        await line.rest(piece.wait)
        if rate is None:
            await line.write(piece.data)
            continue
        step = max(1, int(rate * DRIBBLE_STEP))
        for start in range(0, len(piece.data), step):
            await line.write(piece.data[start : start + step])
            await line.rest(min(step, len(piece.data) - start) / max(rate, 0.001))


def _halves(answer: Answer) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces up to the middle byte, and those after it."""
    left = answer.length // 2
    before: list[Piece] = []
    after: list[Piece] = []
    for piece in answer.pieces:
        if left >= len(piece.data):
            before.append(piece)
        elif left > 0:
            before.append(Piece(piece.data[:left], piece.wait))
            after.append(Piece(piece.data[left:]))
        else:
            after.append(piece)
        left -= min(left, len(piece.data))
    return before, after


async def _endless(line: Line, answer: Answer, faults: Faults) -> None:
    fault: Any = faults.get("endless")
    await line.begin(answer.status, list(answer.headers))
    if fault.value == "base64":
        await line.write(b'{"created":0,"data":[{"b64_json":"')
    block = (b"A" if fault.value == "base64" else b" ") * 65536
    while True:
        await line.write(block)
        await line.rest(0.001)


async def _bomb(line: Line, answer: Answer, faults: Faults) -> None:
    fault: Any = faults.get("gzipbomb")
    await line.begin(answer.status, [*answer.headers, ("content-encoding", "gzip")])
    pieces: Iterator[bytes] = gzip_bomb(int(fault.value or BOMB_MEGABYTES))
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        if piece:
            await line.write(piece)
    await line.finish()
