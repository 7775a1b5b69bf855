"""Pictures to send, and what came back as one."""

import base64
import io
from typing import Any

import httpx
from PIL import Image

Box = tuple[int, int, int, int]

GREY = (128, 128, 128)
LEFT: Box = (0, 0, 32, 64)  # of a picture of 64x64
INSIDE, OUTSIDE = (8, 32), (56, 32)  # points well within the left half, and well out of it


def saved(image: Image.Image, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def plain(size: tuple[int, int] = (64, 64), colour: Any = GREY, format: str = "PNG", mode: str = "RGB") -> bytes:
    return saved(Image.new(mode, size, colour), format)


def striped(size: tuple[int, int] = (64, 64)) -> bytes:
    """Dark on the left, light on the right."""
    image = Image.new("RGB", size, (30, 30, 30))
    image.paste((220, 220, 220), (size[0] // 2, 0, *size))
    return saved(image)


def mask(mode: str, kept: Any, repainted: Any, box: Box = LEFT, size: tuple[int, int] = (64, 64)) -> bytes:
    image = Image.new(mode, size, kept)
    image.paste(repainted, box)
    return saved(image)


def alpha_mask() -> bytes:
    """Transparent on the left; its colours say the opposite."""
    return mask("RGBA", (255, 255, 255, 255), (0, 0, 0, 0))


def white_mask() -> bytes:
    return mask("L", 0, 255)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_of(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def drawn(answer: httpx.Response, index: int = 0) -> Image.Image:
    """The picture of an answer with base64."""
    assert answer.status_code == 200, answer.text
    return image_of(base64.b64decode(answer.json()["data"][index]["b64_json"], validate=True))


def distance(image: Image.Image, point: tuple[int, int], colour: tuple[int, int, int]) -> int:
    pixel = image.convert("RGB").getpixel(point)
    assert isinstance(pixel, tuple)
    return sum(abs(int(a) - b) for a, b in zip(pixel, colour, strict=True))


def repainted_on_the_left(image: Image.Image) -> bool:
    """The left half is repainted and the right half untouched (of a grey picture); the reverse is False."""
    inside, outside = distance(image, INSIDE, GREY) > 60, distance(image, OUTSIDE, GREY) > 60
    assert inside != outside, "neither half, or both, were repainted"
    return inside
