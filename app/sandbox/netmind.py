"""NetMind as its document describes it: OpenAI's paths with few parameters, addresses by default, white masks.

Knows nothing of the other providers.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.sandbox.fields import Fields
from app.sandbox.incoming import FilePart, Incoming
from app.sandbox.order import Handed, Operation, Order, Refusal, check_edges, floor_to, openai_error, parse_size

# model: (default edge, edges must be a multiple of). The multiples are the models' own: Stable Diffusion's pipelines
# refuse anything else. The document states neither.
GENERATION_MODELS = {
    "runwayml/stable-diffusion-v1-5": (512, 8),
    "black-forest-labs/FLUX.1-schnell": (1024, 1),
    "stabilityai/stable-diffusion-3.5-large": (1024, 16),
}
FILL = "black-forest-labs/FLUX.1-Fill-dev"
EDIT_MODELS = ("black-forest-labs/FLUX.1-Depth-dev", "black-forest-labs/FLUX.1-Canny-dev", FILL)
VARIATION_MODELS = ("black-forest-labs/FLUX.1-Redux-dev",)


class NetMind:
    name = "netmind"

    def __init__(self, created: int) -> None:
        self._created = created

    def read(self, operation: Operation, incoming: Incoming) -> Order:
        if operation == "generations":
            return self._generation(Fields(incoming, form=False))
        fields = Fields(incoming, form=True)
        return self._edit(fields) if operation == "edits" else self._variation(fields)

    def _generation(self, fields: Fields) -> Order:
        fields.only(("model", "prompt", "size", "response_format"))
        model = _model(fields, tuple(GENERATION_MODELS), "generations")
        edge, multiple = GENERATION_MODELS[model]
        width, height = parse_size(fields.text("size", f"{edge}x{edge}"))
        check_edges(width, height, param="size", multiple_of=multiple)
        return Order("generations", model, fields.text("prompt"), width, height, as_url=_as_url(fields))

    def _edit(self, fields: Fields) -> Order:
        fields.only(("model", "prompt", "response_format"), files=("image", "mask"))
        model = _model(fields, EDIT_MODELS, "edits")
        prompt = fields.text("prompt")
        image = fields.file("image")
        width, height = _size_of(image)
        return Order(
            "edits",
            model,
            prompt,
            width,
            height,
            images=(image.data,),
            mask=_mask(fields, model, image),
            as_url=_as_url(fields),
        )

    def _variation(self, fields: Fields) -> Order:
        fields.only(("model", "response_format"), files=("image",))
        model = _model(fields, VARIATION_MODELS, "variations")
        image = fields.file("image")
        width, height = _size_of(image)
        return Order("variations", model, "", width, height, images=(image.data,), as_url=_as_url(fields))

    def answer(self, order: Order, pictures: Sequence[Handed]) -> dict[str, object]:  # noqa: ARG002 - no echo
        data = [{"url": p.url} if p.url is not None else {"b64_json": p.b64} for p in pictures]
        return {"created": self._created, "data": data}

    def error(self, refusal: Refusal) -> dict[str, object]:
        return openai_error(refusal)


def _model(fields: Fields, models: tuple[str, ...], operation: str) -> str:
    model = fields.text("model")
    if model not in models:
        raise Refusal(
            f"The model {model!r} is not available for {operation}. Available: {', '.join(models)}.",
            param="model",
            code="invalid_value",
        )
    return model


def _as_url(fields: Fields) -> bool:
    return fields.choice("response_format", ("url", "b64_json"), default="url") == "url"


def _size_of(image: FilePart) -> tuple[int, int]:
    # Edits take no size; FLUX draws in multiples of 16 pixels.
    facts = image.facts
    if facts is None:
        raise Refusal("Invalid image file.", param="image", code="invalid_image_file")
    return floor_to(facts.width, 16), floor_to(facts.height, 16)


def _mask(fields: Fields, model: str, image: FilePart) -> bytes | None:
    if model != FILL:
        if fields.has("mask"):
            raise Refusal(f"The model {model!r} does not take a mask.", param="mask", code="invalid_value")
        return None
    mask = fields.file("mask")
    if mask.facts is None or image.facts is None:
        raise Refusal("Invalid mask file.", param="mask", code="invalid_image_file")
    if (mask.facts.width, mask.facts.height) != (image.facts.width, image.facts.height):
        raise Refusal("The mask's size does not match the image's size.", param="mask", code="invalid_value")
    return mask.data
