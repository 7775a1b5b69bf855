"""A second address, for an application of its own beside the main one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from uvicorn.server import ServerState

from app.server.protocol import Protocol


class ListenError(Exception):
    """The gateway cannot listen at the address. The message names the remedy."""


@asynccontextmanager
async def listen(app: object, host: str, port: int, *, setting: str) -> AsyncIterator[int]:
    """Serve `app` (ASGI) while the block lasts. Yields the port: with 0, a free one. `setting` is the section that has
    the address. Raises ListenError."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    try:
        server = await loop.create_server(lambda: Protocol(config, state, {}, loop), host, port)
    except OSError as error:
        reason = f"Cannot listen at {host}:{port}: {error.strerror or error}."
        raise ListenError(f"{reason} Choose another address with `{setting}.host` and `{setting}.port`.") from None
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        await asyncio.gather(*state.tasks, return_exceptions=True)
