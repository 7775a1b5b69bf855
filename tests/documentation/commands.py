"""The commands of the command line, with those of groups by both of their names."""

from __future__ import annotations

from typing import Any

import typer

from app.commands.cli import main

EVERYWHERE = {"--config", "--help"}  # options that a page states once, and not for each command


def every_command() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(main).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {other}": each for other, each in inner.items()}
    return found


def options_of(command: Any) -> set[str]:
    """The options of a command. Commands of the book take `--config`, which their page states once for all."""
    options = {
        option
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    return options if command.name in ("serve", "check") else options - EVERYWHERE
