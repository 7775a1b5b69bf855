"""What bytes are, read from how they begin: media type, dimensions, transparency. Never decodes, never raises."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from app.images import Size
from app.imaging.parts import END, FRAMES, JPEG, PNG, SCAN, Crowded, Part, Search

ENOUGH = 262_144  # bytes of head in which a JPEG's frame header is found behind EXIF, ICC profiles and thumbnails

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),  # BigTIFF
    (b"MM\x00+", "image/tiff"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
)
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_SVG = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml\b|<!--|<!DOCTYPE\s+svg\b|<svg[\s>/])", re.IGNORECASE)
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)

COLOURS_WITH_ALPHA = (4, 6)  # of a PNG: grey or colour with an alpha channel
_NAMES = {"image/svg+xml": "svg", "image/x-icon": "ico", "image/vnd.adobe.photoshop": "psd"}


def media_type(head: bytes) -> str | None:
    """The media type of what begins with `head`; None for what is not known here."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "image/bmp"
    if head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and head[4:6] not in (b"", b"\0\0"):
        return "image/x-icon"
    return _markup(head[:4096])


def format_name(kind: str | None) -> str | None:
    """A media type as OpenAI's `output_format` has it: "png", "jpeg"; those that it does not know, likewise."""
    return kind and (_NAMES.get(kind) or kind.partition("/")[2])


def dimensions(head: bytes) -> Size | None:
    """Width and height of a PNG, JPEG, WebP or GIF as its header states them; None where `head` does not tell."""
    read = _DIMENSIONS.get(media_type(head) or "")
    try:
        size = read(head) if read else None
    except (struct.error, IndexError):  # the head ends before the header does
        return None
    return size if size and size.width and size.height else None


def has_alpha(head: bytes) -> bool | None:
    """Whether a PNG, JPEG or WebP can be transparent anywhere; None where `head` does not tell."""
    try:
        match media_type(head):
            case "image/png":
                return _searched(PNG, head).alpha
            case "image/webp":
                return _webp_alpha(head)
            case "image/jpeg":
                return False
    except (struct.error, IndexError):
        return None
    return None


def _iso_media(head: bytes) -> str:
    """HEIF, AVIF and the films that share their container (ISO/IEC 14496-12): told apart by their brands."""
    end = min(int.from_bytes(head[:4], "big"), 256, len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    for brand in brands:
        if brand in (b"avif", b"avis"):
            return "image/avif"
        if brand in _HEIC:
            return "image/heic"
    if brands[0] in (b"mif1", b"msf1"):
        return "image/heif"
    return "video/quicktime" if brands[0] == b"qt  " else "video/mp4"


def _markup(head: bytes) -> str | None:
    if _SVG.match(head) and b"<svg" in head.lower():
        return "image/svg+xml"
    return "text/html" if _HTML.match(head) else None


def _png_size(head: bytes) -> Size | None:
    return _searched(PNG, head).size


def _gif_size(head: bytes) -> Size:
    return Size(*struct.unpack_from("<HH", head, 6))


def _jpeg_size(head: bytes) -> Size | None:
    return _searched(JPEG, head).size


class HeaderSearch:
    """Looks for the size and the transparency of a PNG or JPEG that comes in pieces, however much stands before them.
    Goes from part to part, so that a thumbnail inside EXIF is not taken for the picture, and keeps a few bytes."""

    def __init__(self, kind: str) -> None:
        self.size: Size | None = None
        self.alpha: bool | None = False if kind == JPEG else None
        self.over = False  # all is found, or is not to be found
        self._take = self._take_segment if kind == JPEG else self._take_chunk
        self._search = Search(kind)

    def feed(self, data: bytes) -> None:
        if self.over:
            return
        try:
            for part in self._search.feed(data):
                self._take(part)
                if self.over:
                    return
        except Crowded:
            self.over = True

    def _take_segment(self, part: Part) -> None:
        if part.kind in FRAMES:
            self.size = frame(part)[0]
        self.over = part.kind in FRAMES or part.kind in (SCAN, END)

    def _take_chunk(self, part: Part) -> None:
        if part.start == 8 and part.kind != b"IHDR":
            self.over = True
            return
        if part.kind == b"IHDR":
            self.size, _, colour = ihdr(part)
            self.alpha = True if colour in COLOURS_WITH_ALPHA else None
        elif part.kind == b"tRNS":
            self.alpha = True
        elif part.kind == b"IDAT":  # tRNS comes before it: PNG specification, 5.6
            self.alpha = False
        self.over = self.alpha is not None


def ihdr(part: Part) -> tuple[Size | None, int, int]:
    """The size, the bits of a sample and the type of colour that a PNG's first chunk states. Raises struct.error."""
    width, height, depth, colour = struct.unpack_from(">IIBB", part.begin)
    return _size(width, height), depth, colour


def frame(part: Part) -> tuple[Size | None, int, int]:
    """The size, the bits of a sample and the number of colours that a JPEG's frame states: ITU-T T.81, B.2.2. Raises
    struct.error."""
    depth, height, width, colours = struct.unpack_from(">BHHB", part.begin)
    return _size(width, height), depth, colours


def _size(width: int, height: int) -> Size | None:
    return Size(width, height) if width and height else None


def _searched(kind: str, head: bytes) -> HeaderSearch:
    search = HeaderSearch(kind)
    search.feed(head)
    return search


def _webp_size(head: bytes) -> Size | None:
    match head[12:16]:
        case b"VP8 ":
            if head[23:26] != b"\x9d\x01\x2a":
                return None
            width, height = struct.unpack_from("<HH", head, 26)
            return Size(width & 0x3FFF, height & 0x3FFF)
        case b"VP8L":
            bits = struct.unpack_from("<I", head, 21)[0]
            return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) if head[20] == 0x2F else None
        case b"VP8X" if len(head) >= 30:
            return Size(int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1)
    return None


def _webp_alpha(head: bytes) -> bool | None:
    match head[12:16]:
        case b"VP8 ":
            return False
        case b"VP8L":
            return bool(struct.unpack_from("<I", head, 21)[0] >> 28 & 1)
        case b"VP8X":
            return bool(head[20] & 0x10)
    return None


_DIMENSIONS: dict[str, Callable[[bytes], Size | None]] = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/webp": _webp_size,
    "image/gif": _gif_size,
}
