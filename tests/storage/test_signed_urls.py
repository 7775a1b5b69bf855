from __future__ import annotations

import string
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError
from app.storage.files import StoredFile
from app.storage.signed_urls import Signer

FILE = StoredFile("0123456789abcdef" * 2, "png", "image/png", 10, 2_000_000_000)
NOW = 1_999_999_000.0


def signer(secret: bytes = b"s" * 32, now: float = NOW) -> Signer:
    return Signer(secret, lambda: now)


def check(url: str, by: Signer | None = None) -> None:
    parts = urlsplit(url)
    (by or signer()).check(parts.path.removeprefix("/files/"), parts.query)


URL = signer().url("https://images.test", "design-team", FILE)
LINK = URL.removeprefix("https://images.test/files/")


def refusal(url: str, by: Signer | None = None) -> tuple[int, str | None]:
    with pytest.raises(ApiError) as refused:
        check(url, by)
    return refused.value.status, refused.value.code


def test_a_link_that_was_signed_is_good_until_it_expires() -> None:
    check(URL)
    check(URL, signer(now=1_999_999_999.9))
    assert refusal(URL, signer(now=2_000_000_000.0)) == (403, "url_expired")


def test_a_link_does_not_tell_whose_it_is() -> None:
    assert "design" not in URL
    assert signer().url("", "other", FILE) != signer().url("", "design-team", FILE)
    assert f"key={signer().key_digest('design-team')}&" in URL


def test_another_secret_refuses_it() -> None:
    assert refusal(URL, signer(b"t" * 32)) == (403, "url_invalid")


def test_a_link_of_the_former_secret_stays_good_and_none_is_signed_with_it() -> None:
    both = Signer(b"t" * 32, lambda: NOW, former=b"s" * 32)
    check(URL, both)
    assert both.url("https://images.test", "design-team", FILE) == signer(b"t" * 32).url(
        "https://images.test", "design-team", FILE
    )
    assert refusal(both.url("", "design-team", FILE)) == (403, "url_invalid")


@given(st.integers(0, len(LINK) - 1), st.sampled_from(string.printable + "é%"))
def test_any_changed_character_is_refused(at: int, char: str) -> None:
    changed = LINK[:at] + char + LINK[at + 1 :]
    if changed == LINK:
        return
    name, _, query = changed.partition("?")
    with pytest.raises(ApiError) as refused:
        signer().check(name, query)
    assert (refused.value.status, refused.value.code) == (403, "url_invalid")


@given(st.integers(0, len(LINK)), st.sampled_from(string.printable))
def test_any_added_character_is_refused(at: int, char: str) -> None:
    name, _, query = (LINK[:at] + char + LINK[at:]).partition("?")
    with pytest.raises(ApiError):
        signer().check(name, query)


@given(st.integers(0, len(LINK) - 1))
def test_any_left_out_character_is_refused(at: int) -> None:
    name, _, query = (LINK[:at] + LINK[at + 1 :]).partition("?")
    with pytest.raises(ApiError):
        signer().check(name, query)


@given(st.text(max_size=40), st.text(max_size=120))
def test_a_link_that_was_never_signed_is_refused(name: str, query: str) -> None:
    with pytest.raises(ApiError):
        signer().check(name, query)


def test_nothing_can_be_said_twice_in_another_order_or_beside_the_rest() -> None:
    key, expires, signature = urlsplit(URL).query.split("&")
    for parts in (
        [key, expires, signature, signature],
        [key, expires, "expires=9999999999", signature],
        ["expires=9999999999", key, expires, signature],
        [expires, key, signature],
        [key, expires, signature, "utm=1"],
        [key, expires],
        [signature],
        [key, expires, signature.upper()],
    ):
        assert refusal(f"https://h/files/{FILE.name}?{'&'.join(parts)}") == (403, "url_invalid")


def test_parts_of_different_links_cannot_be_mixed() -> None:
    other = StoredFile("f" * 32, "png", "image/png", 10, FILE.expires)
    query = urlsplit(URL).query
    assert refusal(f"https://h/files/{other.name}?{query}") == (403, "url_invalid")
    assert refusal(f"https://h/files/{FILE.id}.svg?{query}") == (403, "url_invalid")
    late = StoredFile(FILE.id, "png", "image/png", 10, FILE.expires + 1)
    mixed = urlsplit(signer().url("", "design-team", late)).query.rpartition("=")[2]
    assert refusal(f"https://h/files/{FILE.name}?{query.rpartition('=')[0]}={mixed}") == (403, "url_invalid")
