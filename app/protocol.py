"""uvicorn's HTTP protocol with two copies of every upload less, one of every answer less, and a way to know that an
answer has left. Knows no request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "image_gateway.transport"
READ_AHEAD = 262_144  # bytes, what uvloop reads at once: to pause after each such piece would cost two system calls


class Protocol(HttpToolsProtocol):
    """Each scope carries the connection's transport, and a way to write to it, under `extensions`."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"transport": self.transport, "write": self.write_piece}}

    def on_body(self, body: bytes) -> None:
        """uvicorn collects pieces in a bytearray and copies that again; a lone piece is handed on as it is."""
        cycle: Any = self.cycle
        if cycle is not None and not cycle.body and not cycle.response_complete and not self.parser.should_upgrade():
            cycle.body = body
            if len(body) > READ_AHEAD:
                self.flow.pause_reading()
            cycle.message_event.set()
        else:
            super().on_body(body)

    async def write_piece(self, piece: bytes) -> bool:
        """A piece of a chunked answer that has begun, as it is; uvicorn would copy it to put its length before it.
        False: this answer is not chunked, so `send` has to do it."""
        cycle: Any = self.cycle
        if not cycle.chunked_encoding or not cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if not cycle.disconnected:
            self.transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
        return True


async def flushed(scope: Any, send: Any) -> None:
    """Waits until the socket has taken all that was sent; without `Protocol`, until the buffer is nearly empty."""
    extension = scope.get("extensions", {}).get(EXTENSION)
    transport: asyncio.WriteTransport | None = extension["transport"] if extension else None
    if transport is not None:
        await asyncio.sleep(0)  # uvloop writes at the end of a round
        if not transport.get_write_buffer_size():
            return
        transport.set_write_buffer_limits(high=0)
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    if transport is not None and not transport.is_closing():
        transport.set_write_buffer_limits(high=HIGH_WATER_LIMIT)
