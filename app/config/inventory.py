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


def _profile(
    settings: Settings, stated: DeploymentSettings, model: ModelSettings, upstream: str, profile: Profile
) -> Profile:
    if preset := settings.preset_profile(stated.provider, upstream):
        profile = preset.over(profile)
    # The provider's entry goes over its preset, and below the profiles that the file states.
    profile = replace(profile, timeout=settings.providers[stated.provider].timeout.over(profile.timeout))
    described: Profile = stated.profile.over(model.profile.over(profile))
    return described


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
