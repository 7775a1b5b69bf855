"""Bytes in bytes: found as Python finds them, with and without the C library's help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codecs import search
from app.codecs.search import contains

few = st.lists(st.sampled_from([b"\0", b"\r", b"\n", b"-", b"a"]), max_size=40).map(b"".join)


@given(few, few.filter(bool))
def test_bytes_are_found_where_python_finds_them(data: bytes, part: bytes) -> None:
    for text in (data, data + part, part + data, data + part + data, b"x" * 5000 + part[:-1]):
        assert contains(text, part) == (part in text)


def test_a_c_library_that_cannot_search_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "find_memmem", lambda: None)
    assert contains(b"a\0bc", b"\0b")
    assert not contains(b"a\0bc", b"\0c")
