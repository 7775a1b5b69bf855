"""The optional parameters that the gateway knows by name, and how it treats each that a deployment cannot honour."""

from __future__ import annotations

from enum import Enum, auto

from app.catalog.spelling import nearest


class Weight(Enum):
    """The treatment of a parameter that a deployment cannot honour."""

    REQUIREMENT = auto()  # another deployment must be found
    HINT = auto()  # dropped, and reported
    SHAPE = auto()  # of the answer's bytes: the gateway can do it itself


PARAMETERS: dict[str, Weight] = {
    "seed": Weight.REQUIREMENT,
    "negative_prompt": Weight.REQUIREMENT,
    "frame_count": Weight.REQUIREMENT,
    "frame_duration_ms": Weight.REQUIREMENT,
    "svg": Weight.REQUIREMENT,
    "background": Weight.HINT,  # "transparent" alone is a requirement
    "guidance": Weight.HINT,
    "steps": Weight.HINT,
    "style": Weight.HINT,
    "quality": Weight.HINT,
    "user": Weight.HINT,
    "moderation": Weight.HINT,
    "input_fidelity": Weight.HINT,
    "safety_identifier": Weight.HINT,
    "complexity": Weight.HINT,
    "output_format": Weight.SHAPE,
    "output_compression": Weight.SHAPE,
}

# Other tools' names for the same parameters. They are taken.
ALIASES: dict[str, str] = {
    "guidance_scale": "guidance",
    "num_steps": "steps",
    "num_inference_steps": "steps",
}

# Names that other APIs have for something similar. They are not taken, since their values differ, but explained.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("aspect_ratio", "dimensions", "image_size", "resolution"), "size"),
    **dict.fromkeys(("batch_size", "num_images", "num_images_per_prompt", "num_outputs", "number_of_images"), "n"),
    **dict.fromkeys(("cfg", "cfg_scale"), "guidance"),
    **dict.fromkeys(("format", "mime_type", "output_mime_type"), "output_format"),
    "random_seed": "seed",
    "sampling_steps": "steps",
}

_SUGGESTED = (
    *("model", "prompt", "n", "size", "width", "height", "response_format", "stream", "partial_images"),
    *("mask_convention", "max_cost", *PARAMETERS, *ALIASES),
)


def meant_by(name: str) -> str | None:
    """Return the parameter that a caller probably means by an unknown name; None: there is none, or the name is right
    but of another operation."""
    return None if name in _SUGGESTED else ELSEWHERE.get(name) or nearest(name, _SUGGESTED)
