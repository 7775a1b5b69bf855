from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.requests.part_headers import disposition, parameters


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b'form-data; name="prompt"', ("prompt", None)),
        (b'form-data; name="image[]"; filename="otter.png"', ("image[]", "otter.png")),
        (b"Form-Data; name=image; filename=otter.png", ("image", "otter.png")),
        (b'form-data;name="a";filename=""', ("a", "")),
        (b'form-data; name="a"; filename="say %22hi%22.png"', ("a", 'say "hi".png')),
        (b'form-data; name="a"; filename="say \\"hi\\".png"', ("a", 'say "hi".png')),
        (b'form-data; name="a"; filename="C:\\fox.png"', ("a", "C:\\fox.png")),
        (b'form-data; name="a"; filename="x; name=b.png"', ("a", "x; name=b.png")),
        ('form-data; name="a"; filename="füchse 🦊.png"'.encode(), ("a", "füchse 🦊.png")),
        (b'form-data; name="a"; filename="caf\xe9.png"', ("a", "café.png")),
        (b'form-data; name="a"; filename="x.png"; filename*=UTF-8\'\'caf%C3%A9.png', ("a", "café.png")),
        (b"form-data; name=\"a\"; filename*=iso-8859-1'en'caf%E9.png", ("a", "café.png")),
        (b'form-data; name="a"; filename="x.png"; filename*=UTF-8\'\'%FF', ("a", "x.png")),
        (b'form-data; name="a"; filename="a\tb\x7f.png"', ("a", "ab.png")),
        (b"form-data", (None, None)),
        (b'form-data; filename="x.png"', (None, "x.png")),
        (b'attachment; name="a"', (None, None)),
        (b"", (None, None)),
    ],
)
def test_names_are_read_as_browsers_sdks_and_curl_write_them(
    header: bytes, expected: tuple[str | None, str | None]
) -> None:
    assert disposition(header) == expected


def test_a_filename_is_at_most_255_characters_long() -> None:
    _, filename = disposition(b'form-data; name="a"; filename="' + b"x" * 4000 + b'"')
    assert filename == "x" * 255


def test_a_boundary_is_read_with_and_without_quotes() -> None:
    assert parameters(b"multipart/form-data; boundary=abc").get(b"boundary") == b"abc"
    assert parameters(b'multipart/form-data; charset=utf-8; Boundary="a b:c"').get(b"boundary") == b"a b:c"
    assert parameters(b"multipart/form-data").get(b"boundary") is None


@given(st.binary(max_size=200))
def test_no_header_is_a_reason_to_raise(header: bytes) -> None:
    name, filename = disposition(b"form-data;" + header)
    assert name is None or name.isprintable() or name
    assert filename is None or len(filename) <= 255
