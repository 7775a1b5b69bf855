"""Admin keys: `client.admin.organization.admin_api_keys`. They administrate and do not draw."""

from __future__ import annotations

from typing import Any

from app.api.administration.endpoint import AdminCall, Content, not_found
from app.api.administration.lists import page_from
from app.api.organization.api_keys import LONGEST_LIFE, is_admin, redacted, times
from app.errors import Conflict
from app.ledger.values.directory import ApiKey, Directory
from app.microseconds import SECOND

OBJECT = "organization.admin_api_key"


async def list_all(call: AdminCall) -> Content:
    query, directory = call.query(), await (await call.registry()).directory()
    is_descending = query.choice("order", ("asc", "desc")) == "desc"
    keys = [key for key in directory.keys.values() if is_admin(key)]
    return page_from(keys, query, describe, newest_first=is_descending)


async def create(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    name = body.required_text("name")
    seconds = body.integer("expires_in_seconds", 1, LONGEST_LIFE)
    body.check()
    made = call.mint(is_admin=True)
    key = ApiKey(
        made.id,
        name,
        made.digest,
        scopes=("admin",),
        created_at=call.now,
        created_by=f"key:{call.caller.id}",
        expires_at=None if seconds is None else call.now + seconds * SECOND,
    )
    await registry.add_key(key, call.actor)
    await call.refresh()
    return describe(key) | {"value": made.text}


async def retrieve(call: AdminCall) -> Content:
    return describe(_find(await (await call.registry()).directory(), call.path["key"]))


async def delete(call: AdminCall) -> Content:
    registry = await call.registry()
    key = _find(await registry.directory(), call.path["key"])
    if key.id == call.caller.id:
        raise Conflict("A key cannot delete itself. Use another admin key.", code="own_key")
    await registry.delete_key(key.id, call.actor)
    await call.refresh()
    return {"id": key.id, "object": f"{OBJECT}.deleted", "deleted": True}


def describe(key: ApiKey) -> dict[str, Any]:
    owner = {
        "type": "service_account",
        "object": "organization.service_account",
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at // SECOND,
        "role": "owner",
    }
    return {
        "id": key.id,
        "object": OBJECT,
        "name": key.name,
        "redacted_value": redacted(key),
        **times(key),
        "owner": owner,
    }


def _find(directory: Directory, id: str) -> ApiKey:
    key = directory.keys.get(id)
    if key is None or not is_admin(key):
        raise not_found(id, "admin key")
    return key
