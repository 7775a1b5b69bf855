from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from functools import cache
from types import FrameType
from typing import Any

import pytest
from PIL import AvifImagePlugin, Image, ImageCms, ImageFile

from app.errors import Unavailable
from app.images import Blob, Size
from app.imaging import parts, pillow
from app.imaging.operations import FORMATS, FileFormat, Look, MaskMeaning, Redraw, RedrawMask, Undrawable, WithoutAlpha
from app.imaging.pillow import look, redraw, redraw_mask
from app.storage.spool import Spool
from tests.imaging.hostile import HOSTILE, jpeg, scans, segment
from tests.pixels import ORIENTATIONS, bomb, chunk, corners, encoded, exif, mpo, near, opened, png, spool, stored
from tests.sdks.environments import leave_out

ENOUGH = 1_000_000  # pixels
MEANINGS: tuple[MaskMeaning, ...] = ("alpha", "white", "black")
RAMP = [0, 1, 64, 128, 200, 254, 255]  # how much is to be repainted, of 255


def redrawn(data: bytes, order: Redraw) -> Image.Image:
    target = spool()
    size = redraw(spool(data), target, order, ENOUGH)
    image = opened(target)
    assert image.format == order.format.upper()
    assert (size.width, size.height) == image.size
    return image


def mask_redrawn(data: bytes, order: RedrawMask) -> Image.Image:
    target = spool()
    redraw_mask(spool(data), target, order, ENOUGH)
    image = opened(target)
    assert image.format == "PNG"
    assert image.mode == ("RGBA" if order.wanted == "alpha" else "L")
    return image


def ramp(said: MaskMeaning) -> Image.Image:
    """A mask that asks, from left to right, for so much repainting as RAMP says."""
    image = Image.new("RGBA" if said == "alpha" else "L", (len(RAMP), 1))
    for x, value in enumerate(RAMP):
        pixel: Any = {"alpha": (9, 200, 77, 255 - value), "white": value, "black": 255 - value}[said]
        image.putpixel((x, 0), pixel)
    return image


def asked_for(mask: Image.Image, meant: MaskMeaning) -> list[int]:
    """How much repainting a host that means `meant` reads from the mask."""
    band = mask.getchannel("A") if meant == "alpha" else mask
    values = band.tobytes()
    return list(values) if meant == "white" else [255 - value for value in values]


@pytest.mark.parametrize("said", MEANINGS)
@pytest.mark.parametrize("meant", MEANINGS)
def test_a_mask_asks_for_the_same_in_every_convention_soft_edges_included(
    said: MaskMeaning, meant: MaskMeaning
) -> None:
    assert asked_for(mask_redrawn(encoded(ramp(said)), RedrawMask(said, meant)), meant) == RAMP


@pytest.mark.parametrize("said", MEANINGS)
def test_a_host_that_reads_an_alpha_masks_brightness_finds_the_same_region_in_white(said: MaskMeaning) -> None:
    mask = mask_redrawn(encoded(ramp(said)), RedrawMask(said, "alpha"))
    assert list(mask.convert("RGB").getchannel("G").tobytes()) == RAMP


@pytest.mark.parametrize("format", FORMATS)
def test_masks_by_brightness_may_be_jpeg_and_may_have_colours(format: FileFormat) -> None:
    image = Image.new("RGB", (32, 16), "black")
    image.paste("white", (16, 0, 32, 16))
    mask = mask_redrawn(encoded(image, format), RedrawMask("white", "black"))
    assert near((mask.getpixel((2, 2)), mask.getpixel((29, 13))), (255, 0))


def test_a_mask_by_brightness_counts_where_it_is_transparent_too() -> None:
    image = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    assert mask_redrawn(encoded(image), RedrawMask("white", "white")).tobytes() == b"\x00\xff"
    keyed = Image.new("P", (2, 1), 1)
    keyed.putpalette([0, 0, 0, 255, 255, 255])
    data = encoded(keyed, transparency=1)
    assert mask_redrawn(data, RedrawMask("white", "white")).tobytes() == b"\xff\xff"


def deep(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.new("P", (2, 1)), transparency=b"\x40"), [191, 191]),
        (png((2, 1), 8, 0, [b"\x07\x09"], chunk(b"tRNS", deep(7))), [255, 0]),
        (png((2, 1), 8, 2, [b"\x07\x08\x09\0\0\0"], chunk(b"tRNS", deep(7, 8, 9))), [255, 0]),
        (png((2, 1), 1, 0, [b"\x40"], chunk(b"tRNS", deep(1))), [0, 255]),
        (png((4, 1), 2, 0, [b"\x1b"], chunk(b"tRNS", deep(1))), [0, 255, 0, 0]),
        (png((2, 1), 4, 0, [b"\x1b"], chunk(b"tRNS", deep(11))), [0, 255]),
        (png((2, 1), 16, 0, [deep(0x4000, 0x4001)], chunk(b"tRNS", deep(0x4000))), [255, 0]),
        (png((2, 1), 16, 2, [deep(1, 2, 3, 0x8000, 0, 0)], chunk(b"tRNS", deep(0x8000, 0, 0))), [0, 255]),
        (
            png((3, 1), 16, 2, [deep(0x8001, 7, 9, 0x8002, 7, 9, 0x8001, 7, 8)], chunk(b"tRNS", deep(0x8001, 7, 9))),
            [255, 0, 0],
        ),
        (png((2, 1), 8, 4, [b"\x10\x40\x20\xff"]), [191, 0]),
        (png((2, 1), 16, 4, [deep(1, 0x4000, 1, 0xFFFF)]), [191, 0]),
        (png((1, 1), 16, 6, [deep(1, 1, 1, 0x4000)]), [191]),
    ],
    ids=[
        "palette",
        "L+key",
        "RGB+key",
        "1+key",
        "L2+key",
        "L4+key",
        "L16+key",
        "RGB16+key",
        "RGB16+near key",
        "LA",
        "LA16",
        "RGBA16",
    ],
)
def test_every_way_in_which_a_png_is_transparent_makes_a_mask(data: bytes, expected: list[int]) -> None:
    assert list(mask_redrawn(data, RedrawMask("alpha", "white")).tobytes()) == expected


def test_a_mask_of_sixteen_bits_is_scaled_not_clipped() -> None:
    mask = mask_redrawn(png((3, 1), 16, 0, [deep(0, 0x80FF, 0xFFFF)]), RedrawMask("white", "white"))
    assert list(mask.tobytes()) == [0, 128, 255]


def test_an_opaque_picture_is_no_alpha_mask() -> None:
    with pytest.raises(WithoutAlpha):
        mask_redrawn(encoded(corners()), RedrawMask("alpha", "white"))


def test_a_resized_mask_keeps_its_regions_and_gets_soft_edges() -> None:
    image = Image.new("L", (100, 50), 0)
    image.paste(255, (50, 0, 100, 50))
    mask = mask_redrawn(encoded(image), RedrawMask("white", "white", size=Size(208, 96)))
    assert mask.size == (208, 96)
    assert (mask.getpixel((20, 40)), mask.getpixel((190, 40))) == (0, 255)
    assert 0 < sum(0 < value < 255 for value in mask.tobytes()) < 96 * 8


def test_a_mask_is_turned_by_its_own_orientation_and_then_with_the_picture() -> None:
    upright = corners().convert("L")
    twice = encoded(stored(stored(upright, 6), 3))
    assert mask_redrawn(twice, RedrawMask("white", "white", (3, 6))).tobytes() == upright.tobytes()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_picture_is_turned_upright_and_its_exif_is_gone(orientation: int) -> None:
    data = encoded(stored(corners(), orientation), exif=exif(orientation))
    image = redrawn(data, Redraw("png", orientation=orientation))
    assert image.tobytes() == corners().tobytes()
    assert not image.getexif()


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_carries_exif_comments_or_resolution_on(format: FileFormat) -> None:
    data = encoded(corners(), "JPEG", exif=exif(6), comment=b"taken at home", dpi=(300, 300))
    target = spool()
    redraw(spool(data), target, Redraw(format, orientation=6), ENOUGH)
    written = target.read(0, target.size)
    assert b"home" not in written
    assert b"Exif" not in written
    assert not opened(written).getexif()


@pytest.mark.parametrize(
    ("data", "mode", "pixels"),
    [
        (encoded(corners().quantize(8)), "RGB", {(0, 0): (255, 0, 0), (11, 7): (255, 255, 255)}),
        (encoded(Image.new("P", (4, 4), 0), transparency=0), "RGBA", {(0, 0): (0, 0, 0, 0)}),
        (encoded(Image.new("L", (4, 4), 90)), "RGB", {(0, 0): (90, 90, 90)}),
        (encoded(Image.new("LA", (4, 4), (90, 30))), "RGBA", {(0, 0): (90, 90, 90, 30)}),
        (encoded(Image.new("1", (4, 4), 1)), "RGB", {(0, 0): (255, 255, 255)}),
        (encoded(Image.new("RGB", (2, 2), "red"), transparency=(255, 0, 0)), "RGBA", {(0, 0): (255, 0, 0, 0)}),
        (png((2, 1), 16, 0, [deep(0x80FF, 0xFFFF)]), "RGB", {(0, 0): (128,) * 3, (1, 0): (255,) * 3}),
        (
            png((2, 1), 16, 0, [deep(0x8000, 0x4000)], chunk(b"tRNS", deep(0x4000))),
            "RGBA",
            {(0, 0): (128, 128, 128, 255), (1, 0): (64, 64, 64, 0)},
        ),
        (png((1, 1), 16, 2, [deep(0xFF00, 0x8000, 0)]), "RGB", {(0, 0): (255, 128, 0)}),
        (
            png((2, 1), 16, 2, [deep(0x8001, 0, 0, 0x8000, 0, 0)], chunk(b"tRNS", deep(0x8000, 0, 0))),
            "RGBA",
            {(0, 0): (128, 0, 0, 255), (1, 0): (128, 0, 0, 0)},
        ),
        (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), "RGB", {(3, 3): (254, 0, 0)}),
        (mpo(), "RGB", {(2, 2): (254, 0, 0), (29, 13): (255, 255, 255)}),
        (encoded(Image.new("P", (4, 4), 0), "GIF"), "RGB", {(0, 0): (0, 0, 0)}),
    ],
    ids=["P", "P+key", "L", "LA", "1", "RGB+key", "L16", "L16+key", "RGB16", "RGB16+key", "CMYK", "MPO", "GIF"],
)
def test_all_kinds_of_pixels_become_eight_bits_of_colour(
    data: bytes, mode: str, pixels: dict[tuple[int, int], tuple[int, ...]]
) -> None:
    image = redrawn(data, Redraw("png"))
    assert image.mode == mode
    assert "transparency" not in image.info
    assert all(near(image.getpixel(place), pixel) for place, pixel in pixels.items())


def test_only_the_first_picture_of_an_album_is_left() -> None:
    target = spool()
    redraw(spool(mpo()), target, Redraw("jpeg"), ENOUGH)
    written = target.read(0, target.size)
    assert b"MPF\0" not in written
    assert opened(written).format == "JPEG"


def test_transparent_pixels_are_laid_on_white_for_jpeg() -> None:
    image = Image.new("RGBA", (64, 32), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 16, 32))
    image.paste((0, 0, 0, 128), (16, 0, 32, 32))
    drawn = redrawn(encoded(image), Redraw("jpeg"))
    assert near(drawn.getpixel((4, 16)), (255, 0, 0))
    assert near(drawn.getpixel((24, 16)), (127, 127, 127))
    assert near(drawn.getpixel((60, 16)), (255, 255, 255))


@pytest.mark.parametrize("format", ["png", "webp"])
def test_transparency_stays_where_the_format_has_it(format: FileFormat) -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 77))
    assert near(redrawn(encoded(image), Redraw(format)).getpixel((3, 3)), (255, 0, 0, 77), 4)


def test_a_picture_is_resized_after_it_was_turned() -> None:
    data = encoded(stored(corners((120, 80)), 6), "JPEG", quality=95)
    image = redrawn(data, Redraw("png", orientation=6, size=Size(96, 64)))
    assert image.size == (96, 64)
    assert near(image.getpixel((10, 10)), (255, 0, 0), 20)
    assert near(image.getpixel((85, 10)), (0, 255, 0), 20)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_the_quality_decides_how_much_is_lost(format: FileFormat) -> None:
    data, sizes = encoded(Image.effect_noise((128, 128), 90)), []
    for quality in (0, 40, 100):
        target = spool()
        redraw(spool(data), target, Redraw(format, quality), ENOUGH)
        sizes.append(target.size)
    assert sizes == sorted(set(sizes))


def test_a_jpeg_of_very_many_scans_is_not_decoded() -> None:
    """Each takes a few bytes of the file, and goes over all pixels of the picture."""
    data = encoded(corners((320, 320)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    for count, drawable in ((100, True), (300, False)):
        bomb = data[:-2] + data[last:-2] * count + data[-2:]
        if drawable:
            assert redrawn(bomb, Redraw("png")).size == (320, 320)
        else:
            with pytest.raises(Undrawable, match="more than 200 scans"):
                redraw(spool(bomb), spool(), Redraw("png"), ENOUGH)


@cache  # what is made again a second later holds another time
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP"])
def test_a_colour_profile_is_kept(source: str, format: FileFormat) -> None:
    data = encoded(corners((32, 32)), source, icc_profile=srgb())
    assert redrawn(data, Redraw(format)).info["icc_profile"] == srgb()


def test_a_profile_of_ink_is_not_kept_for_light() -> None:
    ink = srgb()[:16] + b"CMYK" + srgb()[20:]
    data = encoded(Image.new("CMYK", (8, 8)), "JPEG", icc_profile=ink)
    assert "icc_profile" not in redrawn(data, Redraw("png")).info


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_cut_picture_is_undrawable(format: str) -> None:
    data = encoded(Image.effect_noise((200, 200), 90).convert("RGB"), format)
    with pytest.raises(Undrawable, match="damaged or cut"):
        redraw(spool(data[: len(data) // 2]), spool(), Redraw("png"), ENOUGH)


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\xff\x0a"])
def test_a_file_of_no_known_format_is_undrawable(data: bytes) -> None:
    with pytest.raises(Undrawable, match="no PNG"):
        redraw(spool(data), spool(), Redraw("png"), ENOUGH)


@pytest.mark.parametrize("format", ["AVIF", "BMP", "TIFF"])
def test_formats_that_only_providers_may_send_are_converted(format: str) -> None:
    if format == "AVIF" and not AvifImagePlugin.SUPPORTED:
        leave_out("this Pillow was built without AVIF")
    data = encoded(corners((64, 48)), format)
    image = redrawn(data, Redraw("png"))
    assert image.size == (64, 48)
    assert near(image.getpixel((5, 5)), (255, 0, 0), 30)
    assert near(image.getpixel((60, 5)), (0, 255, 0), 30)
    with pytest.raises(Undrawable, match="64x48"):
        redraw(spool(data), spool(), Redraw("png"), 64 * 48 - 1)
    with pytest.raises(Undrawable, match="damaged"):
        redraw(spool(data[: len(data) // 2]), spool(), Redraw("png"), ENOUGH)


@pytest.mark.skipif(not AvifImagePlugin.SUPPORTED, reason="this Pillow was built without AVIF")
def test_an_avif_is_turned_as_it_says() -> None:
    data = encoded(stored(corners((64, 48)), 6), "AVIF", exif=exif(6))
    image = redrawn(data, Redraw("png"))
    assert image.size == (64, 48)
    assert near(image.getpixel((5, 5)), (255, 0, 0), 30)
    assert near(image.getpixel((60, 5)), (0, 255, 0), 30)


def test_a_tiff_with_a_tile_larger_than_any_picture_gets_no_canvas() -> None:
    data = encoded(corners(), "TIFF", tiffinfo={65_000: 60_000, 65_001: 60_000})
    for tag, meant in ((65_000, 322), (65_001, 323)):  # TIFF 6.0, section 15: TileWidth, TileLength
        data = data.replace(struct.pack("<HH", tag, 4), struct.pack("<HH", meant, 4))
        data = data.replace(struct.pack("<HH", tag, 3), struct.pack("<HH", meant, 3))
    with pytest.raises(Undrawable, match="60000x60000"):
        redraw(spool(data), spool(), Redraw("png"), ENOUGH)


def noted(*chunks: bytes) -> bytes:
    """A picture with these between its header and its pixels."""
    data = encoded(corners())
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize(
    "data",
    [
        noted(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_100_000))),
        noted(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x>" * 500_000))),
        noted(*[chunk(b"tEXt", b"a\0" + b"x" * 1_000_000)] * 70),
        noted(chunk(b"iCCP", b"p\0\0" + zlib.compress(b"\0" * 2_000_000))),
        noted(chunk(b"iCCP", b"p\0\7" + b"?" * 20)),
        noted(chunk(b"iCCP", b"")),
        encoded(corners())[:-12] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_100_000)) + chunk(b"IEND", b""),
    ],
    ids=["zTXt", "iTXt", "tEXt", "iCCP", "iCCP packed oddly", "iCCP empty", "zTXt at the end"],
)
def test_notes_and_profiles_that_are_large_or_odd_are_no_damage(data: bytes) -> None:
    assert redrawn(data, Redraw("png")).tobytes() == corners().tobytes()
    assert look(spool(data), ENOUGH) == Look(Size(12, 8), alpha=False)


def test_a_note_that_is_damaged_is_not_read_and_a_header_that_is_damaged_is_damage() -> None:
    note = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 100))
    assert redrawn(noted(note[:-1] + b"?"), Redraw("png")).tobytes() == corners().tobytes()
    data = encoded(corners())
    with pytest.raises(Undrawable, match="damaged"):
        redraw(spool(data[:32] + b"?" + data[33:]), spool(), Redraw("png"), ENOUGH)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_without_an_end_costs_no_more_than_its_bound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts calls of Python's functions: seconds would tell how busy the machine is."""
    monkeypatch.setattr(pillow, "MOST_CHUNKS", 4096)
    monkeypatch.setattr(parts, "MOST_CHUNKS", 4096)
    source, calls = spool(HOSTILE[name](40_000)), 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        redraw(source, spool(), Redraw("png"), ENOUGH)
    except Undrawable:
        pass
    finally:
        sys.setprofile(None)
    assert calls < 200_000


@pytest.mark.parametrize("progressive", [True, False])
def test_scans_are_counted_up_to_the_end_of_the_picture_and_not_beyond(progressive: bool) -> None:
    some = scans(100, progressive=progressive)
    redraw(spool(some), spool(), Redraw("png"), ENOUGH)
    redraw(spool(some + b"\xff\xda" * 1000), spool(), Redraw("png"), ENOUGH)
    with pytest.raises(Undrawable, match="200 scans"):
        redraw(spool(scans(300, progressive=progressive)), spool(), Redraw("png"), ENOUGH)


def test_metadata_never_reaches_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would parse EXIF, Photoshop's resources and the list of an album, and copy what comes in parts for each."""
    seen: list[dict[Any, Any]] = []
    images: list[ImageFile.ImageFile] = []
    load = ImageFile.ImageFile.load

    def noting(image: ImageFile.ImageFile) -> Any:
        if all(image is not each for each in images):
            images.append(image)
            seen.append(dict(image.info))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noting)
    secret = segment(0xE1, exif(6)) + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") + segment(0xFE, b"note")
    secret += segment(0xED, b"Photoshop 3.0\0" + b"8BIM" + bytes(8)) + segment(0xE2, b"MPF\0" + bytes(40))
    redrawn(jpeg(secret, icc_profile=srgb()), Redraw("png"))
    redrawn(noted(chunk(b"eXIf", exif(6)[6:]), chunk(b"tEXt", b"a\0b"), chunk(b"prIv", b"c")), Redraw("png"))
    known = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "icc_profile"}
    assert seen and [set(info) - known for info in seen] == [set()] * len(seen)
    assert any("icc_profile" in info for info in seen)


@pytest.mark.parametrize("work", [redraw, redraw_mask, look])
def test_a_bomb_is_refused_by_its_header(work: Any) -> None:
    orders = {redraw: (spool(), Redraw("png")), redraw_mask: (spool(), RedrawMask("white", "white")), look: ()}
    with pytest.raises(Undrawable, match="60000x60000"):
        work(spool(bomb()), *orders[work], ENOUGH)


def test_a_bomb_in_webps_clothes_gets_no_canvas() -> None:
    data = bytearray(encoded(Image.new("RGBA", (8, 8)), "WEBP", exif=exif(1)))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\x3f\x00\xff\x3f\x00"
    with pytest.raises(Undrawable, match="16384x16384"):
        redraw(spool(bytes(data)), spool(), Redraw("png"), ENOUGH)


def test_a_picture_too_long_for_webp_is_undrawable_as_webp() -> None:
    data = encoded(Image.new("L", (20_000, 1)))
    with pytest.raises(Undrawable, match="16383"):
        redraw(spool(data), spool(), Redraw("webp"), ENOUGH)
    assert redrawn(data, Redraw("jpeg")).size == (20_000, 1)


def test_a_full_disk_is_the_servers_fault_not_the_pictures() -> None:
    class Full(Spool):
        def write(self, data: object) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(Unavailable, match="no room"):
        redraw(spool(encoded(corners())), Full(0), Redraw("png"), ENOUGH)


@pytest.mark.parametrize(("mode", "alpha"), [("RGB", False), ("RGBA", True), ("LA", True), ("L", False)])
def test_a_look_tells_size_and_transparency(mode: str, alpha: bool) -> None:
    found = look(spool(encoded(Image.new(mode, (12, 8)))), ENOUGH)
    assert (found.size, found.alpha) == (Size(12, 8), alpha)


def test_a_picture_is_read_in_pieces_and_never_whole() -> None:
    data = encoded(Image.effect_noise((900, 900), 90).convert("RGB"))
    longest = 0

    class Watching:
        size = len(data)

        def read(self, offset: int, length: int) -> bytes:
            nonlocal longest
            longest = max(longest, length)
            return data[offset : offset + length]

    source: Blob = Watching()
    redraw(source, spool(), Redraw("jpeg"), ENOUGH)
    assert longest <= 262_144 < len(data)


def test_pillow_is_loaded_by_nothing_that_serves_until_pixels_are_worked_on() -> None:
    code = "import app.wiring, app.gateway.inputs, app.gateway.conversion, sys; print('PIL' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
