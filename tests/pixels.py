"""Pictures of every kind for tests, made on the spot, and a look at what became of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from app.images import Blob
from app.storage.spool import Spool

# Where a pixel of the upright picture (of so many columns and rows) lies in the stored one. EXIF 2.32, 4.6.4: 6 says
# that the stored top row is what is seen as the right-hand side.
ORIENTATIONS: dict[int, Callable[[int, int, int, int], tuple[int, int]]] = {
    1: lambda x, y, w, h: (x, y),
    2: lambda x, y, w, h: (w - 1 - x, y),
    3: lambda x, y, w, h: (w - 1 - x, h - 1 - y),
    4: lambda x, y, w, h: (x, h - 1 - y),
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (y, w - 1 - x),
    7: lambda x, y, w, h: (h - 1 - y, w - 1 - x),
    8: lambda x, y, w, h: (h - 1 - y, x),
}


def spool(data: bytes = b"") -> Spool:
    new = Spool(1 << 30)
    new.write(data)
    return new


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def opened(data: bytes | Blob) -> Image.Image:
    """Decoded to its last row."""
    image = Image.open(io.BytesIO(data if isinstance(data, bytes) else data.read(0, data.size)))
    image.load()
    return image


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """As a camera that was held so would store it."""
    w, h = upright.size
    turn = ORIENTATIONS[orientation]
    image = Image.new(upright.mode, (w, h) if orientation < 5 else (h, w))
    for x in range(w):
        for y in range(h):
            image.putpixel(turn(x, y, w, h), upright.getpixel((x, y)) or 0)
    return image


def corners(size: tuple[int, int] = (12, 8)) -> Image.Image:
    """One colour in each quarter, so that no turn looks like another."""
    image = Image.new("RGB", size)
    w, h = size[0] // 2, size[1] // 2
    for box, colour in (((0, 0), "red"), ((w, 0), "lime"), ((0, h), "blue"), ((w, h), "white")):
        image.paste(colour, (*box, box[0] + w, box[1] + h))
    return image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, colour: int, rows: list[bytes], before: bytes = b"") -> bytes:
    """A PNG of the kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb(size: tuple[int, int] = (60_000, 60_000)) -> bytes:
    return png(size, 8, 2, [b"\0" * 64])


def mpo(orientation: int = 1) -> bytes:
    first, second = corners((32, 16)), Image.new("RGB", (32, 16), "black")
    return encoded(first, "MPO", save_all=True, append_images=[second], quality=95, exif=exif(orientation))


def near(pixel: Any, expected: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))
