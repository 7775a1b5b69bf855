"""The connection of a request, as far as the server shows it. The gateway's own server puts it into each scope; under
another server there is none, and answers are sent and watched by ASGI's means alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

EXTENSION = "image_gateway.connection"  # of ASGI, in `scope["extensions"]`
GARBLED = "image_gateway.garbled"  # in a scope: the body breaks HTTP's framing, and no more of it will come


class Connection(Protocol):
    """`app.server.protocol.Protocol` explains each of these."""

    @property
    def closing(self) -> bool: ...

    @property
    def has_news(self) -> bool: ...

    def watched(self, gone: Callable[[], None]) -> AbstractContextManager[None]: ...

    def when_broken(self, tell: Callable[[], None]) -> None: ...

    async def write(self, piece: bytes) -> bool: ...

    async def flushed(self) -> bool: ...

    def reset(self) -> None: ...


def connection(scope: Any) -> Connection | None:
    """The connection that a request came on; None under another server."""
    found: Connection | None = scope.get("extensions", {}).get(EXTENSION)
    return found


def break_off(scope: Any) -> None:
    """Make sure that a cut answer does not look whole. For an HTTP/1.0 client an answer ends with its connection, which
    is therefore reset."""
    found = connection(scope)
    if found and scope["http_version"] != "1.1" and not found.closing:
        found.reset()
