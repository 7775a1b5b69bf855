"""Configure the sandbox: the presets' models, and one of OpenAI's, at simulated providers. Knows their addresses and no
simulation."""

from __future__ import annotations

from pydantic import SecretStr

from app.config.loading import PRESETS, Settings, load_preset, models_of, preset_defaults
from app.config.schema import DeploymentSettings, ModelSettings, Preset, ProfileSettings, ProviderSettings, SizeSettings
from app.images import Operation, Size

# Not every preset is simulated.
_PATHS = {"netmind": "/netmind/v1", "nebula": "/nebula/api/v1", "nebul": "/nebul/v1", "bfl": "/bfl/v1"}
_SECRET = SecretStr("sandbox")


def with_sandbox(settings: Settings, base_url: str) -> Settings:
    """Return `settings` with the simulated providers that answer below `base_url`, and all their models."""
    presets = {name: load_preset(name) for name in PRESETS if name in _PATHS}
    providers = {name: _provider(name, preset, base_url) for name, preset in presets.items()}
    providers["openai"] = ProviderSettings(dialect="openai", base_url=f"{base_url}/openai/v1", api_key=_SECRET)
    offered = {name: list(preset.models) for name, preset in presets.items()}
    models = {name: ModelSettings.model_validate(model) for name, model in models_of(offered).items()}
    models["gpt-image-2"] = ModelSettings(deployments=(DeploymentSettings(provider="openai"),), profile=_gpt_image_2())
    return settings.offering(providers, models, presets)


def _provider(name: str, preset: Preset, base_url: str) -> ProviderSettings:
    stated = {"preset": name, "base_url": f"{base_url}{_PATHS[name]}", "api_key": _SECRET}
    return ProviderSettings.model_validate({**preset_defaults(preset), **stated})


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
