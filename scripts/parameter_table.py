"""What becomes of every parameter at every model of the presets: docs/parameters.md, on the standard output.

Nothing here is written by hand: each cell is what the gateway's own code makes of a request with that parameter alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from app import dialects
from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted, fit
from app.catalog.parameters import PARAMETERS
from app.config import inventory
from app.config.loading import PRESETS, load
from app.images import ImageRequest, Operation, Size, Upload

INTRODUCTION = """\
# Parameters

<!-- Written by `python scripts/parameter_table.py > docs/parameters.md`; a test holds the two equal. -->

This page says what becomes of each field of a request. Nothing is dropped without a word.

## The fields that OpenAI does not have

`seed`, `negative_prompt`, `guidance` (or `guidance_scale`), `steps` (or `num_steps`, `num_inference_steps`), `width`
with `height` (instead of `size`), `max_cost`, and on edits `mask_convention`. They come in the JSON, or as text fields
of the form.

`null` counts as not said, and `auto` asks for nothing.

## Requirements, hints and unknown fields

- A **requirement** is met or refused: the operation, the number of input images, a mask, a `size`, a `seed`, a
  `negative_prompt`, `background: transparent`. The gateway passes over deployments that cannot meet it. If none is
  left, the answer is 400, with the field in `param`, what would work, and the models that could.
- A **hint** is honoured where it can be: `style`, `quality`, `user`, `moderation`, `input_fidelity`, `guidance`,
  `steps` and the like. The header `x-gateway-dropped` names each hint that was not.
- An **unknown field** goes through to hosts whose profile says `extra: pass`, as the profile of a host without a preset
  does. Otherwise it is refused: 400 `unknown_parameter`, with the parameter that was probably meant (`sede` → `seed`,
  `aspect_ratio` → `size`).
- The header `x-gateway-mapped` names what the gateway chose by itself, as `size=1024x768`.

## size

A size that you ask for is drawn or refused, and the refusal names the nearest size that would do.

An edit without a size, at a model that needs one (`default_size: input`), is drawn in the size of its input. If the
model cannot draw that size, the gateway resizes image and mask together to the nearest one that it can, and
`x-gateway-mapped` says so.

## n

From 1 to 10 for every model. Where a provider draws fewer at a time, the gateway sends several requests, as many at
once as `max_concurrency` allows, with the seeds `seed`, `seed + 1`, … You get all images or an error. After an error
the other images are not lost: see [runs](runs.md).

## max_cost

The most that all images may cost, in the currency of the ledger. A deployment that could cost more, or has no price, is
passed over; if none is left, nothing is drawn ([money.md](money.md#what-an-image-costs)).

## mask

Send OpenAI's mask: a PNG of the size of the (first) image, transparent where it is to be repainted. If your masks are
black and white, say which colour is repainted: `mask_convention: white` (or `black`; the default is `alpha`). The
gateway converts the mask to what the model wants. It refuses a mask of another size, and one without transparency and
without `mask_convention`. A model that takes no mask is never given one, and one that needs a mask is not asked without
it.

## image

PNG, JPEG and WebP, up to 16 of them (one for a variation). The bytes decide which format it is, not the name. The
gateway converts what a model cannot take as it is: a photograph that is turned by its EXIF data, a telephone's MPO, 16
bits, palettes, CMYK. A file that the model can take passes byte for byte.

Addresses (`https:` in `image_url`) are fetched only with `server.remote_images`, and only from public hosts.

## At each model of the presets

- **sent**: it goes to the provider, by another name where one is given;
- **gateway**: the gateway does it itself, for every provider;
- **dropped**: a hint that is not honoured, named in `x-gateway-dropped` (and in `gateway.dropped` of streams);
- **refused**: 400 with that `param`, unless another deployment of the model can do it;
- **required**: 400 without it.

A size is refused where the model does not draw it; the last row has the sizes that it draws. `output_compression` is
dropped only without `output_format`: with it, the gateway does both. `partial_images` belongs to `stream: true`;
without that it is dropped everywhere. `mask_convention` belongs to a mask, so it is refused where a mask is.
"""


class Nothing:
    """A picture of which only the size matters."""

    size = 0

    def read(self, offset: int, length: int) -> bytes:  # noqa: ARG002
        return b""


PICTURE = Upload(Nothing(), "image.png", "image/png", Size(1024, 1024))
DRAWS = frozenset({Operation.GENERATIONS, Operation.EDITS})
EDITS = frozenset({Operation.EDITS})


@dataclass(frozen=True)
class Row:
    """A field of ImageRequest and the value that is asked for; of `parameters`, the one parameter in it."""

    label: str
    field: str
    value: Any
    operations: frozenset[Operation] = frozenset(Operation)


def _parameters() -> Iterator[Row]:
    several = {"background": ("transparent", "opaque"), "output_format": ("jpeg", "gif"), "seed": (7,)}
    for name in PARAMETERS:
        values = several.get(name, ("x",))
        for value in values:
            label = f"`{name}={value}`" if len(values) > 1 else f"`{name}`"
            yield Row(label, "parameters", {name: value})


ROWS = (
    Row("`prompt`", "prompt", "a cat"),
    Row("`image`, several", "images", (PICTURE, PICTURE), frozenset({Operation.EDITS, Operation.VARIATIONS})),
    Row("`mask`", "mask", PICTURE, EDITS),
    Row("`mask_convention`", "mask_convention", "white", EDITS),
    Row("`markup`", "markup", PICTURE, EDITS),
    Row("`n` above 1", "n", 2),
    Row("`size`", "size", Size(1024, 1024)),
    Row("`response_format`", "response_format", "url"),
    Row("`stream`", "stream", True),
    Row("`partial_images`", "partial_images", 1, DRAWS),
    *_parameters(),
    Row("`max_cost`", "max_cost", 1),
    Row("any other field", "extra", (("field", 1),)),
)


def render() -> str:
    return "\n".join([INTRODUCTION, *_tables()])


def _tables() -> Iterator[str]:
    for preset in PRESETS:
        settings = load(None, {f"{preset.upper()}_API_KEY": "x"})
        models = inventory.models(settings, lambda name: dialects.load(name).profile)
        yield from _table(preset, [model.deployments[0] for model in models])
    anybody = Deployment(Provider("", "openai", ""), "any model", dialects.load("openai").profile)
    yield from _table("Any other OpenAI-shaped host", [anybody])


def _table(title: str, deployments: list[Deployment]) -> Iterator[str]:
    columns = [
        (each, operation) for operation in Operation for each in deployments if operation in each.profile.operations
    ]
    yield f"### {title}\n"
    yield _line("", *(f"{deployment.model}<br>{operation}" for deployment, operation in columns))
    yield _line(*["---"] * (len(columns) + 1))
    for row in ROWS:
        yield _line(row.label, *(outcome(row, *column) for column in columns))
    yield _line("sizes", *(_sizes(deployment) for deployment, _ in columns))
    yield ""


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _sizes(deployment: Deployment) -> str:
    """What is drawn, and what if nobody says."""
    profile = deployment.profile
    if not (profile.understands("size") or profile.understands("width")):
        return "the model's own"
    return (
        f"{profile.size}{'' if profile.default_size is None else f'; as the {profile.default_size} unless asked for'}"
    )


def outcome(row: Row, deployment: Deployment, operation: Operation) -> str:
    """One cell."""
    if operation not in row.operations:
        return ""
    needs_mask = deployment.profile.mask_required and operation is Operation.EDITS
    request = ImageRequest(
        operation,
        "model",
        images=() if operation is Operation.GENERATIONS else (PICTURE,),
        mask=PICTURE if needs_mask or row.field == "mask_convention" else None,
        stream=row.field == "partial_images",
    )
    found = fit(replace(request, **{row.field: row.value}), deployment)
    if not isinstance(found, Fitted):
        return "refused"
    became = _parameter(next(iter(row.value)), found) if row.field == "parameters" else _field(row, found)
    return f"required, {became}" if row.field == "mask" and needs_mask else became


def _parameter(name: str, found: Fitted) -> str:
    if name in found.request.parameters:
        return _sent(name, found.deployment.profile.spelling(name, name))
    return "dropped" if name in found.dropped else "gateway"


def _field(row: Row, found: Fitted) -> str:
    profile = found.deployment.profile
    if row.field in found.dropped:
        return "dropped"
    if row.field == "mask_convention" or getattr(found.request, row.field) != row.value:
        return "gateway"
    if row.field == "mask" and profile.mask != "alpha":
        return f"sent, {profile.mask} where to repaint"
    if row.field == "size" and profile.parameters and "width" in profile.parameters:
        return _sent("size", "` and `".join(profile.spelling(edge, edge) for edge in ("width", "height")))
    return _sent(row.field, profile.spelling(row.field, row.field))


def _sent(name: str, spelling: str) -> str:
    return "sent" if name == spelling else f"sent as `{spelling}`"


if __name__ == "__main__":
    sys.stdout.write(render())
