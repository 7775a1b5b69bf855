"""A project's limits: `client.admin.organization.projects.rate_limits`. OpenAI has a row for each model; here one row
with the model `*` holds for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.api.administration.endpoint import AdminCall, Content, not_found
from app.api.administration.lists import page_of
from app.api.organization.projects import changeable, find_project
from app.api.requests.rules import invalid
from app.ledger.values.directory import Project

UNLIMITED = 2_147_483_647  # a member that OpenAI requires, where there is no limit
_UNSUPPORTED = (
    "batch_1_day_max_input_tokens",
    "max_audio_megabytes_per_1_minute",
    "max_requests_per_1_day",
    "max_tokens_per_1_minute",
)


async def list_all(call: AdminCall) -> Content:
    query, directory = call.query(), await (await call.registry()).directory()
    query.integer("limit", 1, 1000)
    after = query.text("after") or query.text("before")
    query.check()
    row = describe(find_project(directory, call.path["project"]))
    return page_of([] if after is not None else [row], has_more=False)


async def update(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    found = {
        "requests_per_minute": body.integer("max_requests_per_1_minute", 1, UNLIMITED),
        "images_per_minute": body.integer("max_images_per_1_minute", 1, UNLIMITED),
    }
    for name in _UNSUPPORTED:
        if body.integer(name, 0, UNLIMITED):
            raise invalid(name, f"{name!r} is not supported: limits here count requests, images and megapixels.")
    body.check()
    project = changeable(find_project(await registry.directory(), call.path["project"]))
    if call.path["limit"] != _id(project):
        raise not_found(call.path["limit"], "rate limit")
    stated: dict[str, Any] = {
        name: None if value == UNLIMITED else value for name, value in found.items() if value is not None
    }
    if stated:
        project = await registry.update_project(project.id, call.actor, limits=replace(project.limits, **stated))
        await call.refresh()
    return describe(project)


def describe(project: Project) -> dict[str, Any]:
    limits = project.limits
    return {
        "id": _id(project),
        "object": "project.rate_limit",
        "model": "*",
        "max_requests_per_1_minute": limits.requests_per_minute or UNLIMITED,
        "max_images_per_1_minute": limits.images_per_minute,
        "max_tokens_per_1_minute": 0,
    }


def _id(project: Project) -> str:
    return f"rl_{project.id}"
