"""The objects and settings that endpoints work with. `app.wiring` makes a new set when the configuration changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.access.admission import Admission
from app.access.keyring import Keyring
from app.access.limits import Limits
from app.api.requests.body import Limits as BodyLimits
from app.api.requests.json_body import Fetch
from app.catalog.models import Catalog
from app.gateway.gateway import Gateway
from app.imaging.workers import Workers
from app.runs.retention import Retention
from app.runs.run import RunObserver
from app.storage.files import Store
from app.storage.recording import Recording
from app.storage.signed_urls import Signer
from app.storage.spool import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A request keeps the runtime that it began with. An endpoint asks for the present one at each request, since there
    is one only while the application runs."""

    keyring: Keyring
    limits: Limits
    admission: Admission
    catalog: Catalog
    gateway: Gateway
    retention: Retention
    store: Store
    signer: Signer
    workers: Workers
    recording: Callable[[], Recording]
    uploads: Callable[[], Uploads]
    fetch: Callable[[Uploads], Fetch] | None  # gets images that callers name by their address; None: refused
    run_observers: Sequence[RunObserver]
    clock: Callable[[], float]  # seconds since 1970
    body_limits: BodyLimits
    keepalive_seconds: float
    json_keepalive_after: float | None
    finish_on_disconnect: bool
    public_url: str | None
    log_prompts: bool
