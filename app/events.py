"""The events of a drawing on its way through the gateway, in pieces finer than an image. Values only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Served:
    """The deployment that draws the following images. Sent before the first image, and again if the deployment
    changes."""

    provider: str
    model: str  # the provider's name for it
    attempts: int  # attempts for this call so far
    dropped: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()  # "size=1024x768"


@dataclass(frozen=True, slots=True)
class ImageBegins:
    index: int
    partial: int | None = None  # the number of a partial image in a stream; None: the finished image


@dataclass(frozen=True, slots=True)
class ImageData:
    """A piece of the image's base64 text, cut anywhere, without white space and escapes."""

    base64: bytes


@dataclass(frozen=True, slots=True)
class ImageLink:
    """The provider's address of the image, in the place of data."""

    url: str


@dataclass(frozen=True, slots=True)
class ImageEnds:
    """The end of a whole image. `facts` are those that the provider states: quality, background, size, output_format.
    After the inspection the last two describe the bytes, or are None if the bytes do not tell."""

    revised_prompt: str | None = None
    seed: int | None = None
    usage: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    alpha: bool | None = None  # True if the bytes can be transparent; None: unknown


@dataclass(frozen=True, slots=True)
class Done:
    """The end of the answer. `usage` counts all images of the call, in OpenAI's shape."""

    usage: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Event = Served | ImageBegins | ImageData | ImageLink | ImageEnds | Done

# A stage on the way of a drawing: it is pushed one event after the other, and raises what the stages behind it raise.
Sink = Callable[[Event], Awaitable[None]]
