"""The objects and settings that endpoints work with. `app.wiring` makes a new set when the configuration changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from app.access.admission import Admission
from app.access.body_gate import BodyGate
from app.access.keyring import Key, Keyring
from app.api.administration.endpoint import Administration
from app.api.connection import header
from app.api.requests.body import Limits as BodyLimits
from app.catalog.models import Catalog
from app.gateway.account import Accounts
from app.gateway.gateway import Gateway
from app.images import Upload
from app.imaging.workers import Workers
from app.runs.retention import Retention
from app.runs.run import RunObserver
from app.storage.disk import DiskStore
from app.storage.recording import Recording
from app.storage.signed_urls import Signer
from app.storage.spool import Uploads


class Exposition(Protocol):
    """The metrics as text."""

    async def render(self, accept: str) -> tuple[str, bytes]:
        """Return the type and the text that an `Accept` header asks for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The objects that live as long as the process. A reload does not replace them."""

    body_gate: BodyGate
    retention: Retention
    store: DiskStore
    signer: Signer
    workers: Workers
    recording: Callable[[], Recording]
    uploads: Callable[[], Uploads]
    run_observers: Sequence[RunObserver]
    accounts: Accounts
    clock: Callable[[], float]  # seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The objects that one configuration makes. A request keeps the runtime that it began with. An endpoint asks for
    the present one at each request, since there is one only while the application runs."""

    resources: Resources
    keyring: Keyring
    admission: Admission
    catalog: Catalog
    gateway: Gateway
    # Gets an image that a caller names by its address, and the place where it stands. None: refused.
    fetch: Callable[[Uploads, str, str], Awaitable[Upload]] | None
    body_limits: BodyLimits
    keepalive_seconds: float
    json_keepalive_after: float | None
    finish_on_disconnect: bool
    public_url: str | None
    log_prompts: bool
    administration: Administration
    exposition: Exposition | None = None  # None: no metrics at this port

    def authenticate(self, scope: Scope) -> Key:
        return authenticate(self.keyring, scope)


def authenticate(keyring: Keyring, scope: Scope) -> Key:
    """Find the caller's key, and name it in the request's log line. Raises the errors of `Keyring.authenticate`."""
    client = scope.get("client")
    key = keyring.authenticate(
        header(scope, b"authorization"), header(scope, b"api-key"), address=client[0] if client else None
    )
    scope["state"]["log"].key = key.name
    return key
