"""Nebul as its document describes it: OpenAI's three paths with `guidance`, several files as `image`, old token names.

Knows nothing of the other providers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.sandbox.fields import Fields
from app.sandbox.incoming import FilePart, Incoming
from app.sandbox.order import Handed, Operation, Order, Refusal, floor_to, openai_error, parse_size

KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"
OPTIONS = (
    "model",
    "n",
    "size",
    "quality",
    "background",
    "output_format",
    "response_format",
    "guidance",
    "user",
)


class Nebul:
    name = "nebul"

    def __init__(self, created: int) -> None:
        self._created = created

    def read(self, operation: Operation, incoming: Incoming) -> Order:
        fields = Fields(incoming, form=operation != "generations")
        allowed = OPTIONS if operation == "variations" else (*OPTIONS, "prompt")
        fields.only(allowed, files={"generations": (), "edits": ("image", "mask"), "variations": ("image",)}[operation])
        model = fields.text("model") if operation == "edits" else fields.text("model", KONTEXT)
        if model != KONTEXT:
            raise Refusal(f"The model {model!r} does not exist.", status=404, param="model", code="model_not_found")
        prompt = "" if operation == "variations" else fields.text("prompt")
        images = _images(operation, fields)
        width, height = _size(fields, images)
        return Order(
            operation,
            model,
            prompt,
            width,
            height,
            n=fields.integer("n", 1, 10, 1),
            images=tuple(image.data for image in images),
            mask=_mask(fields, images[0]) if fields.has("mask") else None,
            as_url=fields.choice("response_format", ("b64_json", "url"), "b64_json") == "url",
            **_look(fields),
        )

    def answer(self, order: Order, pictures: Sequence[Handed]) -> dict[str, object]:
        return {
            "created": self._created,
            "data": [{"b64_json": p.b64, "url": p.url} for p in pictures],
            "background": order.echo["background"],
            "output_format": order.output_format,
            "size": order.echo["size"],
            "quality": order.echo["quality"],
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }

    def error(self, refusal: Refusal) -> dict[str, object]:
        return openai_error(refusal)


def catalogue() -> dict[str, object]:
    """Return the answer of `/model/info`."""
    info = {"mode": "image_generation", "model_type": "image", "huggingface_id": KONTEXT}
    return {"data": [{"model_name": KONTEXT, "model_info": info}]}


def _images(operation: Operation, fields: Fields) -> list[FilePart]:
    if operation == "generations":
        return []
    return fields.files("image") if operation == "edits" else [fields.file("image")]


def _size(fields: Fields, images: Sequence[FilePart]) -> tuple[int, int]:
    asked = fields.text("size", "auto")
    if asked != "auto":
        return parse_size(asked)
    facts = images[0].facts if images else None
    return (1024, 1024) if facts is None else (floor_to(facts.width, 16), floor_to(facts.height, 16))


def _mask(fields: Fields, image: FilePart) -> bytes:
    mask = fields.file("mask")
    if mask.facts is None or image.facts is None or not mask.facts.has_alpha:
        raise Refusal("Invalid mask: it has no alpha channel.", param="mask", code="invalid_mask_image_format")
    if (mask.facts.width, mask.facts.height) != (image.facts.width, image.facts.height):
        raise Refusal("Invalid mask: its size is not the image's.", param="mask", code="invalid_mask_image_format")
    return mask.data


def _look(fields: Fields) -> dict[str, Any]:
    quality = fields.choice("quality", ("auto", "low", "medium", "high", "standard", "hd"), "auto")
    background = fields.choice("background", ("auto", "opaque", "transparent"), "auto")
    output_format = fields.choice("output_format", ("png", "jpeg", "webp"), "png")
    fields.number("guidance", 2.5)
    fields.text("user", "nobody")
    if background == "transparent" and output_format == "jpeg":
        raise Refusal("A transparent background needs png or webp.", param="background", code="invalid_value")
    echo = {"quality": quality, "background": background, "size": fields.text("size", "auto")}
    return {"output_format": output_format, "transparent": background == "transparent", "echo": echo}
