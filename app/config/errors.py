"""The faults of a configuration: place, reason and remedy. Knows only the names of settings that it has advice on, and
never repeats a value, which may be a secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

Location = tuple[str | int, ...]

NO_ADDRESS = "state the provider's address, or take a preset (`preset: NAME`)"

_PLAIN = re.compile(r"[\w/-]+")
_INPUT = re.compile(r"^(Input|Value error,|String|Tuple|Frozenset|List|Dictionary) ")
_MISSING = {
    "base_url": NO_ADDRESS,
    "deployments": "list at least one: `deployments: [{provider: NAME}]`",
    "provider": "name an entry of `providers`",
    "name": "give the key a name, for logs and limits",
}
# Shape of the entries of a section, for those that are no mapping.
_ENTRIES = {
    "deployments": "write a mapping, like `{provider: NAME}`",
    "keys": "write a mapping, like `{name: NAME, key: SECRET}`",
    "models": "write a mapping, like `{deployments: [{provider: NAME}]}`",
    "providers": "write a mapping, like `{api_key: KEY}`, and a `base_url` where there is no preset",
}
_REMEDIES = {
    "int": "write a whole number",
    "float": "write a number",
    "bool": "write true or false",
    "string_type": "write text; put it in quotes if it looks like something else",
    "string_pattern_mismatch": "use other characters",
    "literal": "choose one of these",
    "enum": "choose one of these",
    "dict_type": "write a mapping: `name: value`, indented",
    "model_type": "write a mapping: `name: value`, indented",
    "tuple_type": "write a list: `[a, b]`",
    "frozen_set_type": "write a list: `[a, b]`",
    "greater_than": "choose a larger number",
    "less_than": "choose a smaller number",
    "finite_number": "write a finite number",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `path` is the setting's place in the YAML file, the environment variable, or the file itself."""

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}"


class SettingsError(Exception):
    """All faults of a configuration at once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Located:
    """A fault whose path is not written out yet, so that its origin can still be reported."""

    path: Location
    problem: str
    remedy: str


def refusal(problem: str, remedy: str) -> PydanticCustomError:
    """Return the error for a validator to raise; `translated` returns both of its parts."""
    return PydanticCustomError("refused", "{problem}; {remedy}", {"problem": problem, "remedy": remedy})


def write_path(path: Location) -> str:
    """Write `("models", "a.b", "deployments", 0)` as `models."a.b".deployments[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _PLAIN.fullmatch(part) else f'"{part}"')
    return text


def did_you_mean(word: str, known: Collection[str]) -> str:
    if close := closest(word, known):
        return f"did you mean {close!r}?"
    return f"known: {', '.join(map(repr, sorted(known)))}" if known else "there is none yet"


def closest(word: str, known: Collection[str]) -> str | None:
    """Return the known word that is closest to `word`, if one is close."""
    return next(iter(get_close_matches(word, known, n=1, cutoff=0.6)), None)


def translate(error: ValidationError, model: type[BaseModel]) -> Iterator[Located]:
    """Put pydantic's findings on `model` into the words of the file's editor."""
    errors = error.errors(include_url=False, include_input=False)
    for found in errors:
        # pydantic calls a list with faulty items too short as well.
        if found["type"] == "too_short" and any(_lies_below(other["loc"], found["loc"]) for other in errors):
            continue
        path = tuple(part for part in found["loc"] if part != "[key]")
        yield Located(path, *_problem_and_remedy(found["type"], path, found["msg"], found.get("ctx", {}), model))


def _lies_below(path: Location, above: Location) -> bool:
    return len(path) > len(above) and path[: len(above)] == above


def _problem_and_remedy(
    kind: str, path: Location, message: str, context: Mapping[str, Any], model: type[BaseModel]
) -> tuple[str, str]:
    if kind == "refused":
        return context["problem"], context["remedy"]
    if kind == "extra_forbidden":
        key = str(path[-1])
        return f"no setting is called {key!r} here", did_you_mean(key, _settings_at(model, path[:-1]))
    if kind == "missing":
        return "is missing", _MISSING.get(str(path[-1]), "state it")
    if kind == "too_short":
        return "is empty", _MISSING.get(str(path[-1]), "state at least one, or leave the setting out")
    if kind in ("model_type", "dict_type"):
        message = "should be a mapping"
        if len(path) > 1 and path[-2] in _ENTRIES:
            return message, _ENTRIES[str(path[-2])]
    if kind in ("tuple_type", "frozen_set_type"):
        message = "should be a list"
    remedy = next((remedy for prefix, remedy in _REMEDIES.items() if kind.startswith(prefix)), "correct it")
    return _INPUT.sub("", message).partition(", unable to ")[0], remedy


def _settings_at(annotation: Any, path: Location) -> Collection[str]:
    """Return the names of the settings that may stand at `path` below a model, a mapping or a list of models."""
    while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        arguments = [argument for argument in get_args(annotation) if argument not in (type(None), Ellipsis)]
        if not arguments:
            return ()
        if get_origin(annotation) in (dict, tuple) and path:
            path = path[1:]
        annotation = arguments[-1] if get_origin(annotation) is dict else arguments[0]
    if not path:
        return annotation.model_fields
    field = annotation.model_fields.get(str(path[0]))
    return _settings_at(field.annotation, path[1:]) if field else ()
