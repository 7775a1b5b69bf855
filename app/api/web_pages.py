"""Refuses requests that a web page of another site may have sent, while there are no keys to distinguish callers.

A browser lets any page post a form to the gateway, and lets a page whose name is rebound to the gateway's address read
the answers too. Knows no keys and no body.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Forbidden

# They neither draw nor show a run. A link below `/files/` is signed; probes use any name that a service has.
# The pages are the same for every caller: a link on another site may lead to them.
OPEN = frozenset({"", "admin", "docs", "files", "healthz", "openapi.json", "pages", "playground", "readyz"})
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?")
_CHECKED = frozenset({b"host", b"origin", b"sec-fetch-site"})
_QUOTED = 100  # characters of a header in a message
_REMEDY = "or give the gateway 'keys', which a foreign page does not know."


@dataclass(frozen=True, slots=True)
class PageRules:
    """The names under which the gateway is called, and the origins of pages that may call it; `*` stands for all."""

    hosts: frozenset[str]
    origins: frozenset[str]

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse a foreign page, and a name that is not the gateway's. Raises Forbidden."""
        given = {name: value.decode("latin-1").lower() for name, value in headers if name in _CHECKED}
        host, origin = given.get(b"host"), given.get(b"origin")
        if host is not None and not self._is_ours(host):
            raise Forbidden(
                f"This gateway is not known by the name {host[:_QUOTED]!r}. A web page can make such a name, so "
                f"without keys only known names are served. Add it to the setting 'server.allowed_hosts', {_REMEDY}",
                code="host_not_allowed",
            )
        if origin is not None and ("*" in self.origins or origin in self.origins):
            return
        is_own = origin is None or origin.partition("://")[2] == host
        if not is_own or given.get(b"sec-fetch-site") == "cross-site":
            page = f"of the origin {origin[:_QUOTED]!r}" if origin else "of another site"
            raise Forbidden(
                f"A web page {page} sent this request. Without keys such pages are refused. Add the page's origin to "
                f"the setting 'server.cors_origins', {_REMEDY}",
                code="origin_not_allowed",
            )

    def _is_ours(self, authority: str) -> bool:
        """True for a listed name, for a name of loopback, and for an IP address, to which no name is rebound."""
        match = _AUTHORITY.fullmatch(authority)
        name = (match[1] or match[2]).removesuffix(".") if match else ""
        listed = name in self.hosts or "*" in self.hosts
        return listed or name == "localhost" or name.endswith(".localhost") or _is_address(name)


class PageGuard:
    """Holds each request to the rules, except those for an open path. `rules` is called at each request, since a reload
    may change them; it gives None where keys distinguish callers."""

    def __init__(self, app: ASGIApp, rules: Callable[[], PageRules | None]) -> None:
        self._app = app
        self._rules = rules

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # no coroutine of its own
        if scope["type"] == "http" and scope["path"].removeprefix("/").partition("/")[0] not in OPEN:
            rules = self._rules()
            if rules is not None:
                rules.check(scope["headers"])
        return self._app(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
