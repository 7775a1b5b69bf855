"""The caller of an endpoint of the administration, and the scopes of its key."""

from __future__ import annotations

from typing import Literal, Protocol

from starlette.types import Scope

from app.ledger.directory import Project
from app.ledger.limits import Limits

KeyScope = Literal["draw", "usage", "metrics", "admin"]


class Caller(Protocol):
    """An API key, as the keyring found it."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def project(self) -> Project | None: ...

    @property
    def scopes(self) -> tuple[str, ...]: ...

    @property
    def models(self) -> tuple[str, ...]: ...

    @property
    def operations(self) -> tuple[str, ...]: ...

    @property
    def limits(self) -> Limits: ...

    def has_scope(self, scope: KeyScope) -> bool: ...

    def require(self, scope: KeyScope) -> None:
        """Raises Forbidden."""
        ...


class Authentication(Protocol):
    def __call__(self, scope: Scope) -> Caller:
        """Find the caller of a request, and name it in the log line. Raises Unauthenticated, and the other errors of a
        keyring."""
        ...
