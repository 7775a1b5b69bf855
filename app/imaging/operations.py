"""Orders for work on pixels, as values. Knows neither how it is done nor requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from app.images import Size

FileFormat = Literal["png", "jpeg", "webp"]
MaskMeaning = Literal["alpha", "white", "black"]  # the mark of pixels to be repainted

FORMATS: tuple[FileFormat, ...] = ("png", "jpeg", "webp")  # those that can be written


@dataclass(frozen=True, slots=True)
class Redraw:
    """Write an image with 8 bits of RGB or RGBA and without EXIF in another format, turned, or resized, in this
    order."""

    format: FileFormat
    quality: int | None = None  # 0 to 100, for JPEG and WebP; None: a good one
    orientation: int = 1  # EXIF's, of the source, to be undone
    size: Size | None = None  # None: stays


@dataclass(frozen=True, slots=True)
class RedrawMask:
    """Write a mask as PNG: 8 bits of RGBA if alpha is `wanted`, else of grey. Soft edges stay soft."""

    given: MaskMeaning  # by the caller
    wanted: MaskMeaning  # by the provider
    orientations: tuple[int, ...] = ()  # EXIF's, undone one after the other
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Pillow's reading of an odd header."""

    size: Size  # as stored
    alpha: bool


class Undrawable(Exception):
    """The image cannot be read or is too large. The message is the end of a sentence that names the image."""


class Oversized(Undrawable):
    """The image is too large; a smaller one could be drawn."""


class WithoutAlpha(Undrawable):
    """The mask should mark by transparency, and has none."""


class Sink(Protocol):
    """The file that a redrawn image is written to. Raises OSError when it is full."""

    def write(self, data: bytes | bytearray, /) -> None: ...
