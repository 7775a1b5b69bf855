from __future__ import annotations

import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.images import Size
from app.imaging.headers import ImageHeader, find_fault, read_header
from tests.imaging.hostile import HOSTILE, exif_directory, segment
from tests.pixels import chunk, corners, encoded, exif, mpo, png, spool

SOLID = Image.new("RGB", (12, 8), "teal")


def of(data: bytes) -> ImageHeader:
    return read_header(spool(data))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_from_every_format(format: str, orientation: int) -> None:
    found = of(encoded(SOLID, format, exif=exif(orientation)))
    assert found.orientation == orientation
    assert found.size == Size(12, 8)
    assert found.upright == (Size(12, 8) if orientation < 5 else Size(8, 12))


@pytest.mark.parametrize(("order", "letters"), [("<", b"II*\0"), (">", b"MM\0*")])
@pytest.mark.parametrize(("kind", "code"), [(3, "H2x"), (4, "I")])
def test_the_orientation_is_read_in_both_byte_orders_and_widths(
    order: str, letters: bytes, kind: int, code: str
) -> None:
    data = letters + struct.pack(f"{order}IHHHI{code}", 8, 1, 0x0112, kind, 1, 6)
    assert of(png((1, 1), 8, 2, [b"\0\0\0"], chunk(b"eXIf", data))).orientation == 6


@pytest.mark.parametrize("value", [0, 9, 60_000])
def test_an_orientation_that_there_is_not_means_upright(value: int) -> None:
    assert of(encoded(SOLID, "JPEG", exif=exif(value))).orientation == 1


def test_the_orientation_is_found_behind_a_pngs_pixels() -> None:
    data = encoded(SOLID)
    assert of(data[:-12] + chunk(b"eXIf", exif(8).removeprefix(b"Exif\0\0")) + data[-12:]).orientation == 8


def test_a_chance_find_of_exif_behind_the_pixels_is_none() -> None:
    data = encoded(SOLID)
    fake = chunk(b"tEXt", b"\0\0\0\x20eXIf" + exif(8).removeprefix(b"Exif\0\0"))
    assert of(data[:-12] + fake + data[-12:]).orientation == 1


def test_the_size_and_orientation_of_a_jpeg_are_found_behind_long_segments() -> None:
    data = encoded(SOLID, "JPEG", exif=exif(6), icc_profile=b"p" * 900_000)
    assert of(data).size == Size(12, 8)
    assert of(data).orientation == 6


@pytest.mark.parametrize(
    ("mode", "format", "options", "plain", "grey", "alpha"),
    [
        ("RGB", "PNG", {}, True, False, False),
        ("RGBA", "PNG", {}, True, False, True),
        ("L", "PNG", {}, False, True, False),
        ("LA", "PNG", {}, False, False, True),
        ("P", "PNG", {}, False, False, False),
        ("P", "PNG", {"transparency": 0}, False, False, True),
        ("RGB", "PNG", {"transparency": (0, 0, 0)}, False, False, True),
        ("L", "PNG", {"transparency": 0}, False, False, True),
        ("1", "PNG", {}, False, False, False),
        ("I;16", "PNG", {}, False, False, False),
        ("RGB", "JPEG", {}, True, False, False),
        ("RGB", "JPEG", {"progressive": True}, True, False, False),
        ("L", "JPEG", {}, False, False, False),
        ("CMYK", "JPEG", {}, False, False, False),
        ("RGB", "WEBP", {}, True, False, False),
        ("RGBA", "WEBP", {"lossless": True, "exact": True}, True, False, True),
    ],
)
def test_the_header_tells_the_kind_of_pixels(
    mode: str, format: str, options: dict[str, Any], plain: bool, grey: bool, alpha: bool
) -> None:
    image = Image.new(mode, (12, 8))
    if mode == "RGBA":
        image.putalpha(100)
    found = of(encoded(image, format, **options))
    assert (found.format, found.plain, found.grey, found.alpha) == (format.lower(), plain, grey, alpha)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_animation_is_not_plain(format: str) -> None:
    frames = [corners(), Image.new("RGB", (12, 8), "black")]
    assert of(encoded(frames[0], format)).plain
    assert not of(encoded(frames[0], format, save_all=True, append_images=frames[1:])).plain


def test_a_telephones_album_is_told_from_a_jpeg() -> None:
    assert of(mpo()).album
    assert of(mpo(6)).orientation == 6
    assert not of(encoded(SOLID, "JPEG")).album


def test_only_the_first_exif_of_a_jpeg_is_read() -> None:
    """Each may have thousands of entries, and a file has room for hundreds of them."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += 1

    data = encoded(SOLID, "JPEG")
    file = spool(data[:2] + segment(0xE1, exif_directory(500)) * 700 + data[2:])
    sys.setprofile(count)
    try:
        read_header(file)
    finally:
        sys.setprofile(None)
    assert calls < 100_000  # 350,000 entries, if each were read


@pytest.mark.parametrize("length", [b"\0\1\0\0", b"\xff\xff\xff\xff"])
def test_chance_finds_of_exif_behind_the_pixels_are_looked_at_a_few_times(
    length: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes a checksum of up to 128 KiB, on the loop."""
    looks: list[bytes] = []

    def checksum(data: bytes) -> int:
        looks.append(data)
        return 0

    data = encoded(SOLID)
    monkeypatch.setattr("app.imaging.headers.zlib.crc32", checksum)
    assert of(data[:-12] + (length + b"eXIf") * 15_000 + data[-12:]).orientation == 1
    assert len(looks) <= 16


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("jpeg") and "scans" not in name])
def test_a_header_that_does_not_end_is_a_fault_with_its_remedy(name: str) -> None:
    count = 100_000 if "EXIF" in name or "Photoshop" in name else 5_000
    reason = find_fault(spool(HOSTILE[name](count)))
    if "EXIF" in name or "Photoshop" in name:
        assert reason is None  # few, and never read
    else:
        assert reason == (
            "it has more than 4,096 segments and bytes between them before its pixels. Save it anew without metadata."
        )


def test_a_png_of_empty_notes_is_a_fault_with_its_remedy() -> None:
    reason = find_fault(spool(HOSTILE["png: empty notes"](5_000)))
    assert reason == "it has more than 4,096 chunks before its pixels. Save it anew without metadata."


@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 200))
def test_garbage_and_cut_headers_never_raise(noise: bytes, format: str, keep: int) -> None:
    whole = encoded(SOLID, format, exif=exif(6))
    assert of(whole[:keep]).orientation in range(1, 9)
    assert of(whole[:keep] + noise).orientation in range(1, 9)
