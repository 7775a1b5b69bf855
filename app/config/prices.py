"""The prices of the configuration: a number, a list of tiers, or both with the amounts that the provider's answer
reports."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeFloat, TypeAdapter, ValidationError, model_validator

from app.catalog.money import to_nano
from app.catalog.prices import TOKENS, Price, Tier
from app.config.errors import did_you_mean, refusal
from app.config.sections import Section
from app.images import Operation, Size

_FORMS = "a number (for an image), a list of tiers, or {tiers: [...], reported: usage.cost, at_most: 0.1}"


class TierSettings(Section):
    """One price and the conditions under which it is the right one."""

    quality: str | None = None
    size: str | None = None
    operation: Operation | None = None
    per_image: NonNegativeFloat | None = None
    per_megapixel: NonNegativeFloat | None = None
    per_million_tokens: dict[str, NonNegativeFloat] | None = Field(None, min_length=1)
    at_most: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _agree(self) -> TierSettings:
        stated = [self.per_image, self.per_megapixel, self.per_million_tokens]
        if sum(amount is not None for amount in stated) != 1:
            raise refusal("is no price", "state one of `per_image`, `per_megapixel` and `per_million_tokens`")
        for kind in self.per_million_tokens or ():
            if kind not in TOKENS:
                raise refusal(f"no tokens are called {kind!r}", did_you_mean(kind, TOKENS))
        if self.size is not None and Size.parse(self.size) is None:
            raise refusal(f"{self.size!r} is no size", "write WIDTHxHEIGHT in pixels, like 1024x768")
        return self

    @property
    def tier(self) -> Tier:
        tokens = self.per_million_tokens or {}
        return Tier(
            quality=self.quality,
            size=Size.parse(self.size or ""),
            operation=self.operation,
            per_image=_nano(self.per_image),
            per_megapixel=_nano(self.per_megapixel),
            per_million_tokens=tuple((kind, to_nano(amount)) for kind, amount in sorted(tokens.items())),
            at_most=_nano(self.at_most),
        )


class PriceSettings(Section):
    tiers: tuple[TierSettings, ...] = ()
    reported: str | None = Field(None, min_length=1)
    at_most: NonNegativeFloat | None = None


_READER = TypeAdapter(PriceSettings)


def read_price(value: Any) -> Any:
    """Read a price. Raises an error for a validator to raise."""
    if value is None or isinstance(value, Price):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = {"tiers": [{"per_image": value}]}
    elif isinstance(value, list):
        value = {"tiers": value}
    elif not isinstance(value, dict):
        raise refusal("is no price", f"write {_FORMS}")
    try:
        stated = _READER.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise refusal(f"is no price: {place + ': ' if place else ''}{first['msg']}", f"write {_FORMS}") from None
    if not stated.tiers and stated.reported is None:
        raise refusal("states no price", f"write {_FORMS}")
    return Price(tuple(tier.tier for tier in stated.tiers), stated.reported, _nano(stated.at_most))


def _nano(amount: float | None) -> int | None:
    return None if amount is None else to_nano(amount)
