"""`/v1/models`: what there is to draw with, and what each can do. Knows no provider's dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.access.keys import Keys
from app.catalog.deployments import Model
from app.catalog.fitting import takes_size
from app.catalog.models import Catalog
from app.catalog.profiles import Profile
from app.images import Operation

STARTED = 1_763_683_200  # "created" of every model: the gateway knows no better, and clients want a number


class Lookup(Protocol):
    @property
    def catalog(self) -> Catalog: ...

    @property
    def keys(self) -> Keys: ...


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


def router(parts: Callable[[], Lookup]) -> APIRouter:
    routes = APIRouter(prefix="/v1/models")

    @routes.api_route("", methods=["GET", "HEAD"])
    async def list_models(request: Request) -> ModelList:
        key = parts().keys.authenticate(request.headers.get("authorization"))
        return ModelList(data=[described(model) for model in parts().catalog.visible(key)])

    @routes.api_route("/{model:path}", methods=["GET", "HEAD"])  # its id may hold slashes, raw or encoded
    async def retrieve_model(model: str, request: Request) -> ModelObject:
        key = parts().keys.authenticate(request.headers.get("authorization"))
        return described(parts().catalog.described(model, key))

    return routes


def described(model: Model) -> ModelObject:
    return ModelObject(
        id=model.name,
        owned_by=model.deployments[0].provider.name,
        capabilities=capabilities(model),
    )


def capabilities(model: Model) -> dict[str, Any]:
    """What at least one deployment can do, and each deployment's own answer."""
    profiles = [deployment.profile for deployment in model.deployments]
    editing = [p for p in profiles if Operation.EDITS in p.operations]
    given = [p for p in profiles if p.operations != {Operation.GENERATIONS}]
    prices = [p.price_per_image for p in profiles if p.price_per_image is not None]
    return {
        "operations": sorted({str(operation) for p in profiles for operation in p.operations}),
        "sizes": sizes(profiles),
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
        "deployments": [deployment.name for deployment in model.deployments],
    }


def sizes(profiles: list[Profile]) -> list[str]:
    """Each that can be chosen, or in words the bounds that it must keep to."""
    rules = [p.size for p in profiles if takes_size(p)]
    return list(dict.fromkeys(text for rule in rules for text in map(str, rule.list or [rule])))


def parameters(profiles: list[Profile]) -> list[str] | None:
    """Names, as callers spell them, that some deployment understands; null if one takes whatever it is given."""
    known: set[str] = set()
    for can in profiles:
        if can.parameters is None:
            return None
        known.update(can.parameters)
        if takes_size(can):
            known.update(("size", "width", "height"))
    return sorted(known)
