"""Projects with everything that they have here: all limits, and where they stand. OpenAI's admin API creates and
archives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.lists import page_from
from app.api.management.callers import describe_limits
from app.api.management.keys import read_limits
from app.api.organization import projects
from app.ledger.values.directory import Project


async def list_all(call: AdminCall) -> Content:
    query, directory = call.query(), await (await call.registry()).directory()
    with_archived = query.flag("include_archived") or False
    found = [each for each in directory.projects.values() if with_archived or each.archived_at is None]
    return page_from(found, query, describe)


async def retrieve(call: AdminCall) -> Content:
    return describe(projects.find_project(await (await call.registry()).directory(), call.path["project"]))


async def update(call: AdminCall) -> Content:
    """Change the name or limits. Null takes a limit away."""
    body, registry = await call.body(), await call.registry()
    name, limits = body.text("name"), read_limits(body)
    body.check()
    project = projects.changeable(projects.find_project(await registry.directory(), call.path["project"]))
    changes: dict[str, Any] = {"name": name} if name is not None else {}
    if limits:
        changes["limits"] = replace(project.limits, **limits)
    if changes:
        project = await registry.update_project(project.id, call.actor, **changes)
        await call.refresh()
    return describe(project)


def describe(project: Project) -> dict[str, Any]:
    told = {name: value for name, value in projects.describe(project).items() if name != "object"}
    return {**told, "object": "project", "limits": describe_limits(project.limits), "source": project.source}
