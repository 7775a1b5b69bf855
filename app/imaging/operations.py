"""What can be wanted of a picture's pixels: values. Knows nothing of how it is done, nor of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.images import Size

FileFormat = Literal["png", "jpeg", "webp"]
MaskMeaning = Literal["alpha", "white", "black"]  # what marks the pixels to be repainted

FORMATS: tuple[FileFormat, ...] = ("png", "jpeg", "webp")  # what can be written
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}


@dataclass(frozen=True, slots=True)
class Redraw:
    """A picture with 8 bits of RGB or RGBA, without EXIF, in another format, turned, or resized (in this order)."""

    format: FileFormat
    quality: int | None = None  # 0 to 100, of JPEG and WebP; None: a good one
    orientation: int = 1  # EXIF's, of the source: is undone
    size: Size | None = None  # None: stays


@dataclass(frozen=True, slots=True)
class RedrawMask:
    """A mask as PNG: 8 bits of RGBA if it is `meant` as alpha, else of grey. Soft edges stay soft."""

    said: MaskMeaning  # by who sent it
    meant: MaskMeaning  # by who will read it
    orientations: tuple[int, ...] = ()  # EXIF's, undone one after the other
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What Pillow reads from a header that tells nothing to us."""

    size: Size  # as stored
    alpha: bool


class Undrawable(Exception):
    """The picture cannot be read or is too large. The message is the end of a sentence that names the picture."""


class WithoutAlpha(Undrawable):
    """A mask that says by its transparency what is to be repainted, and has none."""
