"""Files into pixels: what Pillow may open, under which bounds. With `pixels` all that imports Pillow here."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Any, cast

from PIL import AvifImagePlugin, Image, ImageChops, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngStream
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.images import Blob, Size
from app.imaging.formats import ENOUGH, dimensions, media_type
from app.imaging.operations import Undrawable

_BUFFER = 262_144  # bytes
MOST_SCANS = 200  # of a JPEG: encoders make about ten, cameras put a few smaller pictures beside the first


class _PngChunks(PngStream):
    """Notes are passed over unread, since Pillow calls a picture broken for one that unpacks to more than a mebibyte;
    a colour profile of that kind is as good as none."""

    def _pass_over(self, pos: int, length: int) -> bytes:
        file = cast("IO[bytes]", self.fp)
        file.seek(pos)
        return ImageFile._safe_read(file, length)  # for the checksum

    chunk_tEXt = chunk_zTXt = chunk_iTXt = _pass_over  # noqa: N815

    def chunk_iCCP(self, pos: int, length: int) -> bytes:  # noqa: N802
        try:
            return super().chunk_iCCP(pos, length)
        except (ValueError, SyntaxError, IndexError):
            return self._pass_over(pos, length)


class _PngFile(PngImageFile):
    _chunks: _PngChunks | None = None

    @property
    def png(self) -> PngStream | None:
        return self._chunks

    @png.setter
    def png(self, stream: PngStream | None) -> None:
        """Pillow puts its own here before it reads anything."""
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


def decoded(source: Blob, most_pixels: int) -> tuple[Image.Image, bytes | None]:
    """The first picture of the file, and its colour profile if there is one for RGB. Raises Undrawable."""
    try:
        file = opened(source, most_pixels)
        image = _loaded(file, source)
    except (Undrawable, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise what they like when a file is broken
        raise unreadable() from error
    profile = image.info.get("icc_profile")
    return image, profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


def opened(source: Blob, most_pixels: int) -> ImageFile.ImageFile:
    """Nothing is decoded yet; what a decoder would keep canvases for is measured before it is made. Raises Undrawable,
    and what Pillow likes."""
    head = source.read(0, ENOUGH)
    kind = media_type(head)
    if kind not in _READERS:
        *names, last = (name.partition("/")[2].upper() for name in _READERS)
        raise Undrawable(f"it is no {', '.join(names)} or {last}")
    _check(dimensions(head), most_pixels)
    image = _read(source, kind)
    if image.info.get("progressive") and _scans(source) > MOST_SCANS:
        raise Undrawable(f"it has more than {MOST_SCANS} scans")
    _check(Size(*image.size), most_pixels)
    if isinstance(image, TiffImageFile):  # its decoder makes a canvas for a whole tile, however small the picture is
        _check(Size(image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)), most_pixels)
    return image


def _scans(source: Blob) -> int:
    """Each goes over all the pixels of a progressive JPEG, however few bytes it takes. What follows the picture in its
    file is counted, too: where it ends only decoding would tell."""
    found, before = 0, b""
    for at in range(0, source.size, _BUFFER):
        piece = before + source.read(at, _BUFFER)
        found += piece.count(b"\xff\xda")
        before = piece[-1:]
    return found


def unreadable() -> Undrawable:
    return Undrawable("it is damaged or cut, and cannot be decoded")


def _read(source: Blob, kind: str) -> ImageFile.ImageFile:
    return _READERS[kind](cast("IO[bytes]", io.BufferedReader(_BlobFile(source), _BUFFER)))


def _check(size: Size | None, most_pixels: int) -> None:
    if size and size.pixels > most_pixels:
        raise Undrawable(f"it is {size} pixels, and pictures of up to {most_pixels:,} pixels can be converted")


def _loaded(file: ImageFile.ImageFile, source: Blob) -> Image.Image:
    depth = file.tile[0].args if file.tile else None
    _scale_key(file, depth)
    file.load()
    if isinstance(file, WebPImageFile):
        return file.copy()  # lets go of its decoder, which keeps two canvases
    if file.format == "AVIF":
        ImageOps.exif_transpose(file, in_place=True)  # its own turn, which Pillow tells as EXIF
    if depth == "RGB;16B" and "transparency" in file.info:
        _key_deep(file, source)
    return file


def _scale_key(image: ImageFile.ImageFile, depth: Any) -> None:
    """PNG states the transparent colour at the file's depth; Pillow compares it with pixels of 8 bits."""
    key: Any = image.info.get("transparency")
    if isinstance(key, int) and depth in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if depth == "L;2" else 17)


def _key_deep(upper: Image.Image, source: Blob) -> None:
    """Pillow reads the upper bytes of a PNG's 16 bits of RGB. A transparent colour is told from its neighbours by the
    lower ones too: what "16L" takes for the upper."""
    key = upper.info.pop("transparency")
    lower = _read(source, "image/png")
    lower.tile = [lower.tile[0]._replace(args="RGB;16L")]
    alpha = Image.new("L", upper.size)
    for band, value in enumerate(key):
        for image, wanted in ((upper, value >> 8), (lower, value & 0xFF)):
            differs = [255] * 256
            differs[wanted] = 0
            alpha = ImageChops.lighter(alpha, image.getchannel(band).point(differs))
    upper.putalpha(alpha)


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

    def tell(self) -> int:
        return self._at
