"""Images that are stored and handed out as URLs: their types, names and ends. Knows no request and no provider."""

from __future__ import annotations

from dataclasses import dataclass

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
