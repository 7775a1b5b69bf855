"""`image-gateway usage`: print usage and its cost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.book import now, run
from app.commands.options import ConfigOption, JsonOption
from app.commands.table import table
from app.commands.times import parse_since

if TYPE_CHECKING:
    from app.config.loading import Settings
    from app.ledger.book.registry import Registry
    from app.ledger.book.usage import Usage


class Dimension(StrEnum):
    """The subject of a line."""

    PROJECT = "project"
    KEY = "key"
    MODEL = "model"
    PROVIDER = "provider"
    DAY = "day"


HEADS = ("requests", "images", "megapixels", "cost", "in doubt", "saved")


def usage(
    since: Annotated[str, typer.Option(help="A span like 30d, or a day like 2026-11-01 (UTC).")] = "30d",
    by: Annotated[Dimension, typer.Option(help="What each line is about.")] = Dimension.PROJECT,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print what was drawn, and what it cost: a table, CSV or JSON."""
    try:
        begin = parse_since(since, now())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    if as_csv and as_json:
        raise typer.BadParameter("choose one of --csv and --json", param_hint="--csv")

    async def work(_: Settings, registry: Registry) -> Sequence[Usage]:
        from app.ledger.book.usage import read_usage

        return await read_usage(registry.database, by.value, begin, registry.key_names, now())

    lines = run(config, work)
    if as_json:
        typer.echo(json.dumps([_record(by, line) for line in lines], indent=2))
    elif as_csv:
        typer.echo(_csv(by, lines), nl=False)
    else:
        typer.echo(_table(by, lines) if lines else "Nothing was drawn in this time.")


def _record(by: Dimension, line: Usage) -> dict[str, object]:
    id = {} if line.id == line.name else {f"{by}_id": line.id}
    names = [head.replace(" ", "_") for head in HEADS]
    return {str(by): line.name, **id, **dict(zip(names, _values(line), strict=True))}


def _values(line: Usage) -> tuple[object, ...]:
    from app.catalog.money import to_text

    money = (to_text(nano) for nano in (line.cost, line.in_doubt, line.saved))
    return line.requests, line.images, round(line.pixels / 1_000_000, 3), *money


def _csv(by: Dimension, lines: Sequence[Usage]) -> str:
    from app.api.management.csv_text import harmless

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((by, f"{by}_id", *(head.replace(" ", "_") for head in HEADS)))
    writer.writerows((harmless(line.name), harmless(line.id), *_values(line)) for line in lines)
    return out.getvalue()


def _table(by: Dimension, lines: Sequence[Usage]) -> str:
    rows = [(line.name, *(f"{value}" for value in _values(line))) for line in lines]
    return table((str(by), *HEADS), [*rows, ("all", *(f"{value}" for value in _values(_sum(lines))))], right=HEADS)


def _sum(lines: Sequence[Usage]) -> Usage:
    from app.ledger.book.usage import Usage

    sums = ((x.requests, x.images, x.pixels, x.cost, x.in_doubt, x.saved) for x in lines)
    return Usage("", "", *map(sum, zip(*sums, strict=True)))
