"""The stream of events in which a drawing passes through the gateway, in pieces finer than an image. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Served:
    """Who draws the images that follow. Told once before the first image, and again if that changes."""

    provider: str
    model: str  # as the provider calls it
    attempts: int  # requests sent upstream for this call so far
    dropped: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()  # "size=1024x768"


@dataclass(frozen=True, slots=True)
class ImageBegins:
    index: int
    partial: int | None = None  # which partial image of a stream; None: the finished one


@dataclass(frozen=True, slots=True)
class ImageData:
    """A piece of the image's base64 text: no white space, no escapes, cut anywhere."""

    base64: bytes


@dataclass(frozen=True, slots=True)
class ImageLink:
    """Instead of data: the image lies at this address of the provider's."""

    url: str


@dataclass(frozen=True, slots=True)
class ImageEnds:
    """The image is whole. `facts` are the provider's words on it: quality, background, size, output_format. Once its
    bytes were looked at, the last two are theirs, or None where they do not tell."""

    revised_prompt: str | None = None
    seed: int | None = None
    usage: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    alpha: bool | None = None  # whether anything in it can be transparent, by its bytes; None: they do not tell


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing follows. `usage` counts all images of the call, in OpenAI's shape."""

    usage: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Event = Served | ImageBegins | ImageData | ImageLink | ImageEnds | Done
