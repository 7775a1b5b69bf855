"""Read the `Accept` header: a caller asks for OpenAI's JSON, or for the bytes of one image. Knows no image."""

from __future__ import annotations

from dataclasses import replace

from app.api.requests.rules import invalid
from app.api.requests.validation import refuse_contradictions
from app.errors import InvalidRequest, shortened
from app.images import ImageRequest

_MOST_TYPES = 64  # characters of the header; the rest is not read
_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/webp": "webp"}


def apply_accept(request: ImageRequest, accept: str | None) -> ImageRequest:
    """Return `request` with the answer's form set by its `Accept` header: the best type that can be given decides. A
    stream stays a stream. Raises InvalidRequest if the header and the body contradict each other."""
    if request.stream or accept is None or "image/" not in accept.lower():
        return request
    wanted = _wanted(accept)
    if wanted is None:
        return request
    if wanted not in _FORMATS and wanted != "image/*":
        raise InvalidRequest(
            f"'Accept: {shortened(wanted)}' cannot be given. Ask for image/png, image/jpeg or image/webp, or for JSON.",
            param="Accept",
            code="unsupported_accept",
        )
    if request.n > 1:
        raise invalid("n", "'Accept: image/…' gives one image; set 'n' to 1, or ask for JSON.")
    said, format = request.parameters.get("output_format"), _FORMATS.get(wanted)
    if said and format and said != format:
        raise invalid(
            "output_format",
            f"'output_format' is {said!r}, but the header says 'Accept: {wanted}'. Leave one of them out.",
        )
    parameters = {**request.parameters, "output_format": format} if format else request.parameters
    refuse_contradictions(parameters)
    return replace(request, raw=True, parameters=parameters)


def _wanted(accept: str) -> str | None:
    """Return the image type that the header prefers, or None for JSON. If no type can be given, return one of the
    others."""
    types = _types(accept)
    images = [kind for kind in types if kind.startswith("image/")]
    best = next((kind for kind in types if kind in (*_FORMATS, "image/*") or kind not in images), None)
    return (best if best in images else None) if best else next(iter(images), None)


def _types(accept: str) -> list[str]:
    """Return the media types, the best first; equal ones keep the header's order."""
    found: list[tuple[float, str]] = []
    for item in accept.split(",", _MOST_TYPES)[:_MOST_TYPES]:
        kind, *parameters = [part.strip().lower() for part in item.split(";")]
        if kind and (quality := _quality(parameters)):
            found.append((-quality, kind))
    return [kind for _, kind in sorted(found, key=lambda pair: pair[0])]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return max(0.0, min(1.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
