from __future__ import annotations

import re
import secrets
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.key_text import ALPHABET, KeyText, new_key, parse_key, resembles_key, stable_id


def a_key(*, is_admin: bool = False, id: str | None = None) -> KeyText:
    return new_key(secrets.choice, is_admin=is_admin, id=id)


@pytest.mark.parametrize(("is_admin", "kind"), [(False, "igk_"), (True, "iga_")])
def test_a_key_is_its_kind_an_id_randomness_and_a_checksum(is_admin: bool, kind: str) -> None:
    key = a_key(is_admin=is_admin)
    assert re.fullmatch(rf"{kind}[0-9A-Za-z]{{46}}", key.text)
    assert key.text[4:12] == key.id
    assert parse_key(key.text) == key


def test_a_rotated_key_has_the_same_id_and_another_text() -> None:
    first = a_key()
    second = a_key(id=first.id)
    assert first.id == second.id
    assert first.text != second.text


def test_the_text_of_a_key_follows_from_what_is_chosen() -> None:
    letters = cycle(ALPHABET)
    first = new_key(lambda _: next(letters), is_admin=False)
    letters = cycle(ALPHABET)
    assert new_key(lambda _: next(letters), is_admin=False) == first
    assert first.id == ALPHABET[:8]


@given(place=st.integers(0, 49), letter=st.sampled_from(ALPHABET))
def test_one_wrong_character_anywhere_is_noticed(place: int, letter: str) -> None:
    text = a_key().text
    changed = text[:place] + letter + text[place + 1 :]
    assert changed == text or parse_key(changed) is None


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "a", lambda t: t.lower(), lambda t: f"{t}\n", lambda t: ""]
)
def test_a_key_that_was_copied_badly_is_none(change: object) -> None:
    assert parse_key(change(a_key().text)) is None  # type: ignore[operator]


def test_a_key_is_recognised_by_its_beginning() -> None:
    assert resembles_key(a_key().text[:10])
    assert resembles_key(a_key(is_admin=True).text)
    assert not resembles_key("sk-0123456789")


def test_the_digest_depends_on_the_pepper_and_tells_nothing() -> None:
    key = a_key()
    assert len(key.digest(b"one")) == 32
    assert key.digest(b"one") == key.digest(b"one") != key.digest(b"another")
    assert key.text not in repr(key)


def test_the_id_of_a_name_is_always_the_same_one() -> None:
    assert stable_id("key", "ci") == stable_id("key", "ci") == "FkQs6IVx"
    assert len({stable_id(kind, name) for kind in ("key", "project") for name in ("a", "b", "a\nb")}) == 6
    assert len(stable_id("project", "design", 16)) == 16
