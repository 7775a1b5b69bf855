"""The shared parts of commands: the option that names the configuration, lists of globs, spans of time, notes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Optional

import typer

from app.commands.times import parse_span
from app.config.errors import SettingsError
from app.config.loading import Settings, load
from app.config.sources import find_ignored

ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    # `readable` would check first, with words and an exit status unlike those of the other faults.
    typer.Option(help="The YAML file; also IMAGE_GATEWAY_CONFIG.", readable=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Limit = Optional[int]  # noqa: UP045
RequestsOption = Annotated[_Limit, typer.Option("--requests-per-minute", min=1, help="The rate of requests.")]
ImagesOption = Annotated[_Limit, typer.Option("--images-per-minute", min=1, help="The rate of images.")]
MegapixelsOption = Annotated[_Limit, typer.Option("--megapixels-per-minute", min=1, help="The rate of megapixels.")]
PlacesOption = Annotated[_Limit, typer.Option("--max-concurrency", min=1, help="Requests that may run at a time.")]


class CommandError(Exception):
    """A command cannot be carried out. The message names the remedy."""


def loader(
    config: Path | None,
    has_issued_keys: Callable[[Settings], bool] = lambda _: False,
    **overrides: Mapping[str, object],
) -> Callable[[], Settings]:
    """Return a function that reads the configuration, now or again later."""
    from app.dialects import names

    return lambda: load(config, os.environ, overrides, names(), has_issued_keys)


def settings_or_exit(read: Callable[[], Settings]) -> Settings:
    """Return the settings, or print their faults and exit with status 1. Print the variables that were meant as
    settings and are none."""
    for ignored in find_ignored(Settings, os.environ):
        note(f"warning: {ignored}")
    try:
        return read()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def read_settings(config: Path | None) -> Settings:
    """Read the configuration for a command that does not serve: an open address is none of its business."""
    return settings_or_exit(loader(config, has_issued_keys=lambda _: True))


def note(text: str) -> None:
    """Write a note to standard error: standard output has the result alone. One that cannot be written is dropped."""
    with suppress(OSError):
        typer.echo(text, err=True)


def split(values: Iterable[str] | None) -> tuple[str, ...]:
    """Return the items of an option that may be repeated, or hold several with commas between."""
    return tuple(item.strip() for value in values or () for item in value.split(",") if item.strip())


def span(text: str, option: str) -> timedelta:
    """Read a span of time. Raises typer.BadParameter."""
    try:
        return parse_span(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
