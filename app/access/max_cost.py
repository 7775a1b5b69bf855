"""The bound on a request's cost (`max_cost`): which of its candidates stay within it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.catalog.estimates import most
from app.catalog.fitting import Fitted
from app.catalog.money import to_text
from app.errors import InvalidRequest
from app.images import ImageRequest


def within(request: ImageRequest, candidates: Sequence[Fitted], currency: str = "USD") -> list[Fitted]:
    """Return the candidates that keep the request's bound on its cost; all of them if it states none. Raises
    InvalidRequest if none is left."""
    if request.max_cost is None:
        return list(candidates)
    found = [fitted for fitted in candidates if excess(request, fitted, currency) is None]
    if not found:
        amounts = [most(fitted, request.n) for fitted in candidates]
        priced = [amount for amount in amounts if amount is not None]
        if priced:
            reason = f"may cost up to {to_text(min(priced))} {currency}"
            remedy = "Raise it, or ask for fewer or smaller images, or another model."
        else:
            reason, remedy = "has no price", "Leave it out, or ask for a model that has a price."
        images = "an image" if request.n == 1 else f"{request.n} images"
        raise too_dear(
            f"This request may cost {to_text(request.max_cost)} {currency} at most ('max_cost', or the header "
            f"'x-gateway-max-cost'), and {images} of {request.model!r} {reason}. Nothing was drawn. {remedy}"
        )
    return found


def excess(request: ImageRequest, fitted: Fitted, currency: str) -> str | None:
    """Return why the request may cost too much at a deployment. None: it cannot."""
    if request.max_cost is None:
        return None
    amount = most(fitted, request.n)
    if amount is None:
        return "it has no price, and the request states a 'max_cost'"
    if amount > request.max_cost:
        return f"it may cost {to_text(amount)} {currency}, which is more than 'max_cost'"
    return None


def too_dear(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="max_cost", code="max_cost_exceeded", should_retry=False)
