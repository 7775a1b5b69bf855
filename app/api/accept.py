"""What the `Accept` header asks for: OpenAI's JSON, or one image's bytes. Knows no image."""

from __future__ import annotations

from dataclasses import replace

from app.errors import InvalidRequest
from app.images import ImageRequest

_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/webp": "webp"}


def honoured(request: ImageRequest, accept: str | None) -> ImageRequest:
    """`request` as its `Accept` header makes it. The first of its best types decides; streams
    stay streams. Raises InvalidRequest if the header and the body contradict each other."""
    wanted = _first(accept)
    if request.stream or wanted is None or not wanted.startswith("image/"):
        return request
    if wanted not in _FORMATS and wanted != "image/*":
        raise InvalidRequest(
            f"'Accept: {wanted}' cannot be given. Ask for {', '.join(sorted(set(_FORMATS)))}, or for JSON.",
            param="Accept",
            code="unsupported_accept",
        )
    if request.n > 1:
        raise InvalidRequest("'Accept: image/…' gives one image; set 'n' to 1, or ask for JSON.", param="n")
    said, format = request.parameters.get("output_format"), _FORMATS.get(wanted)
    if said and format and said != format:
        raise InvalidRequest(
            f"'output_format' is {said!r}, but the header says 'Accept: {wanted}'. Leave one of them out.",
            param="output_format",
        )
    parameters = {**request.parameters, "output_format": format} if format else request.parameters
    return replace(request, raw=True, parameters=parameters)


def _first(accept: str | None) -> str | None:
    """The media type of the highest quality, the first of equals."""
    best: tuple[float, int, str] | None = None
    for place, item in enumerate((accept or "").split(",")):
        kind, *parameters = [part.strip().lower() for part in item.split(";")]
        if kind:
            candidate = (-_quality(parameters), place, kind)
            best = candidate if best is None or candidate < best else best
    return best[2] if best and best[0] < 0 else None


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return max(0.0, min(1.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
