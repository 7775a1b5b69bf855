"""Download pictures that a caller names by an address instead of sending them. Knows neither form nor JSON."""

from __future__ import annotations

from contextlib import aclosing

from app.api.requests.body import no_room
from app.errors import InvalidRequest, TooLarge
from app.images import Upload
from app.imaging.formats import ENOUGH, dimensions, media_type
from app.storage.spool import Spool, Uploads
from app.upstream.downloads import Fetcher, FetchError, Reason


async def upload(
    fetcher: Fetcher, url: str, uploads: Uploads, *, param: str, max_bytes: int, memory_bytes: int, rate: int
) -> Upload:
    """Download the picture at `url`. Raises InvalidRequest, TooLarge or Unavailable, naming `param`. Does not judge the
    picture's format."""
    spool = uploads.spool(memory_bytes)
    try:
        async with aclosing(fetcher.fetch(url, max_bytes=max_bytes, rate=rate)) as pieces:
            async for piece in pieces:
                _keep(spool, piece)
    except FetchError as error:
        raise _api_error(error, param) from error
    head = spool.read(0, ENOUGH)
    kind = media_type(head) or "application/octet-stream"
    return Upload(spool, f"image.{kind.partition('/')[2].partition('+')[0]}", kind, dimensions(head))


def _keep(spool: Spool, piece: bytes) -> None:
    try:
        spool.write(piece)
    except OSError as error:
        raise no_room("an image", str(error.strerror)) from error


def _api_error(error: FetchError, param: str) -> InvalidRequest | TooLarge:
    if error.reason is Reason.TOO_LARGE:
        return TooLarge(
            f"The image {error}, the most that this server takes for one image. Send a smaller one, or have the "
            "setting 'server.max_upload_mb' raised.",
            param=param,
            code="file_too_large",
        )
    return InvalidRequest(
        f"The image {error}. Send it as a data URL, or name a public https: address that needs no key.",
        param=param,
        code="invalid_image_url",
    )
