"""The process: allocator, event loop, listening, and the first lines on the terminal. Knows no request."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import socket
import sys
from collections.abc import Callable

import uvicorn

from app.main import create_app
from app.protocol import Protocol
from app.settings import Settings
from app.wiring import Parts

# From glibc's malloc.h. uvloop reads in blocks of 256 KiB, above the usual threshold for blocks that are mapped and
# unmapped one by one: thousands of page faults for each upload. Blocks up to this size are taken from the heap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK = 4 * 1_048_576
_KEPT_FREE = 64 * 1_048_576


def run(settings: Settings) -> None:
    """Serves until told to stop. Raises SystemExit if it cannot listen."""
    _tune_allocator()
    logging.getLogger("uvicorn.error").addFilter(_not_ours)
    app = create_app(settings)
    server = Server(
        uvicorn.Config(
            app,
            host=settings.server.host,
            port=settings.server.port,
            http=Protocol,
            access_log=False,
            log_level="warning",
            server_header=False,
            backlog=4096,
            timeout_keep_alive=75,  # seconds; longer than load balancers keep theirs, so that they close first
            forwarded_allow_ips=settings.server.forwarded_allow_ips,
        ),
        lambda: app.state.parts,
    )
    server.run()


class Server(uvicorn.Server):
    """uvicorn, and a first word to the operator when it listens."""

    def __init__(self, config: uvicorn.Config, parts: Callable[[], Parts]) -> None:
        super().__init__(config)
        self._parts = parts

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(welcome(self._parts(), host, port), file=sys.stderr, flush=True)  # noqa: T201


def welcome(parts: Parts, host: str, port: int) -> str:
    """Where it listens, what it serves, and a command that works."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(  # noqa: S104 (what is bound to everything is shown as loopback)
        host, f"[{host}]" if ":" in host else host
    )
    base = f"http://{shown}:{port}"
    models = parts.catalog.models
    first = models[0].name if models else "MODEL"
    key = '-H "Authorization: Bearer YOUR_KEY" ' if parts.settings.keys else ""
    kind = "simulated providers (no configuration was given)" if parts.sandbox else "its providers"
    names = ", ".join(model.name for model in models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
    return (
        f"Image Gateway listens at {base}/v1 and serves {kind}: {names}.\n"
        f"Try: curl -s {base}/v1/images/generations {key}-H 'Content-Type: application/json' "
        f'-d \'{{"model":"{first}","prompt":"a red fox"}}\''
    )


def _not_ours(record: logging.LogRecord) -> bool:
    """An answer that broke in the middle is left unfinished on purpose; the request's own log line tells why."""
    return "returned without completing response" not in record.getMessage()


def _tune_allocator() -> None:
    """Does nothing where the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)
