"""A table for a terminal. Knows nothing of its contents."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Return aligned columns. Those whose heads are in `right` are aligned to the right, as numbers are."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = list[str]()
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
