"""Find the deployments that can serve a request, in order, or the reason why none can."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import translate
from types import MappingProxyType
from typing import Protocol

from app.catalog.deployments import Alias, Deployment, Model
from app.catalog.fitting import Fitted, Misfit, fit, misfits
from app.catalog.spelling import nearest
from app.errors import ApiError, InvalidRequest, NotFound, shortened
from app.images import ImageRequest, Operation


class Permission(Protocol):
    """Says which models a caller may use. An API key is one."""

    def may_use(self, *names: str) -> bool:
        """True if the caller may use the model that has these names."""


class Catalog:
    """Every name that callers may use. Each alias is resolved here, once.

    An exact name goes before any glob; of several globs that fit, the longest counts, since it says the most.
    `default_models` are the models of requests that name none. `lists_aliases`: the list of models has them.
    """

    def __init__(
        self,
        models: Iterable[Model],
        aliases: Iterable[Alias] = (),
        default_models: Mapping[Operation, str] = MappingProxyType({}),
        *,
        lists_aliases: bool = True,
    ) -> None:
        self.models = tuple(models)
        named = {model.name: model for model in self.models}
        named |= {alias: model.called(alias) for model in self.models for alias in model.aliases}
        named |= {alias.name: named[alias.model].called(alias.name, alias.default_response_format) for alias in aliases}
        globs = sorted((name for name in named if named[name].alias_of and is_glob(name)), key=len, reverse=True)
        self._globs = [(re.compile(translate(glob)), named.pop(glob)) for glob in globs]
        self._by_name = named
        self._listed = [model for model in named.values() if lists_aliases or not model.alias_of]
        self._default_models = default_models

    def visible(self, key: Permission) -> list[Model]:
        """Return the models that the key may use, and behind them, if they are listed, the aliases."""
        return [model for model in self._listed if _sees(key, model)]

    def find(self, name: str, key: Permission) -> Model | None:
        """Return the model of that name. A model outside the key's list does not exist for it."""
        model = self._by_name.get(name) or self._find_by_glob(name)
        return model if model is not None and _sees(key, model) else None

    def _find_by_glob(self, name: str) -> Model | None:
        found = next((model for glob, model in self._globs if glob.match(name)), None)
        return replace(found, name=name) if found else None

    def default_model(self, operation: Operation, key: Permission) -> str | None:
        """Return the name of the model for requests that name none, if there is one that the key may use."""
        name = self._default_models.get(operation)
        return name if name is not None and self.find(name, key) else None

    def get(self, name: str, key: Permission) -> Model:
        """Return the model of that name, for `/v1/models/{id}`. Raises NotFound."""
        if model := self.find(name, key):
            return model
        raise NotFound(
            f"The model {shortened(name)!r} does not exist or you do not have access to it. {self._remedy(name, key)}",
            code="model_not_found",
        )

    def own_name(self, name: str, key: Permission) -> str:
        """Return the model's own name, where `name` may be an alias."""
        model = self.find(name, key)
        return (model.alias_of or model.name) if model else name

    def deployment(self, name: str) -> Deployment | None:
        """Return the deployment of that name, provider/model."""
        return next((each for model in self.models for each in model.deployments if each.name == name), None)

    def candidates(self, request: ImageRequest, key: Permission) -> list[Fitted]:
        """Return the ways to serve the request, in the order of their attempts. Raises InvalidRequest if there is
        none."""
        model = self.find(request.model, key)
        if model is None:
            raise InvalidRequest(
                f"The model {shortened(request.model)!r} does not exist. {self._remedy(request.model, key)}",
                type="image_generation_user_error",
                param="model",
                code="invalid_value",
            )
        fits = [fit(request, deployment) for deployment in model.deployments]
        able = [found for found in fits if isinstance(found, Fitted)]
        if not able:
            raise self._refusal(request, model, key)
        return able

    def fits(self, request: ImageRequest, key: Permission) -> list[tuple[Deployment, Fitted | Misfit]]:
        """Return each deployment of the model, in the order in which they are tried: the request as it would get it, or
        why it cannot serve the request."""
        model = self.find(request.model, key)
        return [(each, fit(request, each)) for each in model.deployments] if model else []

    def _remedy(self, name: str, key: Permission) -> str:
        """Return what to do about an unknown model. Models that the key may not use are not proposed."""
        near = nearest(name, [known for known, model in self._by_name.items() if _sees(key, model)])
        return (f"Did you mean {near!r}? " if near else "") + "GET /v1/models lists those there are."

    def _refusal(self, request: ImageRequest, model: Model, key: Permission) -> ApiError:
        first = _nearest_misfit(request, model)
        others = list[str]()
        seen = {model.alias_of or model.name}
        for other in self.visible(key):
            own_name = other.alias_of or other.name
            if own_name not in seen and any(isinstance(fit(request, d), Fitted) for d in other.deployments):
                others.append(other.name)
            seen.add(own_name)
        message = f"The model {model.name!r} cannot do this: {first.reason}"
        message += f"; {first.works}" if first.works else ""
        message += "" if message.endswith("?") else "."
        if others:
            message += f" Models that can: {', '.join(others[:5])}."
        kind = "image_generation_user_error" if first.code == "invalid_value" else "invalid_request_error"
        return InvalidRequest(message, type=kind, param=first.param, code=first.code)


def is_glob(name: str) -> bool:
    """True if an alias stands for all names that fit it."""
    return any(character in name for character in "*?[")


def _nearest_misfit(request: ImageRequest, model: Model) -> Misfit:
    """Return the first misfit of the deployment with the fewest: the caller has the least to change there. Deployments
    that lack the operation come last, because they say the least."""
    found = [list(misfits(request, deployment.profile)) for deployment in model.deployments]
    return min(found, key=lambda faults: (faults[0].code == "unsupported_operation", len(faults)))[0]


def _sees(key: Permission, model: Model) -> bool:
    return key.may_use(model.name, *model.aliases)
