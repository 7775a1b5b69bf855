from __future__ import annotations

import struct
import tracemalloc
from base64 import b64encode
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from app.api.requests.body import Limits
from app.api.requests.upload import Incoming
from app.errors import ApiError, UpstreamError
from app.gateway.inspection import Picture
from app.imaging.formats import HeaderSearch, media_type
from app.imaging.headers import read_header
from app.imaging.operations import Redraw, Undrawable
from app.imaging.parts import JPEG, MOST_PARTS, PNG, WEBP, Crowded, Search, parts, pixel_ranges
from app.imaging.pillow import redraw
from app.storage.spool import Uploads
from tests.imaging.hostile import HOSTILE, jpeg, png, segment, webp
from tests.pixels import chunk, corners, encoded, opened, spool

LIMITS = Limits(upload_bytes=1 << 20, request_bytes=1 << 20, memory_bytes=1 << 20)


def kinds(data: bytes, kind: str) -> list[bytes]:
    return [part.kind for part in parts(spool(data), kind)]


def test_a_pngs_chunks_are_walked_to_its_end() -> None:
    data = png(chunk(b"tEXt", b"a\0IDAT"), chunk(b"prIv", b"")) + b"and more"
    assert kinds(data, PNG) == [b"IHDR", b"tEXt", b"IDAT", b"prIv", b"IEND"]


def test_a_jpegs_segments_are_walked_to_its_end_and_its_scans_passed_over() -> None:
    data = encoded(corners(), "JPEG", progressive=True)
    thumbnail = segment(0xE1, b"Exif\0\0" + data)
    found = kinds(data[:2] + thumbnail + b"\xff\xff\0" + data[2:] + data, JPEG)
    assert found[0] == b"\xe1"
    assert found.count(b"\xda") == data.count(b"\xff\xda")
    assert found[-1] == b"\xd9"


def test_a_webps_chunks_are_walked_also_within_its_frames() -> None:
    assert kinds(webp(struct.pack("<4sI4s", b"EXIF", 3, b"abc")), WEBP) == [b"VP8X", b"VP8 ", b"EXIF"]
    assert kinds(HOSTILE["webp: frames"](2), WEBP) == [b"VP8X", b"ANIM", b"ANMF", b"VP8 ", b"ANMF", b"VP8 "]


@pytest.mark.parametrize("most", [5, 6])
def test_no_more_parts_are_walked_than_there_may_be(most: int) -> None:
    data = png(chunk(b"tEXt", b"") * 3)
    if most == 6:
        assert len(list(parts(spool(data), PNG, most))) == 6
        return
    with pytest.raises(Crowded, match="it has more than 5 chunks"):
        list(parts(spool(data), PNG, most))


@pytest.mark.parametrize("fault", [b"\xff", b"\0", b"\xff\x01", segment(0xE1), segment(0xDB)])
def test_bytes_that_fill_a_jpegs_header_count_as_segments_do(fault: bytes) -> None:
    assert read_header(spool(jpeg(fault * (MOST_PARTS // 2)))).format == "jpeg"
    with pytest.raises(Crowded):
        list(parts(spool(jpeg(fault * MOST_PARTS)), JPEG))


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_a_picture_without_its_metadata_is_the_same_picture(name: str) -> None:
    plain = encoded(corners(), name)
    noted = encoded(corners(), name, exif=Image.Exif().tobytes() or b"Exif\0\0", comment=b"a note", dpi=(7, 7))
    if name == "PNG":
        noted = png(chunk(b"tEXt", b"a\0b"), chunk(b"tIME", bytes(7)))
    for data in (plain, noted):
        ranges = pixel_ranges(spool(data), PNG if name == "PNG" else JPEG)
        assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
        rest = b"".join(data[start:end] for start, end in ranges)
        assert rest == plain or name == "JPEG"  # whose JFIF segment holds the resolution
        assert b"note" not in rest
        assert b"Exif" not in rest


def test_a_profile_that_is_too_long_is_left_out_and_nothing_else() -> None:
    data = encoded(corners(), "JPEG", icc_profile=bytes(5_000_000))
    rest = b"".join(data[start:end] for start, end in pixel_ranges(spool(data), JPEG))
    assert len(rest) < 4_200_000 + len(encoded(corners(), "JPEG"))
    assert opened(rest).tobytes() == opened(data).tobytes()


def test_bytes_after_the_only_scan_of_a_jpeg_without_an_end_are_not_walked() -> None:
    data = encoded(corners(), "JPEG")[:-2] + segment(0xE1) * 10_000
    assert pixel_ranges(spool(data), JPEG)[-1][1] == len(data)


# --- fuzzing ---

SEEDS = [make(60) for make in HOSTILE.values()]
SEEDS += [encoded(corners(), format) for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
MUTATIONS = st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=6), st.integers(0, 6)), max_size=6)


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Any bytes, or a picture with some bytes changed, taken out or put in."""
    data = draw(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\0\0\0WEBP", *SEEDS]))
    for at, new, old in draw(MUTATIONS):
        at %= len(data) + 1
        data = data[:at] + new + data[at + old :]
    return data + draw(st.binary(max_size=40))


class Counted:
    """A blob that counts how often it is read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self._data[offset : offset + length]


@given(pictures(), st.integers(1, 5000))
@example(jpeg(b"\xff" * 10_000), 1)
@example(png(chunk(b"tEXt", b"") * 5_000), 7)
def test_a_header_is_the_same_however_it_is_cut_and_costs_bounded_steps(data: bytes, step: int) -> None:
    kind = media_type(data)
    if kind in (PNG, JPEG):
        whole, cut = HeaderSearch(kind), HeaderSearch(kind)
        whole.feed(data)
        for at in range(0, len(data), step):
            cut.feed(data[at : at + step])
        assert (cut.size, cut.alpha, cut.over) == (whole.size, whole.alpha, whole.over)
        try:
            found = len(list(Search(kind).feed(data)))
        except Crowded:
            found = MOST_PARTS
        assert found <= MOST_PARTS
    source = Counted(data)
    assert read_header(source).orientation in range(1, 9)
    assert source.reads <= 2 * MOST_PARTS + 10


@given(pictures())
def test_any_bytes_are_an_upload_or_an_error_of_the_api(data: bytes) -> None:
    with Uploads() as uploads:
        incoming = Incoming("image", LIMITS, uploads)
        incoming.write(data)
        try:
            upload = incoming.finish(None, "image")
        except ApiError as error:
            assert error.status == 400
        else:
            assert upload.size is None or upload.size.pixels > 0


@given(pictures(), st.integers(1, 5000))
def test_any_bytes_of_a_provider_are_a_picture_or_an_error_of_the_provider(data: bytes, step: int) -> None:
    text, picture = b64encode(data), Picture()
    try:
        for at in range(0, len(text), step):
            picture.piece(text[at : at + step])
        picture.end()
    except UpstreamError:
        pass


def with_a_long_chunk() -> bytes:
    data = png()
    at = data.index(b"IDAT")
    return data[: at - 4] + b"\x7f\xff\xff\xff" + data[at:]


@given(pictures())
@example(with_a_long_chunk())
def test_any_bytes_are_drawn_or_undrawable_in_bounded_memory(data: bytes) -> None:
    target = spool()
    tracemalloc.start()
    try:
        redraw(spool(data), target, Redraw("png"), 10_000)
    except Undrawable:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16_000_000
