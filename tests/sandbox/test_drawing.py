"""Pictures and masks, without any HTTP."""

import time

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageOps

from app.sandbox import drawing
from app.sandbox.order import MaskMeaning, Refusal
from tests.sandbox.pictures import alpha_mask, image_of, mask, plain, striped, white_mask

OPAQUE, HOLE = (255, 255, 255, 255), (0, 0, 0, 0)


def test_the_same_prompt_and_seed_draw_the_same_picture() -> None:
    pictures = [
        drawing.generated(*what, (64, 64)).tobytes() for what in (("fox", 1), ("fox", 1), ("fox", 2), ("cat", 1))
    ]
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == 3


@pytest.mark.parametrize("size", [(16, 16), (17, 301), (640, 32), (333, 334)])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_drawing_has_exactly_its_size(size: tuple[int, int], transparent: bool) -> None:
    image = drawing.generated("a fox in the snow, " * 20, 1, size, transparent=transparent)
    assert (image.size, image.mode) == (size, "RGBA" if transparent else "RGB")


@pytest.mark.parametrize("prompt", ["", " ", "狐狸 🦊 ثعلب", "x" * 5000, "a\x00b\ud800"])
def test_any_text_can_be_drawn(prompt: str) -> None:
    assert drawing.generated(prompt, 1, (64, 64)).size == (64, 64)


def test_the_prompt_is_written_on_the_picture() -> None:
    image = drawing.generated("WWWW", 1, (256, 256)).convert("L")
    assert image.crop((0, 200, 256, 256)).getextrema()[1] == 255, "white letters at the bottom"


@pytest.mark.parametrize(
    ("data", "meaning", "left", "right"),
    [
        (alpha_mask(), "alpha", 255, 0),
        (alpha_mask(), "white", 0, 255),
        (alpha_mask(), "black", 255, 0),
        (white_mask(), "alpha", 0, 0),
        (white_mask(), "white", 255, 0),
        (white_mask(), "black", 0, 255),
        (mask("RGBA", (9, 9, 9, 255), (9, 9, 9, 127)), "alpha", 128, 0),
    ],
)
def test_a_mask_means_what_the_provider_takes_it_for(data: bytes, meaning: MaskMeaning, left: int, right: int) -> None:
    region = drawing.repaint_region(data, meaning, (64, 64))
    assert (region.getpixel((8, 32)), region.getpixel((56, 32))) == (left, right)


def test_a_mask_is_resized_with_its_picture() -> None:
    region = drawing.repaint_region(white_mask(), "white", (128, 32))
    assert region.size == (128, 32)
    assert (region.getpixel((8, 16)), region.getpixel((120, 16))) == (255, 0)


def test_what_a_mask_keeps_is_kept_to_the_pixel() -> None:
    before = image_of(striped())
    after = drawing.edited("hat", [before], drawing.repaint_region(white_mask(), "white", (64, 64)))
    assert after.crop((32, 0, 64, 64)).tobytes() == before.crop((32, 0, 64, 64)).tobytes()
    assert len(after.crop((0, 0, 32, 64)).getcolors() or ()) == 1


def letters(image: Image.Image) -> Image.Image:
    """White where the picture is white."""
    return image.convert("L").point([0] * 240 + [255] * 16)


def test_the_prompt_is_written_on_an_edit() -> None:
    before = Image.new("RGB", (256, 256), (128, 128, 128))
    box = letters(drawing.edited("WWWW", [before], None)).getbbox()
    assert box is not None and box[1] > 200, "at the bottom"
    assert letters(drawing.edited("", [before], None)).getbbox() is None


def test_the_prompt_is_written_within_the_part_that_is_repainted() -> None:
    before, region = Image.new("RGB", (512, 512), (128, 128, 128)), Image.new("L", (512, 512), 0)
    ImageDraw.Draw(region).ellipse((80, 40, 400, 360), fill=255)
    written, blank = (drawing.edited(prompt, [before], region) for prompt in ("WWWW", ""))
    box = letters(written).getbbox()
    assert box is not None and box[1] > 200 and box[3] < 360, "in the lower half of the region"
    outside = ImageOps.invert(region)
    for image in (written, blank):
        assert ImageChops.multiply(ImageChops.difference(image, before).convert("L"), outside).getbbox() is None


def test_a_small_edit_is_left_without_the_prompt() -> None:
    before = Image.new("RGB", (256, 63), (128, 128, 128))
    assert letters(drawing.edited("WWWW", [before], None)).getbbox() is None


@pytest.mark.parametrize("hue", range(0, 256, 16))
def test_the_colour_of_a_repaint_differs_from_any_input(hue: int) -> None:
    colour = Image.new("HSV", (64, 64), (hue, 230, 230)).convert("RGB")
    pixel = colour.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    paint = drawing.repaint_colour("a hat", colour)
    assert sum(abs(a - b) for a, b in zip(paint, pixel, strict=True)) >= 100


def test_a_picture_that_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(Refusal):
        drawing.opened(plain()[:60])
    with pytest.raises(Refusal):
        drawing.repaint_region(plain()[:60], "white", (64, 64))


@pytest.mark.parametrize(("output_format", "format"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("transparent", [False, True])
def test_pictures_are_encoded_as_asked(output_format: str, format: str, transparent: bool) -> None:
    image = image_of(drawing.encoded(drawing.generated("fox", 1, (64, 64), transparent=transparent), output_format))
    assert image.format == format
    assert image.has_transparency_data == (transparent and format != "JPEG")


def test_a_large_drawing_costs_little() -> None:
    drawing.generated("warm up", 1, (64, 64))
    started = time.process_time()
    drawing.encoded(drawing.generated("a lighthouse at dusk", 1, (1024, 1024)), "png")
    assert time.process_time() - started < 0.5  # about 0.03 on a laptop; the rest is for busy machines
