"""Pictures to send and to expect, and what a picture is."""

import base64
import io
import os
import struct
import zlib
from functools import cache

from PIL import Image


@cache
def encoded(size: tuple[int, int] = (64, 64), format: str = "PNG", mode: str = "RGB", colour: str = "teal") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, format)
    return out.getvalue()


@cache
def mask(size: tuple[int, int] = (64, 64)) -> bytes:
    """As OpenAI wants it: the middle is transparent, and so to be repainted."""
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def heavy(length: int) -> bytes:
    """A PNG of about so many bytes, for which no decoder needs memory: the weight is in a chunk that is passed over."""
    return laden(os.urandom(max(0, length - len(encoded()) - 12)))


def laden(noise: bytes) -> bytes:
    """A PNG with this in a chunk that is passed over."""
    small = encoded()
    chunk = struct.pack(">I", len(noise)) + b"noIs" + noise + struct.pack(">I", zlib.crc32(b"noIs" + noise))
    return small[:33] + chunk + small[33:]


def text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def opened(base64_text: str) -> Image.Image:
    """The picture, decoded to its last row."""
    image = Image.open(io.BytesIO(base64.b64decode(base64_text, validate=True)))
    image.load()
    return image
