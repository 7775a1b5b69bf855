"""OpenAI's Images API as `gpt-image-2` serves it: strict parameters, alpha masks, and server-sent events.

Knows nothing of the other providers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.sandbox.fields import Fields
from app.sandbox.incoming import FilePart, Incoming
from app.sandbox.order import Handed, Operation, Order, Refusal, check_edges, floor_to, openai_error, parse_size

MODEL = "gpt-image-2"
OPTIONS = (
    "model",
    "prompt",
    "n",
    "size",
    "quality",
    "background",
    "output_format",
    "output_compression",
    "moderation",
    "stream",
    "partial_images",
    "user",
    "safety_identifier",
)
NULLS_ABSENT = ("n", "output_compression", "partial_images", "quality", "size", "stream", "safety_identifier")
USER_ERROR = "image_generation_user_error"
MOST_IMAGES = 16
# The real model also refuses fewer than 655,360 pixels; the sandbox does not, so that tests may draw small.
LONGEST_EDGE, MOST_PIXELS = 3840, 8_294_400
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")


class OpenAI:
    name = "openai"

    def __init__(self, created: int) -> None:
        self._created = created

    def read(self, operation: Operation, incoming: Incoming) -> Order:
        edits = operation == "edits"
        fields = Fields(incoming, form=edits, nulls_absent=NULLS_ABSENT)
        model = fields.text("model")  # checked first, as the real one does
        if model != MODEL:
            raise Refusal(f"The model '{model}' does not exist.", kind=USER_ERROR, param="model", code="invalid_value")
        fields.only(OPTIONS, files=("image", "image[]", "mask") if edits else ())
        prompt = fields.text("prompt")
        images = _images(fields) if edits else []
        n = fields.integer("n", 1, 10, 1)
        width, height = _size(fields, images)
        return Order(
            operation,
            model,
            prompt,
            width,
            height,
            n=n,
            images=tuple(image.data for image in images),
            mask=_mask(fields, images[0]) if fields.has("mask") else None,
            **_streaming(fields, n),
            **_look(fields, f"{width}x{height}"),
        )

    def answer(self, order: Order, pictures: Sequence[Handed]) -> dict[str, object]:
        data = [{"url": p.url} if p.url is not None else {"b64_json": p.b64} for p in pictures]
        usage = _usage(order)
        usage["output_tokens_details"] = {"image_tokens": usage["output_tokens"], "text_tokens": 0}
        return {"created": self._created, "data": data, **_described(order), "usage": usage}

    def error(self, refusal: Refusal) -> dict[str, object]:
        return openai_error(refusal)

    def partial_event(self, order: Order, index: int, b64: str) -> dict[str, object]:
        return {
            "type": f"{_event_prefix(order)}.partial_image",
            "b64_json": b64,
            "partial_image_index": index,
            "created_at": self._created,
            **_described(order),
        }

    def completed_event(self, order: Order, b64: str | None) -> dict[str, object]:
        return {
            "type": f"{_event_prefix(order)}.completed",
            "b64_json": b64,
            "created_at": self._created,
            **_described(order),
            "usage": _usage(order),
        }


def catalogue(created: int) -> dict[str, object]:
    """Return the answer of `/models`."""
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": created, "owned_by": "system"}]}


def _event_prefix(order: Order) -> str:
    return "image_edit" if order.operation == "edits" else "image_generation"


def _described(order: Order) -> dict[str, object]:
    return {
        "size": order.echo["size"],
        "quality": order.echo["quality"],
        "background": order.echo["background"],
        "output_format": order.output_format,
    }


def _usage(order: Order) -> dict[str, Any]:
    text = max(1, len(order.prompt) // 4)
    image = 323 * len(order.images)
    output = order.n * (order.width * order.height // 600 + 1) + 100 * order.partial_images
    return {
        "input_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
        "output_tokens": output,
        "total_tokens": text + image + output,
    }


def _images(fields: Fields) -> list[FilePart]:
    name = "image[]" if fields.has("image[]") else "image"
    if name == "image[]" and fields.has("image"):
        raise Refusal("Duplicate parameter: 'image'.", param="image", code="duplicate_parameter")
    files = fields.files(name) if name == "image[]" else [fields.file(name)]
    if len(files) > MOST_IMAGES:
        raise Refusal(f"Too many images: at most {MOST_IMAGES}.", param="image", code="array_above_max_length")
    for part in files:
        if part.content_type not in IMAGE_TYPES:
            message = f"Invalid file 'image': unsupported mimetype ('{part.content_type}')."
            raise Refusal(message, param="image", code="unsupported_file_mimetype")
    return files


def _mask(fields: Fields, image: FilePart) -> bytes:
    mask = fields.file("mask")
    trouble = None
    if mask.facts is None or image.facts is None or mask.facts.format != "png" or not mask.facts.has_alpha:
        trouble = "mask image missing alpha channel"
    elif (mask.facts.width, mask.facts.height) != (image.facts.width, image.facts.height):
        trouble = "mask size does not match image size"
    if trouble is not None:
        message = f"Invalid mask image format - {trouble}"
        raise Refusal(message, kind=USER_ERROR, code="invalid_mask_image_format")
    return mask.data


def _size(fields: Fields, images: Sequence[FilePart]) -> tuple[int, int]:
    asked = fields.text("size", "auto")
    facts = images[0].facts if images else None
    if asked == "auto":
        return (1024, 1024) if facts is None else (floor_to(facts.width, 16), floor_to(facts.height, 16))
    try:
        width, height = parse_size(asked)
        check_edges(width, height, param="size", multiple_of=16)
    except Refusal as refusal:
        refusal.kind = USER_ERROR
        raise
    if max(width, height) > LONGEST_EDGE or width * height > MOST_PIXELS or not 1 / 3 <= width / height <= 3:
        message = f"Invalid size '{asked}'. The longest edge is 3840, the ratio 1:3 to 3:1."
        raise Refusal(message, kind=USER_ERROR, param="size", code="invalid_value")
    return width, height


def _streaming(fields: Fields, n: int) -> dict[str, Any]:
    stream = fields.boolean("stream", False)
    partials = fields.integer("partial_images", 0, 3, 0)
    if stream and n > 1:
        message = "Streaming is only supported with n=1."
        raise Refusal(message, kind=USER_ERROR, param="input", code="unsupported_parameter")
    return {"stream": stream, "partial_images": partials if stream else 0}


def _look(fields: Fields, size: str) -> dict[str, Any]:
    quality = fields.choice("quality", ("low", "medium", "high", "auto"), "auto")
    background = fields.choice("background", ("transparent", "opaque", "auto"), "auto")
    output_format = fields.choice("output_format", ("png", "webp", "jpeg"), "png")
    compression = fields.integer("output_compression", 0, 100, 100)
    fields.choice("moderation", ("auto", "low"), "auto")
    if background == "transparent" and output_format == "jpeg":
        message = "Transparent background is not supported for JPEG output format"
        raise Refusal(message, kind=USER_ERROR, param="background", code="invalid_value")
    if compression < 100 and output_format == "png":
        message = "Compression less than 100 is not supported for PNG output format"
        raise Refusal(message, kind=USER_ERROR, code="invalid_png_output_compression")
    return {
        "output_format": output_format,
        "quality_percent": max(1, min(compression, 95)),
        "transparent": background == "transparent",
        "echo": {
            "size": size,
            "quality": "medium" if quality == "auto" else quality,
            "background": "opaque" if background == "auto" else background,
        },
    }
