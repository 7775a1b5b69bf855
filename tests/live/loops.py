"""Sockets and threads that servers under test need. Knows no server."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

import uvloop

from tests.waiting import PATIENCE

T = TypeVar("T")


def bound() -> socket.socket:
    """A socket at a free port of the loopback address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


_dead: list[socket.socket] = []


def dead_port() -> int:
    """A port at which nothing listens, and which no other server gets."""
    _dead.append(bound())
    port: int = _dead[-1].getsockname()[1]
    return port


async def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write to a peer who may have left, and wait until there is room for more. Raises ConnectionError."""
    if writer.transport.is_closing():
        raise ConnectionResetError("the peer has left")  # uvloop would say it in a RuntimeError
    writer.write(data)
    await writer.drain()


@contextmanager
def in_thread(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Runs what `make` gives in a loop of its own, for tests that block."""
    ready: list[T] = []
    started = threading.Event()
    loop = uvloop.new_event_loop()  # asyncio leaves Nagle on for sockets like these, which costs 40 ms an answer
    over = asyncio.Event()

    async def serve() -> None:
        try:
            async with make() as server:
                ready.append(server)
                started.set()
                await over.wait()
        finally:
            started.set()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait(PATIENCE)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE)
