"""Pixels: imports Pillow (as `decoding` does for it), and so is itself imported only by the threads that work with it.

Memory: a decoded pixel takes 4 bytes. Besides the picture there is its successor while it is turned, resized or
converted, and what a decoder or encoder keeps (WebP's: two canvases and a copy of the file; progressive JPEG's: all
coefficients). `app.imaging.workers` states the bound, its test measures it.
"""

from __future__ import annotations

from typing import IO, Any, Protocol, cast

from PIL import Image

from app.errors import ApiError, Unavailable
from app.images import Blob, Size
from app.imaging.decoding import decoded, opened, unreadable
from app.imaging.operations import FileFormat, Look, Redraw, RedrawMask, Undrawable, WithoutAlpha

_UNTURNED = {  # EXIF 2.32, 4.6.4: what undoes each orientation
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


class Sink(Protocol):
    def write(self, data: bytes | bytearray, /) -> None: ...


def redraw(source: Blob, target: Sink, order: Redraw, most_pixels: int) -> Size:
    """Writes the picture as ordered, and gives its size. Raises Undrawable, Unavailable (no room for it)."""
    image, profile = decoded(source, most_pixels)
    image = _coloured(image)
    image = _turned(image, order.orientation)
    image = _resized(image, order.size, Image.Resampling.LANCZOS)
    if order.format == "jpeg" and image.mode == "RGBA":
        image = _on_white(image)
    _write(image, target, order.format, order.quality, profile)
    return Size(*image.size)


def redraw_mask(source: Blob, target: Sink, order: RedrawMask, most_pixels: int) -> Size:
    """Raises Undrawable, WithoutAlpha, Unavailable (no room for it)."""
    image, _ = decoded(source, most_pixels)
    grey = _repainted(image, order.said)
    del image
    for orientation in order.orientations:
        grey = _turned(grey, orientation)
    grey = _resized(grey, order.size, Image.Resampling.BILINEAR)
    mask = grey if order.meant == "white" else grey.point(_EIGHT_INVERTED)
    if order.meant == "alpha":  # a host that reads brightness after all finds the same region, in white
        mask = Image.merge("RGBA", (grey, grey, grey, mask))
    _write(mask, target, "png")
    return Size(*mask.size)


def look(source: Blob, most_pixels: int) -> Look:
    """Raises Undrawable."""
    try:
        image = opened(source, most_pixels)
        return Look(Size(*image.size), image.has_transparency_data)
    except Undrawable:
        raise
    except Exception as error:
        raise unreadable() from error


def _coloured(image: Image.Image) -> Image.Image:
    """8 bits of RGB, or of RGBA if anything may be transparent."""
    if image.mode.startswith("I"):
        image, alpha = _eight_bits(image)
        image = image.convert("RGB") if alpha is None else Image.merge("RGBA", (image, image, image, alpha))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Of 16 bits of grey, which Pillow's own conversion would clip instead of scale."""
    key = image.info.get("transparency")
    deep = image if image.mode == "I" else image.convert("I")
    alpha = None
    if isinstance(key, int):
        opaque = [255] * 65_536
        opaque[key & 0xFFFF] = 0
        alpha = deep.point(opaque, "L")
    return deep.point(_SIXTEEN_TO_EIGHT, "L"), alpha


def _repainted(image: Image.Image, said: str) -> Image.Image:
    """What a mask says, as grey: 255 where the picture is to be repainted."""
    if said == "alpha":
        if not image.has_transparency_data:
            raise WithoutAlpha("it has no alpha channel")
        if image.mode not in ("RGBA", "LA"):
            image = _coloured(image)
        return image.getchannel("A").point(_EIGHT_INVERTED)
    if image.mode.startswith("I"):
        image, _ = _eight_bits(image)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGB" if not image.has_transparency_data else "RGBA")
    image.info.pop("transparency", None)  # what is transparent has its brightness all the same
    grey = image if image.mode == "L" else image.convert("L")
    return grey if said == "white" else grey.point(_EIGHT_INVERTED)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    method = _UNTURNED.get(orientation)
    return image if method is None else image.transpose(method)


def _resized(image: Image.Image, size: Size | None, how: Image.Resampling) -> Image.Image:
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


def _write(
    image: Image.Image, target: Sink, format: FileFormat, quality: int | None = None, profile: bytes | None = None
) -> None:
    if format == "webp" and max(image.size) > _WEBP_EDGE:
        raise Undrawable(f"it is {Size(*image.size)} pixels, and WebP has edges of up to {_WEBP_EDGE}")
    options: dict[str, Any] = {"icc_profile": profile}
    if format != "png":
        options["quality"] = quality = _QUALITY[format] if quality is None else quality
    if format == "webp":
        options["method"] = 4  # below, large pictures with much detail end in libwebp's error 6
    if format == "jpeg":
        options["subsampling"] = "4:4:4" if (quality or 0) >= _FINE else "4:2:0"
    image.info.clear()  # what Pillow would write on its own: comments, resolution, transparent colours
    file = _SinkFile(target)
    try:
        image.save(cast("IO[bytes]", file), format, **options)
    except (ApiError, MemoryError):
        raise
    except Exception as error:
        raise Undrawable(f"it cannot be written as {format}") from error
    file.end()


class _SinkFile:
    """What Pillow's encoders need of a file, in few writes."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        self._pending += data
        if len(self._pending) >= _BUFFER:
            self.end()
        return len(data)

    def flush(self) -> None:
        pass

    def end(self) -> None:
        try:
            self._sink.write(self._pending)
        except OSError as error:
            raise Unavailable(
                f"The server has no room to keep a picture ({error.strerror}).", retry_after=30
            ) from error
        self._pending = bytearray()
