"""Nebula Block's own dialect: one path, JSON with base64 in and out, and a `status` that may tell of a failure under
a 200. Field names are data (the profile's `parameters`, `image_field`, `mask_field`), since its documents disagree."""

from __future__ import annotations

import json
from typing import Any

from app.catalog.deployments import Deployment
from app.catalog.profiles import Profile
from app.dialects import Base64, Decoder, Ingredient, ResponseHead, UpstreamRequest, json_object
from app.dialects.failures import from_status
from app.dialects.json_answers import ByFirstByte
from app.errors import UpstreamError
from app.images import ImageRequest

profile = Profile(
    parameters={
        "width": "width",
        "height": "height",
        "negative_prompt": "negative_prompt",
        "steps": "num_steps",
        "guidance": "guidance_scale",
        "seed": "seed",
    },
    max_n=1,
    max_images=1,
    image_field="image",
    mask="white",
    results=("b64_json",),
    streaming=False,
    extra="refuse",
)


def encode(request: ImageRequest, deployment: Deployment, nonce: str) -> UpstreamRequest:
    can = deployment.profile
    fields: dict[str, Any] = {"model": deployment.model}
    if request.prompt is not None:
        fields[can.spelling("prompt", "prompt")] = request.prompt
    if request.size is not None:
        fields[can.spelling("width", "width")] = request.size.width
        fields[can.spelling("height", "height")] = request.size.height
    for name, value in request.parameters.items():
        fields[can.spelling(name, request.spelt.get(name, name))] = value
    body: list[Ingredient] = [json_object(fields, request.extra)[:-1]]
    pictures = [(can.image_field or "image", upload) for upload in request.images]
    if request.mask is not None:
        pictures.append((can.mask_field, request.mask))
    for name, upload in pictures:
        body += [f',{json.dumps(name)}:"'.encode(), Base64(upload.blob), b'"']
    return UpstreamRequest("/images/generation", "application/json", (*body, b"}"))


def decoder(request: ImageRequest, head: ResponseHead) -> Decoder:
    return ByFirstByte(request.n)


def error(head: ResponseHead, body: bytes) -> UpstreamError:
    return from_status(head, body)
