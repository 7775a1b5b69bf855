"""Images as links: what passes as base64 text is kept in a store, and its address takes its place. Holds no image."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing

from app.codecs.base64 import Base64Carry
from app.errors import UpstreamFailed
from app.events import Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.imaging.formats import media_type
from app.storage.files import Store, StoredFile, Writer

_GLANCE = 4096  # bytes: what tells the media type


async def linked(
    events: AsyncGenerator[Event, None], store: Store, url_for: Callable[[StoredFile], str], held: ExitStack
) -> AsyncGenerator[Event, None]:
    """The same events with an ImageLink in the place of each image's data. Raises ApiError.

    Nothing comes out before the first image is kept, so that a failure until then can still be told with a status.
    Images that were kept before a failure stay: they may have been told, and have been paid for. Each is held in the
    store until `held` is closed.
    """
    waiting: list[Event] | None = []
    picture: _Picture | None = None
    async with aclosing(events):
        try:
            async for event in events:
                if type(event) is ImageData:
                    if picture is None:
                        picture = _Picture(await store.begin())
                    await picture.take(event.base64)
                    continue
                out = [event]
                if type(event) is ImageEnds and picture is not None:
                    file = await picture.keep()
                    held.callback(store.release, file)
                    out = [ImageLink(url_for(file)), event]
                    picture = None
                if waiting is not None and isinstance(event, Served | ImageBegins):
                    waiting += out
                    continue
                for one in (*(waiting or ()), *out):
                    yield one
                waiting = None
            for one in waiting or ():
                yield one
        finally:
            if picture is not None:
                picture.forget()


class _Picture:
    """One image on its way into the store."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._groups = Base64Carry()
        self._head = b""

    async def take(self, text: bytes) -> None:
        try:
            data = self._groups.decode(text)
        except ValueError:
            raise _broken("is not base64") from None
        if len(self._head) < _GLANCE:
            self._head += data[: _GLANCE - len(self._head)]
        await self._writer.write(data)

    async def keep(self) -> StoredFile:
        if self._groups.cut:
            raise _broken("is cut: its base64 ends in the middle of a group")
        return await self._writer.commit(media_type(self._head) or "application/octet-stream")

    def forget(self) -> None:
        self._writer.abort()


def _broken(how: str) -> UpstreamFailed:
    return UpstreamFailed(
        f"The image that the provider sent {how}. It may have been paid for, so it is not tried again.",
        code="upstream_broken_answer",
    ).paid()
