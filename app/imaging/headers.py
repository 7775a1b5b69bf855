"""What the header of a stored PNG, JPEG or WebP says of the picture, wherever in the file it says it. Never decodes
pixels, never raises."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from app.images import Blob, Size
from app.imaging.formats import dimensions, has_alpha, media_type

FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}

_HEAD = 64  # bytes: tells the kind of all, and everything of a WebP but its EXIF
_TAIL = 131_072  # bytes at the end of a PNG in which an eXIf chunk (of 64 KiB at the most) is looked for
_STEP = 1_048_576  # bytes
_MOST_PARTS = 4096  # segments or chunks that are gone through
_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4


@dataclass(frozen=True, slots=True)
class Traits:
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


def traits(blob: Blob) -> Traits:
    head = blob.read(0, _HEAD)
    kind = FORMATS.get(media_type(head) or "")
    try:
        match kind:
            case "png":
                return _png(blob, head)
            case "jpeg":
                return _jpeg(blob)
            case "webp":
                return _webp(blob, head)
    except (struct.error, IndexError):  # the file ends before the header does
        pass
    return Traits(kind)


def whole(blob: Blob) -> bool:
    """Whether the file says how large its picture is, and has the end that its format asks for. A JPEG need not have
    one: readers do without."""
    head = blob.read(0, _HEAD)
    match FORMATS.get(media_type(head) or ""):
        case "png":
            ends = _holds(blob, b"IEND\xaeB`\x82")
        case "webp":
            ends = blob.size >= int.from_bytes(head[4:8], "little") + 7  # the last byte may be padding
        case _:
            ends = True
    return ends and (dimensions(head) or traits(blob).size) is not None


def _holds(blob: Blob, end: bytes) -> bool:
    """Mostly it is where it belongs."""
    if end in blob.read(max(0, blob.size - _TAIL), _TAIL):
        return True
    return any(end in blob.read(at, _STEP + len(end)) for at in range(0, blob.size, _STEP))


def _png(blob: Blob, head: bytes) -> Traits:
    depth, colour = head[24], head[25]
    alpha, animated, exif = colour in (4, 6), False, b""
    keyed = False
    for kind, at, length in _png_chunks(blob):
        keyed = keyed or kind == b"tRNS"
        animated = animated or kind == b"acTL"
        if kind == b"eXIf":
            exif = blob.read(at, min(length, _TAIL))
    return Traits(
        "png",
        dimensions(head),
        _orientation(exif or _exif_at_the_end(blob)),
        plain=depth == 8 and colour in (2, 6) and not keyed and not animated,
        grey=depth == 8 and colour == 0 and not keyed and not animated,
        alpha=alpha or keyed,
    )


def _png_chunks(blob: Blob) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset and length of what comes before the pixels."""
    at = 8
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack(">I4s", blob.read(at, 8))
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, at + 8, length
        at += 12 + length


def _exif_at_the_end(blob: Blob) -> bytes:
    """Some encoders write it after the pixels. A chance find is told from a chunk by the checksum."""
    start = max(0, blob.size - _TAIL)
    tail = blob.read(start, _TAIL)
    at = tail.find(b"eXIf")
    while at >= 4:
        length = int.from_bytes(tail[at - 4 : at], "big")
        end = at + 4 + length
        if tail[end : end + 4] == zlib.crc32(tail[at:end]).to_bytes(4, "big"):
            return tail[at + 4 : end]
        at = tail.find(b"eXIf", at + 4)
    return b""


def _jpeg(blob: Blob) -> Traits:
    size, orientation, colours, album = None, 1, 0, False
    for marker, at, length in _jpeg_segments(blob):
        if marker == 0xE1 and orientation == 1 and blob.read(at, 6) == b"Exif\0\0":
            orientation = _orientation(blob.read(at + 6, length - 6))
        elif marker == 0xE2 and blob.read(at, 4) == b"MPF\0":  # CIPA DC-007
            album = True
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame: ITU-T T.81, B.2.2
            depth, height, width, colours = struct.unpack(">BHHB", blob.read(at, 6))
            size = Size(width, height) if width and height else None
            colours = colours if depth == 8 else 0
            break
    return Traits("jpeg", size, orientation, plain=colours == 3 and not album, album=album, alpha=False)


def _jpeg_segments(blob: Blob) -> Iterator[tuple[int, int, int]]:
    """Marker, offset and length of the segments' contents, up to where the scan begins."""
    at = 2
    for _ in range(_MOST_PARTS):
        fill, marker, length = struct.unpack(">BBH", blob.read(at, 4))
        if fill != 0xFF or marker == 0xDA:
            return
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these have no contents
            at += 2
        else:
            yield marker, at + 4, max(0, length - 2)
            at += 2 + max(2, length)


def _webp(blob: Blob, head: bytes) -> Traits:
    extended = head[12:16] == b"VP8X"
    animated = extended and bool(head[20] & 0x02)
    has_exif = extended and bool(head[20] & 0x08)
    return Traits(
        "webp",
        dimensions(head),
        _orientation(_webp_exif(blob)) if has_exif else 1,
        plain=not animated,
        alpha=has_alpha(head),
    )


def _webp_exif(blob: Blob) -> bytes:
    at = 12
    for _ in range(_MOST_PARTS):
        header = blob.read(at, 8)
        if len(header) < 8:
            return b""
        kind, length = struct.unpack("<4sI", header)
        if kind == b"EXIF":
            return blob.read(at + 8, min(length, _TAIL)).removeprefix(b"Exif\0\0")
        at += 8 + length + length % 2
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
