"""Images as links: store what passes as base64 text, and pass its URL on instead. Holds no image."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing, closing

from app.codecs.base64 import Base64Carry
from app.errors import UpstreamFailed
from app.events import Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.splitter import ImageSplitter
from app.imaging.formats import media_type
from app.storage.disk import DiskStore, DiskWriter
from app.storage.files import StoredFile

_HEAD = 4096  # bytes that tell the media type


async def link_images(
    events: AsyncGenerator[Event, None], store: DiskStore, url_for: Callable[[StoredFile], str], held: ExitStack
) -> AsyncGenerator[Event, None]:
    """Yield the same events with an ImageLink in the place of each image's data. Raises ApiError.

    Yields nothing before the first image is stored, so that a failure until then can still have a status. Images that
    were stored before a failure stay: the caller may know them, and they have been paid for. The store holds each until
    `held` is closed.
    """
    waiting: list[Event] | None = []
    async with aclosing(events):
        with closing(ImageSplitter(lambda: _StoredImage(store))) as images:
            async for event in events:
                image = images.push(event)
                if image is not None and type(event) is ImageData:
                    await image.write(event.base64)
                    continue
                out = [event]
                if image is not None and type(event) is ImageEnds and (file := await image.commit()):
                    held.callback(store.release, file)
                    out = [ImageLink(url_for(file)), event]
                if waiting is not None and isinstance(event, Served | ImageBegins):
                    waiting += out
                    continue
                for one in (*(waiting or ()), *out):
                    yield one
                waiting = None
            for one in waiting or ():
                yield one


class _StoredImage:
    """One image on its way into the store."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store
        self._writer: DiskWriter | None = None
        self._base64 = Base64Carry()
        self._head = b""

    async def write(self, text: bytes) -> None:
        if self._writer is None:
            self._writer = await self._store.begin()
        try:
            data = self._base64.decode(text)
        except ValueError:
            raise _image_fault("is not base64") from None
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        await self._writer.write(data)

    async def commit(self) -> StoredFile | None:
        """Store the image. Returns None if it had no data."""
        if self._base64.is_cut:
            raise _image_fault("is cut: its base64 ends in the middle of a group")
        return await self._writer.commit(media_type(self._head) or "application/octet-stream") if self._writer else None

    def close(self) -> None:
        """Discard an image that was not committed."""
        if self._writer is not None:
            self._writer.abort()


def _image_fault(how: str) -> UpstreamFailed:
    return UpstreamFailed(
        f"The image that the provider sent {how}. It may have been paid for, so it is not tried again.",
        code="upstream_broken_answer",
    ).paid()
