"""Nebula Block's own dialect: one path, JSON with base64 in and out, and a `status` that may report a failure under a
200. Field names are data (the profile's `parameters`, `image_field`, `mask_field`), since its documents disagree."""

from __future__ import annotations

from itertools import repeat

from app.catalog.deployments import Deployment
from app.catalog.profiles import Profile
from app.dialects import Decoder, ResponseHead, UpstreamRequest
from app.dialects.failures import from_status
from app.dialects.json_answers import ByFirstByte
from app.dialects.json_requests import object_with_pictures
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
    names = repeat(deployment.profile.image_field or "image")
    body = object_with_pictures({"model": deployment.model}, request, deployment.profile, names)
    return UpstreamRequest("/images/generation", "application/json", body)


def decoder(request: ImageRequest, head: ResponseHead) -> Decoder:
    return ByFirstByte(request.n)


error = from_status
