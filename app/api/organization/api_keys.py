"""Keys of a project: `client.admin.organization.projects.api_keys`. Each belongs to a service account, which is the key
itself under another name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.access import key_text, keyring
from app.api.administration.endpoint import AdminCall, Content, not_found
from app.api.administration.lists import page_from
from app.api.organization.projects import find_project
from app.ledger.values.directory import ApiKey, Directory
from app.microseconds import SECOND

LONGEST_LIFE = 10 * 366 * 86_400  # seconds
SCOPES = tuple(scope for scope in keyring.SCOPES if scope != "admin")
ACCESS = ("active", "inactive", "any")


async def list_all(call: AdminCall) -> Content:
    query, directory = call.query(), await (await call.registry()).directory()
    access = query.choice("owner_project_access", ACCESS) or "any"
    project = find_project(directory, call.path["project"])
    keys = [key for key in keys_of(directory, project.id) if access in ("any", _access(key, directory, call.now))]
    return page_from(keys, query, lambda key: describe(key, directory, call.now))


async def retrieve(call: AdminCall) -> Content:
    directory = await (await call.registry()).directory()
    return describe(find_key(directory, call), directory, call.now)


async def update(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    seconds = body.integer("expires_in_seconds", 1, LONGEST_LIFE)
    scopes = body.choices("scopes", SCOPES)
    body.check()
    directory = await registry.directory()
    key = find_key(directory, call)
    changes: dict[str, Any] = {"scopes": scopes} if scopes else {}
    if seconds is not None:
        changes["expires_at"] = call.now + seconds * SECOND
    if changes:
        key = await registry.update_key(key.id, call.actor, **changes)
        await call.refresh()
    return describe(key, directory, call.now)


async def delete(call: AdminCall) -> Content:
    id = await delete_key(call)
    return {"id": id, "object": "organization.project.api_key.deleted", "deleted": True}


async def delete_key(call: AdminCall) -> str:
    """Delete the key of the path, and return its id."""
    registry = await call.registry()
    key = find_key(await registry.directory(), call)
    await registry.delete_key(key.id, call.actor)
    await call.refresh()
    return key.id


def keys_of(directory: Directory, project_id: str) -> Iterator[ApiKey]:
    return (key for key in directory.keys.values() if key.project_id == project_id)


def find_key(directory: Directory, call: AdminCall) -> ApiKey:
    """Return the key that the path names. Raises NotFound."""
    project, id = find_project(directory, call.path["project"]), call.path["key"]
    key = directory.keys.get(id)
    if key is None or key.project_id != project.id:
        raise not_found(id, "API key")
    return key


def describe(key: ApiKey, directory: Directory, now: int) -> dict[str, Any]:
    account = {"id": key.id, "name": key.name, "created_at": key.created_at // SECOND, "role": "member"}
    return {
        "id": key.id,
        "object": "organization.project.api_key",
        "name": key.name,
        "redacted_value": redacted(key),
        **times(key),
        "owner": {"type": "service_account", "service_account": account},
        "owner_project_access": _access(key, directory, now),
        "scopes": list(key.scopes),
    }


def times(key: ApiKey) -> dict[str, int | None]:
    """Return the times of a key in Unix seconds."""
    return {
        "created_at": key.created_at // SECOND,
        "expires_at": None if key.expires_at is None else key.expires_at // SECOND,
        "last_used_at": None if key.last_used_at is None else key.last_used_at // SECOND,
    }


def redacted(key: ApiKey) -> str:
    """Write the part of a key that is no secret."""
    return f"{key_text.ADMIN if is_admin(key) else key_text.ORDINARY}{key.id}…"


def is_admin(key: ApiKey) -> bool:
    return "admin" in key.scopes


def _access(key: ApiKey, directory: Directory, now: int) -> str:
    project = directory.projects.get(key.project_id or "")
    is_archived = project is not None and project.archived_at is not None
    return "active" if key.is_usable(now) and not is_archived else "inactive"
