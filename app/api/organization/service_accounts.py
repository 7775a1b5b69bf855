"""Service accounts: `client.admin.organization.projects.service_accounts`. A new one comes with its key, which is shown
this once."""

from __future__ import annotations

from typing import Any

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.lists import page_from
from app.api.organization.api_keys import LONGEST_LIFE, delete_key, find_key, keys_of
from app.api.organization.projects import check_not_archived, find_project
from app.api.requests.rules import invalid
from app.ledger.values.directory import ApiKey
from app.microseconds import SECOND

OBJECT = "organization.project.service_account"


async def list_all(call: AdminCall) -> Content:
    query, directory = call.query(), await (await call.registry()).directory()
    project = find_project(directory, call.path["project"])
    return page_from(keys_of(directory, project.id), query, describe)


async def create(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    name = body.required_text("name")
    seconds = body.integer("expires_in_seconds", 1, LONGEST_LIFE)
    if body.flag("create_service_account_only"):
        message = "A service account of this gateway is its key. Leave 'create_service_account_only' out."
        raise invalid("create_service_account_only", message)
    body.check()
    project = find_project(await registry.directory(), call.path["project"])
    check_not_archived(project, param=None)
    made = call.mint()
    expires_at = None if seconds is None else call.now + seconds * SECOND
    key = ApiKey(
        made.id,
        name,
        made.digest,
        project.id,
        created_at=call.now,
        created_by=f"key:{call.caller.id}",
        expires_at=expires_at,
    )
    await registry.add_key(key, call.actor)
    await call.refresh()
    told = {
        "id": key.id,
        "object": f"{OBJECT}.api_key",
        "name": name,
        "value": made.text,
        "created_at": key.created_at // SECOND,
        "expires_at": None if expires_at is None else expires_at // SECOND,
    }
    return describe(key) | {"api_key": told}


async def retrieve(call: AdminCall) -> Content:
    return describe(find_key(await (await call.registry()).directory(), call))


async def update(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    name = body.text("name")
    if body.choice("role", ("member", "owner")) == "owner":
        raise invalid("role", "The role 'owner' does not exist here. Admin keys administrate: 'admin_api_keys'.")
    body.check()
    key = find_key(await registry.directory(), call)
    if name is not None:
        key = await registry.update_key(key.id, call.actor, name=name)
        await call.refresh()
    return describe(key)


async def delete(call: AdminCall) -> Content:
    return {"id": await delete_key(call), "object": f"{OBJECT}.deleted", "deleted": True}


def describe(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": OBJECT,
        "name": key.name,
        "role": "member",
        "created_at": key.created_at // SECOND,
    }
