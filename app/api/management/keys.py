"""Keys with everything that they have here: scopes, models, operations, all limits; of issued ones rotation and
disabling, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from app.api.administration.endpoint import AdminCall, Content, not_found
from app.api.administration.fields import Fields
from app.api.administration.lists import page_from
from app.api.management.callers import describe_limits
from app.api.organization.api_keys import SCOPES, is_admin, redacted, times
from app.api.organization.projects import check_not_archived, named_project
from app.api.requests.rules import invalid, missing
from app.errors import Conflict
from app.images import Operation
from app.ledger.values.directory import ApiKey
from app.ledger.values.limits import Limits
from app.microseconds import SECOND

GRACE_SECONDS = 86_400  # for which a rotated key's old text stays good
LONGEST_GRACE = 30 * 86_400
MOST = 1_000_000_000  # of a limit
FORMATS = ("url", "b64_json")


async def list_all(call: AdminCall) -> Content:
    query, directory = call.query(), await (await call.registry()).directory()
    project = query.text("project_id")
    keys = [key for key in call.keys(directory).values() if project is None or key.project_id == project]
    return page_from(keys, query, lambda key: describe(key, call.now))


async def create(call: AdminCall) -> Content:
    body, registry = await call.body(), await call.registry()
    name, project_id, is_for_admins = body.required_text("name"), body.text("project_id"), body.flag("admin") or False
    settings = _settings(body)
    body.check()
    if is_for_admins:
        _check_admin(settings | ({"project_id": project_id} if project_id else {}))
        settings["scopes"] = ("admin",)
    elif project_id is None:
        raise missing("project_id", " A key belongs to a project, unless it is an admin key ('admin': true).")
    if project_id is not None:
        check_not_archived(named_project(await registry.directory(), project_id), param="project_id")
    made, limits = call.mint(is_admin=is_for_admins), settings.pop("limits", {})
    known = ApiKey(made.id, name, made.digest, project_id, created_at=call.now, created_by=f"key:{call.caller.id}")
    key = replace(known, limits=Limits(**limits), **settings)
    await registry.add_key(key, call.actor)
    await call.refresh()
    return describe(key, call.now) | {"value": made.text}


async def retrieve(call: AdminCall) -> Content:
    return describe(await _find(call), call.now)


async def update(call: AdminCall) -> Content:
    body, key = await call.body(), await _changeable(call)
    name, settings = body.text("name"), _settings(body)
    body.check()
    if is_admin(key):
        _check_admin(settings)
    if "limits" in settings:
        settings["limits"] = replace(key.limits, **settings["limits"])
    if name is not None:
        settings["name"] = name
    return await _change(call, key, settings) if settings else describe(key, call.now)


async def delete(call: AdminCall) -> Content:
    key = _other(call, await _changeable(call))
    await (await call.registry()).delete_key(key.id, call.actor)
    await call.refresh()
    return {"id": key.id, "object": "api_key.deleted", "deleted": True}


async def rotate(call: AdminCall) -> Content:
    """Give a key another text. The old one stays good for a while, so that callers can change over."""
    body, key = await call.body(), await _changeable(call)
    grace = body.integer("grace_seconds", 0, LONGEST_GRACE)
    body.check()
    until = call.now + (GRACE_SECONDS if grace is None else grace) * SECOND
    made = call.mint(is_admin=is_admin(key), id=key.id)
    key = await (await call.registry()).rotate_key(key.id, made.digest, until, call.actor)
    await call.refresh()
    return describe(key, call.now) | {"value": made.text}


async def disable(call: AdminCall) -> Content:
    body, key = await call.body(), _other(call, await _changeable(call))
    why = body.text("reason")
    body.check()
    return await _change(call, key, {"disabled_at": call.now, "disabled_why": why})


async def enable(call: AdminCall) -> Content:
    (await call.body()).check()
    return await _change(call, await _changeable(call), {"disabled_at": None, "disabled_why": None})


def describe(key: ApiKey, now: int) -> dict[str, Any]:
    is_issued = key.source == "database"
    is_expired = key.expires_at is not None and key.expires_at <= now
    return {
        "id": key.id,
        "object": "api_key",
        "name": key.name,
        "redacted_value": redacted(key) if is_issued else None,
        "project_id": key.project_id,
        "scopes": list(key.scopes),
        "models": list(key.models),
        "operations": list(key.operations),
        "limits": describe_limits(key.limits),
        "default_response_format": key.default_response_format,
        **(times(key) if is_issued else dict.fromkeys(("created_at", "expires_at", "last_used_at"))),
        "state": "disabled" if key.disabled_at is not None else "expired" if is_expired else "active",
        "disabled_reason": key.disabled_why,
        "previous_until": None if key.previous_until is None else key.previous_until // SECOND,
        "created_by": key.created_by if is_issued else None,
        "source": key.source,
    }


async def _find(call: AdminCall) -> ApiKey:
    keys, id = call.keys(await (await call.registry()).directory()), call.path["key"]
    if id not in keys:
        raise not_found(id, "API key")
    return keys[id]


async def _changeable(call: AdminCall) -> ApiKey:
    """Return the key of the path, if it was issued. Raises Conflict for one of the configuration."""
    key = await _find(call)
    if key.source == "file":
        message = f"Key {key.name!r} stands in the configuration. Change it there."
        raise Conflict(message, code="stated_in_configuration")
    return key


async def _change(call: AdminCall, key: ApiKey, changes: dict[str, Any]) -> Content:
    key = await (await call.registry()).update_key(key.id, call.actor, **changes)
    await call.refresh()
    return describe(key, call.now)


def _other(call: AdminCall, key: ApiKey) -> ApiKey:
    """Return the key. Raises Conflict if it is the caller's own: the last administrator would lock itself out."""
    if key.id == call.caller.id:
        raise Conflict("A key cannot take itself away. Use another admin key.", code="own_key")
    return key


def _check_admin(settings: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for settings that an admin key cannot have."""
    for name in ("project_id", "scopes", "models", "operations"):
        if settings.get(name):
            raise invalid(name, f"An admin key has no {name!r}: it administrates everything, and does not draw.")


def _settings(body: Fields) -> dict[str, Any]:
    """Read the settings of a key. Null removes one. `limits` has the stated ones."""
    found = dict[str, Any]()
    if scopes := body.choices("scopes", SCOPES):
        found["scopes"] = tuple(dict.fromkeys(scopes))
    for name in ("models", "operations"):
        if name in body or name in body.nulls:
            found[name] = body.texts(name) if name == "models" else body.choices(name, tuple(map(str, Operation)))
    if "expires_at" in body or "expires_at" in body.nulls:
        found["expires_at"] = body.time("expires_at")
    if "default_response_format" in body or "default_response_format" in body.nulls:
        found["default_response_format"] = body.choice("default_response_format", FORMATS)
    if limits := read_limits(body):
        found["limits"] = limits
    return found


def read_limits(body: Fields) -> dict[str, int | None]:
    names = [field.name for field in fields(Limits)]
    return {name: body.integer(name, 1, MOST) for name in names if name in body or name in body.nulls}
