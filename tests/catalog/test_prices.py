"""Prices: tiers, what is reserved, and what is settled."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.money import NANO
from app.catalog.prices import Cost, Price, Subject, Tier, cost, is_known, least, most, to_json
from app.images import Operation, Size

SQUARE, WIDE = Size(1024, 1024), Size(1536, 1024)
TIERS = Price(
    (
        Tier(quality="high", size=SQUARE, per_image=167),
        Tier(quality="high", per_image=250),
        Tier(operation=Operation.EDITS, per_image=40),
        Tier(per_megapixel=25 * 1000),
    )
)
TOKENS = Price((Tier(per_million_tokens=(("input", 5 * NANO), ("image_input", 10 * NANO), ("output", 40 * NANO))),))


def drawn(**fields: Any) -> Subject:
    return Subject(**{"operation": Operation.GENERATIONS, **fields})


@pytest.mark.parametrize(
    ("subject", "nano"),
    [
        (drawn(quality="high", size=SQUARE), 167),
        (drawn(quality="high", size=WIDE, n=2), 500),
        (drawn(operation=Operation.EDITS, quality="low", size=SQUARE), 40),
        (drawn(quality="low", size=Size(1000, 1000)), 25_000),
        (drawn(quality="low", size=Size(1, 1)), 1),
    ],
)
def test_the_first_tier_that_fits_is_the_price(subject: Subject, nano: int) -> None:
    assert (least(TIERS, subject), most(TIERS, subject)) == (nano, nano)
    assert cost(TIERS, subject) == Cost(nano, "price")


def test_while_quality_or_size_is_unknown_the_dearest_tier_is_reserved() -> None:
    assert most(TIERS, drawn(quality="high")) == 250
    assert most(TIERS, drawn(size=SQUARE)) == -(-25_000 * SQUARE.pixels // 1_000_000)
    assert least(TIERS, drawn(size=SQUARE)) == 167
    assert cost(TIERS, drawn(size=SQUARE, quality="high")).nano == 167, "the picture's header tells the size"


def test_a_price_by_megapixel_without_a_size_needs_a_bound() -> None:
    price = Price((Tier(per_megapixel=1000),))
    assert most(price, drawn()) is None
    assert most(price, drawn(largest=Size(2000, 1000), n=3)) == 6000
    assert most(Price((Tier(per_megapixel=1000, at_most=9),)), drawn(n=2)) == 18


def test_tokens_are_reserved_by_their_bound_and_settled_by_the_usage() -> None:
    usage = {"input_tokens": 30, "output_tokens": 100, "input_tokens_details": {"text_tokens": 10, "image_tokens": 20}}
    assert most(TOKENS, drawn()) is None
    assert cost(TOKENS, drawn(), usage) == Cost((10 * 5 + 20 * 10 + 100 * 40) * 1000, "price")
    assert cost(TOKENS, drawn()) == Cost(0, "none")
    bounded = Price(TOKENS.tiers, at_most=7)
    assert (least(bounded, drawn(n=2)), most(bounded, drawn(n=2))) == (0, 14)
    assert cost(bounded, drawn(n=2)) == Cost(14, "price"), "without a usage the bound is booked"


@pytest.mark.parametrize("usage", [{"input_tokens": "many"}, {"input_tokens": -5, "input_tokens_details": []}, {}])
def test_an_odd_usage_costs_nothing_it_does_not_say(usage: dict[str, object]) -> None:
    assert cost(TOKENS, drawn(), usage).nano == 0


def test_a_cost_that_a_provider_names_is_one_that_a_database_can_add_up() -> None:
    dear = Price((Tier(per_million_tokens=(("output", 1000 * NANO),), at_most=NANO),), reported="usage.cost")
    assert cost(dear, drawn(), {"output_tokens": 10**30}).nano < 2**53 * 1000
    assert cost(dear, drawn(), {"cost": 2**61 / NANO, "output_tokens": 10}) == Cost(NANO // 100, "price")


def test_a_reported_cost_goes_over_the_tiers() -> None:
    price = Price((Tier(per_image=50),), reported="usage.cost", at_most=90)
    assert (least(price, drawn(n=2)), most(price, drawn(n=2))) == (0, 180)
    assert cost(price, drawn(), {"cost": 0.000_000_060}) == Cost(60, "reported")
    assert cost(price, drawn(), {"cost": "0.5"}) == Cost(NANO // 2, "reported")
    assert not price.is_told_beforehand
    assert TIERS.is_told_beforehand


@pytest.mark.parametrize("found", [None, True, "dear", -1, float("nan"), float("inf"), {}, 1e300])
def test_a_reported_cost_that_is_none_is_not_believed(found: object) -> None:
    price = Price((Tier(per_image=50),), reported="usage.cost")
    assert cost(price, drawn(), {"cost": found}) == Cost(50, "price")


def test_the_cost_of_what_was_drawn_is_known_where_nothing_that_sets_it_is_missing() -> None:
    by_quality = Price((Tier(quality="high", per_image=9), Tier(per_million_tokens=(("output", 1),))))
    assert is_known(by_quality, drawn(quality="high"))
    assert not is_known(by_quality, drawn(quality="low"))
    assert is_known(by_quality, drawn(quality="low"), {"output_tokens": 3})
    assert not is_known(by_quality, drawn(quality=None), {"output_tokens": 3})
    assert not is_known(Price((Tier(per_image=1),), reported="usage.cost"), drawn())
    assert is_known(Price((Tier(per_image=1),), reported="usage.cost"), drawn(), {"cost": 1})
    assert not is_known(Price(), drawn())


def test_what_no_tier_fits_has_no_price() -> None:
    price = Price((Tier(quality="high", per_image=1),))
    assert (least(price, drawn(quality="low")), most(price, drawn(quality="low"))) == (None, None)
    assert cost(price, drawn(quality="low")) == Cost(0, "none")
    assert most(Price(), drawn()) is None


sizes = st.sampled_from([None, SQUARE, WIDE, Size(512, 512)])
qualities = st.sampled_from([None, "low", "high"])
tiers = st.builds(
    Tier,
    quality=qualities,
    size=sizes,
    operation=st.sampled_from([None, Operation.EDITS]),
    per_image=st.integers(0, 1000),
)


@given(st.lists(tiers, max_size=4), sizes, qualities, st.integers(1, 10))
def test_what_is_settled_lies_between_the_least_and_the_most(
    found: list[Tier], size: Size | None, quality: str | None, n: int
) -> None:
    price, asked = Price(tuple(found)), drawn(size=size, quality=quality, n=n)
    for real_size in [size] if size else [SQUARE, WIDE, Size(512, 512)]:
        for real_quality in [quality] if quality else ["low", "high"]:
            told = cost(price, drawn(size=real_size, quality=real_quality, n=n))
            bounds = least(price, asked), most(price, asked)
            assert told.source == "none" or (bounds[0] or 0) <= told.nano <= (bounds[1] or 0)


def test_the_text_of_a_price_has_all_that_is_stated() -> None:
    tiers = Tier("high", SQUARE, Operation.EDITS, per_image=5), Tier(per_million_tokens=(("input", 2),), at_most=9)
    assert json.loads(to_json(Price(tiers, "usage.cost", 7, "EUR"))) == {
        "tiers": [
            {"quality": "high", "size": "1024x1024", "operation": "edits", "per_image": 5},
            {"per_million_tokens": [["input", 2]], "at_most": 9},
        ],
        "reported": "usage.cost",
        "at_most": 7,
        "currency": "EUR",
    }
    assert json.loads(to_json(Price())) == {"tiers": [], "reported": None, "at_most": None, "currency": "USD"}
