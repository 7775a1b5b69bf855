"""What a request for images is and what comes back: values only. Knows nothing of HTTP, providers or files."""

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
        """The size that `text` ("1024x768") names, or None if it names none."""
        match = _SIZE.fullmatch(text.strip())
        return cls(int(match[1]), int(match[2])) if match else None

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Blob(Protocol):
    """Bytes at rest, in memory or on disk. Reading does not move anything, so several attempts may read at once."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that the caller sent. What it is was read from its bytes, not from what the caller calls it."""

    blob: Blob
    filename: str
    media_type: str  # "image/png", "image/jpeg", "image/webp", or another if the bytes are something else
    size: Size | None = None  # of the picture, where the header tells


ECHOED = ("background", "quality")  # of the parameters: what OpenAI's answers repeat, beside what the bytes are


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a caller wants drawn, whichever door it came through and whichever provider will draw it.

    `parameters` holds the optional parameters under the names of `app.catalog.parameters`; `spelt` the caller's own
    spelling of them, where it differs; `extra` what no OpenAI documentation knows, in the caller's order, each value as
    its JSON: nobody here reads it, and parsed it would take twenty times the room.
    """

    operation: Operation
    model: str
    prompt: str | None = None
    images: tuple[Upload, ...] = ()
    mask: Upload | None = None
    markup: Upload | None = None
    n: int = 1
    size: Size | None = None  # None: "auto" or not said
    response_format: ResponseFormat | None = None  # None: not said
    stream: bool = False
    partial_images: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    spelt: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[tuple[str, bytes], ...] = ()
    mask_convention: Literal["alpha", "white", "black"] = "alpha"  # what the caller's mask means
    raw: bool = False  # the answer is to be the one image's bytes, and nothing else

    @property
    def text_length(self) -> int:
        """How much text it holds, roughly."""
        parameters = sum(len(str(value)) for value in self.parameters.values())
        return len(self.prompt or "") + parameters + sum(len(name) + len(raw) for name, raw in self.extra)

    def outline(self) -> ImageRequest:
        """What of it the shape of an answer depends on: no picture, and nothing of any length."""
        echoed = {name: self.parameters[name] for name in ECHOED if name in self.parameters}
        return replace(self, prompt=None, images=(), mask=None, markup=None, parameters=echoed, spelt={}, extra=())
