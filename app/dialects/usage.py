"""Token counts of several answers as one. Knows OpenAI's shape only in that it is nested counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def add_up(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for key, value in usage.items():
            so_far = total.get(key)
            if isinstance(value, Mapping):
                total[key] = add_up([so_far or {}, value])
            elif isinstance(value, int):
                total[key] = (so_far or 0) + value
    return total
