"""Money as whole nano-units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.money import to_decimal, to_nano, to_text


def test_an_amount_is_taken_as_it_is_written() -> None:
    assert [to_nano(amount) for amount in (0.1, "0.038", 1, "1e-9", 0)] == [100_000_000, 38_000_000, 10**9, 1, 0]


def test_what_is_below_a_nano_unit_is_rounded() -> None:
    assert (to_nano("0.0000000004"), to_nano("0.0000000005")) == (0, 1)


@pytest.mark.parametrize("amount", ["", "dear", "NaN", "Infinity", float("nan"), "1e31", "1e999990"])
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValueError, match="no amount of money"):
        to_nano(amount)  # type: ignore[arg-type]


def test_an_amount_is_written_with_six_decimals_or_with_all_that_it_has() -> None:
    assert [to_text(nano) for nano in (38_000_000, 0, 1_500, 10**12)] == [
        "0.038000",
        "0.000000",
        "0.000001500",
        "1000.000000",
    ]


@given(st.integers(-(2**62), 2**62))
def test_nothing_is_lost_on_the_way_there_and_back(nano: int) -> None:
    assert to_nano(to_decimal(nano)) == to_nano(to_text(nano)) == nano
