"""Write an answer's cost into headers, events and JSON. Pure; knows no price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.catalog.money import to_number, to_text
from app.events import ImageEnds
from app.gateway.account import Account
from app.images import Size


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of one answer. `account` is the drawing's; None: there is none, or not any more. A replay, which is an
    answer from the run of another request, costs nothing. If the drawing has no price, a replay states no cost, like
    the first answer."""

    currency: str
    account: Account | None = None
    is_replay: bool = False

    def headers(self, seen: Callable[[], Size | None]) -> list[tuple[bytes, bytes]]:
        """Return the headers, when the first image arrives; none if the cost is not known before the drawing's end."""
        nano = self._free() if self.is_replay else self.account.expected(seen) if self.account else None
        return [] if nano is None else cost_headers(nano, self.currency)

    def members(self, nano: int | None) -> dict[str, Any]:
        """Return an amount as members of a JSON object; null if it is not known."""
        return {"cost": None if nano is None else to_number(nano), "currency": self.currency}

    def total(self) -> int | None:
        """Return the cost of the answer in nano-units, as far as it is known now."""
        return self._free() if self.is_replay else self.account.told if self.account else None

    def of_image(self, index: int, image: ImageEnds) -> int | None:
        """Return the cost of an image, or None if it is not known (yet)."""
        if self.is_replay:
            return self._free()
        return self.account.cost_of(index, image.facts, image.usage) if self.account else None

    def is_open(self, index: int, image: ImageEnds) -> bool:
        """True if the next event may bring the cost of an image, which is not known yet."""
        if self.is_replay or self.account is None or not self.account.is_open(index):
            return False
        return self.of_image(index, image) is None

    def _free(self) -> int | None:
        return 0 if self.account is None or self.account.is_priced else None


def cost_headers(nano: int, currency: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-gateway-cost", to_text(nano).encode()), (b"x-gateway-currency", currency.encode())]
