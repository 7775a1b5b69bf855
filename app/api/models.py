"""`/v1/models`: the models that a caller may use, and the abilities of each. Knows no provider's dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.runtime import Runtime
from app.catalog.deployments import Model
from app.catalog.fitting import takes_size
from app.catalog.money import to_number
from app.catalog.profiles import Profile
from app.images import Operation

STARTED = 1_763_683_200  # "created" of every model: the gateway knows no better, and clients want a number


class ModelObject(BaseModel):
    """OpenAI's model object; `capabilities` is the gateway's own."""

    id: str
    object: str = "model"
    created: int = STARTED
    owned_by: str
    capabilities: dict[str, Any]


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelObject]


def router(runtime: Callable[[], Runtime]) -> APIRouter:
    routes = APIRouter(prefix="/v1/models")

    @routes.api_route("", methods=["GET", "HEAD"])
    async def list_models(request: Request) -> ModelList:
        key = runtime().authenticate(request.scope)
        return ModelList(data=[model_object(model) for model in runtime().catalog.visible(key)])

    @routes.api_route("/{model:path}", methods=["GET", "HEAD"])  # an id may hold slashes, raw or encoded
    async def retrieve_model(model: str, request: Request) -> ModelObject:
        key = runtime().authenticate(request.scope)
        return model_object(runtime().catalog.get(model, key))

    return routes


def model_object(model: Model) -> ModelObject:
    return ModelObject(
        id=model.name,
        owned_by=model.deployments[0].provider.name,
        capabilities=capabilities(model),
    )


def capabilities(model: Model) -> dict[str, Any]:
    """Return the abilities that at least one deployment has."""
    profiles = [deployment.profile for deployment in model.deployments]
    editing = [p for p in profiles if Operation.EDITS in p.operations]
    given = [p for p in profiles if p.operations != {Operation.GENERATIONS}]
    prices = [to_number(price) for p in profiles for price in _per_image(p)]
    return {
        "operations": sorted({str(operation) for p in profiles for operation in p.operations}),
        "sizes": sizes(profiles),
        "size_rules": size_rules(profiles),
        "max_n": 10,
        "output_formats": ["png", "jpeg", "webp"],
        "mask": any(p.mask != "none" for p in editing),
        "mask_required": bool(editing) and all(p.mask_required for p in editing),
        "max_images": max((p.max_images for p in given), default=0),
        "parameters": parameters(profiles),
        "streaming": True,
        "partial_images": any(p.streaming is not False for p in profiles),
        "price_per_image": min(prices, default=None),
        "typical_seconds": min((p.typical_seconds for p in profiles if p.typical_seconds), default=None),
        "aliases": list(model.aliases),
        "alias_of": model.alias_of,
        "deployments": [deployment.name for deployment in model.deployments],
    }


def _per_image(profile: Profile) -> list[int]:
    """Return the prices per image of all tiers that state one."""
    price = profile.stated_price
    return [tier.per_image for tier in price.tiers if tier.per_image is not None] if price else []


def sizes(profiles: list[Profile]) -> list[str]:
    """Return the sizes that can be chosen; if a profile has bounds instead, they are put into words."""
    rules = [p.size for p in profiles if takes_size(p)]
    return list(dict.fromkeys(text for rule in rules for text in map(str, rule.list or [rule])))


def size_rules(profiles: list[Profile]) -> list[dict[str, Any]]:
    """Return the same for programs: a size is drawn if one of these rules allows it. Without any, no size can be
    chosen.

    A rule is a list of sizes (`sizes`), or bounds: each edge from `min` to `max` pixels and divisible by `multiple_of`,
    at most `max_pixels` in all; null where there is no bound.
    """
    rules = dict.fromkeys(p.size for p in profiles if takes_size(p))
    return [
        {"sizes": [str(size) for size in rule.list]}
        if rule.list
        else {"min": rule.min, "max": rule.max, "multiple_of": rule.multiple_of, "max_pixels": rule.max_pixels}
        for rule in rules
    ]


def parameters(profiles: list[Profile]) -> list[str] | None:
    """Return the parameters that some deployment understands, as callers spell them; None if one deployment takes
    any."""
    known: set[str] = set()
    for can in profiles:
        if can.parameters is None:
            return None
        known.update(can.parameters)
        if takes_size(can):
            known.update(("size", "width", "height"))
    return sorted(known)
