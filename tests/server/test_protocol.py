"""Whether an answer has arrived, as far as a server can know."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.process import REPORT_TICKS, Server
from app.server.protocol import EXTENSION, LONGEST_HEAD, Protocol
from tests.server.streams import Wire, connected
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

MEGABYTE = 1_048_576
Application = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[int]:
    config = uvicorn.Config(
        application, port=0, http=Protocol, lifespan="off", log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def answer(send: Any, body: bytes) -> None:
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def connection(scope: Any) -> Protocol:
    found = scope["extensions"][EXTENSION]
    assert isinstance(found, Protocol)
    return found


ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_an_answer_that_was_broken_off_has_not_arrived() -> None:
    seen: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found = connection(scope)
        await answer(send, bytes(20 * MEGABYTE))
        asyncio.get_running_loop().call_later(0.1, found.abort)
        seen.append(await found.flush())

    async with serving(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(ASK)
        await reader.readexactly(100)
        await until(lambda: seen)
        writer.transport.abort()
    assert seen == [False]


@pytest.mark.parametrize("reset", [False, True])
async def test_who_leaves_in_the_moment_of_the_answer_may_not_have_had_it(reset: bool) -> None:
    seen: list[object] = []
    busy = threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found = connection(scope)
        await asyncio.sleep(0.05)
        busy.set()
        time.sleep(0.2)
        await answer(send, b"x" * 500)
        seen.append(await found.flush())
        found.on_broken(lambda: seen.append("broken"))

    def leave(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as opened:
            opened.sendall(ASK)
            assert busy.wait(PATIENCE)
            time.sleep(0.05)
            if reset:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serving(application) as port:
        await asyncio.to_thread(leave, port)
        await until(lambda: seen)
        await until(lambda: seen == [False] or seen[-1] == "broken")


async def test_who_takes_all_of_it_has_had_it() -> None:
    seen: list[object] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found = connection(scope)
        await answer(send, bytes(5 * MEGABYTE))
        seen.append(await found.flush())
        found.on_broken(lambda: seen.append("broken"))

    async with serving(application) as port:
        for closing in (b"", b"connection: close\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK[:-2] + closing + b"\r\n")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(5 * MEGABYTE)
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
    assert seen == [True, True]


# --- clients that take nothing ---


async def stuck(request: bytes = ASK) -> tuple[Protocol, Wire]:
    """A connection that has been answered, of which nothing leaves."""
    wire, state = Wire(), ServerState()
    wire.stuck = True

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 500)

    protocol = connected(application, state, wire)
    protocol.data_received(request)
    await asyncio.gather(*state.tasks)
    await asyncio.sleep(0)
    assert wire.waiting
    return protocol, wire


Ending = Callable[[Protocol], None]
ENDINGS = [
    (ASK, Protocol.pause_writing),
    (ASK, Protocol.timeout_keep_alive_handler),
    (ASK, Protocol.eof_received),
    (ASK[:-2] + b"connection: close\r\n\r\n", lambda _: None),
    (b"GET /" + b"x" * LONGEST_HEAD, Protocol.close),
]


@pytest.mark.parametrize(("request_", "end"), ENDINGS)
async def test_a_client_that_takes_nothing_for_a_whole_period_loses_its_connection(
    request_: bytes, end: Ending
) -> None:
    """However the connection was to end: it cannot close before everything has left."""
    protocol, wire = await stuck(request_)
    end(protocol)
    assert protocol.progress.is_watched
    assert not wire.aborted
    protocol.progress.look()
    assert wire.aborted
    protocol.connection_lost(None)
    assert not protocol.progress.is_watched


@pytest.mark.parametrize(("request_", "end"), ENDINGS)
async def test_a_client_that_reads_slowly_keeps_its_connection(request_: bytes, end: Ending) -> None:
    protocol, wire = await stuck(request_)
    end(protocol)
    while wire.waiting > 1:
        wire.waiting -= 1
        protocol.progress.look()
        assert protocol.progress.is_watched
        assert not wire.aborted
    wire.waiting = 0
    protocol.progress.look()
    assert not protocol.progress.is_watched
    assert not wire.aborted


async def test_a_connection_whose_answers_leave_has_no_clock_running() -> None:
    protocol, wire = await stuck()
    protocol.pause_writing()
    wire.waiting = 0
    protocol.resume_writing()
    assert not protocol.progress.is_watched


async def test_a_connection_that_is_lost_has_no_clock_running() -> None:
    protocol, _ = await stuck()
    protocol.pause_writing()
    protocol.connection_lost(ConnectionResetError())
    assert not protocol.progress.is_watched


async def test_the_operator_is_told_of_callers_who_were_turned_away_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Mock()
    server = Server(uvicorn.Config(app, log_config=None), app, Mock(), None, 0.0)
    monkeypatch.setattr(Protocol, "turned_away", 7)
    for tick in range(1, 2 * REPORT_TICKS):
        assert not await server.on_tick(tick)
    app.state.runtime.resources.log.warning.assert_called_once_with("hardly any descriptor is left", turned_away=7)
    assert Protocol.turned_away == 0
