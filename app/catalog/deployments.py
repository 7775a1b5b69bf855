"""Providers, deployments and models as values. Knows nothing of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from app.catalog.profiles import Profile
from app.images import ResponseFormat


@dataclass(frozen=True, slots=True)
class Provider:
    """A host and a credential: one entry under `providers` in the configuration."""

    name: str
    dialect: str
    base_url: str  # without a trailing slash
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_concurrency: int | None = None
    retries: int = 1  # on the same deployment, only where nothing was sent
    retry_timeouts: bool = False
    urls: Literal["store", "pass"] = "store"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A provider and one of its models, with its profile."""

    provider: Provider
    model: str  # as the provider calls it
    profile: Profile
    priority: int = 1  # lower is tried first
    weight: int = 1
    max_concurrency: int | None = None

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    @property
    def places(self) -> int | None:
        """The requests that it takes at a time, by its own bound and its provider's. None: there is no bound."""
        bounds = (self.max_concurrency, self.provider.max_concurrency)
        return min((bound for bound in bounds if bound is not None), default=None)

    def answering(self, default: ResponseFormat) -> Deployment:
        """Return the same deployment with another default for requests without `response_format`."""
        return replace(self, profile=replace(self.profile, default_response_format=default))


@dataclass(frozen=True, slots=True)
class Model:
    """A name that callers ask for, and the deployments behind it. A key that may use one of the `aliases` may use the
    name too."""

    name: str
    deployments: tuple[Deployment, ...]  # in the order in which they are tried
    aliases: tuple[str, ...] = ()
    alias_of: str | None = None  # the model's own name, if this one is an alias

    def called(self, alias: str, default_response_format: ResponseFormat | None = None) -> Model:
        """Return what callers get under an alias: the same deployments. A default of the alias goes over the
        model's."""
        deployments = self.deployments
        if default_response_format:
            deployments = tuple(each.answering(default_response_format) for each in deployments)
        others = tuple(name for name in (self.name, *self.aliases) if name != alias)
        return Model(alias, deployments, others, self.alias_of or self.name)


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name for a model, which may be a glob like `dall-e-*`. Permission to use it is no permission to use the
    model's own names."""

    name: str
    model: str  # one of the model's own names
    default_response_format: ResponseFormat | None = None
