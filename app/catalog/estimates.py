"""What a fitted request may cost, and how many pixels it draws. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.catalog import prices
from app.catalog.fitting import Fitted
from app.catalog.prices import Subject
from app.images import ImageRequest, Size

USUAL_SIZE = Size(1024, 1024)  # counts for a request whose size is unknown


def subject_of(fitted: Fitted, n: int) -> Subject:
    """Return the facts that set the price of `n` images at a deployment."""
    request = fitted.request
    return Subject(request.operation, n, quality_of(fitted), request.size, fitted.deployment.profile.size.largest)


def quality_of(fitted: Fitted) -> str | None:
    """Return the quality that a deployment is asked for. None: it chooses."""
    return named_quality(fitted.request.parameters)


def named_quality(said: Mapping[str, Any]) -> str | None:
    """Return the quality that a request or an answer names. None: none, or "auto", which leaves it open."""
    quality = said.get("quality")
    return quality if isinstance(quality, str) and quality != "auto" else None


def most(fitted: Fitted, n: int) -> int | None:
    """Return the highest possible cost of `n` images at a deployment. None: it has no price, or one without a bound."""
    price = fitted.deployment.profile.stated_price
    return None if price is None else prices.most(price, subject_of(fitted, n))


def least(fitted: Fitted, n: int) -> int | None:
    """Return the lowest possible cost of `n` images at a deployment. None: it has no price."""
    price = fitted.deployment.profile.stated_price
    return None if price is None else prices.least(price, subject_of(fitted, n))


def dearest(candidates: Sequence[Fitted], n: int) -> int | None:
    """Return the highest possible cost of `n` images at any candidate, or None if it is unknown for one."""
    highest: int | None = None
    for fitted in candidates:
        amount = most(fitted, n)
        if amount is None:
            return None
        highest = max(highest or 0, amount)
    return highest


def pixels_of(request: ImageRequest, first: Fitted | None) -> int:
    """Return the pixels of one image, as the first candidate draws it."""
    size = first.request.size if first else None
    size = size or request.size or (request.images[0].size if request.images else None)
    return (size or USUAL_SIZE).pixels
