"""Replace `${VAR}`, `${VAR:-default}` and `$${literal}` in texts at any depth. Knows no file and no setting."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.config.errors import Located, Location

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def interpolate(value: Any, environ: Mapping[str, str]) -> tuple[Any, list[Located]]:
    """Return `value` with its references replaced, and the faults. An empty variable counts as missing.

    A text with a fault stays as it was. Keys of mappings stay as they are.
    """
    faults: list[Located] = []
    return _walk(value, (), environ, faults), faults


def _walk(value: Any, path: Location, environ: Mapping[str, str], faults: list[Located]) -> Any:
    if isinstance(value, dict):
        return {key: _walk(inner, (*path, str(key)), environ, faults) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walk(inner, (*path, index), environ, faults) for index, inner in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    found = [Located(path, problem, remedy) for problem, remedy in _faults(value, environ)]
    faults += found
    return value if found else _REFERENCE.sub(lambda match: _replacement(match, environ), value)


def _faults(text: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for match in _REFERENCE.finditer(text):
        if match[1] is None:
            continue
        inside = _INSIDE.fullmatch(match[1])
        if not inside or not match[2] or "${" in match[1]:
            yield (
                "holds a '${' that begins no reference",
                "write ${NAME} or ${NAME:-default}, or $${ where the characters themselves are meant",
            )
        elif inside[2] is None and not environ.get(inside[1]):
            name = inside[1]
            yield f"the environment variable {name!r} is not set", f"set it, or write ${{{name}:-default}}"


def _replacement(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[1] is None:
        return "${"
    name, _, default = match[1].partition(":-")
    return environ.get(name) or default
