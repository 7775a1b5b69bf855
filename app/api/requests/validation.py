"""Turn a request's fields into an ImageRequest: know all parameters and their rules. Reads no bytes.

Faults are reported in OpenAI's order: model, prompt, images, n, the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.api.requests.rules import (
    MAX_EDGE,
    Boolean,
    Choice,
    Dimensions,
    Integer,
    Number,
    Rule,
    Structure,
    Text,
    invalid,
    missing,
)
from app.catalog.money import to_nano
from app.catalog.parameters import ALIASES
from app.errors import InvalidRequest, shortened
from app.images import ImageRequest, Operation, Size

OPTIONAL_PROMPT = Text(empty=True)
_EDGE = Integer(1, MAX_EDGE)
_GUIDANCE = Number(0, 100)
_STEPS = Integer(1, 1000)
MAX_SEED = 2**64 - 1
MOST_COST = 1_000_000  # of the ledger's currency
# In a form each value carries its whole name, so a small document can become a very large form.
MOST_VALUES = 10_000
MOST_NAMES = 1_048_576  # characters

# The literals are those of OpenAI's SDKs, the retired models' among them.
RULES: dict[str, Rule] = {
    "model": Text(longest=256),
    "prompt": Text(),
    "n": Integer(1, 10),
    "size": Dimensions(),
    "width": _EDGE,
    "height": _EDGE,
    "seed": Integer(-1, MAX_SEED, absent=-1),  # -1: at random, as the field's own tools say it
    "negative_prompt": Text(empty=True),
    "guidance": _GUIDANCE,
    "guidance_scale": _GUIDANCE,
    "steps": _STEPS,
    "num_steps": _STEPS,
    "num_inference_steps": _STEPS,
    "quality": Choice(("low", "medium", "high", "xhigh", "max", "auto", "standard", "hd")),
    "style": Text(),  # "vivid" or "natural" at OpenAI; other hosts have vocabularies of their own
    "background": Choice(("transparent", "opaque", "auto")),
    "moderation": Choice(("low", "auto")),
    "input_fidelity": Choice(("high", "low")),
    "complexity": Choice(("low", "medium", "high")),
    "output_format": Choice(("png", "webp", "jpeg", "gif", "svg"), {"jpg": "jpeg"}),
    "output_compression": Integer(0, 100),
    "user": Text(empty=True, numbers=True),
    "safety_identifier": Text(empty=True),
    "frame_count": Integer(2, 16),
    "frame_duration_ms": Integer(20),
    "svg": Structure(required=("model",)),
    "response_format": Choice(("url", "b64_json")),
    "stream": Boolean(),
    "partial_images": Integer(0, 3),
    "mask_convention": Choice(("alpha", "white", "black")),
    "max_cost": Number(0, MOST_COST),
}
UNKNOWN = {
    Operation.GENERATIONS: frozenset({"mask_convention"}),
    Operation.EDITS: frozenset[str](),
    Operation.VARIATIONS: frozenset({"partial_images", "mask_convention"}),
}


Build = Callable[..., ImageRequest]  # `build` for an operation


def build(
    operation: Operation,
    fields: Iterable[tuple[str, Any]],
    *,
    textual: bool = False,
    path_model: str | None = None,
    default_model: Callable[[], str | None] = lambda: None,
    check_pictures: Callable[[], None] | None = None,
) -> ImageRequest:
    """Return the request that `fields` make, without its pictures; null counts as absent.

    `textual`: the values come from a form. `path_model`: the model that the path names; as at Azure, one in the body
    does not count then. `default_model` is asked where the caller names no model; None: such a request is refused.
    `check_pictures` is called when its turn has come, and may raise. Raises InvalidRequest.
    """
    known, extra = _sort_fields(operation, fields)
    if path_model is not None:
        known["model"] = path_model

    def read(name: str, value: Any) -> Any:
        rule = RULES[name]
        return rule.parse(name, value) if textual else rule.read(name, value)

    # Clients send an empty text for a field that was left empty.
    if known.get("model", "") == "" and (default := default_model()):
        known["model"] = default
    if "model" not in known:
        raise missing("model", " GET /v1/models lists the models that can be asked for.")
    model = read("model", known.pop("model"))
    prompt = _prompt(operation, known, read)
    if check_pictures:
        check_pictures()
    n = read("n", known.pop("n")) if "n" in known else 1
    values, spelt = _values(known, read)
    _refuse_seeds_beyond(values.get("seed", 0), n)
    size = _size(values)
    response_format = values.pop("response_format", None)
    stream = values.pop("stream", False)
    partial_images = values.pop("partial_images", 0)
    mask_convention = values.pop("mask_convention", "alpha")
    max_cost = values.pop("max_cost", None)
    refuse_contradictions(values)
    if extra and operation is not Operation.GENERATIONS:
        _refuse_long_forms(extra)
    return ImageRequest(
        operation=operation,
        model=model,
        prompt=prompt,
        n=n,
        size=size,
        response_format=response_format,
        stream=stream,
        partial_images=partial_images,
        parameters=values,
        spelt=spelt,
        extra=tuple((name, _as_json(value)) for name, value in extra),
        mask_convention=mask_convention,
        max_cost=None if max_cost is None else to_nano(max_cost),
    )


_Read = Callable[[str, Any], Any]


def _sort_fields(
    operation: Operation, fields: Iterable[tuple[str, Any]]
) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Split the fields into known ones, by name, and unknown ones."""
    unknown = UNKNOWN[operation]
    known: dict[str, Any] = {}
    extra: list[tuple[str, Any]] = []
    for name, value in fields:
        if value is None:
            continue
        if name in RULES and name not in unknown:
            known[name] = value
        else:
            extra.append((name, value))
    return known, extra


def _as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_long_forms(extra: list[tuple[str, Any]]) -> None:
    todo = [(name, len(name), value) for name, value in extra]
    values = names = 0
    while todo:
        name, length, value = todo.pop()
        values, names = values + 1, names + length
        if values > MOST_VALUES or names > MOST_NAMES:
            raise invalid(
                name,
                f"Invalid {shortened(name)!r}: a form would spell out more than {MOST_VALUES} values, or more than "
                f"{MOST_NAMES} characters of names. Send fewer values beside the documented parameters.",
            )
        if type(value) is dict:
            todo += [(name, length + len(key) + 2, inner) for key, inner in value.items()]
        elif type(value) is list:
            todo += [(name, length + 2, inner) for inner in value]


def _prompt(operation: Operation, known: dict[str, Any], read: _Read) -> str | None:
    if operation is Operation.VARIATIONS:
        return OPTIONAL_PROMPT.read("prompt", known.pop("prompt")) if "prompt" in known else None
    if "prompt" not in known:
        raise missing("prompt")
    prompt: str = read("prompt", known.pop("prompt"))
    return prompt


def _values(known: dict[str, Any], read: _Read) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values under the gateway's names, and the caller's spelling of those names where it differs."""
    values: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for name, raw in known.items():
        value = read(name, raw)
        ours = ALIASES.get(name, name)
        if value is None:
            continue
        if ours not in values:
            values[ours] = value
            if name != ours:
                spelt[ours] = name
        elif values[ours] != value:
            raise invalid(
                name,
                f"{name!r} and {spelt.get(ours, ours)!r} are two names of one parameter, and their values differ: "
                f"{value} and {values[ours]}. Send one of them.",
            )
    return values, spelt


def _size(values: dict[str, Any]) -> Size | None:
    """Return the size from `size`, or from `width` and `height`, or from both if they agree."""
    size: Size | None = values.pop("size", None)
    width, height = values.pop("width", None), values.pop("height", None)
    if width is None and height is None:
        return size
    if width is None or height is None:
        said, unsaid = ("height", "width") if width is None else ("width", "height")
        raise missing(unsaid, f" {said!r} needs it beside itself; or send 'size' alone, as WIDTHxHEIGHT.")
    edges = Size(width, height)
    if size is not None and size != edges:
        raise invalid(
            "size",
            f"'size' says {size}, and 'width' and 'height' say {edges}. Send one of the two.",
            type="image_generation_user_error",
        )
    return edges


def _refuse_seeds_beyond(seed: int, n: int) -> None:
    """Refuse a seed whose successors leave the range: several images have successive seeds, and the last must be valid
    before the first is paid for."""
    highest = MAX_SEED - (n - 1)
    if seed > highest:
        raise invalid(
            "seed",
            f"Invalid 'seed': {n} images are drawn with the seeds that follow it, and the last one's would be above "
            f"{MAX_SEED}. Expected a value <= {highest}, but got {seed} instead.",
            "integer_above_max_value",
        )


def refuse_contradictions(values: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for parameters that no picture can meet together."""
    kind = values.get("output_format")
    if kind == "png" and values.get("output_compression", 100) < 100:
        raise invalid(
            "output_compression",
            "Compression less than 100 is not supported for PNG output format. Leave 'output_compression' out, or ask "
            "for 'jpeg' or 'webp'.",
            "invalid_png_output_compression",
            type="image_generation_user_error",
        )
    if kind == "jpeg" and values.get("background") == "transparent":
        raise invalid(
            "background", "Transparent background is not supported for JPEG output format. Ask for 'png' or 'webp'."
        )


def too_many(param: str, most: int) -> InvalidRequest:
    return invalid(
        param, f"Invalid {param!r}: too many images. Expected at most {most} images.", "array_above_max_length"
    )
