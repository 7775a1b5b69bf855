from __future__ import annotations

import io
import struct
from typing import Any
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.images import Size
from app.imaging.formats import ENOUGH, HeaderSearch, dimensions, has_alpha, media_type

BEGINNINGS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    "image/bmp": b"BM\x36\x00\x00\x00\x00\x00\x00\x00",
    "image/tiff": b"II*\x00",
    "image/heic": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic",
    "image/avif": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1",
    "image/heif": b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00mif1",
    "video/mp4": b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00mp42",
    "image/svg+xml": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a fox -->\n<svg xmlns="http://www.w3.org/2000/svg">',
    "image/x-icon": b"\x00\x00\x01\x00\x01\x00",
    "image/jxl": b"\xff\x0a\x00",
    "application/pdf": b"%PDF-1.7",
    "text/html": b"\n<!DOCTYPE html><html>",
}


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (37, 21), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_the_first_bytes_tell_the_media_type(kind: str) -> None:
    assert media_type(BEGINNINGS[kind]) == kind


@pytest.mark.parametrize("head", [b"", b"P", b"hello", b"<?xml version='1.0'?><rss>", b"BMW is a car", b"\0" * 64])
def test_unknown_bytes_have_no_media_type(head: bytes) -> None:
    assert media_type(head) is None


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + b"x" * 100}),
    ],
)
def test_dimensions_are_those_that_the_encoder_wrote(kind: str, options: dict[str, Any]) -> None:
    data = encoded(kind, **options)
    assert media_type(data) == f"image/{kind.lower()}"
    assert dimensions(data) == Size(37, 21)


def test_a_jpegs_dimensions_are_found_behind_long_exif_with_a_thumbnail_inside() -> None:
    thumbnail = encoded("JPEG", size=(9, 9))
    exif = b"Exif\0\0" + thumbnail + b"x" * 60_000
    picture = encoded("JPEG")
    segments = (b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif) * 3
    data = picture[:2] + segments + picture[2:]
    assert dimensions(data[:ENOUGH]) == Size(37, 21)


def test_a_head_that_ends_before_the_header_tells_no_dimensions() -> None:
    assert dimensions(encoded("PNG")[:20]) is None
    assert dimensions(encoded("JPEG")[:30]) is None
    assert dimensions(encoded("WEBP")[:22]) is None


@pytest.mark.parametrize(
    ("kind", "mode", "options", "expected"),
    [
        ("PNG", "RGBA", {}, True),
        ("PNG", "LA", {}, True),
        ("PNG", "RGB", {}, False),
        ("PNG", "P", {}, False),
        ("PNG", "P", {"transparency": 0}, True),
        ("WEBP", "RGB", {}, False),
        ("WEBP", "RGB", {"lossless": True}, False),
        ("JPEG", "RGB", {}, False),
        ("GIF", "P", {}, None),
    ],
)
def test_the_header_tells_the_transparency(
    kind: str, mode: str, options: dict[str, Any], expected: bool | None
) -> None:
    assert has_alpha(encoded(kind, mode, **options)) is expected


def test_a_webp_with_transparent_pixels_has_alpha() -> None:
    for lossless in (True, False):
        file = io.BytesIO()
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(file, "WEBP", lossless=lossless)
        assert has_alpha(file.getvalue()) is True


@given(st.sampled_from([b"", *BEGINNINGS.values()]), st.binary(max_size=200))
def test_garbage_is_no_reason_to_raise(start: bytes, rest: bytes) -> None:
    head = start + rest
    kind, size, alpha = media_type(head), dimensions(head), has_alpha(head)
    assert kind is None or "/" in kind
    assert size is None or size.pixels > 0
    assert alpha in (True, False, None)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_picture_is_no_reason_to_raise(kind: str, at: int, byte: int) -> None:
    data = bytearray(encoded(kind))
    data[at % len(data)] = byte
    for end in (at, len(data)):
        assert dimensions(bytes(data[:end])) is None or media_type(bytes(data)) is not None
        assert has_alpha(bytes(data[:end])) in (True, False, None)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_a_search_goes_with_its_last_reference(kind: str) -> None:
    search = HeaderSearch(kind)
    found = ref(search)
    del search
    assert found() is None
