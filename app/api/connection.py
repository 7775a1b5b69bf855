"""The connection of a request, as far as the server shows it. The gateway's own server puts it into each scope; under
another server there is none, and answers are sent and watched by ASGI's means alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from starlette.types import Receive

EXTENSION = "image_gateway.connection"  # of ASGI, in `scope["extensions"]`
_HEADERS = "image_gateway.headers"  # in a scope: the first header of each name
GARBLED = "image_gateway.garbled"  # in a scope: the body breaks HTTP's framing, and no more of it will come


class Connection(Protocol):
    """`app.server.protocol.Protocol` explains each of these."""

    @property
    def is_closing(self) -> bool: ...

    @property
    def has_news(self) -> bool: ...

    def watch(self, gone: Callable[[], None]) -> None: ...

    def unwatch(self, gone: Callable[[], None]) -> None: ...

    def on_broken(self, tell: Callable[[], None]) -> None: ...

    def write(self, piece: bytes) -> bool: ...

    @property
    def is_full(self) -> bool: ...

    async def drain(self) -> None: ...

    async def flush(self) -> bool: ...

    def reset(self) -> None: ...


def header(scope: Any, wanted: bytes) -> str | None:
    """Return the first header of that name. Headers are indexed once for each request, which reads ten of them."""
    headers: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = dict(reversed(scope["headers"]))
    value = headers.get(wanted)
    return None if value is None else value.strip(b" \t").decode("latin-1")


def connection(scope: Any) -> Connection | None:
    """Return the connection that a request came on; None under another server."""
    found: Connection | None = scope.get("extensions", {}).get(EXTENSION)
    return found


def break_off(scope: Any) -> None:
    """Make sure that a cut answer does not look whole. For an HTTP/1.0 client an answer ends with its connection, which
    is therefore reset."""
    found = connection(scope)
    if found and scope["http_version"] != "1.1" and not found.is_closing:
        found.reset()


@contextmanager
def watching(receive: Receive, gone: Callable[[], None]) -> Iterator[None]:
    """Call `gone` when the client disconnects, by ASGI's means alone."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
