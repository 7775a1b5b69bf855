"""One upstream request as it arrived: headers, JSON or form, files with their facts.

Knows no provider: nothing is judged here, an unreadable body is only noted.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Receive, Scope

MAX_PART_BYTES = 64 * 1024 * 1024  # text parts; file parts are not limited by the form parser


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts in a picture's first bytes, without decoding it. Edges in pixels."""

    format: str
    width: int
    height: int
    mode: str
    has_alpha: bool


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a form (or of a base64 field), whole in memory."""

    name: str
    filename: str | None
    content_type: str | None
    data: bytes
    sha256: str
    facts: Facts | None


@dataclass(frozen=True, slots=True)
class Incoming:
    """A parsed request. `json` is set for JSON bodies, `fields` for forms; `problem` says why neither is."""

    path: str
    headers: dict[str, str]
    media_type: str
    json: dict[str, object] | None = None
    fields: tuple[tuple[str, str | FilePart], ...] | None = None
    problem: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The address of this sandbox, as the caller wrote it."""
        return f"http://{self.headers.get('host', '127.0.0.1')}"


def facts_of(data: bytes) -> Facts | None:
    """Return a picture's facts; None if Pillow does not recognise it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                alpha = "A" in image.getbands() or "transparency" in image.info
                return Facts((image.format or "").lower(), image.width, image.height, image.mode, alpha)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def file_part(name: str, filename: str | None, content_type: str | None, data: bytes) -> FilePart:
    return FilePart(name, filename, content_type, data, hashlib.sha256(data).hexdigest(), facts_of(data))


async def read_incoming(scope: Scope, receive: Receive) -> Incoming:
    """Read a request to its end. Raises starlette's ClientDisconnect when the client leaves before."""
    request = Request(scope, receive)
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path = request.url.path
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "GET":
        return Incoming(path, headers, media_type, query=dict(request.query_params))
    if media_type == "multipart/form-data":
        fields, problem = await _form(request)
        return Incoming(path, headers, media_type, fields=fields, problem=problem)
    body = await request.body()
    if media_type != "application/json":
        return Incoming(path, headers, media_type, problem=f"Unsupported content type: {media_type!r}.")
    fields_of_json, problem = await asyncio.to_thread(_json, body)
    return Incoming(path, headers, media_type, json=fields_of_json, problem=problem)


def _json(body: bytes) -> tuple[dict[str, object] | None, str | None]:
    try:
        value = json.loads(body)
    except ValueError:
        return None, "We could not parse the JSON body of your request."
    if not isinstance(value, dict):
        return None, "The JSON body must be an object."
    return value, None


async def _form(request: Request) -> tuple[tuple[tuple[str, str | FilePart], ...] | None, str | None]:
    fields: list[tuple[str, str | FilePart]] = []
    try:
        async with request.form(max_files=64, max_fields=256, max_part_size=MAX_PART_BYTES) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    data = await value.read()
                    part = await asyncio.to_thread(file_part, name, value.filename, value.content_type, data)
                    fields.append((name, part))
                else:
                    fields.append((name, value))
    except (HTTPException, MultiPartException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        return None, f"We could not parse the form of your request: {detail}"
    return tuple(fields), None
