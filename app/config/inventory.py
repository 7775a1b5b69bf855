"""Turn settings into models, deployments and profiles as values. Knows no dialect and sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.catalog.deployments import Deployment, Model, Provider
from app.catalog.profiles import Profile
from app.config.loading import Settings
from app.config.schema import DeploymentSettings, ModelSettings, ProviderSettings


def models(settings: Settings, dialect_profile: Callable[[str], Profile]) -> tuple[Model, ...]:
    """Return the configured models; their deployments stand in the order of the attempts.

    `dialect_profile` returns the default profile of a dialect.
    """
    providers = {name: provider(name, entry) for name, entry in settings.providers.items()}
    found: list[Model] = []
    for name, model in settings.models.items():
        deployments = [
            Deployment(
                provider=providers[stated.provider],
                model=stated.model or name,
                profile=_profile(settings, stated, model, stated.model or name, dialect_profile),
                priority=place if stated.priority is None else stated.priority,
                weight=stated.weight,
                max_concurrency=stated.max_concurrency,
            )
            for place, stated in enumerate(model.deployments, start=1)
        ]
        deployments.sort(key=lambda deployment: deployment.priority)  # keeps the order of equals
        found.append(Model(name, tuple(deployments), model.aliases))
    return tuple(found)


def _profile(
    settings: Settings,
    stated: DeploymentSettings,
    model: ModelSettings,
    upstream: str,
    dialect_profile: Callable[[str], Profile],
) -> Profile:
    provider = settings.providers[stated.provider]
    profile = dialect_profile(provider.dialect)
    if preset := settings.preset_profile(stated.provider, upstream):
        profile = preset.over(profile)
    # The provider's entry goes over its preset, and below the profiles that the file states.
    profile = replace(profile, timeout=provider.timeout.over(profile.timeout))
    described: Profile = stated.profile.over(model.profile.over(profile))
    return described


def provider(name: str, entry: ProviderSettings) -> Provider:
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
