from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.interpolation import interpolate

ENVIRON = {"NAME": "value", "EMPTY": "", "DOLLAR": "${NAME}", "_a1": "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${NAME}", "value"),
        ("a ${NAME}, ${_a1}!", "a value, x!"),
        ("${NAME:-other}", "value"),
        ("${MISSING:-other}", "other"),
        ("${MISSING:-}", ""),
        ("${MISSING:-http://a:1/b?c=$d}", "http://a:1/b?c=$d"),
        ("${MISSING:-a:-b}", "a:-b"),
        ("${EMPTY:-other}", "other"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$${NAME}"),
        ("${DOLLAR}", "${NAME}"),
        ("$NAME costs $5 {a} $$", "$NAME costs $5 {a} $$"),
    ],
)
def test_references_are_replaced_once(text: str, expected: str) -> None:
    assert interpolate(text, ENVIRON) == (expected, [])


@pytest.mark.parametrize("text", ["${MISSING}", "${EMPTY}", "a ${NAME} ${MISSING}"])
def test_a_variable_that_is_not_set_or_empty_is_named(text: str) -> None:
    value, [fault] = interpolate(text, ENVIRON)
    name = "EMPTY" if "EMPTY" in text else "MISSING"
    assert value == text
    assert fault.problem == f"the environment variable {name!r} is not set"
    assert fault.remedy == f"set it, or write ${{{name}:-default}}"


@pytest.mark.parametrize("text", ["${", "${}", "${NAME", "${1A}", "${A-B}", "${A:-${NAME}}", "${ NAME }", "${A:?no}"])
def test_a_text_that_only_begins_like_a_reference_is_refused(text: str) -> None:
    value, [fault, *_] = interpolate(text, ENVIRON)
    assert value == text
    assert fault.problem == "holds a '${' that begins no reference"
    assert "$${" in fault.remedy


def test_faults_tell_where_they_lie_however_deep() -> None:
    value, faults = interpolate({"a": [{"b": "${NAME}"}, "${MISSING}"], "${NAME}": {1: "${GONE}"}}, ENVIRON)
    assert value["a"][0] == {"b": "value"}
    assert "${NAME}" in value
    assert [fault.path for fault in faults] == [("a", 1), ("${NAME}", "1")]


texts = st.text(alphabet="${}:-AB1 é\n", max_size=20)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="ab$ {}", max_size=6).filter(lambda t: "${" not in t),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(trees)
def test_a_text_without_a_reference_stays_as_it_is(tree: Any) -> None:
    assert interpolate(tree, {}) == (tree, [])


@given(texts)
def test_any_text_is_replaced_or_refused_and_never_breaks(text: str) -> None:
    value, faults = interpolate(text, {"A": "a"})
    assert isinstance(value, str)
    assert not faults or value == text


@given(texts)
def test_any_text_can_be_written_literally(text: str) -> None:
    if not text.endswith("$") and "$${" not in text:
        assert interpolate(text.replace("${", "$${"), {}) == (text, [])


@given(st.text(), st.text(max_size=5))
def test_a_value_is_never_read_again(value: str, before: str) -> None:
    before = before.replace("$", "")
    assert interpolate(before + "${A:-}", {"A": value}) == (before + value, [])
