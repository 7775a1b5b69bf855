"""Requests that the dialects share: one JSON object, with the pictures in it as base64 text. Knows no provider."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from app.catalog.profiles import Profile
from app.dialects import Base64, Ingredient
from app.images import ImageRequest


def json_object(fields: Mapping[str, Any], extra: Iterable[tuple[str, bytes]]) -> bytes:
    """Join `fields`, which are not empty, and members that are JSON already. The last of two with one name holds."""
    last = dict(extra)
    known = {name: value for name, value in fields.items() if name not in last} if last else fields
    text = json.dumps(known, ensure_ascii=False, separators=(",", ":")).encode()
    if not last:
        return text
    return b"".join((text[:-1], *(b",%b:%b" % (json.dumps(name).encode(), raw) for name, raw in last.items()), b"}"))


def object_with_pictures(
    fields: dict[str, Any], request: ImageRequest, can: Profile, image_names: Iterable[str]
) -> tuple[Ingredient, ...]:
    """Return a body of `fields` and of all that the request holds, its size as `width` and `height`, its n-th image
    under the n-th name."""
    if request.prompt is not None:
        fields[can.spelling("prompt", "prompt")] = request.prompt
    if request.size is not None:
        fields[can.spelling("width", "width")] = request.size.width
        fields[can.spelling("height", "height")] = request.size.height
    for name, value in request.parameters.items():
        fields[can.spelling(name, request.spelt.get(name, name))] = value
    pictures = list(zip(image_names, request.images, strict=False))
    if request.mask is not None:
        pictures.append((can.mask_field, request.mask))
    body: list[Ingredient] = [json_object(fields, request.extra)[:-1]]
    for name, upload in pictures:
        body += [f',{json.dumps(name)}:"'.encode(), Base64(upload.blob), b'"']
    return (*body, b"}")
