"""A call: one request on its way through the gateway, and the facts that are found out about it on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

from app.access.keys import Key
from app.gateway.fanout import FinishedImages
from app.gateway.inputs import Preparation
from app.images import ImageRequest
from app.storage.files import StoredFile
from app.storage.spool import Uploads


@dataclass(slots=True)
class Call:
    """One request, while it is worked on."""

    request: ImageRequest
    key: Key
    uploads: Uploads
    preparation: Preparation | None = None  # of the pictures that were sent; None: there is nothing to prepare
    link: Callable[[StoredFile], str] | None = None  # the address under which this caller can fetch a stored image
    drawn: FinishedImages = field(default_factory=FinishedImages)
    result: Literal["b64_json", "url"] = "b64_json"  # in which form the images leave
    files: ExitStack = field(default_factory=ExitStack)  # holds what its links lead to, until the answer has arrived
    announce: Callable[[], Awaitable[None]] | None = None  # to be awaited before anything is sent; None: needless
    sent: int = 0  # requests that have left for a provider, or may have: from the first on it may cost money
    left: bool = False  # nobody waits for it any more
