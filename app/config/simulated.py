"""Configure the sandbox: the presets' models, and one of OpenAI's, at simulated providers. Knows their addresses and no
simulation."""

from __future__ import annotations

from app.config.loading import Settings, load
from app.config.sandbox_names import GPT_IMAGE_2
from app.config.schema import DeploymentSettings, ModelSettings, ProfileSettings, SizeSettings
from app.images import Operation, Size

# Not every preset is simulated.
_PATHS = {
    "netmind": "/netmind/v1",
    "nebula": "/nebula/api/v1",
    "nebul": "/nebul/v1",
    "bfl": "/bfl/v1",
    "openai": "/openai/v1",
}


def with_sandbox(settings: Settings, base_url: str) -> Settings:
    """Return `settings` with the simulated providers that answer below `base_url`, and all their models."""
    providers = {name: {"base_url": f"{base_url}{path}", "api_key": "sandbox"} for name, path in _PATHS.items()}
    simulated = load(None, {}, {"providers": providers})
    gpt_image_2 = ModelSettings(deployments=(DeploymentSettings(provider="openai"),), profile=_gpt_image_2())
    return settings.offering(simulated, simulated.models | {GPT_IMAGE_2: gpt_image_2})


def _gpt_image_2() -> ProfileSettings:
    """Return the model as OpenAI documents it: edges divisible by 16 and at most 3840; base64 only, without
    `response_format`."""
    understood = "n size quality background output_format output_compression moderation user safety_identifier"
    return ProfileSettings(
        operations=frozenset((Operation.GENERATIONS, Operation.EDITS)),
        parameters={name: name for name in understood.split()},
        size=SizeSettings(multiple_of=16, max=3840, max_pixels=Size(3840, 2160).pixels),
        max_n=10,
        max_images=16,
        mask="alpha",
        output_formats=("png", "jpeg", "webp"),
        results=("b64_json",),
        streaming=True,
        extra="refuse",
    )
