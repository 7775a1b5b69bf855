"""The abilities of a deployment, as data. Knows no provider by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isqrt
from typing import Annotated, Literal

from app.catalog.money import to_nano
from app.catalog.prices import Price, Tier
from app.images import Operation, ResponseFormat, Size

MaskConvention = Literal["alpha", "white", "black", "none"]
FileFormat = Literal["png", "jpeg", "webp", "gif", "svg"]
DefaultSize = Size | Literal["input"] | None  # None: the upstream's own
Spellings = Mapping[str, str] | None  # our name → the upstream's; None: every parameter, as the caller spelt it
Seconds = Annotated[float, "seconds"]


@dataclass(frozen=True, slots=True)
class SizeRule:
    """The sizes that are drawn: those of a list, or any within bounds (edges in pixels). Without both: any size."""

    list: tuple[Size, ...] = ()
    min: int | None = None
    max: int | None = None
    multiple_of: int = 1
    max_pixels: int | None = None

    def allows(self, size: Size) -> bool:
        if self.list:
            return size in self.list
        edges = (size.width, size.height)
        return (
            all(edge % self.multiple_of == 0 for edge in edges)
            and all(self.min is None or edge >= self.min for edge in edges)
            and all(self.max is None or edge <= self.max for edge in edges)
            and (self.max_pixels is None or size.pixels <= self.max_pixels)
        )

    @property
    def largest(self) -> Size | None:
        """Return a size with the most pixels that it allows. None: there is no bound."""
        if self.list:
            return max(self.list, key=lambda size: size.pixels)
        if self.max is not None and (self.max_pixels is None or self.max**2 <= self.max_pixels):
            return Size(self.max, self.max)
        return None if self.max_pixels is None else Size(self.max_pixels, 1)

    def nearest(self, size: Size) -> Size:
        """Return the allowed size that is closest in shape first, then in area."""
        if self.list:
            return min(
                self.list,
                key=lambda s: (
                    _distance(s.width / s.height, size.width / size.height),
                    _distance(s.pixels, size.pixels),
                ),
            )
        scale = 1.0
        if self.max is not None:
            scale = min(scale, self.max / max(size.width, size.height))
        if self.max_pixels is not None:
            scale = min(scale, (self.max_pixels / size.pixels) ** 0.5)
        if self.min is not None and min(size.width, size.height) * scale < self.min:
            scale = self.min / min(size.width, size.height)
        return self._within(Size(self._edge(size.width * scale), self._edge(size.height * scale)))

    def _edge(self, wanted: float) -> int:
        step = self.multiple_of
        lowest = -(-(self.min or step) // step) * step
        edge = max(lowest, round(wanted / step) * step)
        return edge if self.max is None else min(edge, self.max // step * step)

    def _within(self, size: Size) -> Size:
        """Take steps off the longer edge, or off both alike: `min` or rounding up may have passed `max_pixels`."""
        if self.max_pixels is None or size.pixels <= self.max_pixels:
            return size
        step, shorter = self.multiple_of, min(size.width, size.height)
        longer = self.max_pixels // shorter // step * step
        if longer < shorter:
            shorter = longer = isqrt(self.max_pixels) // step * step
        return Size(longer, shorter) if size.width >= size.height else Size(shorter, longer)

    def __str__(self) -> str:
        if self.list:
            return ", ".join(map(str, self.list))
        bounds = [
            f"edges from {self.min}" if self.min else "",
            f"edges up to {self.max}" if self.max else "",
            f"edges divisible by {self.multiple_of}" if self.multiple_of > 1 else "",
            f"at most {self.max_pixels} pixels" if self.max_pixels else "",
        ]
        return ", ".join(filter(None, bounds)) or "any"


def _distance(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `read` bounds any silence; `first_byte`, if given, the silence before the answer's first byte."""

    connect: Seconds = 5.0
    read: Seconds = 180.0
    total: Seconds = 600.0
    first_byte: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """The abilities of a deployment. The configuration reads its layers over a profile by these annotations."""

    operations: frozenset[Operation] = frozenset(Operation)
    parameters: Spellings = None
    size: SizeRule = SizeRule()
    default_size: DefaultSize = None
    max_n: int = 10
    max_images: int = 16
    image_field: str | None = None  # None: `image` for one file, `image[]` for several
    mask_field: str = "mask"
    input_formats: tuple[FileFormat, ...] = ("png", "jpeg", "webp")
    mask: MaskConvention = "alpha"
    mask_required: bool = False
    output_formats: tuple[FileFormat, ...] | None = None  # None: unknown, so asked for and checked
    results: tuple[ResponseFormat, ...] = ("b64_json", "url")
    streaming: bool | None = None  # None: unknown, so tried; a JSON answer is taken as well
    extra: Literal["pass", "refuse"] = "refuse"
    default_response_format: ResponseFormat | None = None
    traceparent: bool = False  # the trace is passed on to it
    price: Price | None = None
    price_per_image: float | None = None  # the short form of a price
    currency: str | None = None  # of the price; None: the ledger's
    typical_seconds: Seconds | None = None
    timeout: Timeouts = field(default_factory=Timeouts)

    @property
    def stated_price(self) -> Price | None:
        """Return the price, also where the short form states it. None: it is not known."""
        if self.price is not None or self.price_per_image is None:
            return self.price
        return _per_image(self.price_per_image)

    def understands(self, parameter: str) -> bool:
        return self.parameters is None or parameter in self.parameters

    def spelling(self, parameter: str, spelt: str) -> str:
        """Return the upstream's name of `parameter`, which the caller called `spelt`."""
        return spelt if self.parameters is None else self.parameters.get(parameter, spelt)


@lru_cache(maxsize=256)
def _per_image(price: float) -> Price:
    return Price((Tier(per_image=to_nano(price)),))
