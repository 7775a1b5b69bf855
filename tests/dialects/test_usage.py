from __future__ import annotations

from typing import Any

import pytest

from app.dialects.usage import add_up

DETAILS = {"text_tokens": 1, "image_tokens": 0}
ONE = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2, "input_tokens_details": DETAILS}


@pytest.mark.parametrize(
    ("usages", "total"),
    [
        ([], {}),
        ([ONE], ONE),
        (
            [ONE, ONE],
            {"total_tokens": 6, "input_tokens": 2, "output_tokens": 4,
             "input_tokens_details": {"text_tokens": 2, "image_tokens": 0}},
        ),
        ([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ([{"a": {"x": 1}}, {"a": {"y": 2}}, {}], {"a": {"x": 1, "y": 2}}),
        ([{"a": "text", "b": None, "c": [1]}], {}),
    ],
)  # fmt: skip
def test_counts_are_added_up_however_deep_they_lie(usages: list[dict[str, Any]], total: dict[str, Any]) -> None:
    assert add_up(usages) == total


def test_what_is_added_up_stays_as_it_was() -> None:
    usages = [{"a": {"x": 1}}, {"a": {"x": 1}}]
    add_up(usages)
    assert usages == [{"a": {"x": 1}}, {"a": {"x": 1}}]
