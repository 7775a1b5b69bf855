"""Read the media type, dimensions and transparency of an image from its first bytes. Never decodes, never raises."""

from __future__ import annotations

import re
import struct

from app.images import Size
from app.imaging.parts import END, FRAMES, JPEG, SCAN, Crowded, Part, Search

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

_NAMES = {"image/svg+xml": "svg", "image/x-icon": "ico", "image/vnd.adobe.photoshop": "psd"}


def media_type(head: bytes) -> str | None:
    """Return the media type of bytes that begin with `head`; None if it is unknown here."""
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
    markup = head[:4096]
    if _SVG.match(markup) and b"<svg" in markup.lower():
        return "image/svg+xml"
    return "text/html" if _HTML.match(markup) else None


def format_name(kind: str | None) -> str | None:
    """Return a media type as OpenAI's `output_format` spells it ("png", "jpeg"), and types unknown to it likewise."""
    return kind and (_NAMES.get(kind) or kind.partition("/")[2])


def dimensions(head: bytes) -> Size | None:
    """Return width and height from the header of a PNG, JPEG, WebP or GIF; None if `head` does not tell."""
    try:
        match media_type(head):
            case "image/png" | "image/jpeg" as kind:
                return _search(kind, head).size
            case "image/webp":
                return _webp_size(head)
            case "image/gif":
                return _size(*struct.unpack_from("<HH", head, 6))
    except (struct.error, IndexError):  # the head ends before the header does
        pass
    return None


def has_alpha(head: bytes) -> bool | None:
    """True if a PNG, JPEG or WebP can be transparent anywhere; None if `head` does not tell."""
    try:
        match media_type(head):
            case "image/png" | "image/jpeg" as kind:
                return _search(kind, head).alpha
            case "image/webp":
                return _webp_alpha(head)
    except (struct.error, IndexError):
        pass
    return None


def _iso_media(head: bytes) -> str:
    """Distinguish HEIF, AVIF and the films that share their container (ISO/IEC 14496-12) by their brands."""
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


class HeaderSearch:
    """Reads the header of a PNG or JPEG that comes in pieces, however much stands before its fields. Goes from part to
    part, so that it does not take a thumbnail inside EXIF for the image, and keeps a few bytes."""

    def __init__(self, kind: str) -> None:
        self.size: Size | None = None
        self.alpha: bool | None = False if kind == JPEG else None
        self.depth = 0  # bits of a sample
        self.colour = 0  # the type of a PNG's colours, or the number of a JPEG's
        self.has_key = False  # a PNG's transparent colour
        self.has_more = False  # frames of an animation, or further images in a JPEG, follow
        self.exif = (0, 0)  # where EXIF data begins, and its length
        self.over = False  # the search is over, successful or not
        self._is_jpeg = kind == JPEG
        self._search = Search(kind)

    def feed(self, data: bytes) -> None:
        if self.over:
            return
        try:
            for part in self._search.feed(data):
                self.take(part)
                if self.over:
                    return
        except Crowded:
            self.over = True

    def take(self, part: Part) -> None:
        """Note the fields of a part."""
        if self._is_jpeg:
            self._take_segment(part)
        else:
            self._take_chunk(part)

    def _take_segment(self, part: Part) -> None:
        if part.kind in FRAMES:  # ITU-T T.81, B.2.2
            self.depth, height, width, self.colour = struct.unpack_from(">BHHB", part.begin)
            self.size = _size(width, height)
        elif part.kind == b"\xe1" and self.exif == (0, 0) and part.begin.startswith(b"Exif\0\0"):
            self.exif = part.at + 6, part.length - 6
        elif part.kind == b"\xe2" and part.begin.startswith(b"MPF\0"):  # CIPA DC-007
            self.has_more = True
        self.over = part.kind in FRAMES or part.kind in (SCAN, END)

    def _take_chunk(self, part: Part) -> None:
        match part.kind:
            case b"IHDR":
                width, height, self.depth, self.colour = struct.unpack_from(">IIBB", part.begin)
                self.size = _size(width, height)
                self.alpha = True if self.colour in (4, 6) else None
            case b"tRNS":
                self.alpha = self.has_key = True
            case b"acTL":
                self.has_more = True
            case b"eXIf":
                self.exif = part.at, part.length
            case b"IDAT":  # tRNS comes before it: PNG specification, 5.6
                self.alpha, self.over = bool(self.alpha), True


def _size(width: int, height: int) -> Size | None:
    return Size(width, height) if width and height else None


def _search(kind: str, head: bytes) -> HeaderSearch:
    search = HeaderSearch(kind)
    search.feed(head)
    return search


def _webp_size(head: bytes) -> Size | None:
    match head[12:16]:
        case b"VP8 ":
            if head[23:26] != b"\x9d\x01\x2a":
                return None
            width, height = struct.unpack_from("<HH", head, 26)
            return _size(width & 0x3FFF, height & 0x3FFF)
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
