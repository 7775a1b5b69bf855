"""Prices: what a drawing may cost, and what it did cost. Pure functions over values; money is in nano-units.

A price is a list of tiers. The first tier whose conditions the drawing meets is its price. While a size or a quality is
unknown, several tiers are possible: the dearest is reserved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from app.catalog.money import to_nano
from app.images import Operation, Size

MILLION = 1_000_000  # pixels of a megapixel, tokens of a price
# A provider's figure is believed up to here, so that no sum of a budget outgrows a database's integer.
MOST_TOKENS = 10**9
MOST_REPORTED = 10**16  # nano-units: ten million
TOKENS = ("input", "image_input", "cached_input", "output")

CostSource = Literal["reported", "price", "none"]


@dataclass(frozen=True, slots=True)
class Tier:
    """One price and its conditions. One of `per_image`, `per_megapixel` and `per_million_tokens` is stated."""

    quality: str | None = None
    size: Size | None = None
    operation: Operation | None = None
    per_image: int | None = None
    per_megapixel: int | None = None
    per_million_tokens: tuple[tuple[str, int], ...] = ()  # a kind of `TOKENS`, and its price
    at_most: int | None = None  # for one image, where the price is known only after the drawing

    def may_fit(self, subject: Subject) -> bool:
        """True if what is known of the drawing contradicts no condition."""
        return (
            self.operation in (None, subject.operation)
            and (self.quality is None or subject.quality in (None, self.quality))
            and (self.size is None or subject.size in (None, self.size))
        )

    def fits(self, subject: Subject) -> bool:
        """True if what is known of the drawing meets every condition."""
        return (
            self.operation in (None, subject.operation)
            and self.quality in (None, subject.quality)
            and self.size in (None, subject.size)
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """A drawing to be priced, before or after it is made. `n` images; None where a size or a quality is unknown."""

    operation: Operation
    n: int = 1
    quality: str | None = None
    size: Size | None = None
    largest: Size | None = None  # that the size can be, while it is unknown


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one deployment. `reported` is the path to a cost in the provider's answer, which goes over the
    tiers; `at_most` bounds it, for one image."""

    tiers: tuple[Tier, ...] = ()
    reported: str | None = None
    at_most: int | None = None
    currency: str = "USD"

    @property
    def is_told_beforehand(self) -> bool:
        """True if the cost of delivered images follows from their number and sizes."""
        return self.reported is None and not any(tier.per_million_tokens for tier in self.tiers)

    @property
    def depends_on_size(self) -> bool:
        return any(tier.size is not None or tier.per_megapixel is not None for tier in self.tiers)


@dataclass(frozen=True, slots=True)
class Cost:
    nano: int
    source: CostSource


def most(price: Price, subject: Subject) -> int | None:
    """Return the most that the drawing may cost, or None if no price bounds it."""
    if price.reported is not None and price.at_most is not None:
        return price.at_most * subject.n
    amounts = [_most_of(tier, price, subject) for tier in _possible(price, subject)]
    known = [amount for amount in amounts if amount is not None]
    return max(known) if known and len(known) == len(amounts) else None


def least(price: Price, subject: Subject) -> int | None:
    """Return the least that the drawing may cost: 0 where only the answer tells, None if it has no price."""
    if price.reported is not None:
        return 0
    amounts = [_least_of(tier, subject) for tier in _possible(price, subject)]
    return min(amounts) if amounts else None


def cost(price: Price, subject: Subject, usage: Mapping[str, Any] | None = None) -> Cost:
    """Return what `subject.n` images that were drawn have cost. `usage` is in OpenAI's shape, and may have a reported
    cost."""
    if price.reported is not None:
        found = reported(price.reported, {"usage": usage})
        if found is not None:
            return Cost(found, "reported")
    tier = next((tier for tier in price.tiers if tier.fits(subject)), None)
    if tier is not None and tier.per_million_tokens and usage:
        return Cost(_tokens(dict(tier.per_million_tokens), usage), "price")
    bound = most(price, subject)
    return Cost(0, "none") if bound is None else Cost(bound, "price")


def is_known(price: Price, subject: Subject, usage: Mapping[str, Any] | None = None) -> bool:
    """True if the tier of images that were drawn is certain, and their usage is there if it counts. False: `cost`
    returns the bound."""
    if price.reported is not None:
        return bool(usage)
    tiers = list(_possible(price, subject))
    return len(tiers) == 1 and (bool(usage) or not tiers[0].per_million_tokens)


def reported(path: str, answer: Mapping[str, Any]) -> int | None:
    """Return the cost at a dotted path of the answer, or None if there is no amount."""
    value: Any = answer
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        nano = to_nano(value)
    except ValueError:
        return None
    return nano if 0 <= nano < MOST_REPORTED else None


def _possible(price: Price, subject: Subject) -> Iterator[Tier]:
    """Yield each tier that may turn out to be the first that fits."""
    for tier in price.tiers:
        if tier.may_fit(subject):
            yield tier
        if tier.fits(subject):
            return


def _most_of(tier: Tier, price: Price, subject: Subject) -> int | None:
    if tier.per_image is not None:
        return tier.per_image * subject.n
    size = subject.size or tier.size or subject.largest
    if tier.per_megapixel is not None and size is not None:
        return _pixels(tier.per_megapixel, size) * subject.n
    bound = tier.at_most if tier.at_most is not None else price.at_most
    return None if bound is None else bound * subject.n


def _least_of(tier: Tier, subject: Subject) -> int:
    if tier.per_image is not None:
        return tier.per_image * subject.n
    size = subject.size or tier.size
    if tier.per_megapixel is not None and size is not None:
        return _pixels(tier.per_megapixel, size) * subject.n
    return 0


def _pixels(per_megapixel: int, size: Size) -> int:
    return -(-per_megapixel * size.pixels // MILLION)  # rounded up: a fraction is never given away


def _tokens(prices: Mapping[str, int], usage: Mapping[str, Any]) -> int:
    """Return the cost of the tokens. A kind without a price of its own counts as `input`."""
    found = usage.get("input_tokens_details")
    details = found if isinstance(found, Mapping) else {}
    inputs, image, cached = (
        _count(value)
        for value in (usage.get("input_tokens"), details.get("image_tokens"), details.get("cached_tokens"))
    )
    image, cached = min(image, inputs), min(cached, inputs)
    if "image_input" not in prices:
        image = 0
    if "cached_input" not in prices:
        cached = 0
    image = min(image, inputs - cached)
    counts = {"input": inputs - image - cached, "image_input": image, "cached_input": cached}
    counts["output"] = _count(usage.get("output_tokens"))
    total = sum(prices.get(kind, 0) * count for kind, count in counts.items())
    return -(-total // MILLION)


def _count(value: Any) -> int:
    return min(value, MOST_TOKENS) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


# --- as text ---


def to_json(price: Price) -> str:
    """Write a price in one way, by which versions are compared."""
    tiers = [
        {name: _plain(value) for name in Tier.__slots__ if (value := getattr(tier, name)) not in (None, ())}
        for tier in price.tiers
    ]
    fields = {"tiers": tiers, "reported": price.reported, "at_most": price.at_most, "currency": price.currency}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Size | Operation) else value
