"""Open, change and write images with Pillow. No other module beside the sandbox imports Pillow, and only the threads
that use it import this one.

Memory: a decoded pixel takes 4 bytes. Besides the image there is its successor while it is turned, resized or
converted, and the memory of a decoder or encoder (WebP's: two canvases and a copy of the file; progressive JPEG's: all
coefficients). `app.imaging.workers` states the bound, its test measures it.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import IO, Any, cast

from PIL import AvifImagePlugin, Image, ImageChops, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngStream
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.errors import ApiError, Unavailable
from app.images import Blob, Size
from app.imaging.formats import ENOUGH, dimensions, media_type
from app.imaging.operations import FileFormat, Look, Oversized, Redraw, RedrawMask, Sink, Undrawable, WithoutAlpha
from app.imaging.parts import JPEG, MOST_CHUNKS, MOST_PROFILE, PNG, WEBP, Crowded, parts, pixel_ranges

_UNDOING = {  # EXIF 2.32, 4.6.4: the operation that undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUALITY = {"jpeg": 95, "webp": 90}
_FINE = 90  # JPEG's quality from which colours are kept at full resolution
_STRIP = 1_048_576  # pixels that are laid on white at a time
_WEBP_EDGE = 16_383
_BUFFER = 262_144  # bytes
_SIXTEEN_TO_EIGHT = [value >> 8 for value in range(65_536)]
_EIGHT_INVERTED = [255 - value for value in range(256)]
MOST_READS, MOST_READ = 16_384, 6_291_456  # calls and bytes, until an image is open; no encoder writes such a header
MOST_WHOLE = 67_108_864  # bytes of a file that its decoder wants in one piece: WebP, AVIF, packed TIFF


def redraw(source: Blob, target: Sink, order: Redraw, most_pixels: int) -> Size:
    """Write the image as ordered, and return its size. Raises Undrawable, Unavailable (no room for it)."""
    image, profile = _decode(source, most_pixels)
    image = _to_rgb(image)
    image = _turn(image, order.orientation)
    image = _resize(image, order.size, Image.Resampling.LANCZOS)
    if order.format == "jpeg" and image.mode == "RGBA":
        image = _on_white(image)
    _encode(image, target, order.format, order.quality, profile)
    return Size(*image.size)


def redraw_mask(source: Blob, target: Sink, order: RedrawMask, most_pixels: int) -> Size:
    """Write the mask as ordered, and return its size. Raises Undrawable, WithoutAlpha, Unavailable (no room for it)."""
    image, _ = _decode(source, most_pixels)
    grey = _mask_to_grey(image, order.given)
    del image
    for orientation in order.orientations:
        grey = _turn(grey, orientation)
    grey = _resize(grey, order.size, Image.Resampling.BILINEAR)
    mask = grey if order.wanted == "white" else grey.point(_EIGHT_INVERTED)
    if order.wanted == "alpha":  # a host that reads brightness after all finds the same region, in white
        mask = Image.merge("RGBA", (grey, grey, grey, mask))
    _encode(mask, target, "png")
    return Size(*mask.size)


def look(source: Blob, most_pixels: int) -> Look:
    """Return the size and transparency of an image with an odd header. Raises Undrawable."""
    try:
        image = _open(source, most_pixels)
        return Look(Size(*image.size), image.has_transparency_data)
    except Undrawable:
        raise
    except Exception as error:
        raise _unreadable() from error


def _decode(source: Blob, most_pixels: int) -> tuple[Image.Image, bytes | None]:
    """Decode the first image of the file. Returns it with its colour profile, if it has one for RGB. Raises
    Undrawable."""
    try:
        file = _open(source, most_pixels)
        image = _load(file, source)
    except (Undrawable, MemoryError):
        raise
    except Exception as error:  # a broken file makes Pillow's decoders raise almost anything
        raise _unreadable() from error
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or profile[16:20] != b"RGB " or len(profile) > MOST_PROFILE:
        profile = None
    return image, profile


def _open(source: Blob, most_pixels: int) -> ImageFile.ImageFile:
    """Open the file without decoding it. Checks its size before a decoder makes canvases for it. Raises Undrawable, and
    almost anything else."""
    head = source.read(0, ENOUGH)
    kind = media_type(head)
    if kind not in _READERS:
        *names, last = (name.partition("/")[2].upper() for name in _READERS)
        raise Undrawable(f"it is no {', '.join(names)} or {last}")
    _check_size(dimensions(head), most_pixels)
    image = _read_header(source, kind)
    _check_size(Size(*image.size), most_pixels)
    if isinstance(image, TiffImageFile):  # its decoder makes a canvas for a whole tile, however small the image is
        _check_size(Size(image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)), most_pixels)
    return image


def _unreadable() -> Undrawable:
    return Undrawable("it is damaged or cut, and cannot be decoded")


def _read_header(source: Blob, kind: str) -> ImageFile.ImageFile:
    """Let Pillow read the file's header. It sees no metadata of a PNG or JPEG: it goes through metadata in Python,
    copies data in several parts again for each part, and keeps it all. Raises Undrawable."""
    try:
        if kind in (PNG, JPEG):
            source = _Excerpt(source, pixel_ranges(source, kind))
        elif kind == WEBP:
            end = int.from_bytes(source.read(4, 4), "little") + 8
            for part in parts(source, kind, MOST_CHUNKS):
                if part.end >= end:
                    break
    except Crowded as crowded:
        raise Undrawable(str(crowded)) from crowded
    file = _SourceFile(source)
    image = _READERS[kind](cast("IO[bytes]", file))
    file.is_open = True
    return image


def _check_size(size: Size | None, most_pixels: int) -> None:
    if size and size.pixels > most_pixels:
        raise Oversized(f"it is {size} pixels, and images of up to {most_pixels:,} pixels can be converted")


def _load(file: ImageFile.ImageFile, source: Blob) -> Image.Image:
    depth = file.tile[0].args if file.tile else None
    _scale_key(file, depth)
    file.load()
    if isinstance(file, WebPImageFile):
        return file.copy()  # frees its decoder, which keeps two canvases
    if file.format == "AVIF":
        ImageOps.exif_transpose(file, in_place=True)  # the file's own rotation, which Pillow presents as EXIF
    if depth == "RGB;16B" and "transparency" in file.info:
        _key_sixteen_bits(file, source)
    return file


def _scale_key(image: ImageFile.ImageFile, depth: Any) -> None:
    """Scale the transparent colour of a PNG from the file's depth to the 8 bits of Pillow's pixels."""
    key: Any = image.info.get("transparency")
    if isinstance(key, int) and depth in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if depth == "L;2" else 17)


def _key_sixteen_bits(upper: Image.Image, source: Blob) -> None:
    """Make the transparent colour of a PNG with 16 bits of RGB transparent. Pillow reads the upper bytes only. The
    lower ones, which "16L" takes for the upper, distinguish the colour from its neighbours."""
    key = upper.info.pop("transparency")
    lower = _read_header(source, "image/png")
    lower.tile = [lower.tile[0]._replace(args="RGB;16L")]
    alpha = Image.new("L", upper.size)
    for band, value in enumerate(key):
        for image, wanted in ((upper, value >> 8), (lower, value & 0xFF)):
            differs = [255] * 256
            differs[wanted] = 0
            alpha = ImageChops.lighter(alpha, image.getchannel(band).point(differs))
    upper.putalpha(alpha)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8 bits of RGB, or of RGBA if anything may be transparent."""
    if image.mode.startswith("I"):
        image, alpha = _to_eight_bits(image)
        image = image.convert("RGB") if alpha is None else Image.merge("RGBA", (image, image, image, alpha))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _to_eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16 bits of grey, which Pillow's own conversion would clip. Returns the grey and its alpha channel."""
    key = image.info.get("transparency")
    deep = image if image.mode == "I" else image.convert("I")
    alpha = None
    if isinstance(key, int):
        opaque = [255] * 65_536
        opaque[key & 0xFFFF] = 0
        alpha = deep.point(opaque, "L")
    return deep.point(_SIXTEEN_TO_EIGHT, "L"), alpha


def _mask_to_grey(image: Image.Image, meaning: str) -> Image.Image:
    """Convert a mask to grey: 255 where the image is to be repainted."""
    if meaning == "alpha":
        if not image.has_transparency_data:
            raise WithoutAlpha("it has no alpha channel")
        if image.mode not in ("RGBA", "LA"):
            image = _to_rgb(image)
        return image.getchannel("A").point(_EIGHT_INVERTED)
    if image.mode.startswith("I"):
        image, _ = _to_eight_bits(image)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGB" if not image.has_transparency_data else "RGBA")
    image.info.pop("transparency", None)  # transparent pixels count by their brightness too
    grey = image if image.mode == "L" else image.convert("L")
    return grey if meaning == "white" else grey.point(_EIGHT_INVERTED)


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    method = _UNDOING.get(orientation)
    return image if method is None else image.transpose(method)


def _resize(image: Image.Image, size: Size | None, how: Image.Resampling) -> Image.Image:
    if size is None or image.size == (size.width, size.height):
        return image
    return image.resize((size.width, size.height), how)


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        white.paste(strip, (0, top), strip)
    return white


def _encode(
    image: Image.Image, target: Sink, format: FileFormat, quality: int | None = None, profile: bytes | None = None
) -> None:
    if format == "webp" and max(image.size) > _WEBP_EDGE:
        raise Oversized(f"it is {Size(*image.size)} pixels, and WebP has edges of up to {_WEBP_EDGE}")
    options: dict[str, Any] = {"icc_profile": profile}
    if format != "png":
        options["quality"] = quality = _QUALITY[format] if quality is None else quality
    if format == "webp":
        options["method"] = 4  # below, large images with much detail end in libwebp's error 6
    if format == "jpeg":
        options["subsampling"] = "4:4:4" if (quality or 0) >= _FINE else "4:2:0"
    image.info.clear()  # Pillow would write comments, resolution and transparent colours of its own accord
    file = _SinkFile(target)
    file.end()  # with nothing yet: raises before the longest step if the work was stopped
    try:
        image.save(cast("IO[bytes]", file), format, **options)
    except (ApiError, Undrawable, MemoryError):
        raise
    except Exception as error:
        raise Undrawable(f"it cannot be written as {format}") from error
    file.end()


class _PngChunks(PngStream):
    """Ignores a colour profile that unpacks to more than a mebibyte, or not at all."""

    def chunk_iCCP(self, pos: int, length: int) -> bytes:  # noqa: N802
        try:
            return super().chunk_iCCP(pos, length)
        except (ValueError, SyntaxError, IndexError):
            file = cast("IO[bytes]", self.fp)
            file.seek(pos)
            return ImageFile._safe_read(file, length)  # for the checksum


class _PngFile(PngImageFile):
    _chunks: _PngChunks | None = None

    @property
    def png(self) -> PngStream | None:
        return self._chunks

    @png.setter
    def png(self, stream: PngStream | None) -> None:
        """Replace Pillow's own stream of chunks, which it sets before it reads anything."""
        self._chunks = _PngChunks(stream.fp) if stream and stream.fp else None


# The plugins by name, since `Image.open` would take a JPEG that contains several for another format, and warn.
_READERS: dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    "image/png": _PngFile,
    "image/jpeg": JpegImageFile,
    "image/webp": WebPImageFile,
    "image/gif": GifImageFile,
    "image/bmp": BmpImageFile,
    "image/tiff": TiffImageFile,
    **({"image/avif": AvifImagePlugin.AvifImageFile} if AvifImagePlugin.SUPPORTED else {}),
}


class _Excerpt:
    """Some ranges of a blob, joined to one."""

    def __init__(self, blob: Blob, ranges: Sequence[tuple[int, int]]) -> None:
        self._blob = blob
        self._ranges = ranges
        self._ends = list(accumulate(end - start for start, end in ranges))
        self.size = self._ends[-1]

    def read(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0 and offset < self.size:
            number = bisect_right(self._ends, offset)
            left = self._ends[number] - offset
            piece = self._blob.read(self._ranges[number][1] - left, min(length, left))
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)


class _SourceFile(io.BufferedReader):
    """A blob for Pillow to read. It counts reads until the image `is_open`, because each turn of a loop over a header
    reads."""

    def __init__(self, blob: Blob) -> None:
        super().__init__(_BlobFile(blob), _BUFFER)
        self._blob = blob
        self._reads = self._read = 0
        self.is_open = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes. Raises Undrawable."""
        whole = self._blob.size
        if size is None or size < 0:
            if whole > MOST_WHOLE:
                raise Oversized(f"it is {whole:,} bytes, and at most {MOST_WHOLE:,} of its format are taken")
            return super().read(size)
        size = min(size, whole)  # Pillow makes room for all of `size` before it reads
        if not self.is_open:
            self._reads += 1
            self._read += size
            if self._reads > MOST_READS or self._read > MOST_READ:
                raise Undrawable("its header is longer than any encoder writes it")
        return super().read(size)


class _BlobFile(io.RawIOBase):
    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with memoryview(buffer) as view:
            data = self._blob.read(self._at, len(view))
            view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence]
        self._at = max(0, start + offset)
        return self._at


class _SinkFile:
    """A sink for Pillow's encoders. It writes seldom."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        self._pending += data
        if len(self._pending) >= _BUFFER:
            self.end()
        return len(data)

    def end(self) -> None:
        try:
            self._sink.write(self._pending)
        except OSError as error:
            raise Unavailable(f"The server has no room for the image ({error.strerror}).", retry_after=30) from error
        self._pending = bytearray()
