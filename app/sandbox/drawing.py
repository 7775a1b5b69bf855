"""Pictures from a prompt and a seed: the same for the same, at exactly the size asked, encoded fast.

Knows nothing of HTTP or of providers; Pillow is used here (and for a picture's facts) only.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import random

from PIL import Image, ImageDraw, ImageFont, ImageOps, ImageStat

from app.sandbox.order import MaskMeaning, Order, Refusal

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom

LEAST_EDGE = 64  # pixels of what is edited: on less, the prompt would hide the colour and could not be read
_MORE_THAN_HALF = [0] * 128 + [255] * 128


def draw(order: Order, seed: int, meaning: MaskMeaning) -> Image.Image:
    """Draw what was ordered. Raises Refusal when an input cannot be decoded."""
    size = (order.width, order.height)
    if order.operation == "generations":
        return generated(order.prompt, seed, size, transparent=order.transparent)
    inputs = [opened(data).resize(size) for data in order.images]
    if order.operation == "variations":
        return varied(inputs[0], seed)
    region = None if order.mask is None else repaint_region(order.mask, meaning, size)
    image = edited(order.prompt, inputs, region)
    if order.transparent:
        image.putalpha(_vignette(size))
    return image


def generated(prompt: str, seed: int, size: tuple[int, int], *, transparent: bool = False) -> Image.Image:
    """Draw a gradient with discs and the prompt written on it; without the gradient when transparent (RGBA)."""
    prompt = _readable(prompt)
    rng = random.Random(f"{seed}|{prompt}")
    hue = rng.random()
    image = Image.new("RGBA", size, (0, 0, 0, 0)) if transparent else _gradient(rng, hue, size)
    pen = ImageDraw.Draw(image, None if transparent else "RGBA")
    edge = min(size)
    for _ in range(7):
        x, y, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(0.06, 0.28) * edge
        colour = (*_colour(hue + rng.uniform(-0.2, 0.2), 0.55, rng.uniform(0.6, 1.0)), 255 if transparent else 110)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    _write(pen, prompt, (0, 0, *size))
    return image


def edited(prompt: str, inputs: list[Image.Image], region: Image.Image | None) -> Image.Image:
    """Draw the region in one colour with the prompt on it, and leave everything else untouched; without a region, all
    of it tinted.

    Further inputs are shown small along the top, so that their number and order can be seen.
    """
    base = inputs[0]
    paint = Image.new("RGB", base.size, repaint_colour(prompt, base))
    if region is not None:
        if box := region.point(_MORE_THAN_HALF).getbbox():
            _caption(paint, prompt, _inner(box))
        return Image.composite(paint, base, region)
    image = Image.blend(base, paint, 0.4)
    _caption(image, prompt, (0, 0, *image.size))
    edge = max(4, min(base.size) // 6)
    for index, extra in enumerate(inputs[1:]):
        image.paste(extra.resize((edge, edge)), (index * edge, 0))
    return image


def varied(image: Image.Image, seed: int) -> Image.Image:
    """Draw the input's lights and shadows in other colours."""
    hue = random.Random(f"variation|{seed}").random()
    dark, middle, light = _colour(hue, 0.8, 0.25), _colour(hue + 0.12, 0.6, 0.7), _colour(hue + 0.3, 0.25, 1.0)
    return ImageOps.colorize(image.convert("L"), black=dark, mid=middle, white=light)


def coarse(image: Image.Image, step: int, steps: int) -> Image.Image:
    """Return the picture as it might look after `step` of `steps`: the fewer are done, the larger the blocks."""
    divisor = 2 ** (steps - step + 2)
    small = image.resize((max(1, image.width // divisor), max(1, image.height // divisor)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def encoded(image: Image.Image, output_format: str, quality: int = 90) -> bytes:
    """Return a PNG, JPEG or WebP. Speed goes before size: the lowest levels that compress at all."""
    out = io.BytesIO()
    if output_format == "png":
        image.save(out, "PNG", compress_level=1)
    elif output_format == "jpeg":
        image.convert("RGB").save(out, "JPEG", quality=quality)
    else:
        image.save(out, "WEBP", quality=quality, method=0)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    """Return an input as RGB. Raises Refusal when it cannot be decoded (its head may have looked well)."""
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refusal(f"Invalid image file: {error}", param="image", code="invalid_image_file") from None


def repaint_region(mask: bytes, meaning: MaskMeaning, size: tuple[int, int]) -> Image.Image:
    """Return a mask as this provider reads it: 255 where it repaints, 0 where it keeps. Raises Refusal."""
    try:
        image = Image.open(io.BytesIO(mask))
        # "L" drops an alpha channel, as the real pipelines do.
        region = ImageOps.invert(image.convert("RGBA").getchannel("A")) if meaning == "alpha" else image.convert("L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refusal(f"Invalid mask file: {error}", param="mask", code="invalid_image_file") from None
    if meaning == "black":
        region = ImageOps.invert(region)
    return region if region.size == size else region.resize(size)


def repaint_colour(prompt: str, base: Image.Image) -> Colour:
    """Return a strong colour that the prompt decides, moved to the opposite hue where the input has nearly the same."""
    hue = hashlib.sha256(_readable(prompt).encode()).digest()[0] / 256
    colour = _colour(hue, 0.9, 0.9)
    mean = ImageStat.Stat(base.resize((16, 16))).mean
    if sum(abs(a - b) for a, b in zip(colour, mean, strict=True)) < 150:
        colour = _colour(hue + 0.5, 0.9, 0.9)
    return colour


def _readable(text: str) -> str:
    """Replace the lone surrogates that JSON can spell and no encoding knows."""
    return text.encode(errors="replace").decode()


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _gradient(rng: random.Random, hue: float, size: tuple[int, int]) -> Image.Image:
    falling = Image.linear_gradient("L")
    across = falling.transpose(Image.Transpose.ROTATE_90)
    slope = Image.blend(falling, across, rng.random())
    tones = (_colour(hue, 0.75, 0.35), _colour(hue + 0.08, 0.6, 0.75), _colour(hue + 0.2, 0.35, 1.0))
    return ImageOps.colorize(slope, black=tones[0], mid=tones[1], white=tones[2]).resize(size)


def _vignette(size: tuple[int, int]) -> Image.Image:
    alpha = Image.new("L", size, 0)
    ImageDraw.Draw(alpha).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=255)
    return alpha


def _caption(image: Image.Image, prompt: str, box: Box) -> None:
    """Write the prompt on an edited picture, if there is room for it."""
    if min(box[2] - box[0], box[3] - box[1]) >= LEAST_EDGE:
        _write(ImageDraw.Draw(image, "RGBA"), _readable(prompt), box)


def _inner(box: Box) -> Box:
    """Return the part of a region's box at whose lower end a round region is still as wide."""
    left, top, right, bottom = box
    side, below = (right - left) // 10, (bottom - top) // 4
    return left + side, top, right - side, bottom - below


def _write(pen: ImageDraw.ImageDraw, prompt: str, box: Box) -> None:
    """Write the prompt at the lower end of a box."""
    left, top, right, bottom = box
    points = max(8, min(right - left, bottom - top) // 18)
    font = ImageFont.load_default(points)
    line_height, margin = points * 1.3, points * 0.6
    most = max(1, int((bottom - top - 2 * margin) / line_height / 2))
    lines = _wrapped(prompt, font, right - left - 2 * margin, most)
    if not lines:
        return
    first = bottom - len(lines) * line_height - 2 * margin
    pen.rectangle((left, first, right, bottom), fill=(0, 0, 0, 150))
    for number, line in enumerate(lines):
        pen.text((left + margin, first + margin + number * line_height), line, font=font, fill=(255, 255, 255, 255))


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, most: int) -> list[str]:
    """Return at most `most` lines of words that fit; the rest ends in an ellipsis."""
    lines: list[str] = []
    line = ""
    for word in text[:1000].split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
        if len(lines) == most:
            return [*lines[:-1], f"{lines[-1]} …"]
    return [*lines, line] if line else lines
