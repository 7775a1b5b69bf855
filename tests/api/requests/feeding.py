"""Requests for the doors without a server: a scope, a `receive` that hands out given pieces, captured SDK requests."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.types import Message, Receive, Scope

from app.api.requests.body import Limits
from app.api.requests.json_body import Fetch
from app.api.requests.reading import read_request
from app.images import Blob, ImageRequest, Operation, Upload
from app.storage.spool import Uploads

LIMITS = Limits(upload_bytes=1_000_000, request_bytes=4_000_000)
CAPTURES = sorted((Path(__file__).parent / "captures").glob("*.http"))
_BINARY = re.compile(rb"<(\d+) bytes binary [^>]*>")


def unknown(request: ImageRequest) -> tuple[tuple[str, Any], ...]:
    """The fields that no OpenAI documentation knows, parsed."""
    return tuple((name, json.loads(value)) for name, value in request.extra)


def scope(content_type: str | None, **headers: str) -> Scope:
    pairs = [(b"host", b"localhost"), *((name.encode(), value.encode()) for name, value in headers.items())]
    if content_type is not None:
        pairs.append((b"content-type", content_type.encode()))
    return {"type": "http", "headers": pairs}


def receiving(pieces: Iterable[bytes], *, gone: bool = False) -> Receive:
    """Hands out `pieces`, then the empty end; or, if `gone`, the news that the client left."""
    left = list(pieces)

    async def receive() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}
        return {"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def read(
    operation: Operation,
    content_type: str | None,
    body: bytes | Iterable[bytes],
    *,
    limits: Limits = LIMITS,
    uploads: Uploads | None = None,
    fetch: Fetch | None = None,
    default_model: str | None = None,
) -> ImageRequest:
    pieces = [body] if isinstance(body, bytes) else body
    return await read_request(
        operation,
        scope(content_type),
        receiving(pieces),
        limits,
        uploads or Uploads(),
        fetch,
        lambda: default_model,
    )


async def read_json(operation: Operation, fields: Any, **options: Any) -> ImageRequest:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return await read(operation, "application/json", body, **options)


def form(*parts: Any) -> bytes:
    """A multipart body with the boundary "cut": (name, text) or (name, filename, bytes)."""
    body = b""
    for name, *rest in parts:
        filename = f'; filename="{rest[0]!s}"' if len(rest) == 2 else ""
        value = rest[-1]
        data = value.encode() if isinstance(value, str) else value
        body += f'--cut\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + data + b"\r\n"
    return body + b"--cut--\r\n"


async def read_form(operation: Operation, *parts: Any, **options: Any) -> ImageRequest:
    return await read(operation, "multipart/form-data; boundary=cut", form(*parts), **options)


def content(upload: Upload | None) -> bytes:
    assert upload is not None
    return whole(upload.blob)


def whole(blob: Blob) -> bytes:
    return blob.read(0, blob.size)


def png(width: int = 8, height: int = 8, *, colour: int = 6, padding: bytes = b"") -> bytes:
    """As much of a PNG as the doors look at; `padding` makes it long."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", padding) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def captured(path: Path) -> tuple[Operation, str, bytes, list[bytes]]:
    """Operation, content type, body and files of a captured request, random bytes put in for the captured pictures."""
    raw = path.read_bytes()
    head, _, body = raw.partition(b"\r\n\r\n")
    operation = re.search(rb"/v1/images/([a-z]+)", head)
    content_type = re.search(rb"(?im)^content-type: ([^\r\n]+)", head)
    assert operation and content_type
    if b"multipart" in content_type[1]:
        body = body[: body.rindex(b"--\r\n") + 4]
    files: list[bytes] = []

    def fill(match: re.Match[bytes]) -> bytes:
        files.append(png(padding=random.Random(len(files)).randbytes(int(match[1]))))
        return files[-1]

    body = _BINARY.sub(fill, body)
    return Operation(operation[1].decode()), content_type[1].decode(), body.strip(b"\n"), files
