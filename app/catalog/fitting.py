"""Whether a deployment can do what a request asks, and the request as that deployment will get it. Driven by profiles
alone: the rules of requirements and hints live here once, for every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from app.catalog.deployments import Deployment
from app.catalog.parameters import PARAMETERS, Weight
from app.catalog.profiles import Profile
from app.errors import shortened
from app.images import ImageRequest, Operation, ResponseFormat, Size

_SETTLED = ("prompt", "n", "size", "width", "height")  # what the gateway itself decides to say
CONVERTIBLE = ("png", "jpeg", "webp")  # what the gateway can turn pictures into itself


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a deployment cannot do what is asked. `works` says what would work, as the end of a sentence."""

    param: str
    reason: str
    works: str = ""
    code: str = "unsupported_parameter"


@dataclass(frozen=True, slots=True)
class Fitted:
    """The request as a deployment will get it, and what was done to make it fit."""

    deployment: Deployment
    request: ImageRequest
    dropped: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()

    def part(self, first: int, count: int) -> Fitted:
        """The same for `count` of the images, from number `first`: seeds go on where the last part ended."""
        parameters = dict(self.request.parameters)
        if "seed" in parameters:
            parameters["seed"] += first
        return replace(self, request=replace(self.request, n=min(count, self.request.n), parameters=parameters))

    def linked(self) -> Fitted:
        """The same for links that nobody asked for by name: a provider whose own are handed out is to give one."""
        if self.deployment.provider.urls != "pass" or len(self.deployment.profile.results) == 1:
            return self
        return replace(self, request=replace(self.request, response_format="url"))


def fit(request: ImageRequest, deployment: Deployment) -> Fitted | Misfit:
    can = deployment.profile
    if misfit := next(misfits(request, can), None):
        return misfit
    size = _size(request, can)
    kept = {name: value for name, value in request.parameters.items() if _takes(name, request, can)}
    if not _format_goes_up(request, can):
        kept.pop("output_format", None)
        kept.pop("output_compression", None)
    streams = request.stream and can.streaming is not False
    fitted = replace(
        request,
        prompt=request.prompt if _takes_prompt(request, can) else None,
        size=size,
        parameters=kept,
        stream=streams,
        partial_images=request.partial_images if streams else 0,
        n=min(request.n, 1 if streams or not can.understands("n") else can.max_n),
        response_format=_result(can, deployment, request),
    )
    return Fitted(deployment, fitted, tuple(_dropped(request, can, streams=streams)), tuple(_mapped(request, size)))


def misfits(request: ImageRequest, can: Profile) -> Iterator[Misfit]:
    """All that stands in the way, the gravest first."""
    if request.operation not in can.operations:
        works = ", ".join(sorted(can.operations))
        yield Misfit("model", f"it does not do {request.operation}", f"it does {works}", code="unsupported_operation")
    yield from _unknown(request, can)
    yield from _pictures(request, can)
    yield from _sizes(request, can)
    for name, value in request.parameters.items():
        if not can.understands(name) and _required(name, value):
            reason = f"it does not know {name!r}" if name != "background" else "it has no transparency"
            yield Misfit(name, reason, "leave it out")
    wanted = request.parameters.get("output_format")
    if wanted is not None and not _format_goes_up(request, can) and wanted not in CONVERTIBLE:
        yield Misfit("output_format", f"it cannot give {wanted!r}", f"use {', '.join(CONVERTIBLE)}")


def _unknown(request: ImageRequest, can: Profile) -> Iterator[Misfit]:
    ours = {theirs: name for name, theirs in (can.parameters or {}).items()}
    for name, _ in request.extra:
        if can.extra == "refuse":
            yield Misfit(name, f"it knows no parameter {shortened(name)!r}", "leave it out", code="unknown_parameter")
        elif name in (can.image_field, can.mask_field) or ours.get(name) in {*_SETTLED, *request.parameters}:
            works = f"say {ours[name]!r}" if name in ours else "send the pictures as files"
            yield Misfit(
                name, f"{shortened(name)!r} is what it is told by the gateway", works, code="unknown_parameter"
            )


def _pictures(request: ImageRequest, can: Profile) -> Iterator[Misfit]:
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


def _sizes(request: ImageRequest, can: Profile) -> Iterator[Misfit]:
    if request.size is None:
        return
    if not takes_size(can):
        yield Misfit("size", "it lets nobody choose the size", "leave it out")
    elif not can.size.allows(request.size):
        works = f"{can.size.nearest(request.size)} is the nearest that does (sizes: {can.size})"
        yield Misfit("size", f"it cannot draw {request.size}", works, code="invalid_value")


def _required(name: str, value: Any) -> bool:
    return PARAMETERS[name] is Weight.REQUIREMENT or (name == "background" and value == "transparent")


def _takes(name: str, request: ImageRequest, can: Profile) -> bool:
    """Whether the upstream is told of a parameter. How closely a picture is kept to means nothing where there is none,
    and a host that is known would refuse it there."""
    pointless = name == "input_fidelity" and not request.images and can.parameters is not None
    return can.understands(name) and not pointless


def _takes_prompt(request: ImageRequest, can: Profile) -> bool:
    """OpenAI's variations have no prompt, so a host that is known takes one only if its profile says so."""
    return request.operation is not Operation.VARIATIONS or can.understands("prompt")


def takes_size(can: Profile) -> bool:
    """Whether anybody but the provider can choose it."""
    return can.understands("size") or (can.understands("width") and can.understands("height"))


def _size(request: ImageRequest, can: Profile) -> Size | None:
    """The size asked for, or the one that the profile says for those who ask for none. One that follows the input is
    left to who looks into the pictures: a header does not tell how they are seen."""
    if request.size is None and isinstance(can.default_size, Size) and takes_size(can):
        return can.default_size
    return request.size


def _mapped(request: ImageRequest, size: Size | None) -> Iterator[str]:
    first = request.images[0].size if request.images else None
    if request.size is None and size is not None and first is not None and size != first:
        yield f"size={size}"


def _dropped(request: ImageRequest, can: Profile, *, streams: bool) -> Iterator[str]:
    """Hints that are not honoured. "auto" leaves the choice to the provider, so nothing is lost with it."""
    for name, value in request.parameters.items():
        if not _takes(name, request, can) and PARAMETERS[name] is Weight.HINT and value != "auto":
            yield request.spelt.get(name, name)
    shape = request.parameters.keys() & {"output_format", "output_compression"}
    if shape == {"output_compression"} and not can.understands("output_compression"):
        yield "output_compression"  # for nobody here knows whether there will be anything to compress
    if request.prompt and not _takes_prompt(request, can):
        yield "prompt"
    if request.partial_images and not streams:
        yield "partial_images"


def _format_goes_up(request: ImageRequest, can: Profile) -> bool:
    """Whether the upstream is asked for the format. Otherwise the gateway sees to it."""
    wanted = request.parameters.get("output_format")
    if not can.understands("output_format"):
        return False
    return wanted is None or can.output_formats is None or wanted in can.output_formats


def _result(can: Profile, deployment: Deployment, request: ImageRequest) -> ResponseFormat | None:
    """What the upstream is asked for; None: the field is not sent, as to hosts that give one kind of result only.

    A host about which nothing is known gets what the caller said. Of the others base64 is asked, which passes in
    pieces; their own defaults differ or are not known, so it is said always.
    """
    if len(can.results) == 1:
        return None
    passes_links = request.response_format == "url" and deployment.provider.urls == "pass"
    return request.response_format if can.parameters is None else "url" if passes_links else "b64_json"
