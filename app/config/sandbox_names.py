"""The names that callers of the sandbox may use: its models, aliases for the names that clients hard-code, and the
models of requests that name none. Knows no provider's address."""

from __future__ import annotations

from typing import Any

from app.config.sources import preset_data
from app.images import Operation

SIMULATED_PRESETS = ("netmind", "nebula", "nebul", "bfl")
GPT_IMAGE_2 = "gpt-image-2"  # of no preset
_KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"  # alone does all operations, and takes the qualities of DALL·E

# As a file would state it. DALL·E answered with links. `dall-e-3` only generated; its style and quality are hints here.
SANDBOX_NAMES: dict[str, Any] = {
    "aliases": {
        "gpt-image-1": {"model": GPT_IMAGE_2},
        "gpt-image-1.5": {"model": GPT_IMAGE_2},
        "gpt-image-1-mini": {"model": GPT_IMAGE_2},
        "dall-e-2": {"model": _KONTEXT, "default_response_format": "url"},
        "dall-e-3": {"model": "black-forest-labs/FLUX.1-schnell", "default_response_format": "url"},
    },
    "default_model": dict.fromkeys(map(str, Operation), _KONTEXT),
}


def sandbox_models() -> list[str]:
    """Return the names of all models. It reads the presets."""
    models = (model for preset in SIMULATED_PRESETS for model in preset_data(preset)["models"])
    return [*dict.fromkeys(models), GPT_IMAGE_2]
