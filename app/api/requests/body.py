"""A request's body as it arrives: counted, bounded, ended when the client disconnects. Knows nothing of its format."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Self

from starlette.types import Message, Receive, Scope

from app.api.connection import GARBLED, connection, header
from app.errors import ApiError, InvalidRequest, TooLarge, Unavailable, shortened
from app.patience import GRACE_SECONDS, Patience
from app.storage.spool import Uploads

LONGEST_SECONDS = 3600.0  # for a whole body; its request holds one of its key's places for as long
TEXT_BYTES = 1_048_576  # bytes of everything but pictures: the JSON around the data URLs, the text parts of a form


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one request. Up to `memory_bytes` of a picture stay in memory; a picture has at most `pixels`; a
    body must arrive at `rate` bytes a second."""

    upload_bytes: int
    request_bytes: int
    pixels: int = 100_000_000
    images: int = 16
    memory_bytes: int = 131_072
    rate: int = 1024


class ClientGone(Exception):
    """The client disconnected before its request was complete: there is no caller to answer."""


class Watched:
    """Remember, for an ASGI `receive`, whether the body is complete: `drain` then knows whether more is to come."""

    def __init__(self, receive: Receive, *, complete: bool = False) -> None:
        """`complete`: the request has no body at all."""
        self._receive = receive
        self.complete = complete
        self.received = 0  # bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.complete = True
        self.received += len(message.get("body", b""))
        return message


class Body:
    """Iterate over the pieces of a body. Raises TooLarge above `limits.request_bytes`, ClientGone when the client
    disconnects, and other ApiErrors when the body is too slow or breaks off, or when `uploads` have no room for it."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits, uploads: Uploads | None = None) -> None:
        self.content_type = (header(scope, b"content-type") or "").strip()
        self.media_type = self.content_type.partition(";")[0].strip().lower()
        self._limit = limits.request_bytes
        self._rate = limits.rate
        self._patience = Patience(LONGEST_SECONDS, limits.rate, time.monotonic)
        self._uploads = uploads or Uploads()
        self._text = 0  # bytes that stay in memory
        self._receive = receive
        self._scope = scope
        self._connection = connection(scope)
        self._count = 0
        self._complete = False
        self._refuse_encoding(header(scope, b"content-encoding") or "")
        self._refuse_announced(header(scope, b"content-length") or "")

    async def piece(self) -> bytes:
        """Return the next piece, never empty; b"" at the end."""
        while not self._complete:
            message = await self._heard()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self._complete = not message.get("more_body", False)
            if self._complete and GARBLED in self._scope:
                raise InvalidRequest("The body breaks HTTP's framing: it is not made of chunks.", code="invalid_http")
            data: bytes = message.get("body", b"")
            if data:
                self._count += len(data)
                if self._count > self._limit:
                    raise self._too_large()
                return data
        return b""

    async def text(self) -> bytes:
        """Return a whole body that holds no pictures."""
        pieces: list[bytes] = []
        while not self._complete:
            pieces.append(await self.piece())
            self.hold(len(pieces[-1]))
        return b"".join(pieces)

    def hold(self, count: int) -> None:
        """Count text that stays in memory as long as the uploads do. Raises TooLarge above `TEXT_BYTES`, Unavailable
        when all requests together hold too much."""
        self._text += count
        if self._text > TEXT_BYTES:
            raise text_too_large()
        if not self._uploads.hold(count):
            raise no_room("the text of the request", "the requests under way take all of the memory for it")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if data := await self.piece():
            return data
        raise StopAsyncIteration

    async def _heard(self) -> Message:
        if self._connection and self._connection.has_news:  # most bodies came together with the head
            return await self._receive()
        try:
            return await self._patience.wait(self._receive(), self._count)
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> ApiError:
        if self._patience.left > 0:
            reason = (
                f"fewer than {self._rate} bytes a second over {GRACE_SECONDS:g} seconds (the setting "
                "'server.min_upload_rate')"
            )
        else:
            reason = f"not all of it within {LONGEST_SECONDS:g} seconds"
        message = f"The request came too slowly: {reason}. Send it again, over a faster line or with smaller images."
        return ApiError(message, status=408, type="invalid_request_error", code="request_timeout")

    def _refuse_announced(self, length: str) -> None:
        # A longer number of digits is no length; int() would refuse it in its own words.
        if not (length.isascii() and length.isdigit()):
            return
        if len(length) > 18 or int(length) > self._limit:
            raise self._too_large()
        if int(length) > TEXT_BYTES and int(length) > self._uploads.left:  # text takes no room on disk
            raise no_room("the request", "the uploads under way take too much of 'server.max_uploads_mb'")

    def _refuse_encoding(self, encoding: str) -> None:
        if encoding and encoding.lower() != "identity":
            raise InvalidRequest(
                f"Unsupported content encoding: {shortened(encoding)!r}. Send the body as it is, without the "
                "header 'Content-Encoding'.",
                code="unsupported_content_encoding",
            )

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The request is larger than {megabytes(self._limit)}, the most that this server takes at once. "
            "Make the images smaller or send fewer, or have the setting 'server.max_request_mb' raised.",
            code="request_too_large",
        )


async def drain(receive: Receive | Watched, *, max_bytes: int, seconds: float) -> None:
    """Read and drop what the client still sends, so that a refusal reaches it before the connection is reset.

    Give it the `Watched` that the body was read through: a plain `receive` waits for its whole time when nothing is
    left.
    """
    left = max_bytes
    try:
        async with asyncio.timeout(seconds):
            while left > 0 and not (isinstance(receive, Watched) and receive.complete):
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return


def no_room(what: str, reason: str) -> Unavailable:
    return Unavailable(f"The server has no room to keep {what}: {reason}.", code="no_room", retry_after=30)


def text_too_large() -> TooLarge:
    return TooLarge(
        f"The text of the request, images not counted, is larger than {megabytes(TEXT_BYTES)}. "
        "Send images as files of a form, or as data URLs in 'images'.",
        code="request_too_large",
    )


def megabytes(count: int) -> str:
    """Write a number of bytes as it stands in the configuration, in MB or MiB."""
    return f"{count / (1_000_000 if count % 1_000_000 == 0 else 1_048_576):g} MB"
