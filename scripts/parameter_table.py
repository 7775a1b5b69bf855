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
# What becomes of a parameter

<!-- Written by `python scripts/parameter_table.py > docs/parameters.md`; a test holds the two equal. -->

Nothing is dropped without a word. Asked for with a model of the presets, a parameter is

- **sent**: it goes to the provider, by another name where one is given;
- **gateway**: the gateway sees to it itself, whatever the provider knows;
- **dropped**: a hint that is not honoured, named in `x-gateway-dropped` (and in `gateway.dropped` of streams);
- **refused**: something that must not be lost: 400 with that `param`, unless another deployment of the model can;
- **required**: 400 without it.

`guidance_scale` is another name of `guidance`; `num_steps` and `num_inference_steps` are others of `steps`; `width` and
`height` together are `size`. A size is refused where the model does not draw it; what it draws is in the last row.
`output_compression` is dropped only where `output_format` is not said: with it, the gateway sees to both.
`partial_images` is asked for with `stream: true`; without, it is dropped everywhere. `mask_convention` is asked for
with its mask, so it is refused where that is.
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
    yield f"## {title}\n"
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
