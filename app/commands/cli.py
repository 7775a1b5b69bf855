"""The command line: `serve` and `check`. Reads the environment and the arguments, and passes everything on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from app.catalog.deployments import Model
from app.config.errors import SettingsError
from app.config.loading import Settings, load

main = typer.Typer(
    help="One server that speaks the OpenAI Images API to a team and every provider's own dialect to the outside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    # `readable` would check first, with words and an exit status unlike those of the other faults.
    typer.Option(help="The YAML file; also IMAGE_GATEWAY_CONFIG.", readable=False),
]


@main.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[Optional[str], typer.Option(help="The address to listen at.")] = None,  # noqa: UP045
    port: Annotated[Optional[int], typer.Option(help="The port to listen at.")] = None,  # noqa: UP045
) -> None:
    """Serve. Without a configuration, serve simulated providers, which need neither key nor network."""
    from app.process import run

    read = _loader(config, server={"host": host, "port": port})
    named = config or (Path(os.environ["IMAGE_GATEWAY_CONFIG"]) if os.environ.get("IMAGE_GATEWAY_CONFIG") else None)
    run(_settings(read), read, named)


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

    settings = _settings(_loader(config))
    served = with_sandbox(settings, "http://127.0.0.1") if settings.sandbox else settings
    offered = models(served, lambda name: load_dialect(name).profile)
    typer.echo(report(settings, offered))
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


def _loader(config: Path | None, **overrides: dict[str, object]) -> Callable[[], Settings]:
    """Return the function that loads the settings, which raises SettingsError."""
    from app.dialects import names

    return lambda: load(config, os.environ, overrides, names())


def _settings(read: Callable[[], Settings]) -> Settings:
    """Return the settings, or print their faults and exit."""
    try:
        return read()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
