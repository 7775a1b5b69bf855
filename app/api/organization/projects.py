"""Projects: `client.admin.organization.projects`."""

from __future__ import annotations

import secrets

from app.api.administration.endpoint import AdminCall, Content, not_found
from app.api.administration.lists import page_from
from app.api.requests.rules import invalid
from app.errors import Conflict, InvalidRequest
from app.ledger.values.directory import Directory, Project
from app.microseconds import SECOND


async def list_all(call: AdminCall) -> Content:
    query = call.query()
    with_archived = query.flag("include_archived") or False
    projects = (await (await call.registry()).directory()).projects.values()
    return page_from([x for x in projects if with_archived or x.archived_at is None], query, describe)


async def create(call: AdminCall) -> Content:
    body = await call.body()
    name = body.required_text("name")
    for unsupported in ("external_key_id", "geography", "residency"):
        if unsupported in body:
            raise invalid(unsupported, f"{unsupported!r} is not supported: this gateway keeps its data where it runs.")
    body.check()
    registry = await call.registry()
    if any(project.name == name for project in (await registry.directory()).projects.values()):
        raise Conflict(f"There is a project {name!r}. Choose another name.", param="name", code="already_exists")
    project = Project(f"proj_{secrets.token_hex(8)}", name, call.now)
    await registry.add_project(project, call.actor)
    await call.refresh()
    return describe(project)


async def retrieve(call: AdminCall) -> Content:
    return describe(find_project(await (await call.registry()).directory(), call.path["project"]))


async def update(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    name = body.text("name")
    body.check()
    project = changeable(find_project(await registry.directory(), call.path["project"]))
    if name is not None:
        project = await registry.update_project(project.id, call.actor, name=name)
        await call.refresh()
    return describe(project)


async def archive(call: AdminCall) -> Content:
    registry = await call.registry()
    project = changeable(find_project(await registry.directory(), call.path["project"]))
    if project.archived_at is None:
        project = await registry.archive_project(project.id, call.actor)
        await call.refresh()
    return describe(project)


def describe(project: Project) -> dict[str, object]:
    return {
        "id": project.id,
        "object": "organization.project",
        "name": project.name,
        "created_at": project.created_at // SECOND,
        "archived_at": None if project.archived_at is None else project.archived_at // SECOND,
        "status": "active" if project.archived_at is None else "archived",
    }


def find_project(directory: Directory, id: str) -> Project:
    """Raises NotFound."""
    if id not in directory.projects:
        raise not_found(id, "project")
    return directory.projects[id]


def named_project(directory: Directory, id: str) -> Project:
    """Return the project that a body names as its `project_id`. Raises InvalidRequest."""
    if id not in directory.projects:
        raise invalid("project_id", not_found(id, "project").message)
    return directory.projects[id]


def check_not_archived(project: Project, param: str | None) -> None:
    """Raise InvalidRequest for a project whose keys do not draw. `param` is the field of the body that names it."""
    if project.archived_at is not None:
        message = f"Project {project.name!r} is archived, and its keys do not draw. Choose another project."
        raise InvalidRequest(message, param=param, code="invalid_value")


def changeable(project: Project) -> Project:
    """Return a project that was made at run time. Raises Conflict for one of the configuration."""
    if project.source == "file":
        message = f"Project {project.name!r} stands in the configuration. Change it there."
        raise Conflict(message, code="stated_in_configuration")
    return project
