"""Requests, deployments and recipes to ask dialects with, and what their decoders tell, put together."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app.catalog.deployments import Deployment, Provider
from app.catalog.profiles import Profile
from app.dialects import Base64, Decoder, Dialect, Exchange, Ingredient, ResponseHead
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink
from app.images import Blob, ImageRequest, Operation, Size, Upload

GOOD = ResponseHead(200, {"content-type": "application/json"})
NONCE = "0123456789abcdef"


@dataclass(frozen=True)
class Memory:
    """A Blob."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def upload(data: bytes = b"picture", filename: str = "a.png", media_type: str = "image/png") -> Upload:
    return Upload(Memory(data), filename, media_type, Size(64, 64))


def asked(operation: Operation = Operation.GENERATIONS, **more: Any) -> ImageRequest:
    if operation is not Operation.GENERATIONS:
        more.setdefault("images", (upload(),))
    if operation is not Operation.VARIATIONS:
        more.setdefault("prompt", "a cat")
    extra = tuple((name, json.dumps(value).encode()) for name, value in more.pop("extra", ()))
    return ImageRequest(operation, "its-name-here", extra=extra, **more)


def deployed(dialect: str, profile: Profile, model: str = "its-name-there") -> Deployment:
    return Deployment(Provider("host", dialect, "https://host.test/v1"), model, profile)


def size_of(ingredient: Ingredient) -> int:
    """What it will be on the wire, without reading anything."""
    if isinstance(ingredient, bytes):
        return len(ingredient)
    return -(-ingredient.blob.size // 3) * 4 if isinstance(ingredient, Base64) else ingredient.size


def rendered(body: Iterable[Ingredient]) -> bytes:
    """The recipe, cooked at once."""

    def whole(blob: Blob) -> bytes:
        return blob.read(0, blob.size)

    return b"".join(
        part
        if isinstance(part, bytes)
        else base64.b64encode(whole(part.blob))
        if isinstance(part, Base64)
        else whole(part)
        for part in body
    )


Told = Event | Exchange


def told(decoder: Decoder, chunks: Iterable[bytes]) -> list[Told]:
    """All events, with the pieces of an image's text put together; checks that they come in order."""
    events: list[Told] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
    events += decoder.close()
    return together(events)


def together(events: Iterable[Told]) -> list[Told]:
    whole: list[Told] = []
    for event in events:
        last = whole[-1] if whole else None
        if isinstance(event, ImageData) and isinstance(last, ImageData):
            whole[-1] = ImageData(last.base64 + event.base64)
            continue
        if isinstance(event, ImageData):
            assert event.base64 != b""
        if isinstance(event, ImageData | ImageLink):
            assert isinstance(last, ImageBegins)
        elif isinstance(event, ImageEnds):
            assert isinstance(last, ImageData | ImageLink)
        else:
            assert last is None or isinstance(last, ImageEnds)
        whole.append(event)
    assert isinstance(whole[-1], Done | Exchange)
    return whole


def decoded(dialect: Dialect, answer: bytes, request: ImageRequest | None = None) -> list[Told]:
    return told(dialect.decoder(request or asked(), GOOD), [answer])


def pictures(events: Iterable[Told]) -> list[bytes | str]:
    """The texts and links of the finished images, in order."""
    found: list[bytes | str] = []
    finished = False
    for event in events:
        if isinstance(event, ImageBegins):
            finished = event.partial is None
        elif finished and isinstance(event, ImageData):
            found.append(event.base64)
        elif finished and isinstance(event, ImageLink):
            found.append(event.url)
    return found
