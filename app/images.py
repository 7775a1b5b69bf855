"""The request for images as a value, with its pictures and sizes. Knows nothing of HTTP, providers or files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

_SIZE = re.compile(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})")


class Operation(StrEnum):
    GENERATIONS = "generations"
    EDITS = "edits"
    VARIATIONS = "variations"


ResponseFormat = Literal["b64_json", "url"]


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Size | None:
        """Return the size that `text` ("1024x768") names, or None if it names none."""
        match = _SIZE.fullmatch(text.strip())
        return cls(int(match[1]), int(match[2])) if match else None

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Blob(Protocol):
    """Bytes at rest, in memory or on disk. Reading moves no position, so several attempts may read at once."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that the caller sent. Its media type was read from its bytes, not from the caller's words."""

    blob: Blob
    filename: str
    media_type: str  # "image/png", "image/jpeg", "image/webp", or the type that the bytes have
    size: Size | None = None  # of the picture, if the header says it


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A drawing that a caller asks for, independent of the format of the request and of the provider.

    `parameters` holds the optional parameters under the names of `app.catalog.parameters`; `spelt` the caller's
    spelling of them, where it differs; `extra` the fields that OpenAI's documentation does not know, in the caller's
    order, each value as JSON text: the gateway never reads them, and parsed they would take twenty times the room.
    """

    operation: Operation
    model: str
    prompt: str | None = None
    images: tuple[Upload, ...] = ()
    mask: Upload | None = None
    markup: Upload | None = None
    n: int = 1
    size: Size | None = None  # None: "auto" or absent
    response_format: ResponseFormat | None = None  # None: absent
    stream: bool = False
    partial_images: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    spelt: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[tuple[str, bytes], ...] = ()
    mask_convention: Literal["alpha", "white", "black"] = "alpha"  # the meaning of the caller's mask
    raw: bool = False  # the answer is the one image's bytes, and nothing else
    max_cost: int | None = None  # nano-units of the ledger's currency, for all images; None: unbounded
    tags: Mapping[str, str] = field(default_factory=dict)  # for the ledger

    @property
    def text_length(self) -> int:
        """Return the number of characters of its text, roughly."""
        parameters = sum(len(str(value)) for value in self.parameters.values())
        return len(self.prompt or "") + parameters + sum(len(name) + len(raw) for name, raw in self.extra)

    @property
    def echoed(self) -> dict[str, Any]:
        """Return the parameters that OpenAI's answers repeat, beside the facts that the bytes show."""
        return {name: self.parameters[name] for name in ("background", "quality") if name in self.parameters}

    def outline(self) -> ImageRequest:
        """Return only the fields that shape an answer: no picture, and no long text."""
        return replace(self, prompt=None, images=(), mask=None, markup=None, parameters=self.echoed, spelt={}, extra=())
