"""A connection without a network: streams of bytes cut anywhere, an application that repeats what it was asked, and
what came of it."""

import asyncio
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from app.server.protocol import Protocol

BLOCK = 262_144  # bytes, the most that uvloop hands over at once
ROUNDS = 100_000  # of the event loop, in which one piece has to be done with
MOST_IN_MEMORY = 1_048_576


class Wire(asyncio.Transport):
    """Notes what is sent. With `stuck` nothing leaves any more."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.waiting = 0
        self.stuck = self.closed = self.aborted = self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: Any) -> None:
        self.sent += data
        self.waiting += len(data) if self.stuck else 0

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@dataclass
class Outcome:
    """`asked`: what the application got, in its order. `most`: the bytes that the connection held at the worst."""

    asked: list[str] = field(default_factory=list)
    sent: bytes = b""
    most: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def answers(self) -> list[tuple[int, str]]:
        """Status and body of each answer, interim ones left out."""
        found, rest = [], self.sent
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status == 100:
                continue
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            found.append((status, rest[:length].decode()))
            rest = rest[length:]
        return found


def connected(application: Any, state: ServerState, wire: Wire) -> Protocol:
    config = uvicorn.Config(application, lifespan="off", ws="none", log_config=None, date_header=False)
    config.load()
    protocol = Protocol(config, state, {}, asyncio.get_running_loop())
    protocol.connection_made(wire)
    return protocol


async def fed(pieces: Sequence[bytes], *, patient: bool = True) -> Outcome:
    """What becomes of a connection on which `pieces` arrive, and then the end. Not `patient`: whatever is paused, a
    piece comes in each round of the loop, as it may where one was on its way already."""
    outcome, state, wire, loop = Outcome(), ServerState(), Wire(), asyncio.get_running_loop()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message["more_body"]:
                break
        if any(name == b"authorization" for name, _ in scope["headers"]):
            outcome.faults.append("a trailer passes for a header")
        said = f"{scope['method']} {scope['raw_path'].decode('latin-1')} {len(body)} {zlib.crc32(body)}"
        outcome.asked.append(said)
        length = str(len(said)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": said.encode(), "more_body": False})

    loop.set_exception_handler(lambda _, context: outcome.faults.append(str(context)))
    noted = logging.Handler(logging.WARNING)
    noted.emit = lambda record: outcome.faults.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addHandler(noted)
    protocol = connected(application, state, wire)
    try:
        for piece in pieces:
            for _ in range(ROUNDS):
                if wire.closed or not (patient and wire.paused):
                    break
                await asyncio.sleep(0)
            if wire.closed:
                break
            protocol.data_received(piece)
            outcome.most = max(outcome.most, _held(protocol))
            await asyncio.sleep(0)
        for _ in range(ROUNDS):
            if protocol.is_between and not protocol.held_bytes:
                break
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        protocol.eof_received()
        wire.close()
        protocol.connection_lost(None)
        await asyncio.gather(*state.tasks, return_exceptions=True)
    finally:
        logging.getLogger("uvicorn.error").removeHandler(noted)
        if protocol.timeout_keep_alive_task is not None:
            protocol.timeout_keep_alive_task.cancel()
    outcome.sent = bytes(wire.sent)
    return outcome


def _held(protocol: Any) -> int:
    """Bytes that belong to the connection: what waits, the head that is being read, the body that nobody has taken."""
    heads = sum(len(name) + len(value) + 200 for name, value in protocol.headers or ())
    return (
        int(protocol.held_bytes) + heads + len(protocol.cycle.body if protocol.cycle else b"") + len(protocol.pipeline)
    )


def cut(stream: bytes, at: Sequence[int]) -> list[bytes]:
    """`stream` in pieces, none longer than the network hands over."""
    ends = sorted({*(place % (len(stream) + 1) for place in at), *range(0, len(stream), BLOCK), len(stream)})
    return [stream[one:other] for one, other in zip([0, *ends], ends, strict=False) if one < other]
