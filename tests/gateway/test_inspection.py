from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterable
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.errors import Failure, UpstreamError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink
from app.gateway import inspection
from app.gateway.inspection import Inspector, Picture
from app.imaging.formats import media_type
from tests.drawings import look
from tests.imaging.hostile import HOSTILE
from tests.memory import bytes_held_by


@cache
def encoded(format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 64).convert(mode).save(out, format)
    return out.getvalue()


FORMATS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}
PNG = encoded("PNG")
TEXT = base64.b64encode(PNG)
SMALL = base64.b64encode(encoded("PNG", (2, 1)))


def inspected(pieces: Iterable[bytes]) -> tuple[bytes, dict[str, object]]:
    """The text as it is passed on, and the facts at the end."""
    inspect = Inspector()
    events: list[Event] = [ImageBegins(0), *map(ImageData, pieces), ImageEnds(), Done()]
    begin, *data, end, done = look(inspect, events)
    assert (begin, done) == (ImageBegins(0), Done())
    assert isinstance(end, ImageEnds)
    assert all(isinstance(event, ImageData) and event.base64 for event in data)
    return b"".join(event.base64 for event in data if isinstance(event, ImageData)), dict(end.facts)


def broken(*pieces: bytes) -> str:
    with pytest.raises(UpstreamError) as caught:
        inspected(pieces)
    assert caught.value.failure is Failure.UNCERTAIN
    return caught.value.message


def cut(text: bytes, places: Iterable[int]) -> list[bytes]:
    cuts = sorted(place % (len(text) + 1) for place in places)
    return [piece for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if (piece := text[a:b])]


def bytewise(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


places = st.lists(st.integers(0, 100_000), max_size=12)


# --- passing ---


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_passes_and_is_told_as_what_it_is(format: str) -> None:
    text = base64.b64encode(encoded(format))
    assert inspected([text]) == (text, {"output_format": FORMATS[format], "size": "40x30"})


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_passes_byte_by_byte(format: str) -> None:
    text = base64.b64encode(encoded(format, (9, 7)))
    assert inspected(bytewise(text)) == (text, {"output_format": FORMATS[format], "size": "9x7"})


@given(st.sampled_from(list(FORMATS)), places)
def test_a_picture_passes_however_its_text_is_cut(format: str, at: list[int]) -> None:
    text = base64.b64encode(encoded(format))
    assert inspected(cut(text, at)) == (text, {"output_format": FORMATS[format], "size": "40x30"})


def test_a_piece_is_passed_on_as_it_came() -> None:
    picture = Picture()
    assert picture.piece(TEXT) is TEXT


@given(places, st.lists(st.tuples(st.integers(0, 100_000), st.sampled_from([b"\n", b"\r\n", b" ", b"\t"])), max_size=8))
def test_white_space_inside_is_taken_out_wherever_it_stands(at: list[int], white: list[tuple[int, bytes]]) -> None:
    text = SMALL
    for place, space in white:
        where = place % (len(text) + 1)
        text = text[:where] + space + text[where:]
    assert inspected(cut(text, at))[0] == SMALL


@pytest.mark.parametrize("line", [4, 5, 6, 7, 60, 76])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_of_every_length_are_joined(line: int, end: bytes) -> None:
    text = b"".join(SMALL[at : at + line] + end for at in range(0, len(SMALL), line))
    assert inspected([text])[0] == SMALL
    assert inspected(bytewise(text))[0] == SMALL


@pytest.mark.parametrize("prefix", [b"data:image/png;base64,", b"data:;base64,", b"data:image/png;name=a.png;base64,"])
def test_the_prefix_of_a_data_url_is_taken_off_however_it_is_cut(prefix: bytes) -> None:
    assert inspected([prefix + SMALL])[0] == SMALL
    assert inspected(bytewise(prefix + SMALL))[0] == SMALL
    for at in range(len(prefix) + 5):
        assert inspected(cut(prefix + SMALL, [at]))[0] == SMALL


def test_what_the_provider_said_of_an_image_is_replaced_by_what_it_is() -> None:
    inspect = Inspector()
    said = {"output_format": "webp", "size": "1024x1024", "quality": "high"}
    [*_, end] = look(inspect, [ImageBegins(0), ImageData(TEXT), ImageEnds(facts=said)])
    assert isinstance(end, ImageEnds)
    assert end.facts == {"output_format": "png", "size": "40x30", "quality": "high"}


def test_every_image_is_looked_at_for_itself() -> None:
    inspect = Inspector()
    jpeg = base64.b64encode(encoded("JPEG", (5, 5)))
    told: list[Event] = []
    for index, text in enumerate((TEXT, jpeg)):
        told += [ImageBegins(index), ImageData(text), ImageEnds()]
    ends = [event for event in look(inspect, told) if isinstance(event, ImageEnds)]
    assert [end.facts["output_format"] for end in ends] == ["png", "jpeg"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("missing", [1, 2])
def test_padding_that_a_host_leaves_out_is_added(format: str, missing: int) -> None:
    data = encoded(format)
    text = base64.b64encode(data + b"\0" * ((-missing - len(data)) % 3))
    assert text.count(b"=") == missing
    for left_out in range(1, missing + 1):
        assert inspected([text[:-left_out]])[0] == text
        assert inspected(bytewise(text[:-left_out]))[0] == text


@pytest.mark.parametrize("format", ["GIF", "AVIF"])
@pytest.mark.parametrize("carry", [2, 3])
def test_padding_is_not_added_where_the_text_may_as_well_be_cut(format: str, carry: int) -> None:
    text = base64.b64encode(encoded(format))
    assert "cut" in broken(text[: len(text) // 2 // 4 * 4 + carry])


def test_the_smallest_pictures_tell_their_size_without_padding_too() -> None:
    image = Image.new("RGB", (1, 1))
    image.save(out := io.BytesIO(), "WEBP", lossless=True)
    data = out.getvalue()
    text = base64.b64encode(data + b"\0" * (len(data) % 3 == 0))
    assert text.endswith(b"=")
    assert inspected([text.rstrip(b"=")])[1]["size"] == "1x1"


def test_a_link_passes_as_it_is() -> None:
    events: list[Event] = [ImageBegins(0), ImageLink("https://a.test/1"), ImageEnds(facts={"size": "auto"}), Done()]
    assert look(Inspector(), events) == events


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_padding_of_every_length_passes(padding: int) -> None:
    data = PNG + b"\0" * (-len(PNG) % 3 + (3 - padding) % 3)
    text = base64.b64encode(data)
    assert text.count(b"=") == padding
    assert inspected([text])[0] == text
    assert inspected(bytewise(text))[0] == text


def test_bytes_behind_the_end_are_borne_with() -> None:
    assert inspected([base64.b64encode(PNG + b"\0" * 200)])[1]["output_format"] == "png"
    assert inspected([base64.b64encode(encoded("JPEG") + b"\0" * 200)])[1]["output_format"] == "jpeg"
    assert inspected([base64.b64encode(encoded("WEBP") + b"\0" * 200)])[1]["output_format"] == "webp"


@pytest.mark.parametrize("data", [b"GIF89a" + b"\1\0\2\0" + b"x" * 50, b"\0\0\0\x1cftypavif" + b"x" * 90, b"?" * 40])
def test_formats_unknown_here_pass(data: bytes) -> None:
    text = base64.b64encode(data)
    assert inspected([text])[0] == text


def test_a_size_behind_much_else_is_found() -> None:
    jpeg = encoded("JPEG")
    notes = b"".join(b"\xff\xe1" + struct.pack(">H", 60_002) + b"\0" * 60_000 for _ in range(4))
    text = base64.b64encode(jpeg[:2] + notes + jpeg[2:])
    assert inspected(cut(text, range(0, len(text), 10_001)))[1]["size"] == "40x30"


@pytest.mark.parametrize("step", [1_000, 65_536, 10_000_000])
def test_a_size_is_found_behind_a_megabyte_of_notes_and_little_is_held(step: int) -> None:
    jpeg = encoded("JPEG")
    notes = b"".join(b"\xff\xe2" + struct.pack(">H", 60_002) + b"\xff\xc0\0\x11" * 15_000 for _ in range(18))
    text = base64.b64encode(jpeg[:2] + notes + jpeg[2:])
    assert inspected(cut(text, range(0, len(text), step)))[1] == {"output_format": "jpeg", "size": "40x30"}
    picture = Picture()
    for piece in cut(text[:1_000_000], range(0, 1_000_000, step)):
        picture.piece(piece)
    assert bytes_held_by(picture) < 300


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith(("png", "jpeg", "webp"))])
def test_a_provider_that_sends_a_header_without_an_end_byte_by_byte_is_read_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def counting(head: bytes) -> str | None:
        nonlocal looks
        looks += 1
        return media_type(head)

    monkeypatch.setattr("app.gateway.inspection.media_type", counting)
    text = base64.b64encode(HOSTILE[name](5_000)[:40_000])
    picture = Picture()
    for piece in cut(text, range(0, len(text), 8)):
        picture.piece(piece)
    assert looks == 1
    assert bytes_held_by(picture) < 300


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x1cftypavif" + b"\0" * 90, "avif"), (b"\0\0\0\x18ftypheic" + b"\0" * 90, "heic"),
        (b"\xff\x0a" + b"\0" * 90, "jxl"), (b"BM" + b"\0" * 90, "bmp"), (b"II*\0" + b"\0" * 90, "tiff"),
        (b"\0\0\1\0\1\0" + b"\0" * 90, "ico"), (b"?" * 90, None),
    ],
)  # fmt: skip
def test_what_the_bytes_are_is_told_and_nothing_that_was_only_said(data: bytes, name: str | None) -> None:
    said = {"output_format": "png", "size": "1024x1024", "quality": "high"}
    [*_, end] = look(Inspector(), [ImageBegins(0), ImageData(base64.b64encode(data)), ImageEnds(facts=said)])
    assert isinstance(end, ImageEnds)
    assert end.facts == {"output_format": name, "size": None, "quality": "high"}


@pytest.mark.parametrize(
    ("data", "alpha"),
    [
        (encoded("PNG"), False), (encoded("PNG", mode="RGBA"), True), (encoded("JPEG"), False),
        (encoded("WEBP"), False), (encoded("GIF", mode="P"), None), (b"?" * 90, None),
    ],
    ids=["PNG", "PNG with alpha", "JPEG", "WebP", "GIF", "unknown"],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 50, 10_000])
def test_whether_an_image_can_be_transparent_is_told(data: bytes, alpha: bool | None, pieces: int) -> None:
    text = base64.b64encode(data)
    parts = [ImageData(text[at : at + pieces]) for at in range(0, len(text), pieces)]
    [*_, end] = look(Inspector(), [ImageBegins(0), *parts, ImageEnds()])
    assert isinstance(end, ImageEnds)
    assert end.alpha is alpha


# --- breaking ---


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_that_is_cut_anywhere_is_broken(format: str) -> None:
    text = base64.b64encode(encoded(format, (9, 7)))
    for end in range(36, len(text.rstrip(b"=")) - 4):
        assert broken(text[:end])


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_whose_bytes_end_too_early_is_cut(format: str) -> None:
    whole = encoded(format)
    for end in (len(whole) - 1, len(whole) - 40, len(whole) // 2, 60):
        assert "cut" in broken(base64.b64encode(whole[:end]))


@pytest.mark.parametrize(
    "wrong",
    [
        TEXT[:100] + b"-" + TEXT[101:], TEXT[:100] + b"_" + TEXT[101:], TEXT[:100] + b"*" + TEXT[101:],
        TEXT[:100] + b"\xc3\xa9" + TEXT[102:], TEXT[:100] + b"\0" + TEXT[101:], TEXT[:100] + b"=" + TEXT[101:],
        TEXT[:100] + b"==" + TEXT[102:], TEXT[:100] + b"====" + TEXT[104:], b"=" + TEXT, b"====" + TEXT,
        b"iVBORw0=KGgo" + TEXT, b"iVBORw==KGgo" + TEXT,
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_base64_is_broken_however_it_is_cut(wrong: bytes) -> None:
    assert "base64" in broken(wrong)
    assert "base64" in broken(*bytewise(wrong))
    for at in range(96, 110):
        assert "base64" in broken(*cut(wrong, [at]))


@pytest.mark.parametrize("behind", [b"A", b"AAAA", b"=", b"===="])
def test_text_behind_the_padding_is_broken(behind: bytes) -> None:
    text = base64.b64encode(PNG + b"\0" * (1 + -len(PNG) % 3))
    assert text.endswith(b"==")
    assert "base64" in broken(text + behind)
    assert "base64" in broken(text, behind)
    assert "base64" in broken(*bytewise(text + behind))


def test_white_space_behind_the_padding_is_not() -> None:
    text = base64.b64encode(PNG + b"\0" * (1 + -len(PNG) % 3))
    assert inspected([text, b"\n"])[0] == text
    assert inspected([text + b"\n"])[0] == text
    assert inspected([text, b"\r", b"\n"])[0] == text


@pytest.mark.parametrize("end", [1, 2, 3])
def test_text_that_ends_inside_a_group_is_cut(end: int) -> None:
    assert "cut" in broken(TEXT[: len(TEXT) - 8 + end])


@pytest.mark.parametrize(
    "pieces", [[b"\n"], [b" ", b"\r\n"], [b"data:image/png;base64,"], [b"data:image/png;base64,", b"\n"]], ids=ascii
)
def test_an_image_of_nothing_is_empty(pieces: list[bytes]) -> None:
    assert "empty" in broken(*pieces)


@pytest.mark.parametrize(
    "text",
    [
        b"<!DOCTYPE html><html><title>502 Bad Gateway</title></html>", b"<html><body>busy</body></html>",
        b'{"error":{"message":"the model is loading"}}', b"<?xml version='1.0'?><Error>no such key</Error>",
        b"  \n<html></html>", b"\xef\xbb\xbf<html></html>", b"<p>", b"{}", b"<", b'[{"error":"x"}]',
    ],
    ids=ascii,
)  # fmt: skip
def test_text_instead_of_a_picture_is_broken(text: bytes) -> None:
    assert "text" in broken(base64.b64encode(text))
    assert "text" in broken(*bytewise(base64.b64encode(text)))


def test_a_drawing_in_svg_is_no_text() -> None:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'></svg>"
    assert inspected([base64.b64encode(svg)])[1] == {"output_format": "svg", "size": None}


@pytest.mark.parametrize("prefix", [b"data:", b"data:" + b"x" * 300, b"data:text/plain", b"data", b"dat", b"d"])
def test_a_data_url_without_an_end_is_broken(prefix: bytes) -> None:
    assert broken(prefix)


def test_what_is_url_encoded_is_broken() -> None:
    assert "base64" in broken(b"data:image/svg+xml,%3Csvg%3E")


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_nothing_makes_it_raise_anything_but_an_upstream_error(pieces: list[bytes]) -> None:
    pieces = [piece for piece in pieces if piece] or [b"A"]
    try:
        at_once: bytes | None = inspected([b"".join(pieces)])[0]
    except UpstreamError as error:
        at_once, first = None, error.failure
        assert first is Failure.UNCERTAIN
    try:
        in_pieces: bytes | None = inspected(pieces)[0]
    except UpstreamError:
        in_pieces = None
    assert in_pieces == at_once


@given(st.text("AZaz09+/=\n da:,;-", max_size=24).map(str.encode), places)
def test_what_is_nearly_base64_is_judged_alike_however_it_is_cut(text: bytes, at: list[int]) -> None:
    def judged(pieces: list[bytes]) -> bytes | None:
        try:
            return inspected(pieces)[0]
        except UpstreamError:
            return None

    found = judged([text] if text else [b"="])
    assert judged(cut(text, at) or [b"="]) == found
    if found is not None:
        assert base64.b64decode(found, validate=True)


def test_a_bomb_of_a_head_is_not_opened() -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    data = b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"
    assert inspected([base64.b64encode(data)])[1]["size"] == "60000x60000"


def test_images_beyond_those_asked_for_are_passed_over_and_what_follows_is_not() -> None:
    def image(index: int) -> list[Event]:
        return [ImageBegins(index), ImageData(base64.b64encode(encoded("PNG"))), ImageEnds()]

    link: list[Event] = [ImageBegins(2), ImageLink("https://example.com/2.png"), ImageEnds()]
    done = Done({"total_tokens": 3})
    kept = look(Inspector(most=1), [*image(0), *image(1), *link, done])
    assert [type(event) for event in kept] == [ImageBegins, ImageData, ImageEnds, Done]
    assert kept[-1] is done


def test_a_picture_that_does_not_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "LONGEST", 3000)
    assert "is longer than" in broken(*[TEXT[:4000]] * 2)
