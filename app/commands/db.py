"""`image-gateway db`: the database itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.book import alone, run, told
from app.commands.options import CommandError, ConfigOption, note, read_settings

if TYPE_CHECKING:
    from app.config.loading import Settings
    from app.ledger.book.registry import Registry

commands = typer.Typer(help="The database.", no_args_is_help=True)

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The file of the backup.")]


@commands.command()
def upgrade(config: ConfigOption = None) -> None:
    """Bring the schema up to date, whatever `database.migrate` says. A database that is missing is made."""
    from app.ledger.database.schema import HEAD

    async def work(_: Settings, __: Registry) -> None:
        note(f"the schema is up to date: {HEAD}")

    run(config, work, migrate=True)


@commands.command()
def backup(file: BackupFile, config: ConfigOption = None) -> None:
    """Write the whole database into a new file, also while the gateway runs. The secret belongs to it."""
    from app.ledger.database.copies import CopyError, back_up

    settings = read_settings(config)
    with told(CopyError):
        path = _sqlite_file(settings, "pg_dump")
        if not path.exists():
            raise CommandError(f"There is no database {str(path)!r}.")
        back_up(path, file)
    where = "" if settings.stated_secret else f" ({settings.data_dir / 'secret'})"
    note(f"the database is in {file}; keep the secret{where} with it: without it no issued key is good")


@commands.command()
def restore(file: BackupFile, config: ConfigOption = None) -> None:
    """Put a backup in the place of the database. The gateway must not run."""
    from app.ledger.database.copies import CopyError
    from app.ledger.database.copies import restore as put_back

    settings = read_settings(config)
    with told(CopyError), alone(settings):
        before = put_back(file, _sqlite_file(settings, "pg_restore"))
    note(f"{file} is restored" + (f"; what was there before is in {before}" if before else ""))


@commands.command()
def move(
    to: Annotated[str, typer.Option(help="The URL of an empty Postgres: postgresql://user@host/name.")],
    config: ConfigOption = None,
) -> None:
    """Copy everything into an empty Postgres, and compare counts and sums. The gateway must not run."""
    from app.ledger.database.copies import CopyError
    from app.ledger.database.copies import move as copy_all

    if not to.startswith(("postgresql://", "postgres://")):
        raise typer.BadParameter("write the URL of a Postgres, like postgresql://user@host/name", param_hint="--to")

    async def work(_: Settings, registry: Registry) -> int:
        return await copy_all(registry.database, to)

    settings = read_settings(config)
    with told(CopyError):
        _sqlite_file(settings, "pg_dump and pg_restore")
        with alone(settings):
            rows = run(config, work)
    note(f"{rows} rows were moved; now set `database.url`, and state the secret as `secret`")


def _sqlite_file(settings: Settings, instead: str) -> Path:
    """Return the file of the database. Raises CommandError if it is a Postgres."""
    from app.ledger.database.opening import FILE

    if settings.database_url is not None:
        raise CommandError(f"The database is a Postgres, which has tools of its own: {instead}.")
    return settings.data_dir / FILE
