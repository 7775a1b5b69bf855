"""What can be asked for: settings → models, deployments and profiles as values. Knows no dialect and sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.catalog.deployments import Deployment, Model, Provider
from app.catalog.profiles import Profile, SizeRule, Timeouts
from app.config.loading import Settings
from app.config.schema import (
    DeploymentSettings,
    ModelSettings,
    ProfileSettings,
    ProviderSettings,
    SizeSettings,
    TimeoutSettings,
)

# Where nothing is something that can be said: not known, none, as spelt.
_MAY_BE_NOTHING = frozenset(
    {
        "parameters",
        "default_size",
        "image_field",
        "output_formats",
        "streaming",
        "default_response_format",
        "price_per_image",
        "typical_seconds",
    }
)


def models(settings: Settings, dialect_profile: Callable[[str], Profile]) -> tuple[Model, ...]:
    """The models of the configuration, their deployments in the order in which they are tried.

    `dialect_profile`: what is assumed of a host of a dialect about which nothing was said.
    """
    providers = {name: _provider(name, entry) for name, entry in settings.providers.items()}

    def deployment(name: str, model: ModelSettings, place: int, stated: DeploymentSettings) -> Deployment:
        provider = providers[stated.provider]
        upstream = stated.model or name
        return Deployment(
            provider=provider,
            model=upstream,
            profile=_profile(settings, stated, model, upstream, dialect_profile(provider.dialect)),
            priority=place if stated.priority is None else stated.priority,
            weight=stated.weight,
            max_concurrency=stated.max_concurrency,
        )

    return tuple(
        Model(
            name,
            # sorted() keeps the order of equals.
            tuple(
                sorted(
                    (deployment(name, model, place, stated) for place, stated in enumerate(model.deployments, start=1)),
                    key=lambda deployment: deployment.priority,
                )
            ),
            model.aliases,
        )
        for name, model in settings.models.items()
    )


def laid_over(profile: Profile, layer: ProfileSettings) -> Profile:
    """`profile` with what `layer` states, field by field; of sizes and timeouts, each bound by itself."""
    stated: dict[str, Any] = {
        name: value
        for name in layer.model_fields_set - {"size", "timeout"}
        if (value := getattr(layer, name)) is not None or name in _MAY_BE_NOTHING
    }
    if layer.size:
        stated["size"] = _size_rule(profile.size, layer.size)
    if layer.timeout:
        stated["timeout"] = _timeouts(profile.timeout, layer.timeout)
    return replace(profile, **stated)


def _profile(
    settings: Settings, stated: DeploymentSettings, model: ModelSettings, upstream: str, profile: Profile
) -> Profile:
    if preset := settings.preset_profile(stated.provider, upstream):
        profile = laid_over(profile, preset)
    # What a provider's entry states goes over its preset, and so before the profiles that the file states.
    profile = replace(profile, timeout=_timeouts(profile.timeout, settings.providers[stated.provider].timeout))
    return laid_over(laid_over(profile, model.profile), stated.profile)


def _size_rule(below: SizeRule, layer: SizeSettings) -> SizeRule:
    """Each bound by itself; a list, or nothing at all, stands alone, and bounds do away with a list."""
    stated = {name: getattr(layer, name) for name in layer.model_fields_set}
    return SizeRule(**stated) if below.list or layer.list or not stated else replace(below, **stated)


def _timeouts(below: Timeouts, layer: TimeoutSettings) -> Timeouts:
    return replace(below, **{name: value for name, value in layer if value is not None})


def _provider(name: str, entry: ProviderSettings) -> Provider:
    return Provider(
        name=name,
        dialect=entry.dialect,
        base_url=entry.base_url,
        api_key=entry.api_key.get_secret_value() if entry.api_key else None,
        headers=entry.headers,
        max_concurrency=entry.max_concurrency,
        retries=entry.retries,
        retry_timeouts=entry.retry_timeouts,
        urls=entry.urls,
    )
