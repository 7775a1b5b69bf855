"""What the header of a stored PNG, JPEG or WebP says of the picture, wherever in the file it says it. Never decodes
pixels, never raises."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from app.images import Blob, Size
from app.imaging.formats import COLOURS_WITH_ALPHA, dimensions, frame, has_alpha, ihdr, media_type
from app.imaging.parts import FRAMES, JPEG, PNG, SCAN, WEBP, Crowded, parts

FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}

_HEAD = 64  # bytes: tells the kind of all, and everything of a WebP but its EXIF
_TAIL = 131_072  # bytes at the end of a PNG in which an eXIf chunk (of 64 KiB at the most) is looked for
_STEP = 1_048_576  # bytes
_MOST_FINDS = 16  # of what looks like an eXIf chunk behind a PNG's pixels
_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """`plain`: 8 bits of RGB or RGBA, one picture, nothing to interpret; False where the header does not tell."""

    format: str | None  # "png", "jpeg", "webp"
    size: Size | None = None  # as stored
    orientation: int = 1  # EXIF's, 1 to 8
    plain: bool = False
    grey: bool = False  # 8 bits of luminance and nothing else
    album: bool = False  # MPO: several JPEGs in one file, as telephones make them
    alpha: bool | None = None  # None: not known

    @property
    def upright(self) -> Size | None:
        """The size once the orientation is undone."""
        return self.size and turned(self.size, self.orientation)


def turned(size: Size, orientation: int) -> Size:
    return Size(size.height, size.width) if orientation >= 5 else size


def read_header(blob: Blob) -> ImageHeader:
    head = blob.read(0, _HEAD)
    kind = FORMATS.get(media_type(head) or "")
    try:
        match kind:
            case "png":
                return _png(blob)
            case "jpeg":
                return _jpeg(blob)
            case "webp":
                return _webp(blob, head)
    except (struct.error, IndexError, Crowded):  # the file ends before the header does, or the header does not end
        pass
    return ImageHeader(kind)


def fault(blob: Blob) -> str | None:
    """Why the file cannot be taken, as the end of a sentence; None: it can.

    It must say how large its picture is, have as many parts before its pixels as there may be, and the end that its
    format asks for. A JPEG need not have one: readers do without.
    """
    head = blob.read(0, _HEAD)
    kind = media_type(head)
    try:
        for part in parts(blob, kind) if kind in (PNG, JPEG) else ():
            if part.kind in (b"IDAT", SCAN):
                break
    except Crowded as crowded:
        return f"{crowded} before its pixels. Save it anew without metadata."
    match kind:
        case "image/png":
            ends = _holds(blob, b"IEND\xaeB`\x82")
        case "image/webp":
            ends = blob.size >= int.from_bytes(head[4:8], "little") + 7  # the last byte may be padding
        case _:
            ends = True
    if ends and (dimensions(head) or read_header(blob).size) is not None:
        return None
    return "it is damaged or cut: its header or its end is missing."


def _holds(blob: Blob, end: bytes) -> bool:
    """Mostly it is where it belongs."""
    if end in blob.read(max(0, blob.size - _TAIL), _TAIL):
        return True
    return any(end in blob.read(at, _STEP + len(end)) for at in range(0, blob.size, _STEP))


def _png(blob: Blob) -> ImageHeader:
    size, depth, colour = None, 0, 0
    keyed, animated, exif = False, False, (0, 0)
    for part in parts(blob, PNG):
        match part.kind:
            case b"IHDR":
                size, depth, colour = ihdr(part)
            case b"tRNS":
                keyed = True
            case b"acTL":
                animated = True
            case b"eXIf":
                exif = part.at, min(part.length, _TAIL)
            case b"IDAT":
                break
    return ImageHeader(
        "png",
        size,
        _orientation(blob.read(*exif) or _exif_at_the_end(blob)),
        plain=depth == 8 and colour in (2, 6) and not keyed and not animated,
        grey=depth == 8 and colour == 0 and not keyed and not animated,
        alpha=keyed or colour in COLOURS_WITH_ALPHA,
    )


def _exif_at_the_end(blob: Blob) -> bytes:
    """Some encoders write it after the pixels. A chance find is told from a chunk by the checksum."""
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


def _jpeg(blob: Blob) -> ImageHeader:
    size, depth, colours, exif, album = None, 0, 0, (0, 0), False
    for part in parts(blob, JPEG):
        if part.kind == b"\xe1" and exif == (0, 0) and part.begin.startswith(b"Exif\0\0"):
            exif = part.at + 6, part.length - 6
        elif part.kind == b"\xe2" and part.begin.startswith(b"MPF\0"):  # CIPA DC-007
            album = True
        elif part.kind in FRAMES:
            size, depth, colours = frame(part)
            break
        elif part.kind == SCAN:
            break
    orientation = _orientation(blob.read(*exif))
    return ImageHeader(
        "jpeg", size, orientation, plain=depth == 8 and colours == 3 and not album, album=album, alpha=False
    )


def _webp(blob: Blob, head: bytes) -> ImageHeader:
    extended = head[12:16] == b"VP8X"
    animated = extended and bool(head[20] & 0x02)
    has_exif = extended and bool(head[20] & 0x08)
    return ImageHeader(
        "webp",
        dimensions(head),
        _orientation(_webp_exif(blob)) if has_exif else 1,
        plain=not animated,
        alpha=has_alpha(head),
    )


def _webp_exif(blob: Blob) -> bytes:
    for part in parts(blob, WEBP):
        if part.kind == b"EXIF":
            return blob.read(part.at, min(part.length, _TAIL)).removeprefix(b"Exif\0\0")
    return b""


def _orientation(exif: bytes) -> int:
    """Of EXIF data, which is a TIFF file's first directory: TIFF 6.0, section 2. 1 where it says nothing sensible."""
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
