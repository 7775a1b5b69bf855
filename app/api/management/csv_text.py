"""Exports as CSV, which spreadsheets open: a text that begins like a formula has an apostrophe before it. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CSV, NDJSON = "text/csv", "application/x-ndjson"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # a spreadsheet would run what begins so


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = False) -> str:
    """Return rows as lines of text, after the line of the columns' names if `header`."""
    text = io.StringIO()
    writer = csv.writer(text)
    if header:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([harmless(row[name]) for name in columns])
    return text.getvalue()


def wanted_kind(accept: str) -> str | None:
    """Return the type of an export, if the caller names one."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return next((kind for kind in kinds if kind in (CSV, NDJSON)), None)


def harmless(value: Any) -> Any:
    """Keep a spreadsheet from taking a caller's text for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
