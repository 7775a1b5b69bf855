"""Images as links: store what passes as base64 text, and pass its URL on instead. Holds no image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from app.codecs.base64 import Base64Carry
from app.errors import UpstreamFailed
from app.events import Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served, Sink
from app.gateway.splitter import ImageSplitter
from app.imaging.formats import media_type
from app.storage.disk import DiskStore, DiskWriter
from app.storage.files import StoredFile

_HEAD = 4096  # bytes that identify the media type


@contextmanager
def linking(sink: Sink, store: DiskStore, url_for: Callable[[StoredFile], str], held: ExitStack) -> Iterator[Sink]:
    """Return a stage that pushes the same events into `sink`, with an ImageLink in the place of each image's data.
    Raises ApiError.

    Pushes nothing before the first image is stored, so that a failure until then can still have a status. Images that
    were stored before a failure stay: the caller may know them, and they have been paid for. The store holds each image
    until `held` is closed.
    """
    waiting: list[Event] | None = []
    with closing(ImageSplitter(lambda: _StoredImage(store))) as images:

        async def push(event: Event) -> None:
            nonlocal waiting
            image = images.push(event)
            if image is not None and type(event) is ImageData:
                await image.write(event.base64)
                return
            out = [event]
            if image is not None and type(event) is ImageEnds and (file := await image.commit()):
                held.callback(store.release, file)
                out = [ImageLink(url_for(file)), event]
            if waiting is not None and isinstance(event, Served | ImageBegins):
                waiting += out
                return
            out, waiting = [*(waiting or ()), *out], None
            for each in out:
                await sink(each)

        yield push


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
