"""The fingerprint of a request: two requests are the same if their fields and the bytes of their files are, however
they were put on the wire."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import Any

from app.images import Blob, ImageRequest

_PIECE = 1_048_576
_FILES = ("images", "mask", "markup")
_BESIDE = ("max_cost", "tags")  # they say nothing of the images
_FIELDS = [name for name in ImageRequest.__slots__ if name not in (*_FILES, *_BESIDE)]


def fingerprint(request: ImageRequest) -> bytes:
    """Return a digest. It reads the uploads, so call it in a thread if there are any. Raises ValueError, OSError when
    they are closed."""
    files = [_digest(upload.blob) if upload else None for upload in (*request.images, request.mask, request.markup)]
    plain = [getattr(request, name) for name in _FIELDS]
    return sha256(json.dumps([plain, files], sort_keys=True, default=_plain).encode()).digest()


async def find_fingerprint(request: ImageRequest) -> bytes | None:
    """Return the digest, computed in a thread if there are uploads; None if the uploads are closed already."""
    uploads = any((*request.images, request.mask, request.markup))
    try:
        return await asyncio.to_thread(fingerprint, request) if uploads else fingerprint(request)
    except (ValueError, OSError):
        return None


def _digest(blob: Blob) -> str:
    digest = sha256()
    for offset in range(0, blob.size, _PIECE):
        digest.update(blob.read(offset, _PIECE))
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return dict(value) if hasattr(value, "keys") else str(value)
