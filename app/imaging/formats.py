"""What bytes are, read from how they begin: media type, dimensions, transparency. Never decodes, never raises."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from app.images import Size

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

# SOF0 to SOF15 without DHT, JPG and DAC, which lie between them: ITU-T T.81, table B.1.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_MOST_SEGMENTS = 4096
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
                return _png_alpha(head)
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
    return Size(*struct.unpack_from(">II", head, 16)) if head[12:16] == b"IHDR" else None


def _png_alpha(head: bytes) -> bool | None:
    if head[12:16] != b"IHDR":
        return None
    if head[25] in (4, 6):  # grey or colour with an alpha channel
        return True
    at = 8
    while at + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, at)
        if kind == b"tRNS":
            return True
        if kind == b"IDAT":  # tRNS comes before it: PNG specification, 5.6
            return False
        at += 12 + length
    return None


def _gif_size(head: bytes) -> Size:
    return Size(*struct.unpack_from("<HH", head, 6))


def _jpeg_size(head: bytes) -> Size | None:
    return FrameSearch().feed(head)


class FrameSearch:
    """Looks for the size of a JPEG that comes in pieces, however much EXIF and ICC profile stands before it. Goes from
    segment to segment, so that a thumbnail inside EXIF is not taken for the picture, and keeps a few bytes of it."""

    def __init__(self) -> None:
        self.over = False  # it is found, or is not to be found
        self._skip = 2  # bytes of what follows that need no look
        self._begun = b""  # of a segment's header
        self._left = _MOST_SEGMENTS

    def feed(self, data: bytes) -> Size | None:
        """The size, once `data` completes the header that states it."""
        if self.over or self._skip >= len(data):
            self._skip -= min(self._skip, len(data))
            return None
        at, self._skip = self._skip, 0
        if self._begun:
            data = self._begun + data
        size = None
        while at + 9 <= len(data) and not self.over:  # 9: a frame's header up to its width
            size, at = self._step(data, at)
        self._skip, self._begun = max(0, at - len(data)), data[at:] if not self.over else b""
        return size

    def _step(self, data: bytes, at: int) -> tuple[Size | None, int]:
        """The size, and where the next segment begins."""
        marker = data[at + 1]
        self._left -= 1
        if marker in _FRAME_HEADERS and data[at] == 0xFF:
            self.over = True
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Size(width, height) if width and height else None, at
        if data[at] != 0xFF or marker == 0xDA or not self._left:  # 0xDA: the scan begins and no frame was declared
            self.over = True
            return None, at
        if marker == 0xFF:  # a fill byte
            return None, at + 1
        if marker in _WITHOUT_LENGTH:
            return None, at + 2
        return None, at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


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
