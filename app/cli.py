"""The command line: `serve` and `check`. Reads the environment and the arguments, and hands everything on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from app.settings import Settings, SettingsError, load

main = typer.Typer(
    help="One server that speaks the OpenAI Images API to a team and every provider's own dialect to the outside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigOption = Annotated[Optional[Path], typer.Option(help="The YAML file; also IMAGE_GATEWAY_CONFIG.")]  # noqa: UP045


@main.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[Optional[str], typer.Option(help="The address to listen at.")] = None,  # noqa: UP045
    port: Annotated[Optional[int], typer.Option(help="The port to listen at.")] = None,  # noqa: UP045
) -> None:
    """Serve. Without any configuration: simulated providers, which need neither key nor network."""
    from app.serving import run

    overrides: dict[str, dict[str, object]] = {"server": {"host": host, "port": port}}
    named = config or (Path(os.environ["IMAGE_GATEWAY_CONFIG"]) if os.environ.get("IMAGE_GATEWAY_CONFIG") else None)
    run(_settings(config, overrides), lambda: load(config, os.environ, overrides), named)


@main.command()
def check(config: ConfigOption = None) -> None:
    """Validate the configuration; print models, deployments and what is missing. Exit status 1 on a fault."""
    from app.check import report
    from app.dialects import load as load_dialect
    from app.inventory import models

    settings = _settings(config, {})
    typer.echo(report(settings, models(settings, lambda name: load_dialect(name).profile)))


def _settings(config: Path | None, overrides: dict[str, dict[str, object]]) -> Settings:
    try:
        return load(config, os.environ, overrides)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
