"""Go through the parts of an image's file: the chunks of a PNG or WebP, the segments of a JPEG. Reads how parts begin,
bounds their number, and never decodes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.images import Blob

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"

MOST_PARTS = 4096  # before the pixels; of a JPEG: segments, bytes that fill, and bytes that belong nowhere
MOST_CHUNKS = 65_536  # in a whole PNG or WebP, those within frames included
MOST_SCANS = 200  # of a JPEG: encoders make about ten
MOST_PROFILE = 4_194_304  # bytes of a colour profile

# SOF0 to SOF15 without DHT, JPG and DAC, which lie between them: ITU-T T.81, table B.1.
FRAMES = frozenset(bytes([marker]) for marker in range(0xC0, 0xD0)) - {b"\xc4", b"\xc8", b"\xcc"}
_PROGRESSIVE = {b"\xc2", b"\xc6", b"\xca", b"\xce"}
SCAN, END = b"\xda", b"\xd9"
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
_NO_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a marker that ends a scan: T.81, B.1.1.2
_CHUNK_NAME = re.compile(rb"[A-Za-z]{4}")

_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # the chunks that a PNG's decoder needs
_APP2 = b"\xe2"
# APP1 to APP15 and comments, but not APP14, in which Adobe says how to read the colours.
_METADATA = frozenset(bytes([marker]) for marker in (*range(0xE1, 0xEE), 0xEF, 0xFE))
_STEP = 262_144  # bytes


class Crowded(ValueError):
    """The file has more parts than any encoder writes. The message is the end of a sentence that names the image."""


@dataclass(frozen=True, slots=True)
class Part:
    kind: bytes  # a chunk's four letters; a segment's marker without its 0xFF; empty: a byte between segments
    start: int
    at: int  # where the contents begin
    length: int  # of the contents
    end: int  # where the next part begins
    begin: bytes = b""  # as much of the contents as a header's fields take


def _png_part(header: bytes, start: int) -> Part:
    length, kind = struct.unpack_from(">I4s", header)
    return Part(kind, start, start + 8, length, start + 12 + length, header[8:])


def _jpeg_part(header: bytes, start: int) -> Part:
    fill, marker, length = struct.unpack_from(">BBH", header)
    if fill != 0xFF or marker in (0x00, 0xFF):
        return Part(b"", start, start, 0, start + 1)
    kind = bytes([marker])
    if marker in _WITHOUT_LENGTH:
        return Part(kind, start, start + 2, 0, start + 2)
    length = max(2, length)
    return Part(kind, start, start + 4, length - 2, start + 2 + length, header[4:])


def _webp_part(header: bytes, start: int) -> Part:
    kind, length = struct.unpack_from("<4sI", header)
    end = start + 24 if kind == b"ANMF" else start + 8 + length + length % 2  # a frame has chunks of its own
    return Part(kind, start, start + 8, length, end)


@dataclass(frozen=True, slots=True)
class _Format:
    part: Callable[[bytes, int], Part]
    first: int  # where the first part begins
    least: int  # bytes of a part's header
    reads: int  # bytes of a part that are looked at
    noun: str


_FORMATS = {
    PNG: _Format(_png_part, 8, 8, 21, "chunks"),
    JPEG: _Format(_jpeg_part, 2, 4, 16, "segments and bytes between them"),
    WEBP: _Format(_webp_part, 12, 8, 8, "chunks"),
}


class Walk:
    """Goes from part to part of a file of the media type `kind`, which must be one of the three."""

    def __init__(self, kind: str, most: int = MOST_PARTS) -> None:
        self._format = _FORMATS[kind]
        self._most = self._left = most
        self.at = self._format.first  # where the next part begins
        self.least = self._format.least
        self.reads = self._format.reads

    def step(self, header: bytes) -> Part:
        """Return the part at `at`, which begins with `header`, and go to its end. Raises Crowded."""
        if not self._left:
            raise Crowded(f"it has more than {self._most:,} {self._format.noun}")
        self._left -= 1
        part = self._format.part(header, self.at)
        self.at = part.end
        return part


class Search:
    """Goes through a file that comes in pieces, and keeps a few bytes of it."""

    def __init__(self, kind: str) -> None:
        self._walk = Walk(kind)
        self._begun = b""  # of a part's header
        self._end = 0  # of the pieces so far

    def feed(self, data: bytes) -> Iterator[Part]:
        """Yield the parts whose headers `data` completes; take them all before the next piece. Raises Crowded."""
        walk, start = self._walk, self._end - len(self._begun)
        self._end += len(data)
        if walk.at >= self._end:
            return
        data = self._begun + data
        while walk.at + walk.reads <= self._end:
            at = walk.at - start
            yield walk.step(data[at : at + walk.reads])
        self._begun = data[walk.at - start :] if walk.at < self._end else b""


def parts(blob: Blob, kind: str, most: int = MOST_PARTS) -> Iterator[Part]:
    """Yield the parts of a whole file, up to its end or cut. Skips the data of a JPEG's scans. Raises Crowded."""
    walk = Walk(kind, most)
    while len(header := blob.read(walk.at, walk.reads)) >= walk.least:
        part = walk.step(header)
        if part.kind:
            yield part
        if kind == JPEG and part.kind == SCAN:
            walk.at = _end_of_scan(blob, part.end)
        elif part.kind in (b"IEND", END):
            return


def pixel_ranges(blob: Blob, kind: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of a PNG or JPEG that its first image is decoded from, as beginnings and ends, in order. Colour
    profiles of a usual size belong to it, other metadata does not. Raises Crowded."""
    found = _png_ranges(blob) if kind == PNG else _jpeg_ranges(blob)
    ranges = [(0, _FORMATS[kind].first)]
    for start, end in found:
        if start == ranges[-1][1]:
            start, _ = ranges.pop()
        ranges.append((start, min(end, blob.size)))
    return tuple(ranges)


def _png_ranges(blob: Blob) -> Iterator[tuple[int, int]]:
    for part in parts(blob, PNG, MOST_CHUNKS):
        if not _CHUNK_NAME.fullmatch(part.kind):
            yield part.start, blob.size  # for the decoder to refuse
            return
        if part.kind in _PIXELS or (part.kind == b"iCCP" and part.length <= MOST_PROFILE):
            yield part.start, part.end


def _jpeg_ranges(blob: Blob) -> Iterator[tuple[int, int]]:
    scans = profile = 0
    colours = None  # how many a scan has that is the only one
    for part in parts(blob, JPEG):
        if part.kind == SCAN:
            scans += 1
            if scans == 1:
                yield part.start, blob.size  # bytes between scans belong to them
            if part.begin[:1] == colours:
                return
            if scans > MOST_SCANS:
                raise Crowded(f"it has more than {MOST_SCANS} scans")
        elif not scans and _is_needed(part):
            if part.kind in FRAMES and part.kind not in _PROGRESSIVE:
                colours = part.begin[5:6]
            profile += part.length if part.kind == _APP2 else 0
            if part.kind != _APP2 or profile <= MOST_PROFILE:
                yield part.start, part.end


def _is_needed(part: Part) -> bool:
    if part.kind == _APP2:
        return part.begin.startswith(b"ICC_PROFILE\0")
    return part.kind not in _METADATA


def _end_of_scan(blob: Blob, at: int) -> int:
    for start in range(at, blob.size, _STEP):
        if found := _NO_DATA.search(blob.read(start, _STEP + 1)):
            return start + found.start()
    return blob.size
