"""Read the directory from its tables, without SQLAlchemy: every process does it at its start."""

from __future__ import annotations

import json
from typing import Any

from app.ledger.database.protocol import Database
from app.ledger.values.directory import ApiKey, Budget, Directory, Project
from app.ledger.values.limits import Limits

_LIMITS = "requests_per_minute, images_per_minute, megapixels_per_minute, max_concurrency"
_REVISION = "select number from revision where name = 'directory'"
_PROJECTS = f"select id, name, created_at, archived_at, source, {_LIMITS} from project order by id"
_KEYS = f"""select id, name, digest, project_id, scopes, models, operations, default_response_format, previous_digest,
    previous_until, created_at, created_by, expires_at, disabled_at, disabled_why, last_used_at, {_LIMITS}
    from api_key where deleted_at is null order by id"""
_ANY_KEY = "select 1 from api_key limit 1"
_BUDGETS = """select b.id, b.scope, b.scope_id, b.amount_nano, b."window", b.timezone, b.models, b.since, b.hard,
    b.thresholds, b.source, coalesce(p.name, k.name, b.scope_id, '') from budget b
    left join project p on b.scope = 'project' and p.id = b.scope_id
    left join api_key k on b.scope = 'key' and k.id = b.scope_id where b.removed_at is null order by b.id"""


async def read_revision(database: Database) -> int:
    rows = await database.query(_REVISION)
    return int(rows[0][0]) if rows else 0


async def read_directory(database: Database) -> Directory:
    """Return the whole directory. It reads the revision first, so that a change meanwhile is noticed later. It reads
    keys before projects, which are never deleted, so that every key finds its project's limits and budgets."""
    revision = await read_revision(database)
    keys = [_key(*row) for row in await database.query(_KEYS)]
    projects = [_project(*row) for row in await database.query(_PROJECTS)]
    budgets = tuple(_budget(*row) for row in await database.query(_BUDGETS))
    by_id = {project.id: project for project in projects}, {key.id: key for key in keys}
    return Directory(revision, *by_id, budgets, await has_had_keys(database))


async def has_had_keys(database: Database) -> bool:
    """True if a key was ever issued, also if it is deleted."""
    return bool(await database.query(_ANY_KEY))


def _project(id: str, name: str, created_at: int, archived_at: int | None, source: Any, *limits: Any) -> Project:
    return Project(id, name, created_at, archived_at, Limits(*limits), source)


def _key(*row: Any) -> ApiKey:
    id, name, digest, project_id, scopes, models, operations, result, previous, until, *rest = row
    created_at, created_by, expires_at, disabled_at, disabled_why, last_used_at, *limits = rest
    return ApiKey(
        id=id,
        name=name,
        digest=bytes(digest),
        project_id=project_id,
        scopes=tuple(json.loads(scopes)),
        models=tuple(json.loads(models)),
        operations=tuple(json.loads(operations)),
        limits=Limits(*limits),
        default_response_format=result,
        previous_digest=None if previous is None else bytes(previous),
        previous_until=until,
        created_at=created_at,
        created_by=created_by,
        expires_at=expires_at,
        disabled_at=disabled_at,
        disabled_why=disabled_why,
        last_used_at=last_used_at,
    )


def _budget(*row: Any) -> Budget:
    id, scope, scope_id, amount, window, timezone, models, since, hard, thresholds, source, owner = row
    return Budget(
        id=id,
        scope=scope,
        scope_id=scope_id,
        amount=amount,
        window=window,
        timezone=timezone,
        models=tuple(json.loads(models)),
        since=since,
        hard=bool(hard),
        thresholds=tuple(json.loads(thresholds)),
        owner=owner,
        source=source,
    )
