"""A call: one request on its way through the gateway, and the facts that are found out about it on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from app.access.keyring import Key
from app.gateway.account import Account
from app.gateway.fanout import FinishedImages
from app.gateway.inputs import Preparation
from app.images import ImageRequest, ResponseFormat
from app.storage.spool import Uploads


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job that a provider has accepted, in JSON values: enough for another process to take it up again."""

    deployment: str  # its name: provider/model
    first: int  # index of the first of its images
    job: Mapping[str, Any]  # the dialect's
    count: int = 1  # of its images


def is_awaited() -> bool:
    """Return True: the answer for a call that no run watches."""
    return True


@dataclass(slots=True)
class Call:
    """One request, while it is worked on."""

    id: str = field(kw_only=True)  # the run's: the id of the request that began it

    request: ImageRequest
    key: Key
    uploads: Uploads
    preparation: Preparation | None = None  # of the pictures that were sent; None: there is nothing to prepare
    base_url: str | None = None  # by which this caller reaches the gateway, for links; None: it wants none
    drawn: FinishedImages = field(default_factory=FinishedImages)
    result: ResponseFormat = "b64_json"  # in which form the images leave
    files: ExitStack = field(default_factory=ExitStack)  # holds what its links lead to, until the answer has arrived
    account: Account | None = None  # the ledger's; None: there is no ledger
    announce: Callable[[], Awaitable[None]] | None = None  # to be awaited before anything is sent; None: needless
    remember: Callable[[SubmittedJob], Awaitable[None]] | None = None  # awaited after each submit; None: needless
    trace_id: str | None = None  # of the request's trace
    traceparent: str | None = None  # as the caller sent it
    queued: float = 0.0  # seconds in which attempts waited for places
    sent: int = 0  # attempts that left, or may have left: from the first on it may cost money
    is_awaited: Callable[[], bool] = is_awaited  # False: no caller is connected any more
