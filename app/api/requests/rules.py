"""Rules for single values of a request, from JSON or from a form's text, in the API's own error words. Knows no
parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.errors import InvalidRequest, shortened
from app.images import Size

MAX_EDGE = 16_384  # pixels
LONGEST_STRUCTURE = 16_384  # bytes of JSON

_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_KINDS = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal number", list: "an array"}


class Rule(Protocol):
    """A rule for one parameter. Both methods raise InvalidRequest, naming the parameter; None means the default."""

    def read(self, name: str, value: Any) -> Any:
        """Read a JSON value, which is not null."""
        ...

    def parse(self, name: str, text: str) -> Any:
        """Read the text of a form's part."""
        return self.read(name, text)


@dataclass(frozen=True, slots=True)
class Integer(Rule):
    low: int
    high: int | None = None
    absent: int | None = None  # the value that means "use the default"

    def read(self, name: str, value: Any) -> int | None:
        if type(value) is not int:
            if type(value) is not float or not value.is_integer():
                raise wrong_type(name, "an integer", value)
            value = int(value)
        _within(name, value, self.low, self.high, "integer")
        return None if value == self.absent else value

    def parse(self, name: str, text: str) -> int | None:
        if not _INTEGER.fullmatch(text.strip()):
            raise _unconvertible(name, "an integer")
        return self.read(name, int(text))


@dataclass(frozen=True, slots=True)
class Number(Rule):
    low: float
    high: float

    def read(self, name: str, value: Any) -> float:
        if type(value) is not int and type(value) is not float:
            raise wrong_type(name, "a number", value)
        _within(name, value, self.low, self.high, "decimal")
        return value

    def parse(self, name: str, text: str) -> float:
        text = text.strip()
        if not _NUMBER.fullmatch(text):
            raise _unconvertible(name, "a number")
        return self.read(name, int(text) if _INTEGER.fullmatch(text) else float(text))


@dataclass(frozen=True, slots=True)
class Boolean(Rule):
    def read(self, name: str, value: Any) -> bool:
        if type(value) is not bool:
            raise wrong_type(name, "a boolean", value)
        return value

    def parse(self, name: str, text: str) -> bool:
        value = _BOOLEANS.get(text.strip().lower())
        if value is None:
            raise _unconvertible(name, "a boolean", " Write true or false.")
        return value


@dataclass(frozen=True, slots=True)
class Choice(Rule):
    values: tuple[str, ...]
    synonyms: Mapping[str, str] = field(default_factory=dict)

    def read(self, name: str, value: Any) -> str:
        if type(value) is not str:
            raise wrong_type(name, "a string", value)
        if value in self.values:
            return value
        if value in self.synonyms:
            return self.synonyms[value]
        raise invalid(name, f"Invalid value: {shortened(value)!r}. {self._supported()}")

    def _supported(self) -> str:
        *most, last = map(repr, self.values)
        if not most:
            return f"Supported value is: {last}."
        return f"Supported values are: {', '.join(most)}{',' if len(most) > 1 else ''} and {last}."


@dataclass(frozen=True, slots=True)
class Text(Rule):
    """A string of at most `longest` code points. An empty one is refused, or counts as absent."""

    longest: int = 32_000
    empty: bool = False  # may be empty
    numbers: bool = False  # may be a number, and becomes its text

    def read(self, name: str, value: Any) -> str | None:
        if self.numbers and type(value) in (int, float):
            value = str(value)
        if type(value) is not str:
            raise wrong_type(name, "a string", value)
        if not value:
            if self.empty:
                return None
            raise invalid(name, f"Invalid {name!r}: empty string. Expected at least one character.", "empty_string")
        if len(value) > self.longest:
            raise invalid(
                name,
                f"Invalid {name!r}: string too long. Expected at most {self.longest} characters, but got {len(value)}.",
                "string_above_max_length",
            )
        return value


@dataclass(frozen=True, slots=True)
class Dimensions(Rule):
    """A size as text; "auto" counts as absent."""

    def read(self, name: str, value: Any) -> Size | None:
        if type(value) is not str:
            raise wrong_type(name, "a string", value)
        if value == "auto":
            return None
        size = Size.parse(value)
        if size is None or max(size.width, size.height) > MAX_EDGE:
            raise invalid(
                name,
                f"Invalid size {shortened(value)!r}. Expected 'auto', or WIDTHxHEIGHT with edges from 1 to {MAX_EDGE}, "
                "for example '1024x1024'.",
                type="image_generation_user_error",
            )
        return size


@dataclass(frozen=True, slots=True)
class Structure(Rule):
    """An object with a string under each key of `required`. A form spells it as `name[key]`."""

    required: tuple[str, ...] = ()

    def read(self, name: str, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise wrong_type(name, "an object", value)
        if len(json.dumps(value)) > LONGEST_STRUCTURE:
            raise invalid(
                name, f"Invalid {name!r}: object too large. Expected at most {LONGEST_STRUCTURE} bytes of JSON."
            )
        for key in self.required:
            if value.get(key) is None:
                raise missing(f"{name}.{key}")
            if type(value[key]) is not str:
                raise wrong_type(f"{name}.{key}", "a string", value[key])
        return value


def invalid(param: str, message: str, code: str = "invalid_value", type: str = "") -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code, type=type)


def missing(param: str, remedy: str = "") -> InvalidRequest:
    message = f"Missing required parameter: {shortened(param)!r}.{remedy}"
    return invalid(param, message, "missing_required_parameter")


def unknown(param: str, remedy: str = "") -> InvalidRequest:
    return invalid(param, f"Unknown parameter: {shortened(param)!r}.{remedy}", "unknown_parameter")


def wrong_type(param: str, expected: str, value: Any) -> InvalidRequest:
    """Return the error for a value of a wrong type; `expected` has its article."""
    got = "null" if value is None else _KINDS.get(type(value), "an object")
    message = f"Invalid type for {shortened(param)!r}: expected {expected}, but got {got} instead."
    return invalid(param, message, "invalid_type")


def _within(name: str, value: float, low: float, high: float | None, kind: str) -> None:
    if value < low:
        side, bound, sign = "below_min_value", "below minimum", f">= {low:g}"
    elif high is not None and value > high:
        side, bound, sign = "above_max_value", "above maximum", f"<= {high:g}"
    else:
        return
    got = shortened(str(value), 40)
    message = f"Invalid {name!r}: {kind} {bound} value. Expected a value {sign}, but got {got} instead."
    raise invalid(name, message, f"{kind}_{side}")


def _unconvertible(name: str, expected: str, remedy: str = "") -> InvalidRequest:
    what = expected.replace("an ", "").replace("a ", "")
    return invalid(
        name,
        f"Invalid type for {name!r}: expected {expected}, but got a string value that is no {what}.{remedy}",
        "invalid_type",
    )
