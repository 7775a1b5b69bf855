"""The optional parameters that the gateway knows by name, and how it treats each that a deployment cannot honour."""

from __future__ import annotations

from enum import Enum, auto


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

# Other tools' names for the same parameters.
ALIASES: dict[str, str] = {
    "guidance_scale": "guidance",
    "num_steps": "steps",
    "num_inference_steps": "steps",
}
