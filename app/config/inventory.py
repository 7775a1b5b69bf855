"""Turn settings into models, their aliases, deployments, profiles, keys, projects and budgets as values. Knows no
dialect and sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from app.access.key_text import stable_id
from app.access.keyring import Key, StatedKey
from app.catalog.deployments import Alias, Deployment, Model, Provider
from app.catalog.money import to_nano
from app.catalog.profiles import Profile
from app.config.budgets import BudgetSettings
from app.config.loading import Settings
from app.config.schema import DeploymentSettings, LimitSettings, ModelSettings, ProviderSettings
from app.ledger.book.price_list import StatedPrice
from app.ledger.values.directory import Budget, Project
from app.ledger.values.limits import Limits


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


def aliases(settings: Settings) -> Iterator[Alias]:
    """Yield the aliases of the top level. One that leads to another takes the default that it does not state from
    there."""
    for name, stated in settings.aliases.items():
        default = stated.default_response_format
        while stated.model in settings.aliases:
            stated = settings.aliases[stated.model]
            default = default or stated.default_response_format
        yield Alias(name, stated.model, default)


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


def prices(settings: Settings, models: Iterable[Model]) -> list[StatedPrice]:
    """Return the price of each deployment that has one, and whether it is a preset's."""
    found = list[StatedPrice]()
    for deployment in (deployment for model in models for deployment in model.deployments):
        if (price := deployment.profile.stated_price) is not None:
            preset = settings.preset_profile(deployment.provider.name, deployment.model)
            is_presets = preset is not None and preset.over(Profile()).stated_price == price
            source = "preset" if is_presets else "configuration"
            found.append(StatedPrice(deployment.provider.name, deployment.model, price, source))
    return found


# --- keys, projects, budgets ---

PROJECT_ID_LENGTH = BUDGET_ID_LENGTH = 16  # behind `proj_` and `bud_`


def keys(settings: Settings) -> tuple[StatedKey, ...]:
    """Return the configured keys. Their ids follow from their names, so that a restart changes nothing."""
    stated = projects(settings, {}, 0)
    return tuple(
        StatedKey(
            key.sha256,
            Key(
                id=key_id(key.name),
                name=key.name,
                project=next((project for project in stated if project.name == key.project), None),
                models=key.models,
                operations=key.operations,
                limits=_limits(key),
                default_response_format=key.default_response_format,
            ),
        )
        for key in settings.keys
    )


def projects(settings: Settings, known: Mapping[str, str], now: int) -> tuple[Project, ...]:
    """Return the configured projects. `known` has the ids, by name, of those that the database has already."""
    return tuple(
        Project(_project_id(name, known), name, now, limits=_limits(project), source="file")
        for name, project in settings.projects.items()
    )


def budgets(settings: Settings, known: Mapping[str, str], now: int) -> tuple[Budget, ...]:
    """Return the configured budgets. Their ids follow from what they count, so that processes that start together
    agree. `known` has the ids of projects, as for `projects`."""
    return tuple(_budget(budget, known, now) for budget in settings.budgets)


def key_names(settings: Settings) -> dict[str, str]:
    """Return the names of the configured keys, by their ids."""
    return {key_id(key.name): key.name for key in settings.keys}


def key_id(name: str) -> str:
    """Return the id of a configured key."""
    return stable_id("key", name)


def _project_id(name: str, known: Mapping[str, str]) -> str:
    return known.get(name) or f"proj_{stable_id('project', name, PROJECT_ID_LENGTH)}"


def _budget(budget: BudgetSettings, known: Mapping[str, str], now: int) -> Budget:
    project_id = None if budget.project is None else _project_id(budget.project, known)
    counted = (budget.project, budget.key, budget.models, budget.window, budget.timezone)
    return Budget(
        id=f"bud_{stable_id('budget', repr(counted), BUDGET_ID_LENGTH)}",
        scope="project" if project_id else "key" if budget.key else "all",
        scope_id=project_id or (key_id(budget.key) if budget.key else None),
        amount=to_nano(budget.amount),
        window=budget.window,
        timezone=budget.timezone,
        models=() if budget.models == ("*",) else budget.models,
        since=now,
        hard=budget.hard,
        thresholds=budget.thresholds,
        owner=budget.project or budget.key or "",
        source="file",
    )


def _limits(stated: LimitSettings) -> Limits:
    return Limits(
        stated.requests_per_minute,
        stated.images_per_minute,
        stated.megapixels_per_minute,
        stated.max_concurrency,
    )
