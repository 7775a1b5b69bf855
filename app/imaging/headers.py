"""Read all that the header of a stored PNG, JPEG or WebP says of the image, wherever it stands in the file. Never
decodes pixels, never raises."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from app.images import Blob, Size
from app.imaging.formats import HeaderSearch, dimensions, has_alpha, media_type
from app.imaging.parts import JPEG, PNG, SCAN, WEBP, Crowded, parts

_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}

_HEAD = 64  # bytes that hold the format, and everything of a WebP but its EXIF
_TAIL = 131_072  # bytes at the end of a PNG in which an eXIf chunk (of 64 KiB at the most) is looked for
_STEP = 1_048_576  # bytes
_MOST_FINDS = 16  # of the letters eXIf behind a PNG's pixels
_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """`plain`: 8 bits of RGB or RGBA, one image, nothing to interpret; False if the header does not tell."""

    format: str | None  # "png", "jpeg", "webp"
    size: Size | None = None  # as stored
    orientation: int = 1  # EXIF's, 1 to 8
    plain: bool = False
    grey: bool = False  # 8 bits of luminance and nothing else
    album: bool = False  # MPO: several JPEGs in one file, as telephones make them
    alpha: bool | None = None  # None: unknown

    @property
    def upright(self) -> Size | None:
        """The size once the orientation is undone."""
        return self.size and turn(self.size, self.orientation)


def turn(size: Size, orientation: int) -> Size:
    """Return the size once an EXIF orientation is undone."""
    return Size(size.height, size.width) if orientation >= 5 else size


def read_header(blob: Blob) -> ImageHeader:
    head = blob.read(0, _HEAD)
    kind = media_type(head)
    try:
        if kind in (PNG, JPEG):
            return _png_or_jpeg(blob, kind)
        if kind == WEBP:
            return _webp(blob, head)
    except (struct.error, IndexError, Crowded):  # the file ends before the header does, or the header does not end
        pass
    return ImageHeader(_FORMATS.get(kind or ""))


def find_fault(blob: Blob) -> str | None:
    """Return why the file must be refused, as the end of a sentence; None if it is good.

    A good file states the size of its image, has no more parts before its pixels than `parts` allows, and has the end
    that its format asks for. A JPEG may lack its end, because readers do without.
    """
    head = blob.read(0, _HEAD)
    kind = media_type(head)
    try:
        for part in parts(blob, kind) if kind in (PNG, JPEG) else ():
            if part.kind in (b"IDAT", SCAN):
                break
    except Crowded as crowded:
        return f"{crowded} before its pixels. Save it anew without metadata."
    has_end = True
    if kind == PNG:
        has_end = _contains(blob, b"IEND\xaeB`\x82")
    elif kind == WEBP:
        has_end = blob.size >= int.from_bytes(head[4:8], "little") + 7  # the last byte may be padding
    if has_end and (dimensions(head) or read_header(blob).size) is not None:
        return None
    return "it is damaged or cut: its header or its end is missing."


def _contains(blob: Blob, end: bytes) -> bool:
    if blob.read(max(0, blob.size - _TAIL), _TAIL).rfind(end) >= 0:  # nearly always, at the very end
        return True
    return any(end in blob.read(at, _STEP + len(end)) for at in range(0, blob.size, _STEP))


def _png_or_jpeg(blob: Blob, kind: str) -> ImageHeader:
    search = HeaderSearch(kind)
    for part in parts(blob, kind):
        search.take(part)
        if search.over:
            break
    at, length = search.exif
    exif = blob.read(at, min(length, _TAIL))
    if kind == PNG:
        exif = exif or _exif_at_the_end(blob)
    is_simple = search.depth == 8 and not search.has_key and not search.has_more
    return ImageHeader(
        _FORMATS[kind],
        search.size,
        _orientation(exif),
        plain=is_simple and search.colour in ((2, 6) if kind == PNG else (3,)),
        grey=is_simple and kind == PNG and search.colour == 0,
        album=kind == JPEG and search.has_more,
        alpha=bool(search.alpha),
    )


def _exif_at_the_end(blob: Blob) -> bytes:
    """Return the EXIF data that some encoders write after the pixels. The checksum distinguishes a chunk from a chance
    find."""
    start = max(0, blob.size - _TAIL)
    tail = blob.read(start, _TAIL)
    at = 0
    for _ in range(_MOST_FINDS):
        if (at := tail.find(b"eXIf", at + 4)) < 0:
            break
        length = int.from_bytes(tail[at - 4 : at], "big")
        end = at + 4 + length
        if tail[end : end + 4] == zlib.crc32(tail[at:end]).to_bytes(4, "big"):
            return tail[at + 4 : end]
    return b""


def _webp(blob: Blob, head: bytes) -> ImageHeader:
    flags = head[20] if head[12:16] == b"VP8X" else 0
    is_animated, has_exif = bool(flags & 0x02), bool(flags & 0x08)
    return ImageHeader(
        "webp",
        dimensions(head),
        _orientation(_webp_exif(blob)) if has_exif else 1,
        plain=not is_animated,
        alpha=has_alpha(head),
    )


def _webp_exif(blob: Blob) -> bytes:
    for part in parts(blob, WEBP):
        if part.kind == b"EXIF":
            return blob.read(part.at, min(part.length, _TAIL)).removeprefix(b"Exif\0\0")
    return b""


def _orientation(exif: bytes) -> int:
    """Read the orientation from EXIF data, a TIFF file's first directory: TIFF 6.0, section 2. 1 if there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        directory = struct.unpack_from(f"{order}I", exif, 4)[0]
        count = struct.unpack_from(f"{order}H", exif, directory)[0]
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, at)
            if tag == _ORIENTATION:
                value: int = struct.unpack_from(f"{order}{'I' if kind == 4 else 'H'}", exif, at + 8)[0]
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
