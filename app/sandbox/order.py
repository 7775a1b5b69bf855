"""An order to draw, and its refusal.

Knows nothing of HTTP bodies, of drawing or of any one provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from app.sandbox.incoming import Incoming

Operation = Literal["generations", "edits", "variations"]
MaskMeaning = Literal["alpha", "white", "black"]

# Which part of a mask each simulated provider repaints. Only OpenAI and BFL document it; NetMind and Nebula Block are
# taken to be diffusers behind HTTP (white), and Nebul differs on purpose, so that a mask that was not converted shows.
MASK_MEANINGS: Mapping[str, MaskMeaning] = {
    "netmind": "white",
    "nebula": "white",
    "nebul": "alpha",
    "openai": "alpha",
    "bfl": "white",
}

LARGEST_EDGE = 4096  # pixels; none of the three providers documents a limit, this one protects the machine


class Refusal(Exception):
    """A request is refused: the HTTP status and everything that any provider's error shape may say."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Order:
    """One request that was accepted. Sizes are pixels of the answer; `images` and `mask` are encoded files."""

    operation: Operation
    model: str
    prompt: str
    width: int
    height: int
    n: int = 1
    seed: int | None = None
    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    output_format: str = "png"
    quality_percent: int = 90
    transparent: bool = False
    as_url: bool = False
    stream: bool = False
    partial_images: int = 0
    echo: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handed:
    """One picture as it is handed out: base64 text or an address (both None when a fault took it away)."""

    b64: str | None
    url: str | None
    seconds: float


class Provider(Protocol):
    """One upstream: how it reads requests, and how it words answers and errors."""

    name: str

    def read(self, operation: Operation, incoming: Incoming) -> Order:
        """Check a request against the provider's documents. Raises Refusal."""

    def answer(self, order: Order, pictures: Sequence[Handed]) -> dict[str, object]: ...

    def error(self, refusal: Refusal) -> dict[str, object]: ...


def openai_error(refusal: Refusal) -> dict[str, object]:
    """Return the envelope of OpenAI, with all four keys."""
    inner = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}
    return {"error": inner}


def parse_size(text: str) -> tuple[int, int]:
    """Parse `WIDTHxHEIGHT` in pixels. Raises Refusal for any other spelling and for edges out of 16..LARGEST_EDGE."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise Refusal(
            f"Invalid size {text!r}. Expected WIDTHxHEIGHT, for example '1024x1024'.",
            param="size",
            code="invalid_value",
        )
    width, height = int(match[1]), int(match[2])
    check_edges(width, height, param="size")
    return width, height


def check_edges(width: int, height: int, *, param: str, multiple_of: int = 1) -> None:
    """Check the edges. Raises Refusal for those that are too small, too large or not a multiple of `multiple_of`."""
    if not all(16 <= edge <= LARGEST_EDGE for edge in (width, height)):
        raise Refusal(
            f"Invalid size {width}x{height}: each edge must be 16 to {LARGEST_EDGE} pixels.",
            param=param,
            code="invalid_value",
        )
    if width % multiple_of or height % multiple_of:
        raise Refusal(
            f"Invalid size {width}x{height}: width and height must both be divisible by {multiple_of}.",
            param=param,
            code="invalid_value",
        )


def floor_to(edge: int, multiple: int) -> int:
    """Return the largest multiple that fits into `edge` pixels, at least one of them, within LARGEST_EDGE."""
    return max(multiple, min(edge, LARGEST_EDGE) // multiple * multiple)
