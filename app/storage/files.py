"""Finished images that are handed out as URLs: the protocols of a store. Knows neither requests nor providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

# The types under which images are handed out. Anything else is plain bytes, so that no browser takes it for a page.
EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/svg+xml": "svg",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/jxl": "jxl",
    "image/jp2": "jp2",
    "application/octet-stream": "bin",
}
MEDIA_TYPES = {extension: media_type for media_type, extension in EXTENSIONS.items()}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A finished image. It exists until `expires` (seconds since 1970), unless the store needs its room before. A file
    that is held never makes room."""

    id: str
    extension: str
    media_type: str
    size: int  # bytes
    expires: int

    @property
    def name(self) -> str:
        return f"{self.id}.{self.extension}"


class Writer(Protocol):
    """An image on its way into a store. The store shows nothing of it before `commit`."""

    async def write(self, data: bytes) -> None:
        """Raises Unavailable when the disk takes no more."""
        ...

    async def commit(self, media_type: str) -> StoredFile:
        """End the image, and hold it until it is released. Raises Unavailable when it cannot be stored."""
        ...

    def abort(self) -> None:
        """Forget it. May be called at any time, and again; does nothing after `commit`."""
        ...


class OpenFile(Protocol):
    """A stored file that is open: it stays readable when the store removes it. To be closed."""

    @property
    def file(self) -> StoredFile: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def close(self) -> None: ...


class Store(Protocol):
    def check_room(self) -> None:
        """Check before a drawing. Raises Unavailable while held or unfinished files take all the room."""
        ...

    async def begin(self) -> Writer:
        """Raises Unavailable when nothing can be written."""
        ...

    async def open(self, name: str) -> OpenFile | None:
        """Return the file of that name; None if there is none, or none any more."""
        ...

    def release(self, file: StoredFile) -> None:
        """Let the file make room for others. May be called again, and when the file is gone."""
        ...
