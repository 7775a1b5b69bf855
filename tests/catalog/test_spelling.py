from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.spelling import LONGEST, MOST, nearest

NAMES = [
    "black-forest-labs/FLUX.1-schnell",
    "black-forest-labs/FLUX.1-Kontext-dev",
    "stabilityai/stable-diffusion-3.5-large",
    "Bytedance/seedream-3-0-t2i-250415",
    "gpt-image-2",
    "dall-e-3",
]
known = st.sampled_from(NAMES)


@given(name=known, upper=st.lists(st.booleans(), min_size=64, max_size=64), mark=st.sampled_from("-_. "))
def test_case_marks_and_the_owner_make_no_difference(name: str, upper: list[bool], mark: str) -> None:
    other = "".join(c.upper() if up else c.lower() for c, up in zip(name, upper, strict=False))
    assert nearest(other, NAMES) == name
    assert nearest(other.rpartition("/")[2].replace("-", mark), NAMES) == name
    assert nearest(f"someone/{other.rpartition('/')[2]}", NAMES) == name


@given(name=known, place=st.integers(0, 63), letter=st.sampled_from("abcxyz019"), kind=st.sampled_from("+-="))
def test_one_wrong_letter_makes_no_difference(name: str, place: int, letter: str, kind: str) -> None:
    bare = name.rpartition("/")[2]
    at = place % len(bare)
    wrong = bare[:at] + ("" if kind == "-" else letter) + bare[at + (kind != "+") :]
    assert nearest(wrong, NAMES) == name


@given(word=st.text(), names=st.lists(st.text()))
def test_any_text_gets_a_known_name_or_none(word: str, names: list[str]) -> None:
    assert nearest(word, names) in (None, *names)


def test_of_equal_names_the_one_with_the_same_owner_is_meant() -> None:
    assert nearest("B/FLUX", ["a/flux", "b/flux"]) == "b/flux"
    assert nearest("flux", ["a/flux", "b/flux"]) == "a/flux"


@pytest.mark.parametrize("word", ["gpt-4o", "whisper-1", "sora-2", "a", "", "///", "x" * (LONGEST + 1)])
def test_what_resembles_nothing_gets_nothing(word: str) -> None:
    assert nearest(word, NAMES) is None


def test_among_very_many_names_one_that_differs_by_its_case_is_found() -> None:
    assert nearest("LAST ONE", [*(f"model-{number}" for number in range(2 * MOST)), "last-one"]) == "last-one"
