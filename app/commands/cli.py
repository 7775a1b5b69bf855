"""The command line: `serve` and `check`, and the commands of the book. Reads the environment and the arguments, and
passes everything on."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from app.catalog.deployments import Model
from app.commands import budgets, db, keys, ledger, projects
from app.commands.book import has_issued_keys
from app.commands.options import ConfigOption, loader, settings_or_exit
from app.commands.usage import usage
from app.config.loading import Settings

main = typer.Typer(
    help="One server that speaks the OpenAI Images API to a team and every provider's own dialect to the outside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
main.add_typer(keys.commands, name="keys")
main.add_typer(projects.commands, name="projects")
main.add_typer(budgets.commands, name="budgets")
main.add_typer(ledger.commands, name="ledger")
main.add_typer(db.commands, name="db")
main.command()(usage)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"image-gateway {version('image-gateway')}")
        raise typer.Exit


@main.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options that stand before a command."""


@main.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[Optional[str], typer.Option(help="The address to listen at.")] = None,  # noqa: UP045
    port: Annotated[Optional[int], typer.Option(help="The port to listen at.")] = None,  # noqa: UP045
) -> None:
    """Serve. Without providers, serve the sandbox: simulated providers, which need neither key nor network."""
    gc.disable()  # until it listens: nearly all that is made till then stays
    from app.process import run

    read = loader(config, has_issued_keys, server={"host": host, "port": port})
    named = config or (Path(os.environ["IMAGE_GATEWAY_CONFIG"]) if os.environ.get("IMAGE_GATEWAY_CONFIG") else None)
    run(settings_or_exit(read), read, named)


@main.command()
def check(
    config: ConfigOption = None,
    online: Annotated[bool, typer.Option("--online", help="Ask each provider for its list of models.")] = False,
) -> None:
    """Validate the configuration; print the models, the deployments, and missing settings. With --online, ask each
    provider for its list of models, which draws nothing. Exit with status 1 on a fault, or if a provider cannot be
    used."""
    from app.commands.report import report
    from app.config.inventory import models
    from app.config.simulated import with_sandbox
    from app.dialects import load as load_dialect

    settings = settings_or_exit(loader(config, has_issued_keys))
    served = with_sandbox(settings, "http://127.0.0.1") if settings.sandbox else settings
    offered = models(served, lambda name: load_dialect(name).profile)
    issued = not settings.sandbox and has_issued_keys(settings)
    typer.echo(report(settings, offered, has_issued_keys=issued))
    if online:
        _ask(settings, offered)


def _ask(settings: Settings, offered: Sequence[Model]) -> None:
    import asyncio

    from app.commands.probe import ask, questions
    from app.commands.report import online_report

    findings = asyncio.run(ask(questions(settings, offered)))
    typer.echo(online_report(findings))
    if not all(finding.usable for finding in findings):
        raise typer.Exit(1)
