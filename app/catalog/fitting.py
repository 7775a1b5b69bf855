"""Check whether a deployment can serve a request, and fit the request to the deployment. Driven by profiles alone: the
rules of requirements and hints live here once, for every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from app.catalog.deployments import Deployment
from app.catalog.parameters import PARAMETERS, Weight, meant_by
from app.catalog.profiles import Profile
from app.errors import shortened
from app.images import ImageRequest, Operation, ResponseFormat, Size

_SETTLED = ("prompt", "n", "size", "width", "height")  # the gateway itself sets them
CONVERTIBLE = ("png", "jpeg", "webp")  # the formats that the gateway can convert images to


@dataclass(frozen=True, slots=True)
class Misfit:
    """The reason why a deployment cannot serve a request. `works` says what would work, as the end of a sentence."""

    param: str
    reason: str
    works: str = ""
    code: str = "unsupported_parameter"


@dataclass(frozen=True, slots=True)
class Fitted:
    """The request as a deployment will get it, and the changes that made it fit."""

    deployment: Deployment
    request: ImageRequest
    dropped: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()

    def part(self, first: int, count: int) -> Fitted:
        """Return the same for `count` of the images, from number `first`. Seeds go on where the last part ended."""
        parameters = dict(self.request.parameters)
        if "seed" in parameters:
            parameters["seed"] += first
        return replace(self, request=replace(self.request, n=min(count, self.request.n), parameters=parameters))

    def with_link(self) -> Fitted:
        """Return the same for a default of links: asks the provider for one if the gateway passes its links on."""
        if self.deployment.provider.urls != "pass" or len(self.deployment.profile.results) == 1:
            return self
        return replace(self, request=replace(self.request, response_format="url"))


def fit(request: ImageRequest, deployment: Deployment) -> Fitted | Misfit:
    """Return the request for the deployment, or the gravest reason why it cannot serve the request."""
    can = deployment.profile
    if misfit := next(misfits(request, can), None):
        return misfit
    size = _size(request, can)
    parameters = {name: value for name, value in request.parameters.items() if _takes(name, request, can)}
    if not _format_goes_up(request, can):
        parameters.pop("output_format", None)
        parameters.pop("output_compression", None)
    streams = request.stream and can.streaming is not False
    fitted = ImageRequest(  # `dataclasses.replace` takes three times as long
        operation=request.operation,
        model=request.model,
        prompt=request.prompt if _takes_prompt(request, can) else None,
        images=request.images,
        mask=request.mask,
        markup=request.markup,
        n=min(request.n, 1 if streams or not can.understands("n") else can.max_n),
        size=size,
        response_format=_result(can, deployment, request),
        stream=streams,
        partial_images=request.partial_images if streams else 0,
        parameters=parameters,
        spelt=request.spelt,
        extra=request.extra,
        mask_convention=request.mask_convention,
        raw=request.raw,
    )
    first = request.images[0].size if request.images else None
    mapped = (f"size={size}",) if request.size is None and size and first and size != first else ()
    return Fitted(deployment, fitted, tuple(_lost_hints(request, can, streams=streams)), mapped)


def misfits(request: ImageRequest, can: Profile) -> Iterator[Misfit]:
    """Yield all reasons why the deployment cannot serve the request, the gravest first."""
    if request.operation not in can.operations:
        works = ", ".join(sorted(can.operations))
        yield Misfit("model", f"it does not do {request.operation}", f"it does {works}", code="unsupported_operation")
    if request.extra:
        yield from _unknown_parameters(request, can)
    yield from _image_misfits(request, can)
    if request.size is not None:
        yield from _size_misfits(request.size, can)
    for name, value in request.parameters.items():
        if not can.understands(name) and _is_required(name, value):
            reason = f"it does not know {name!r}" if name != "background" else "it has no transparency"
            yield Misfit(name, reason, "leave it out")
    wanted = request.parameters.get("output_format")
    if wanted is not None and not _format_goes_up(request, can) and wanted not in CONVERTIBLE:
        yield Misfit("output_format", f"it cannot give {wanted!r}", f"use {', '.join(CONVERTIBLE)}")


def _unknown_parameters(request: ImageRequest, can: Profile) -> Iterator[Misfit]:
    ours = {theirs: name for name, theirs in (can.parameters or {}).items()}
    for name, _ in request.extra:
        if can.extra == "refuse":
            works = f"did you mean {meant!r}?" if (meant := meant_by(name)) else "leave it out"
            yield Misfit(name, f"it knows no parameter {shortened(name)!r}", works, code="unknown_parameter")
        elif name in (can.image_field, can.mask_field) or ours.get(name) in {*_SETTLED, *request.parameters}:
            works = f"say {ours[name]!r}" if name in ours else "send the images as files"
            yield Misfit(name, f"the gateway sets {shortened(name)!r}", works, code="unknown_parameter")


def _image_misfits(request: ImageRequest, can: Profile) -> Iterator[Misfit]:
    most = 1 if request.operation is Operation.VARIATIONS else can.max_images
    if len(request.images) > most:
        reason = f"for {request.operation} it takes at most {most} image(s), not {len(request.images)}"
        yield Misfit("image", reason, "send fewer")
    if request.mask is not None and can.mask == "none":
        yield Misfit("mask", "it takes no mask", "leave the mask out")
    if request.mask is None and can.mask_required and request.operation is Operation.EDITS:
        yield Misfit("mask", "it needs a mask", "send one", code="missing_required_parameter")
    if request.markup is not None and not can.understands("markup"):
        yield Misfit("markup", "it takes no markup", "leave it out")


def _size_misfits(size: Size, can: Profile) -> Iterator[Misfit]:
    if not takes_size(can):
        yield Misfit("size", "its size cannot be chosen", "leave it out")
    elif not can.size.allows(size):
        works = f"{can.size.nearest(size)} is the nearest that does (sizes: {can.size})"
        yield Misfit("size", f"it cannot draw {size}", works, code="invalid_value")


def _is_required(name: str, value: Any) -> bool:
    return PARAMETERS[name] is Weight.REQUIREMENT or (name == "background" and value == "transparent")


def _takes(name: str, request: ImageRequest, can: Profile) -> bool:
    """True if the upstream gets a parameter. Without an image `input_fidelity` means nothing, and a known host would
    refuse it."""
    pointless = name == "input_fidelity" and not request.images and can.parameters is not None
    return can.understands(name) and not pointless


def _takes_prompt(request: ImageRequest, can: Profile) -> bool:
    """True if the upstream gets the prompt. OpenAI's variations have none, so a known host gets one only if its profile
    says so."""
    return request.operation is not Operation.VARIATIONS or can.understands("prompt")


def takes_size(can: Profile) -> bool:
    """True if the request can choose the size."""
    return can.understands("size") or (can.understands("width") and can.understands("height"))


def _size(request: ImageRequest, can: Profile) -> Size | None:
    """Return the size of the request, or else the profile's default. `gateway.inputs` resolves a default of "input",
    because it knows the orientation of the images."""
    if request.size is None and isinstance(can.default_size, Size) and takes_size(can):
        return can.default_size
    return request.size


def _lost_hints(request: ImageRequest, can: Profile, *, streams: bool) -> Iterator[str]:
    """Yield the hints that are not honoured. "auto" leaves the choice to the provider, so nothing is lost with it."""
    for name, value in request.parameters.items():
        if not _takes(name, request, can) and PARAMETERS[name] is Weight.HINT and value != "auto":
            yield request.spelt.get(name, name)
    shape = request.parameters.keys() & {"output_format", "output_compression"}
    if shape == {"output_compression"} and not can.understands("output_compression"):
        yield "output_compression"  # the format, and so what it means, is unknown
    if request.prompt and not _takes_prompt(request, can):
        yield "prompt"
    if request.partial_images and not streams:
        yield "partial_images"


def _format_goes_up(request: ImageRequest, can: Profile) -> bool:
    """True if the upstream gets the format. Otherwise the gateway converts."""
    wanted = request.parameters.get("output_format")
    if not can.understands("output_format"):
        return False
    return wanted is None or can.output_formats is None or wanted in can.output_formats


def _result(can: Profile, deployment: Deployment, request: ImageRequest) -> ResponseFormat | None:
    """Return the upstream's `response_format`; None: the field is not sent, as to hosts with one kind of result only.

    An unknown host gets the caller's. The others are asked for base64, which passes in pieces; always, because their
    defaults differ or are unknown.
    """
    if len(can.results) == 1:
        return None
    passes_links = request.response_format == "url" and deployment.provider.urls == "pass"
    return request.response_format if can.parameters is None else "url" if passes_links else "b64_json"
