"""What callers may send, as JSON Schema: the limits are those of `validation`, the words are written here. Reads no
request."""

from __future__ import annotations

from typing import Any

from app.api.requests import validation
from app.api.requests.body import Limits
from app.api.requests.rules import MAX_EDGE, Boolean, Choice, Dimensions, Integer, Number, Rule, Structure, Text
from app.images import Operation

Schema = dict[str, Any]

MAX_IMAGES = Limits(upload_bytes=0, request_bytes=0).images
MODEL, EDITOR = "black-forest-labs/FLUX.1-schnell", "black-forest-labs/FLUX.1-Kontext-dev"
_HINT = " A hint: where it cannot be honoured it is left out, and named in `x-gateway-dropped`."

# name → its description, and further keywords of its schema
_SAID: dict[str, tuple[str, Schema]] = {
    "model": ("A model of `GET /v1/models`, by its id or one of its aliases.", {"examples": [MODEL]}),
    "prompt": ("What is to be drawn.", {"examples": ["A red fox in the snow, watercolour"]}),
    "n": (
        "How many images. Where a provider draws fewer at a time, the gateway asks it several times, with the seeds "
        "`seed`, `seed+1`, …",
        {"default": 1},
    ),
    "size": (
        f"`WIDTHxHEIGHT` in pixels, edges up to {MAX_EDGE}, or `auto`. A size that the model cannot draw is refused "
        "with the nearest that it can.",
        {"default": "auto", "examples": ["1024x1024"]},
    ),
    "width": ("In pixels; with `height` another way to say `size`.", {}),
    "height": ("In pixels; with `width` another way to say `size`.", {}),
    "seed": ("The same seed draws the same image. -1: at random, as without one.", {"examples": [42]}),
    "negative_prompt": ("What is not to be seen.", {"examples": ["text, watermark"]}),
    "guidance": ("How closely the prompt is followed." + _HINT, {"examples": [3.5]}),
    "guidance_scale": ("Another name of `guidance`.", {}),
    "steps": ("How many steps of denoising." + _HINT, {"examples": [28]}),
    "num_steps": ("Another name of `steps`.", {}),
    "num_inference_steps": ("Another name of `steps`.", {}),
    "quality": ("How well is drawn." + _HINT, {"default": "auto"}),
    "style": ("`vivid`, `natural`, or a style of the provider's own." + _HINT, {"examples": ["vivid"]}),
    "background": (
        "`transparent` needs a model that can, and `png` or `webp`; the others are hints.",
        {"default": "auto"},
    ),
    "moderation": ("How strictly is moderated." + _HINT, {"default": "auto"}),
    "input_fidelity": ("How closely the input images are kept to." + _HINT, {}),
    "complexity": ("How much detail." + _HINT, {}),
    "output_format": (
        "What the image is encoded as. `png`, `jpeg` (or `jpg`) and `webp` are there for every model: the gateway "
        "converts. Not said: as the provider gives it.",
        {},
    ),
    "output_compression": ("Quality in percent, of `jpeg` and `webp`.", {"default": 100}),
    "user": ("Who asks, for providers that watch for abuse." + _HINT, {}),
    "safety_identifier": ("Who asks, as a hash." + _HINT, {}),
    "frame_count": ("Frames of an animated `gif`.", {}),
    "frame_duration_ms": ("Milliseconds that each frame of a `gif` lasts.", {}),
    "svg": ("What draws an `svg`.", {"properties": {"model": {"type": "string"}, "reasoning": {"type": "object"}}}),
    "response_format": (
        "`b64_json`: the image as text in the answer. `url`: a signed address of this gateway's that expires. The "
        "default is the operator's setting; `b64_json` as it ships.",
        {},
    ),
    "stream": (
        "The answer is a stream of server-sent events, for every model and every `n`.",
        {"default": False},
    ),
    "partial_images": ("How many unfinished images a stream shows, at most.", {"default": 0}),
    "mask_convention": (
        "What the mask means. `alpha`: what is transparent is drawn anew, as at OpenAI; `white`, `black`: what is so.",
        {"default": "alpha"},
    ),
}
_EXTRA = (
    "Other fields go to providers that take any; where there is none, the answer is 400 `unknown_parameter`. `null` "
    "counts as not said."
)
_PICTURE = {
    "type": "object",
    "required": ["image_url"],
    "properties": {
        "image_url": {
            "type": "string",
            "description": "A data URL (`data:image/png;base64,…`), or an `https:` address where the operator allows "
            "those (`server.remote_images`).",
        }
    },
    "additionalProperties": {"type": "null"},
}
_FILE = {"type": "string", "format": "binary"}
# A picture of one pixel: enough to show the form, not to edit.
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5E"
    "rkJggg=="
)


def bodies(operation: Operation) -> dict[str, Any]:
    """The content types that an operation takes, each with its schema and examples."""
    content: dict[str, Any] = {}
    if operation is not Operation.GENERATIONS:
        content["multipart/form-data"] = _form(operation)
    if operation is not Operation.VARIATIONS:
        content["application/json"] = _json(operation)
    return content


def _json(operation: Operation) -> dict[str, Any]:
    properties, required = _parameters(operation, nullable=True), ["model", "prompt"]
    example: dict[str, Any] = {"model": MODEL, "prompt": "A red fox in the snow, watercolour"}
    full = example | {"size": "1024x768", "seed": 42, "steps": 4, "output_format": "webp"}
    if operation is Operation.EDITS:
        required.append("images")
        properties["images"] = {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_IMAGES,
            "items": _PICTURE,
            "description": "What is to be edited: PNG, JPEG or WebP.",
        }
        for name, about in _MASKS.items():
            properties[name] = {"anyOf": [_PICTURE, {"type": "null"}], "description": about}
        example = {
            "model": EDITOR,
            "prompt": "Make it night",
            "images": [{"image_url": _PIXEL}],
        }
        full = example | {"output_format": "webp"}
    return {
        "schema": _object(properties, required),
        "examples": {
            "short": {"summary": "The least", "value": example},
            "long": {"summary": "With parameters", "value": full},
            "stream": {"summary": "Streamed", "value": example | {"stream": True}},
        },
    }


_MASKS = {
    "mask": "Where the first image is to be drawn anew: of the same size, with an alpha channel unless "
    "`mask_convention` says otherwise.",
    "markup": "A transparent overlay that shows what is meant, for models that read such.",
}


def _form(operation: Operation) -> dict[str, Any]:
    properties, required = _parameters(operation, nullable=False), ["model"]
    pictures: dict[str, Any] = {
        "image": _FILE | {"description": "PNG, JPEG or WebP, by its bytes whatever its part says it is."},
        "image[]": {
            "type": "array",
            "items": _FILE,
            "maxItems": MAX_IMAGES,
            "description": "Several images, in order; `image[0]`, `image[1]`… and `image` repeated are taken too.",
        },
    }
    if operation is Operation.VARIATIONS:
        pictures["image[]"] |= {"maxItems": 1, "description": "Another name of `image`; a variation takes one."}
    if operation is Operation.EDITS:
        required.append("prompt")
        pictures |= {name: _FILE | {"description": about} for name, about in _MASKS.items()}
    properties.pop("svg")
    properties["svg[model]"] = {"type": "string", "description": _SAID["svg"][0]}
    first = {name: properties.pop(name) for name in ("model", "prompt")}
    first["model"]["examples"], first["prompt"]["examples"] = [EDITOR], ["Make it night"]
    for schema in properties.values():
        schema.pop("examples", None)  # a page would fill them in and send them
    return {
        "schema": {
            **_object({**first, **pictures, **properties}, required),
            "anyOf": [{"required": ["image"]}, {"required": ["image[]"]}],
        },
        "encoding": {name: {"contentType": "image/png, image/jpeg, image/webp"} for name in pictures},
    }


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "required": required, "properties": properties, "description": _EXTRA}


def _parameters(operation: Operation, *, nullable: bool) -> dict[str, Schema]:
    """Each parameter of an operation by name, in the order of `validation`."""
    found = {}
    for name, rule in validation.RULES.items():
        if name not in validation.UNKNOWN[operation]:
            about, more = _SAID[name]
            schema = _schema(rule)
            if nullable and name not in ("model", "prompt"):
                number = ["number"] if isinstance(rule, Text) and rule.numbers else []
                schema["type"] = [schema["type"], *number, "null"]
                if "enum" in schema:
                    schema["enum"] = [*schema["enum"], None]
            found[name] = {**schema, "description": about, **more}
    if operation is Operation.VARIATIONS:
        found["prompt"].pop("minLength")  # and may be left out
    return found


def _schema(rule: Rule) -> Schema:
    """As a request says it; raises TypeError for a kind of value that is not known here."""
    match rule:
        case Integer(low, high):
            return {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})
        case Number(least, most):
            return {"type": "number", "minimum": least, "maximum": most}
        case Boolean():
            return {"type": "boolean"}
        case Choice(values, synonyms):
            return {"type": "string", "enum": [*values, *synonyms]}
        case Text(longest, empty):
            return {"type": "string"} | ({} if empty else {"minLength": 1}) | {"maxLength": longest}
        case Dimensions():
            return {"type": "string", "pattern": r"^(auto|[1-9][0-9]{0,4}[xX][1-9][0-9]{0,4})$"}
        case Structure(required):
            return {"type": "object", "required": list(required)}
    raise TypeError(f"{type(rule).__name__!r} has no schema. Give it one here.")
