"""Nebula Block as its guide describes it: one JSON endpoint, raw base64 in and out, parameters that differ by model.

Knows nothing of the other providers.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import pybase64

from app.sandbox.fields import Fields
from app.sandbox.incoming import FilePart, Incoming, file_part
from app.sandbox.order import Handed, Operation, Order, Refusal, check_edges, floor_to


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the guide's table describes it; `pictures` are the required base64 fields."""

    parameters: tuple[str, ...]
    pictures: tuple[str, ...] = ()
    multiple_of: int = 1
    output_format: str = "png"


SIZE = ("width", "height")
MODELS = {
    "stabilityai/stable-diffusion-xl-base-1.0": Model(
        ("negative_prompt", *SIZE, "num_steps", "guidance_scale"), multiple_of=8
    ),
    "black-forest-labs/FLUX.1-schnell": Model((*SIZE, "num_steps", "guidance_scale", "seed")),
    # Seedream's own API hands out JPEG, so that a label that says PNG is caught here.
    "Bytedance/seedream-3-0-t2i-250415": Model((*SIZE, "guidance_scale"), output_format="jpeg"),
    "black-forest-labs/FLUX.1-Fill-dev": Model(
        (*SIZE, "num_steps", "guidance_scale", "image", "mask"), pictures=("image", "mask")
    ),
    "black-forest-labs/FLUX.1-Kontext-dev": Model((*SIZE, "guidance_scale", "image"), pictures=("image",)),
}
RANDOM_SEED = -1


class NebulaBlock:
    name = "nebula"

    def read(self, operation: Operation, incoming: Incoming) -> Order:  # noqa: ARG002 - one endpoint for everything
        fields = Fields(incoming, form=False, nulls_absent=("negative_prompt",))
        name = fields.text("model")
        model = MODELS.get(name)
        if model is None:
            raise Refusal(f"Model {name!r} not found. Available: {', '.join(MODELS)}.", param="model")
        fields.only(("model", "prompt", *model.parameters))
        _check_hints(fields)
        pictures = {field: _picture(fields, field) for field in model.pictures}
        width, height = _size(fields, model)
        seed = fields.integer("seed", RANDOM_SEED, 2**32 - 1, RANDOM_SEED)
        return Order(
            "edits" if pictures else "generations",
            name,
            fields.text("prompt"),
            width,
            height,
            seed=None if seed == RANDOM_SEED else seed,
            images=(pictures["image"].data,) if "image" in pictures else (),
            mask=pictures["mask"].data if "mask" in pictures else None,
            output_format=model.output_format,
        )

    def answer(self, order: Order, pictures: Sequence[Handed]) -> dict[str, object]:
        data = [
            {"timings": {"inference": p.seconds}, "index": index}
            | ({"url": p.url} if p.url is not None else {"b64_json": p.b64})
            for index, p in enumerate(pictures)
        ]
        return {
            "model": order.model,
            "object": "list",
            "data": data,
            "message": "Image generated successfully",
            "status": "success",
        }

    def error(self, refusal: Refusal) -> dict[str, object]:
        code = "" if refusal.code is None else f" ({refusal.code})"
        return {"data": None, "message": f"{refusal.message}{code}", "status": "failed"}


def catalogue() -> dict[str, object]:
    """Return the answer of the model list."""
    models = [
        {"model_name": name, "model_alias": name.rpartition("/")[2], "model_type": "Image", "price": "0"}
        for name in MODELS
    ]
    return {"data": {"models": models}, "message": "Models retrieved successfully", "status": "success"}


def _check_hints(fields: Fields) -> None:
    fields.integer("num_steps", 1, 100, 25)
    fields.number("guidance_scale", 3.5)
    if fields.has("negative_prompt"):
        fields.text("negative_prompt")


def _size(fields: Fields, model: Model) -> tuple[int, int]:
    width, height = fields.integer("width", 1, 100_000, 1024), fields.integer("height", 1, 100_000, 1024)
    check_edges(width, height, param="width", multiple_of=model.multiple_of)
    if "mask" in model.pictures:  # Fill resizes what is not divisible by 16, says the guide
        return floor_to(width, 16), floor_to(height, 16)
    return width, height


def _picture(fields: Fields, name: str) -> FilePart:
    text = fields.text(name)
    if text.startswith("data:"):
        raise Refusal(f"Invalid base64 in {name!r}: send raw base64 without the 'data:' prefix.", param=name)
    try:
        data = pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(f"Invalid base64 in {name!r}.", param=name) from None
    part = file_part(name, None, None, data)
    if part.facts is None or part.facts.format not in ("png", "jpeg", "webp"):
        raise Refusal(f"The field {name!r} is not a picture: JPG, JPEG, PNG and WebP are supported.", param=name)
    return part
