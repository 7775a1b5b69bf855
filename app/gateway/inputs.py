"""Convert the images of a request to what a deployment takes, where they are not that already. Knows profiles and
headers; leaves the pixels to the workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from app.catalog.fitting import Fitted, takes_size
from app.catalog.profiles import Profile
from app.errors import InvalidRequest
from app.gateway import masks
from app.images import ImageRequest, Size, Upload
from app.imaging.headers import ImageHeader, read_header
from app.imaging.operations import FORMATS, Oversized, Redraw, RedrawMask, Undrawable, WithoutAlpha
from app.imaging.workers import Workers
from app.storage.files import EXTENSIONS
from app.storage.spool import Uploads

_IN_MEMORY = 131_072  # bytes of one image; beyond, it lies on disk


@dataclass(slots=True, eq=False, repr=False)
class Preparation:
    """The images of one request, and their conversions: attempts and parts share them, so no work is done twice.

    `request` is the caller's own, with at least one image; `uploads` holds the converted images. `key` names the
    caller's key to the workers."""

    request: ImageRequest
    uploads: Uploads
    workers: Workers
    key: str = ""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # By identity: uploads live as long as the request.
    _headers: dict[int, ImageHeader] = field(default_factory=dict)
    _made: dict[tuple[int, Redraw | RedrawMask], Upload] = field(default_factory=dict)

    async def prepare(self, fitted: Fitted) -> Fitted:
        """Return `fitted` with converted images; the same object if none has to be. Raises InvalidRequest,
        Unavailable."""
        async with self._lock:  # parts of one request ask for the same at the same time
            return await self._prepare(fitted)

    async def foresee(self, fitted: Fitted) -> Fitted:
        """Return `fitted` with the size that will be drawn, and convert nothing. Raises InvalidRequest, Unavailable."""
        async with self._lock:
            request, can = fitted.request, fitted.deployment.profile
            first, size = await self._measure(fitted)
            if request.mask is not None:
                await self._look_at_mask(request.mask, first)
        mapped = () if size is None or size == first.upright else (f"size={size}",)
        drawn = replace(request, size=size if size and takes_size(can) else request.size)
        return replace(fitted, request=drawn, mapped=(*fitted.mapped, *mapped))

    async def _measure(self, fitted: Fitted) -> tuple[ImageHeader, Size | None]:
        """Return the first image's header, and the size that is derived from it, if one is."""
        request, can = fitted.request, fitted.deployment.profile
        first = self._look(request.images[0])
        derives = self.request.size is None and can.default_size == "input"
        if not first.size and (derives or request.mask):
            first = await self._look_closer(request.images[0], "image")
        return first, _derive_size(can, first) if derives else None

    async def _prepare(self, fitted: Fitted) -> Fitted:
        request, can = fitted.request, fitted.deployment.profile
        first, size = await self._measure(fitted)
        images = []
        for number, upload in enumerate(request.images):
            name = "image" if len(request.images) == 1 else f"image[{number}]"
            images.append(await self._image(upload, can, size if number == 0 else None, name))
        prepared = replace(
            request,
            images=tuple(images),
            mask=await self._mask(request.mask, first, can, size) if request.mask else None,
            markup=await self._markup(request.markup, first, can, size) if request.markup else None,
            size=size if size and takes_size(can) else request.size,
        )
        if _is_same(request, prepared):
            return fitted
        mapped = () if size is None or size == first.upright else (f"size={size}",)
        return replace(fitted, request=prepared, mapped=(*fitted.mapped, *mapped))

    async def _image(self, upload: Upload, can: Profile, size: Size | None, name: str) -> Upload:
        order = _image_order(self._look(upload), can, size)
        return upload if order is None else await self._make(upload, order, name)

    async def _markup(self, upload: Upload, first: ImageHeader, can: Profile, size: Size | None) -> Upload:
        """Resize the markup with the first image, if it lies on it."""
        lies_on_it = self._look(upload).upright == first.upright
        return await self._image(upload, can, size if lies_on_it else None, "markup")

    async def _mask(self, upload: Upload, first: ImageHeader, can: Profile, size: Size | None) -> Upload:
        mask = await self._look_at_mask(upload, first)
        order = masks.mask_order(mask, first, self.request.mask_convention, can, size)
        return upload if order is None else await self._make(upload, order, "mask")

    async def _look_at_mask(self, upload: Upload, first: ImageHeader) -> ImageHeader:
        """Return the mask's header. Raises InvalidRequest for one that does not belong to the first image."""
        mask = self._look(upload)
        if mask.size is None or mask.alpha is None:
            mask = await self._look_closer(upload, "mask")
        masks.check_mask(mask, first, self.request.mask_convention)
        return mask

    def _look(self, upload: Upload) -> ImageHeader:
        if id(upload) not in self._headers:
            self._headers[id(upload)] = read_header(upload.blob)
        return self._headers[id(upload)]

    async def _look_closer(self, upload: Upload, name: str) -> ImageHeader:
        """Let Pillow read an odd header."""
        try:
            seen = await self.workers.look(upload.blob, key=self.key)
        except Undrawable as error:
            raise _invalid_image(name, error) from error
        found = replace(self._look(upload), size=seen.size, alpha=seen.alpha)
        self._headers[id(upload)] = found
        return found

    async def _make(self, upload: Upload, order: Redraw | RedrawMask, name: str) -> Upload:
        key = id(upload), order
        if key not in self._made:
            spool = self.uploads.spool(_IN_MEMORY)
            try:
                size = await self.workers.redraw(upload.blob, spool, order, key=self.key)
            except WithoutAlpha as error:
                raise masks.no_alpha() from error
            except Undrawable as error:
                raise _invalid_image(name, error) from error
            format = order.format if isinstance(order, Redraw) else "png"
            self._made[key] = Upload(spool, _filename(upload, format), f"image/{format}", size)
        return self._made[key]


def _image_order(image: ImageHeader, can: Profile, size: Size | None) -> Redraw | None:
    """Return how to redraw an image; None: it can be sent as it is. An unknown host gets colours as they are."""
    allowed = [format for format in FORMATS if format in can.input_formats]
    same = next((format for format in FORMATS if format == image.format), FORMATS[0])
    format = same if same in allowed or not allowed else allowed[0]
    needed = (
        image.orientation != 1
        or image.album
        or format != image.format
        or (size is not None and size != image.upright)
        or (can.parameters is not None and not image.plain)
    )
    return Redraw(format, 95, image.orientation, size) if needed else None


def _derive_size(can: Profile, first: ImageHeader) -> Size | None:
    """Return the size to draw if the caller says none: the image's as it is seen, or the nearest allowed one."""
    upright = first.upright
    return upright if upright is None or can.size.allows(upright) else can.size.nearest(upright)


def _is_same(before: ImageRequest, after: ImageRequest) -> bool:
    pairs = zip((*before.images, before.mask, before.markup), (*after.images, after.mask, after.markup), strict=True)
    return before.size == after.size and all(one is other for one, other in pairs)


def _filename(upload: Upload, format: str) -> str:
    """Return a filename whose extension fits the format, because hosts go by it."""
    path, extension = PurePath(upload.filename), EXTENSIONS[f"image/{format}"]
    if path.suffix.lower() in (f".{format}", f".{extension}"):
        return upload.filename
    return f"{path.stem or 'image'}.{extension}"


def _invalid_image(name: str, error: Undrawable) -> InvalidRequest:
    remedy = "Make it smaller." if isinstance(error, Oversized) else "Send it as an ordinary PNG or JPEG."
    return InvalidRequest(
        f"Invalid image file for {name!r}: {error}. {remedy}",
        param=name,
        type="image_generation_user_error",
        code="invalid_image_file",
    )
