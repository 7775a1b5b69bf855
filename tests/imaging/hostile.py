"""Pictures that cost a reader far more than their bytes. `count` says how often each repeats its fault."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.pixels import chunk, corners, encoded

SIZE = (12, 8)


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(before_the_scan: bytes, **options: object) -> bytes:
    data = encoded(corners(SIZE), "JPEG", **options)
    at = data.index(b"\xff\xda")
    return data[:at] + before_the_scan + data[at:]


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    data = encoded(corners(SIZE))
    return data[:33] + before + data[33:-12] + after + data[-12:]


def webp(chunks: bytes) -> bytes:
    data = encoded(corners(SIZE), "WEBP")
    extended = struct.pack("<4sI4x", b"VP8X", 10) + b"".join(struct.pack("<I", edge - 1)[:3] for edge in SIZE)
    body = b"WEBP" + extended + data[12:] + chunks
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def animation(frames: int) -> bytes:
    """Each frame is one pixel."""
    pixel = encoded(Image.new("RGB", (2, 2)), "WEBP")[12:]
    frame = bytes(6) + b"\1\0\0\1\0\0" + bytes(4) + pixel
    header = struct.pack("<4sIB3x", b"VP8X", 10, 2) + bytes([7, 0, 0, 7, 0, 0])
    body = b"WEBP" + header + struct.pack("<4sI6x", b"ANIM", 6)
    body += (struct.pack("<4sI", b"ANMF", len(frame)) + frame) * frames
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def scans(count: int, *, progressive: bool, size: tuple[int, int] = SIZE) -> bytes:
    """Scans that hold a few bytes each and go over all the pixels: of a progressive JPEG, or of a sequential one."""
    data = encoded(corners(size), "JPEG", progressive=progressive, subsampling=0)
    if progressive:
        last = data.rindex(b"\xff\xda")
        return data[:-2] + data[last:-2] * count + data[-2:]
    at = data.index(b"\xff\xda")
    one = segment(0xDA, b"\1\1\0\0\x3f\0") + b"\0"  # the first component alone
    return data[:at] + one * count + data[-2:]


def gif(blocks: bytes) -> bytes:
    data = encoded(corners(SIZE).quantize(4), "GIF")
    at = data.index(b",", 13 + 3 * 4)
    return data[:at] + blocks + data[at:]


def tiff(entries: int, size: int) -> bytes:
    """A directory whose entries share the same bytes."""
    fields = [(256, 4, 1, 12), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 96)]
    fields += [(40_000 + number, 7, size, 8) for number in range(entries)]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + directory + bytes(4)


def strips(count: int) -> bytes:
    """A TIFF of very many strips without a row."""
    fields = [(256, 4, 1, 12), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, count, 8), (279, 4, count, 8)]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<I", 8 + 4 * count) + bytes(4 * count) + directory + bytes(4)


def exif_directory(entries: int) -> bytes:
    directory = b"".join(struct.pack("<HHII", number, 7, 60_000, 8) for number in range(1, entries))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, entries) + directory


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "jpeg: empty segments": lambda count: jpeg(segment(0xE1) * count),
    "jpeg: empty comments": lambda count: jpeg(segment(0xFE) * count),
    "jpeg: fill bytes": lambda count: jpeg(b"\xff" * count),
    "jpeg: zeros between segments": lambda count: jpeg(bytes(count)),
    "jpeg: markers without contents": lambda count: jpeg(b"\xff\x01" * count),
    "jpeg: tables": lambda count: jpeg(segment(0xDB) * count),
    "jpeg: EXIF in many pieces": lambda count: jpeg(segment(0xE1, b"Exif\0\0" + bytes(994)) * (count // 1000 + 2)),
    "jpeg: EXIF directories": lambda count: jpeg(
        segment(0xE1, exif_directory(min(5_400, count))) * (count // 65_000 + 1)
    ),
    "jpeg: Photoshop's resources": lambda count: jpeg(
        segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * min(5_400, count)) * (count // 65_000 + 1)
    ),
    "jpeg: progressive scans": lambda count: scans(count // 10, progressive=True),
    "jpeg: sequential scans": lambda count: scans(count // 10, progressive=False),
    "png: empty notes": lambda count: png(chunk(b"tEXt", b"") * count),
    "png: empty private chunks": lambda count: png(chunk(b"prIv", b"") * count),
    "png: private chunks after the pixels": lambda count: png(after=chunk(b"prIv", b"") * count),
    "png: empty pixels": lambda count: png(chunk(b"IDAT", b"") * count),
    "png: frames": lambda count: png(
        chunk(b"acTL", struct.pack(">II", count, 0))
        + b"".join(
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *SIZE, 0, 0, 1, 9, 0, 0)) for number in range(count)
        )
    ),
    "png: a packed note": lambda count: png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(count * 1000)))),
    "png: a packed profile": lambda count: png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(count * 1000)))),
    "webp: empty chunks": lambda count: webp(struct.pack("<4sI", b"abcd", 0) * count),
    "webp: frames": lambda count: animation(count),
    "gif: comments": lambda count: gif(b"\x21\xfe" + b"\1a" * count + b"\0"),
    "gif: extensions": lambda count: gif(b"\x21\xf9\0" * count),
    "tiff: strips": strips,
    "tiff: a directory": lambda count: tiff(min(count, 20_000), min(count, 60_000)),
}
"""Each as it costs more than it should; `count` says how much."""
