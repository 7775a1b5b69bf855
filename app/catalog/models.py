"""Find the deployments that can serve a request, in order, or the reason why none can."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from app.catalog.deployments import Deployment, Model
from app.catalog.fitting import Fitted, Misfit, fit, misfits
from app.errors import ApiError, InvalidRequest, NotFound, shortened
from app.images import ImageRequest


class Permission(Protocol):
    """Says which models a caller may use. An API key is one."""

    def may_use(self, *names: str) -> bool:
        """True if the caller may use the model that has these names."""


class Catalog:
    def __init__(self, models: Iterable[Model]) -> None:
        self.models = tuple(models)
        self._by_name = {name: model for model in self.models for name in (model.name, *model.aliases)}

    def visible(self, key: Permission) -> list[Model]:
        """Return the models that the key may use."""
        return [model for model in self.models if _sees(key, model)]

    def find(self, name: str, key: Permission) -> Model | None:
        """Return the model of that name. A model outside the key's list does not exist for it."""
        model = self._by_name.get(name)
        return model if model is not None and _sees(key, model) else None

    def get(self, name: str, key: Permission) -> Model:
        """Return the model of that name, for `/v1/models/{id}`. Raises NotFound."""
        if model := self.find(name, key):
            return model
        raise NotFound(
            f"The model {shortened(name)!r} does not exist or you do not have access to it. GET /v1/models lists those "
            "there are.",
            code="model_not_found",
        )

    def deployment(self, name: str) -> Deployment | None:
        """The deployment of that name, provider/model."""
        return next((each for model in self.models for each in model.deployments if each.name == name), None)

    def candidates(self, request: ImageRequest, key: Permission) -> list[Fitted]:
        """Return the ways to serve the request, in the order of their attempts. Raises InvalidRequest if there is
        none."""
        model = self.find(request.model, key)
        if model is None:
            raise InvalidRequest(
                f"The model {shortened(request.model)!r} does not exist. GET /v1/models lists those there are.",
                type="image_generation_user_error",
                param="model",
                code="invalid_value",
            )
        fits = [fit(request, deployment) for deployment in model.deployments]
        able = [found for found in fits if isinstance(found, Fitted)]
        if not able:
            raise self._refusal(request, model, key)
        return able

    def _refusal(self, request: ImageRequest, model: Model, key: Permission) -> ApiError:
        first = _nearest_misfit(request, model)
        others = [
            other.name
            for other in self.visible(key)
            if other is not model and any(isinstance(fit(request, d), Fitted) for d in other.deployments)
        ]
        message = f"The model {model.name!r} cannot do this: {first.reason}"
        message += f"; {first.works}." if first.works else "."
        if others:
            message += f" Models that can: {', '.join(others[:5])}."
        kind = "image_generation_user_error" if first.code == "invalid_value" else "invalid_request_error"
        return InvalidRequest(message, type=kind, param=first.param, code=first.code)


def _nearest_misfit(request: ImageRequest, model: Model) -> Misfit:
    """Return the first misfit of the deployment with the fewest: the caller has the least to change there. Deployments
    that lack the operation come last, because they say the least."""
    found = [list(misfits(request, deployment.profile)) for deployment in model.deployments]
    return min(found, key=lambda faults: (faults[0].code == "unsupported_operation", len(faults)))[0]


def _sees(key: Permission, model: Model) -> bool:
    return key.may_use(model.name, *model.aliases)
