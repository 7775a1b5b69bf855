"""The pictures of a request made into what a deployment takes, and only where they are not that already. Knows profiles
and headers; leaves the pixels to the studio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath

from app.catalog.fitting import Fitted, takes_size
from app.catalog.profiles import Profile
from app.errors import InvalidRequest
from app.gateway import masks
from app.images import ImageRequest, Size, Upload
from app.imaging.headers import ImageHeader, read_header
from app.imaging.operations import EXTENSIONS, FORMATS, Redraw, RedrawMask, Undrawable, WithoutAlpha
from app.imaging.workers import Workers
from app.storage.spool import Uploads

_IN_MEMORY = 131_072  # bytes of one picture; beyond, it lies on disk


class Preparation:
    """One request's pictures, and what was made of them so far: no work is done twice for its attempts and parts."""

    def __init__(self, request: ImageRequest, uploads: Uploads, workers: Workers, key: str = "") -> None:
        """`request` as the caller sent it, with a picture at least; what is made is kept in `uploads`. `key` is the
        name of the caller's, and has its turn at the studio."""
        self._request = request
        self._uploads = uploads
        self._workers = workers
        self._key = key
        self._lock = asyncio.Lock()
        # By identity: uploads live as long as the request.
        self._traits: dict[int, ImageHeader] = {}
        self._made: dict[tuple[int, Redraw | RedrawMask], Upload] = {}

    async def prepare(self, fitted: Fitted) -> Fitted:
        """The same object where nothing has to be done. Raises InvalidRequest, Unavailable."""
        async with self._lock:  # parts of one request ask for the same at the same time
            return await self._prepared(fitted)

    async def _prepared(self, fitted: Fitted) -> Fitted:
        request, can = fitted.request, fitted.deployment.profile
        first = self._look(request.images[0])
        derives = self._request.size is None and can.default_size == "input"
        if not first.size and (derives or request.mask):
            first = await self._look_closer(request.images[0], "image")
        size = _derived(can, first) if derives else None
        images = [
            await self._picture(upload, can, size if number == 0 else None, name)
            for number, (upload, name) in enumerate(_named(request.images))
        ]
        prepared = replace(
            request,
            images=tuple(images),
            mask=await self._mask(request.mask, first, can, size) if request.mask else None,
            markup=await self._markup(request.markup, first, can, size) if request.markup else None,
            size=size if size and takes_size(can) else request.size,
        )
        if _same(request, prepared):
            return fitted
        mapped = () if size is None or size == first.upright else (f"size={size}",)
        return replace(fitted, request=prepared, mapped=(*fitted.mapped, *mapped))

    async def _picture(self, upload: Upload, can: Profile, size: Size | None, name: str) -> Upload:
        order = _redrawing(self._look(upload), can, size)
        return upload if order is None else await self._make(upload, order, name)

    async def _markup(self, upload: Upload, first: ImageHeader, can: Profile, size: Size | None) -> Upload:
        """It lies on the first picture, so it is resized with it."""
        lies_on_it = self._look(upload).upright == first.upright
        return await self._picture(upload, can, size if lies_on_it else None, "markup")

    async def _mask(self, upload: Upload, first: ImageHeader, can: Profile, size: Size | None) -> Upload:
        said, mask = self._request.mask_convention, self._look(upload)
        if mask.size is None or mask.alpha is None:
            mask = await self._look_closer(upload, "mask")
        masks.check(mask, first, said)
        order = masks.redrawing(mask, first, said, can, size)
        return upload if order is None else await self._make(upload, order, "mask")

    def _look(self, upload: Upload) -> ImageHeader:
        if id(upload) not in self._traits:
            self._traits[id(upload)] = read_header(upload.blob)
        return self._traits[id(upload)]

    async def _look_closer(self, upload: Upload, name: str) -> ImageHeader:
        """Where the header is odd: as Pillow sees it."""
        try:
            seen = await self._workers.look(upload.blob, key=self._key)
        except Undrawable as error:
            raise _invalid(name, error) from error
        found = replace(self._look(upload), size=seen.size, alpha=seen.alpha)
        self._traits[id(upload)] = found
        return found

    async def _make(self, upload: Upload, order: Redraw | RedrawMask, name: str) -> Upload:
        key = id(upload), order
        if key not in self._made:
            spool = self._uploads.spool(_IN_MEMORY)
            try:
                size = await self._workers.redraw(upload.blob, spool, order, key=self._key)
            except WithoutAlpha as error:
                raise masks.without_alpha() from error
            except Undrawable as error:
                raise _invalid(name, error) from error
            format = order.format if isinstance(order, Redraw) else "png"
            self._made[key] = Upload(spool, _filename(upload, format), f"image/{format}", size)
        return self._made[key]


def _redrawing(picture: ImageHeader, can: Profile, size: Size | None) -> Redraw | None:
    """What must be done to a picture; None: nothing. A host that nothing is known of gets colours as they are."""
    allowed = [format for format in FORMATS if format in can.input_formats]
    same = next((format for format in FORMATS if format == picture.format), FORMATS[0])
    format = same if same in allowed or not allowed else allowed[0]
    needed = (
        picture.orientation != 1
        or picture.album
        or format != picture.format
        or (size is not None and size != picture.upright)
        or (can.parameters is not None and not picture.plain)
    )
    return Redraw(format, 95, picture.orientation, size) if needed else None


def _derived(can: Profile, first: ImageHeader) -> Size | None:
    """The size that is drawn if the caller says none: the picture's as it is seen, or the nearest that there is."""
    upright = first.upright
    return upright if upright is None or can.size.allows(upright) else can.size.nearest(upright)


def _named(images: tuple[Upload, ...]) -> Iterator[tuple[Upload, str]]:
    """Each with the name that callers know it by."""
    for number, upload in enumerate(images):
        yield upload, "image" if len(images) == 1 else f"image[{number}]"


def _same(before: ImageRequest, after: ImageRequest) -> bool:
    pairs = zip((*before.images, before.mask, before.markup), (*after.images, after.mask, after.markup), strict=True)
    return before.size == after.size and all(one is other for one, other in pairs)


def _filename(upload: Upload, format: str) -> str:
    """Hosts go by the extension."""
    path = PurePath(upload.filename)
    if path.suffix.lower() in (f".{format}", f".{EXTENSIONS[format]}"):
        return upload.filename
    return f"{path.stem or 'image'}.{EXTENSIONS[format]}"


def _invalid(name: str, error: Undrawable) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid image file for {name!r}: {error}. Send it as an ordinary PNG or JPEG.",
        param=name,
        type="image_generation_user_error",
        code="invalid_image_file",
    )
