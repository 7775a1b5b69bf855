"""The sandbox on a real socket, inside of the running loop: started in a moment, stopped in a moment.

Knows nothing of providers. Uvicorn's HTTP protocol is used without uvicorn's server, which would install signal
handlers, configure logging for the whole process and wait for connections when it stops.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.sandbox.application import create_application, create_world
from app.sandbox.delivery import TRANSPORT

IDLE_SECONDS = 75  # longer than clients keep connections, so that no request meets a closing one


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, silent, with the connection's transport in every scope."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState) -> None:
        super().__init__(config, server_state, {}, asyncio.get_running_loop())
        self.logger = logging.getLogger(__name__)
        self.access_log = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


class Sandbox:
    """An async context manager that serves the simulated providers.

    `seconds_per_drawing` is how long a drawing takes beyond the work itself. `world` gives tests what the controls
    give over HTTP: the journal (drawings, requests) and the book of faults.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, seconds_per_drawing: float = 0.0) -> None:
        self._host = host
        self._port = port
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self.world = create_world(seconds_per_drawing)
        self.base_url = ""

    async def __aenter__(self) -> Self:
        """Serve. Raises OSError when the address cannot be bound."""
        listener = _bound(self._host, self._port)
        application = create_application(self.world)
        config = uvicorn.Config(
            application, http=_Protocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=IDLE_SECONDS
        )
        config.load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Protocol(config, self._state), sock=listener, backlog=2048)
        host, port = listener.getsockname()[:2]
        self.base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop at once: connections are broken, whatever they were doing."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            if isinstance(connection, HttpToolsProtocol):
                connection.transport.abort()
        # A task that waits on a broken connection wakes up by itself; a drawing ends within moments.
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        self._server = None


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of sockets that do not say that they are TCP asyncio does not know that small pieces are to leave at once.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
