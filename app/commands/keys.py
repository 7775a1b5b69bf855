"""`image-gateway keys`: make API keys, list them, switch them off and on, rotate and delete them. A running gateway
learns of it within two seconds."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from app.commands.book import master_secret, me, now, run
from app.commands.options import (
    CommandError,
    ConfigOption,
    ImagesOption,
    JsonOption,
    MegapixelsOption,
    PlacesOption,
    RequestsOption,
    note,
    span,
    split,
)
from app.commands.projects import find_project, new_project
from app.commands.table import table
from app.commands.times import write_iso
from app.images import Operation
from app.microseconds import to_microseconds

if TYPE_CHECKING:
    from app.config.loading import Settings
    from app.ledger.book.registry import Registry
    from app.ledger.values.directory import ApiKey, Directory

commands = typer.Typer(help="API keys of callers.", no_args_is_help=True)


class KeyScope(StrEnum):
    """A permission of an ordinary key."""

    DRAW = "draw"
    USAGE = "usage"
    METRICS = "metrics"


_Globs = Optional[list[str]]  # noqa: UP045
_Text = Optional[str]  # noqa: UP045
WhichKey = Annotated[str, typer.Argument(metavar="ID", help="The id of 8 characters, or a name that is unique.")]


@commands.command()
def create(
    name: Annotated[str, typer.Option(help="A name for lists and logs.")],
    project: Annotated[_Text, typer.Option(help="The project's name or id; made if there is none.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="A key that administrates and does not draw.")] = False,
    models: Annotated[_Globs, typer.Option(help="Globs of the models that it may use.")] = None,
    operations: Annotated[_Globs, typer.Option(help="Globs of the operations that it may ask for.")] = None,
    requests_per_minute: RequestsOption = None,
    images_per_minute: ImagesOption = None,
    megapixels_per_minute: MegapixelsOption = None,
    max_concurrency: PlacesOption = None,
    expires: Annotated[_Text, typer.Option(help="The time for which it is good, like 90d.")] = None,
    scope: Annotated[Optional[list[KeyScope]], typer.Option(help="What it may do; draw, if not said.")] = None,  # noqa: UP045
    config: ConfigOption = None,
) -> None:
    """Make a key, and print it: this once, and alone on standard output."""
    from app.access.key_text import new_key
    from app.ledger.values.directory import ApiKey
    from app.ledger.values.limits import Limits
    from app.storage.secret import API_KEYS

    if admin and (project or scope or models or operations):
        raise typer.BadParameter("an admin key has no project, scope, models or operations", param_hint="--admin")
    if not admin and not project:
        raise typer.BadParameter("say to which project the key belongs, or make an --admin key", param_hint="--project")
    if not name.strip() or not name.isprintable():
        raise typer.BadParameter("a name is a line of text", param_hint="--name")
    _check_operations(split(operations))
    until = span(expires, "--expires") if expires else None

    async def work(settings: Settings, registry: Registry) -> str:
        project_id = await _project_id(registry, project) if project else None
        text = new_key(secrets.choice, is_admin=admin)
        key = ApiKey(
            id=text.id,
            name=name,
            digest=text.digest(master_secret(settings).derive(API_KEYS)),
            project_id=project_id,
            scopes=("admin",) if admin else tuple(dict.fromkeys(str(each) for each in scope or ("draw",))),
            models=split(models),
            operations=split(operations),
            limits=Limits(requests_per_minute, images_per_minute, megapixels_per_minute, max_concurrency),
            created_at=now(),
            created_by=f"command:{me().id}",
            expires_at=now() + to_microseconds(until.total_seconds()) if until else None,
        )
        await registry.add_key(key, me())
        return text.text

    typer.echo(run(config, work))
    note(f"key {name!r} was made. It is shown this once: only its digest is stored.")


@commands.command("list")
def list_keys(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the keys: those of the database and those of the configuration."""

    async def work(settings: Settings, registry: Registry) -> Sequence[dict[str, Any]]:
        directory = await registry.directory()
        return [*_stated(settings), *(_describe(key, directory) for key in _sorted(directory))]

    found = run(config, work)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    heads = ("id", "name", "project", "scopes", "models", "limits", "state", "last used", "source")
    typer.echo(table(heads, [_cells(key) for key in found]) if found else "There is no key.")


@commands.command()
def disable(which: WhichKey, config: ConfigOption = None) -> None:
    """Refuse a key, until it is enabled again. Its requests under way run to their end."""
    _change(config, which, {"disabled_at": now()}, "is refused from now on")


@commands.command()
def enable(which: WhichKey, config: ConfigOption = None) -> None:
    """Accept a key that was disabled."""
    _change(config, which, {"disabled_at": None, "disabled_why": None}, "is accepted again")


@commands.command()
def rotate(
    which: WhichKey,
    grace: Annotated[str, typer.Option(help="The time for which the old key stays good.")] = "24h",
    config: ConfigOption = None,
) -> None:
    """Make a new text for a key, and print it. Its id, limits and runs stay; the old text is good for a while."""
    from app.access.key_text import new_key
    from app.storage.secret import API_KEYS

    while_good: timedelta = span(grace, "--grace")

    async def work(settings: Settings, registry: Registry) -> str:
        key = _find(settings, await registry.directory(), which)
        text = new_key(secrets.choice, is_admin="admin" in key.scopes, id=key.id)
        digest = text.digest(master_secret(settings).derive(API_KEYS))
        await registry.rotate_key(key.id, digest, now() + to_microseconds(while_good.total_seconds()), me())
        note(f"key {key.id} ({key.name!r}) has a new text, shown this once. The old one is good for {grace}.")
        return text.text

    typer.echo(run(config, work))


@commands.command()
def delete(which: WhichKey, config: ConfigOption = None) -> None:
    """Delete a key for good. Its drawings stay in the book."""

    async def work(settings: Settings, registry: Registry) -> None:
        key = _find(settings, await registry.directory(), which)
        await registry.delete_key(key.id, me())
        note(f"key {key.id} ({key.name!r}) is deleted")

    run(config, work)


def _change(config: ConfigOption, which: str, changes: dict[str, Any], words: str) -> None:
    async def work(settings: Settings, registry: Registry) -> None:
        key = _find(settings, await registry.directory(), which)
        await registry.update_key(key.id, me(), **changes)
        note(f"key {key.id} ({key.name!r}) {words}")

    run(config, work)


def _find(settings: Settings, directory: Directory, which: str) -> ApiKey:
    """Return the key of an id or of a unique name. Raises CommandError."""
    if which in directory.keys:
        return directory.keys[which]
    named = [key for key in directory.keys.values() if key.name == which]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(key.id for key in named)
        raise CommandError(f"{len(named)} keys are called {which!r}. Say which one by its id: {ids}.")
    if any(which in (key["id"], key["name"]) for key in _stated(settings)):
        raise CommandError(f"Key {which!r} stands in the configuration. Change it there.")
    raise CommandError(f"There is no key {which!r}. `image-gateway keys list` shows all of them.")


async def _project_id(registry: Registry, which: str) -> str:
    """Return the id of a project, made if there is none. Raises CommandError."""
    from app.ledger.values.changes import Taken

    found = find_project(await registry.directory(), which)
    if found is None:
        made = new_project(which)
        try:
            await registry.add_project(made, me())
        except Taken:  # by another command, meanwhile
            return await _project_id(registry, which)
        note(f"project {made.name!r} did not exist and was made: {made.id}")
        return made.id
    if found.archived_at is not None:
        raise CommandError(f"Project {found.name!r} is archived, and its keys do not draw. Choose another.")
    return found.id


def _check_operations(globs: Sequence[str]) -> None:
    from fnmatch import fnmatchcase

    for glob in globs:
        if not any(fnmatchcase(operation, glob) for operation in Operation):
            known = ", ".join(Operation)
            raise typer.BadParameter(f"{glob!r} is no operation: there are {known}", param_hint="--operations")


# --- what is shown ---


def _sorted(directory: Directory) -> Sequence[ApiKey]:
    return sorted(directory.keys.values(), key=lambda key: (key.created_at, key.id))


def _describe(key: ApiKey, directory: Directory) -> dict[str, Any]:
    project = directory.projects.get(key.project_id or "")
    return {
        "id": key.id,
        "name": key.name,
        "project": project.name if project else None,
        "project_id": key.project_id,
        "scopes": list(key.scopes),
        "models": list(key.models) or ["*"],
        "operations": list(key.operations) or ["*"],
        "limits": _limits(key.limits),
        "state": _state(key),
        "created_at": write_iso(key.created_at),
        "created_by": key.created_by,
        "expires_at": write_iso(key.expires_at),
        "disabled_at": write_iso(key.disabled_at),
        "previous_until": write_iso(key.previous_until),
        "last_used_at": write_iso(key.last_used_at),
        "source": "database",
    }


def _state(key: ApiKey) -> str:
    if key.disabled_at is not None:
        return "disabled"
    return "active" if key.is_usable(now()) else "expired"


def _stated(settings: Settings) -> Sequence[dict[str, Any]]:
    from app.config.inventory import keys

    return [
        {
            "id": stated.key.id,
            "name": stated.key.name,
            "project": stated.key.project.name if stated.key.project else None,
            "scopes": list(stated.key.scopes),
            "models": list(stated.key.models),
            "operations": list(stated.key.operations),
            "limits": _limits(stated.key.limits),
            "state": "active",
            "source": "file",
        }
        for stated in keys(settings)
    ]


def _limits(limits: Any) -> dict[str, int]:
    from dataclasses import asdict

    return {name: amount for name, amount in asdict(limits).items() if amount is not None}


def _cells(key: dict[str, Any]) -> Sequence[str]:
    limits = ", ".join(f"{amount} {name.replace('_', ' ')}" for name, amount in key["limits"].items())
    return (
        key["id"],
        key["name"],
        key["project"] or "-",
        ",".join(key["scopes"]),
        ",".join(key["models"]),
        limits or "-",
        key["state"],
        (key.get("last_used_at") or "-")[:13].replace("T", " "),
        key["source"],
    )
