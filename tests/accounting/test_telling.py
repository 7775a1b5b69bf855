"""What is told of a drawing's cost: pure, over what its attempts have drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.accounting.telling import Drawn, cost_of, expected, is_open, settled
from app.catalog.prices import Price, Subject, Tier
from app.images import Operation, Size

SMALL = Size(1000, 500)
BY_IMAGE = Price((Tier(per_image=40),))
BY_AREA = Price((Tier(per_megapixel=100),))
BY_TOKEN = Price((Tier(per_million_tokens=(("output", 1_000_000),), at_most=500),))
BY_QUALITY = Price((Tier(quality="high", per_image=90), Tier(per_image=40)))
REPORTED = Price(reported="usage.cost", at_most=500)
ONE = Drawn(0, 0, 1, Subject(Operation.GENERATIONS), BY_IMAGE, None, is_done=False)


def unseen() -> Size | None:
    return None


def seen() -> Size | None:
    return SMALL


@pytest.mark.parametrize(
    ("price", "size", "look", "told"),
    [
        (BY_IMAGE, None, unseen, 40),
        (BY_AREA, SMALL, unseen, 50),
        (BY_AREA, Size(10, 10), seen, 50),  # the picture counts, whatever was asked for
        (BY_AREA, None, seen, 50),
        (BY_AREA, None, unseen, None),
        (BY_QUALITY, None, unseen, None),
        (BY_TOKEN, SMALL, seen, None),
        (REPORTED, SMALL, seen, None),
        (None, SMALL, seen, None),
    ],
)
def test_the_cost_is_expected_where_the_price_and_the_picture_tell_it(
    price: Price | None, size: Size | None, look: object, told: int | None
) -> None:
    drawn = replace(ONE, price=price, subject=replace(ONE.subject, size=size))
    assert expected([drawn], 1, (), look) == told  # type: ignore[arg-type]


def test_images_that_nobody_draws_yet_are_expected_to_cost_what_the_last_ones_do() -> None:
    other = replace(ONE, first=1, price=Price((Tier(per_image=7),)))
    assert expected([ONE], 3, (), unseen) == 120
    assert expected([ONE, other], 4, (3,), unseen) == 40 + 7 + 7
    whole = replace(ONE, asked=3)
    assert expected([whole], 3, (), unseen) == 120
    short = replace(ONE, asked=3, images=1, is_done=True)  # the provider gave fewer than it was asked for
    assert expected([short], 3, (), unseen) == 120
    assert expected([], 1, (), unseen) is None


def test_each_image_costs_its_share() -> None:
    attempts = [replace(ONE, asked=2, images=2), replace(ONE, first=2, price=BY_AREA, images=1)]
    assert [cost_of(attempts, index, {"size": "1000x500"}, None) for index in range(3)] == [40, 40, 50]
    assert cost_of([], 0, {}, None) is None
    assert cost_of([replace(ONE, price=None)], 0, {}, None) is None
    named = replace(ONE, price=BY_QUALITY)
    assert cost_of([named], 0, {"quality": "high"}, None) == 90


def test_tokens_are_known_when_the_answer_has_ended() -> None:
    usage = {"output_tokens": 30}
    under_way = replace(ONE, price=BY_TOKEN, asked=2, images=1)
    assert cost_of([under_way], 0, {}, None) is None
    assert is_open([under_way], 0)
    assert cost_of([under_way], 0, {}, usage) == 30  # an event that has a usage of its own
    ended = replace(under_way, images=2, usage=usage, is_done=True)
    assert [cost_of([ended], index, {}, None) for index in range(2)] == [None, 30]
    assert not is_open([ended], 0)
    assert not is_open([replace(ONE, price=None)], 0)


def test_a_quality_that_only_the_end_of_an_answer_states_sets_the_cost_of_all_its_images() -> None:
    under_way = replace(ONE, price=BY_QUALITY, asked=2, images=1)
    assert cost_of([under_way], 0, {}, None) is None
    assert is_open([under_way], 0)
    ended = replace(under_way, images=2, is_done=True, shown=[{"quality": "low"}] * 2)
    assert [cost_of([ended], index, {}, None) for index in range(2)] == [None, 80]
    assert settled([ended]) == 80
    named = {"quality": "low"}
    assert [cost_of([ended], index, named, None) for index in range(2)] == [40, 40]
    silent = replace(ended, shown=[{}] * 2)
    assert [cost_of([silent], index, {}, None) for index in range(2)] == [None, settled([silent])] == [None, 180]


def test_whole_images_of_several_sizes_cost_what_each_costs() -> None:
    sizes = [{"size": "1000x500"}, {"size": "10x10"}, {"size": "1000x500"}]
    ended = replace(ONE, price=BY_AREA, asked=3, images=3, is_done=True, shown=sizes)
    assert settled([ended]) == expected([ended], 3, (), unseen) == 50 + 1 + 50
    assert settled([replace(ended, price=BY_TOKEN, usage={"output_tokens": 30})]) == 30
    qualities = [{"quality": "high"}, {"quality": "low"}]
    assert settled([replace(ended, price=BY_QUALITY, asked=2, images=2, shown=qualities)]) == 90 + 40


def test_the_end_of_an_only_image_tells_all_that_sets_its_cost() -> None:
    alone = replace(ONE, price=BY_QUALITY, images=1, shown=[{}])
    assert cost_of([alone], 0, {}, None) == 90


def test_an_image_whose_size_nobody_has_seen_waits_for_the_end_of_its_answer() -> None:
    asked = replace(ONE, price=BY_AREA, asked=2, images=1, subject=replace(ONE.subject, size=SMALL), shown=[{}])
    assert cost_of([asked], 0, {}, None) is None
    ended = replace(asked, images=2, is_done=True, shown=[{"size": "10x10"}] * 2)
    assert [cost_of([ended], index, {}, None) for index in range(2)] == [None, settled([ended])]


def test_a_provider_that_says_auto_names_no_quality() -> None:
    auto = {"quality": "auto"}
    ended = replace(ONE, price=BY_QUALITY, images=1, is_done=True, shown=[auto])
    assert cost_of([ended], 0, auto, None) == settled([ended]) == 90
    asked = replace(ended, subject=replace(ONE.subject, quality="low"))
    assert cost_of([asked], 0, auto, None) == settled([asked]) == 40


def test_what_has_ended_has_a_cost_unless_some_of_it_has_no_price() -> None:
    done = replace(ONE, images=1, is_done=True)
    assert settled([]) == 0
    assert settled([done, replace(ONE, first=1)]) == 40
    assert settled([done, replace(done, price=None)]) is None
