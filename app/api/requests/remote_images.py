"""Download pictures that a caller names by an address instead of sending them. Knows neither form nor JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from app.api.requests.body import Limits, no_room
from app.api.requests.rules import invalid
from app.api.requests.upload import too_large
from app.errors import FetchError, Reason
from app.images import Upload
from app.imaging.formats import ENOUGH, dimensions, media_type
from app.storage.spool import Uploads


class Fetcher(Protocol):
    def fetch(self, url: str, *, max_bytes: int, rate: int) -> AsyncGenerator[bytes, None]:
        """Yield the image at `url` in pieces. Raises FetchError."""
        ...


async def upload(fetcher: Fetcher, limits: Limits, uploads: Uploads, url: str, param: str) -> Upload:
    """Download the picture at `url`. Raises InvalidRequest, TooLarge or Unavailable, naming `param`. Does not judge the
    picture's format."""
    spool = uploads.spool(limits.memory_bytes)
    try:
        async with aclosing(fetcher.fetch(url, max_bytes=limits.upload_bytes, rate=limits.rate)) as pieces:
            async for piece in pieces:
                try:
                    spool.write(piece)
                except OSError as error:
                    raise no_room("an image", str(error.strerror)) from error
    except FetchError as error:
        if error.reason is Reason.TOO_LARGE:
            raise too_large(param, str(error)) from error
        remedy = "Send it as a data URL, or name a public https: address that needs no key."
        raise invalid(param, f"The image {error}. {remedy}", "invalid_image_url") from error
    head = spool.read(0, ENOUGH)
    kind = media_type(head) or "application/octet-stream"
    return Upload(spool, f"image.{kind.partition('/')[2].partition('+')[0]}", kind, dimensions(head))
