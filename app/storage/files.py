"""Where finished images are kept to be handed out as URLs: what a store does for the rest, as protocols. Each module
here is a store, or about the links to what is in one; none knows requests or providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

# What images are handed out as. Anything else is a lump of bytes, so that no browser takes it for a page.
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
    """A finished image. It is there until `expires` (seconds since 1970), unless room had to be made before, which is
    not done while it is held."""

    id: str
    extension: str
    media_type: str
    size: int  # bytes
    expires: int

    @property
    def name(self) -> str:
        return f"{self.id}.{self.extension}"


class Writer(Protocol):
    """An image on its way into a store, which shows nothing of it before `commit`."""

    async def write(self, data: bytes) -> None:
        """Raises Unavailable when the disk takes no more."""
        ...

    async def commit(self, media_type: str) -> StoredFile:
        """The image is whole, and held until it is released. Raises Unavailable when it cannot be kept."""
        ...

    def abort(self) -> None:
        """Forgets it. May be called at any time, and again; does nothing after `commit`."""
        ...


class OpenFile(Protocol):
    """A stored file that can be read to its end whatever becomes of it in the store. To be closed."""

    @property
    def file(self) -> StoredFile: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def close(self) -> None: ...


class Store(Protocol):
    def check_room(self) -> None:
        """Before anything is drawn. Raises Unavailable while files that are held or unfinished take all the room."""
        ...

    async def begin(self) -> Writer:
        """Raises Unavailable when nothing can be written."""
        ...

    async def open(self, name: str) -> OpenFile | None:
        """The file of that name; None if there is none, or none any more."""
        ...

    def release(self, file: StoredFile) -> None:
        """From now on the file may make room for others. May be called again, and when the file is gone."""
        ...
