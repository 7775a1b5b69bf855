"""Money as whole nano-units (1e-9) of a currency, so that sums are exact. Knows no currency."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

NANO = 1_000_000_000
MOST_DIGITS = 30  # of an amount in nano-units


def to_nano(amount: Decimal | float | str) -> int:
    """Return an amount in nano-units. A float is taken as it is written (0.1 is a tenth). Raises ValueError, also for
    an amount beyond all sense: to make a whole number of 1e999999 takes minutes."""
    try:
        exact = Decimal(str(amount)) * NANO
        if exact and exact.adjusted() > MOST_DIGITS:
            raise ValueError
        return int(exact.to_integral_value(ROUND_HALF_UP))
    except (ArithmeticError, ValueError):
        raise ValueError(f"{str(amount)[:64]!r} is no amount of money") from None


def to_decimal(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)


def to_number(nano: int) -> float:
    """Return an amount as JSON's numbers have it."""
    return float(to_decimal(nano))


def to_text(nano: int) -> str:
    """Write an amount with six decimals, or with all nine where six would round it."""
    digits = 6 if nano % 1000 == 0 else 9
    return f"{to_decimal(nano):.{digits}f}"
