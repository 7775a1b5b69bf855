"""Providers, deployments and models as values. Knows nothing of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.catalog.profiles import Profile


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


@dataclass(frozen=True, slots=True)
class Model:
    """A name that callers ask for, and the deployments behind it."""

    name: str
    deployments: tuple[Deployment, ...]  # in the order in which they are tried
    aliases: tuple[str, ...] = ()
