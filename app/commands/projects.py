"""`image-gateway projects`: make, list and archive projects, whose keys share limits and budgets."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.book import me, now, run
from app.commands.options import (
    CommandError,
    ConfigOption,
    ImagesOption,
    JsonOption,
    MegapixelsOption,
    PlacesOption,
    RequestsOption,
    note,
)
from app.commands.table import table
from app.commands.times import write_iso, write_time

if TYPE_CHECKING:
    from app.config.loading import Settings
    from app.ledger.book.registry import Registry
    from app.ledger.values.directory import Directory, Project

commands = typer.Typer(help="Projects: keys that share limits and budgets.", no_args_is_help=True)
ID_LENGTH = 16  # behind `proj_`


@commands.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    requests_per_minute: RequestsOption = None,
    images_per_minute: ImagesOption = None,
    megapixels_per_minute: MegapixelsOption = None,
    max_concurrency: PlacesOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a project, and print its id. The limits are for all of its keys together."""
    from app.ledger.values.changes import Taken
    from app.ledger.values.limits import Limits

    limits = Limits(requests_per_minute, images_per_minute, megapixels_per_minute, max_concurrency)
    project = replace(new_project(name), limits=limits)

    async def work(_: Settings, registry: Registry) -> None:
        try:
            await registry.add_project(project, me())
        except Taken:
            raise CommandError(
                f"There is a project {name!r} already. `image-gateway projects list` shows it."
            ) from None

    run(config, work)
    typer.echo(project.id)


@commands.command("list")
def list_projects(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the projects."""

    async def work(_: Settings, registry: Registry) -> Directory:
        return await registry.directory()

    directory = run(config, work)
    projects = sorted(directory.projects.values(), key=lambda project: project.name)
    counts = {project.id: 0 for project in projects}
    for key in directory.keys.values():
        if key.project_id in counts:
            counts[key.project_id] += 1
    if as_json:
        described = [
            {
                "id": project.id,
                "name": project.name,
                "state": _state(project),
                "keys": counts[project.id],
                "limits": {name: amount for name, amount in asdict(project.limits).items() if amount is not None},
                "created_at": write_iso(project.created_at),
                "archived_at": write_iso(project.archived_at),
                "source": project.source,
            }
            for project in projects
        ]
        typer.echo(json.dumps(described, indent=2))
        return
    rows = [
        (each.id, each.name, str(counts[each.id]), _state(each), write_time(each.created_at), each.source)
        for each in projects
    ]
    heads = ("id", "name", "keys", "state", "made", "source")
    typer.echo(table(heads, rows, right=("keys",)) if rows else "There is no project.")


@commands.command()
def archive(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")], config: ConfigOption = None
) -> None:
    """Archive a project: its keys draw no more. Its drawings stay in the book."""

    async def work(_: Settings, registry: Registry) -> None:
        found = find_project(await registry.directory(), name)
        if found is None:
            raise CommandError(f"There is no project {name!r}. `image-gateway projects list` shows all of them.")
        if found.source == "file":
            raise CommandError(f"Project {name!r} stands in the configuration. Take it out there.")
        await registry.archive_project(found.id, me())
        note(f"project {found.name!r} is archived: its keys draw no more")

    run(config, work)


def find_project(directory: Directory, which: str) -> Project | None:
    """Return the project of an id or a name."""
    by_name = {project.name: project for project in directory.projects.values()}
    return directory.projects.get(which) or by_name.get(which)


def new_project(name: str) -> Project:
    """Return a project with a new id. Raises typer.BadParameter for a name that is none."""
    from app.access.key_text import ALPHABET
    from app.ledger.values.directory import Project

    if not name.strip() or not name.isprintable():
        raise typer.BadParameter("a project's name is a line of text")
    id = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    return Project(f"proj_{id}", name, now())


def _state(project: Project) -> str:
    return "active" if project.archived_at is None else "archived"
