"""`/files/…`: stored images for every holder of a good link. Knows no keys, and not where the files lie."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from app.api.connection import header, watching
from app.api.requests.body import ClientGone
from app.api.responses.encoders import compact
from app.api.responses.sending import Headers
from app.api.runtime import Runtime
from app.errors import ApiError, NotFound
from app.storage.disk import DiskFile
from app.storage.files import StoredFile

PIECE = 196_608  # bytes
_LONGEST_RANGE = 128  # characters; a single range needs 45
_RANGE = re.compile(  # possessive, so linear
    r"[ \t]*+bytes[ \t]*+=[ \t]*+([0-9]{0,18}+)[ \t]*+-[ \t]*+([0-9]{0,18}+)[ \t]*+", re.IGNORECASE
)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class FileEndpoint:
    """GET and HEAD of `/files/{name}`."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        resources, name = self._runtime().resources, scope["path_params"]["name"]
        resources.signer.check(name, scope["query_string"].decode("latin-1"))
        file = await resources.store.open(name)
        if file is None:
            raise NotFound(
                "This image is no longer there: images that are handed out as URLs are kept for a while only. Ask for "
                "it again.",
                code="file_not_found",
            )
        try:
            sending = _Sending(send)
            with watching(receive, sending.leave):
                await _send(sending, scope, file, resources.clock())
        finally:
            file.close()


class _Sending:
    """A response under way. It stops when its reader leaves."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._gone = False

    def leave(self) -> None:
        self._gone = True

    async def start(self, status: int, media_type: str, headers: Headers) -> None:
        headers = [(b"content-type", media_type.encode()), *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes, *, more: bool = False) -> None:
        """Send a piece of the body. Raises ClientGone if the reader has left."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        await asyncio.sleep(0)  # without a pause a server would take everything, though the reader has left
        if more and self._gone:
            raise ClientGone


async def _send(sending: _Sending, scope: Scope, opened: DiskFile, now: float) -> None:
    file = opened.file
    etag = f'"{file.id}"'
    headers = _headers(file, etag, now)
    tags = [tag.strip().removeprefix("W/") for tag in (header(scope, b"if-none-match") or "").split(",")]
    if "*" in tags or etag in tags:
        await sending.start(304, file.media_type, headers)
        await sending.body(b"")
        return
    # HEAD has no ranges: RFC 9110, 14.2.
    in_part = scope["method"] == "GET" and header(scope, b"if-range") in (None, etag)
    span = parse_range(header(scope, b"range") or "", file.size) if in_part else None
    first, end = span or (0, file.size)
    if span:
        if first >= end:
            await _unsatisfiable(sending, scope, file.size)
            return
        headers.append((b"content-range", f"bytes {first}-{end - 1}/{file.size}".encode()))
    headers.append((b"content-length", str(end - first).encode()))
    await sending.start(206 if span else 200, file.media_type, headers)
    while scope["method"] != "HEAD" and first < end:
        # No thread for this read: the file was written lately, so its bytes are in the page cache as a rule.
        piece = opened.read(first, min(PIECE, end - first))
        if not piece:
            raise OSError(f"the stored file {file.name!r} is shorter than it was")
        first += len(piece)
        await sending.body(piece, more=True)
    await sending.body(b"")


def _headers(file: StoredFile, etag: str, now: float) -> Headers:
    """Return a file's headers. An SVG is a document: opened in a browser, it may style itself, and can neither run nor
    load anything."""
    return [
        (b"cache-control", f"private, max-age={max(0, int(file.expires - now))}, immutable".encode()),
        (b"etag", etag.encode()),
        (b"accept-ranges", b"bytes"),
        (b"content-disposition", f'inline; filename="{file.name}"'.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"access-control-allow-origin", b"*"),
    ]


def parse_range(value: str, size: int) -> tuple[int, int] | None:
    """Return the range of a `Range` header, from its first byte to behind its last; an empty one if the file has no
    such part. None for several ranges and for unknown forms: the whole file may be sent then (RFC 9110, section
    14.2)."""
    match = _RANGE.fullmatch(value) if len(value) <= _LONGEST_RANGE else None
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    return first, min(last + 1, size)


async def _unsatisfiable(sending: _Sending, scope: Scope, size: int) -> None:
    message = f"The image has {size} bytes, and the range that was asked for is not among them."
    error = ApiError(message, status=416, type="invalid_request_error", code="range_not_satisfiable")
    scope["state"]["log"].fail(error)
    text = compact(error.envelope()).encode()
    headers = [
        (b"content-range", f"bytes */{size}".encode()),
        (b"accept-ranges", b"bytes"),
        (b"access-control-allow-origin", b"*"),
        (b"content-length", str(len(text)).encode()),
    ]
    await sending.start(416, "application/json", headers)
    await sending.body(text)


def base_url(scope: Scope, public_url: str | None) -> str:
    """Return the beginning of links, without a slash at the end: the setting `files.public_url`, else the address that
    the caller used, as far as the server can see it. A caller that lies about it gets wrong links and harms no
    other."""
    if public_url:
        return public_url
    host = header(scope, b"host") or ""
    if not _HOST.fullmatch(host):
        name, port = scope.get("server") or ("localhost", None)
        host = (f"[{name}]" if ":" in name else name) + (f":{port}" if port else "")
    return f"{scope['scheme']}://{host}{scope.get('root_path', '').rstrip('/')}"
