"""The fields of a query or of a JSON body, read one by one by their rules. A field that no rule reads is refused, since
a misspelt filter would otherwise select everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from app.api.requests.rules import Boolean, Choice, Integer, Rule, Text, invalid, missing, unknown, wrong_type
from app.catalog.money import to_nano
from app.errors import shortened
from app.microseconds import SECOND

LONGEST_NAME = 200
MOST_VALUES = 100  # of a list
LATEST = 253_402_300_799  # the last second of the year 9999

T = TypeVar("T", bound=str)


class Fields:
    """`is_text`: the values are texts, each a list of those that were given under one name."""

    def __init__(self, values: Mapping[str, Any], *, is_text: bool = False) -> None:
        self._left = {name: value for name, value in values.items() if value is not None}
        self.nulls = frozenset(values.keys() - self._left.keys())  # in a body: they take a value away
        self._is_text = is_text

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def check(self) -> None:
        """Raise InvalidRequest if a field was not read."""
        for name in self._left:
            raise unknown(name)

    def text(self, name: str, longest: int = LONGEST_NAME) -> str | None:
        value: str | None = self._read(name, Text(longest))
        return None if value is None else _line(name, value)

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None or not value.strip():
            raise missing(name)
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        return cast(int | None, self._read(name, Integer(low, high)))

    def flag(self, name: str) -> bool | None:
        return cast(bool | None, self._read(name, Boolean()))

    def choice(self, name: str, values: tuple[T, ...]) -> T | None:
        return cast(T | None, self._read(name, Choice(values)))

    def texts(self, name: str) -> tuple[str, ...]:
        """Read a list. In a query its name may end with brackets, as the SDKs write it."""
        found = self._left.pop(name, [])
        if self._is_text:
            found = [*found, *self._left.pop(f"{name}[]", [])]
        if not isinstance(found, list):
            raise wrong_type(name, "an array", found)
        if len(found) > MOST_VALUES:
            raise invalid(name, f"Invalid {name!r}: expected at most {MOST_VALUES} values.")
        return tuple(_line(name, Text(LONGEST_NAME).read(name, value) or "") for value in found)

    def integers(self, name: str, low: int, high: int) -> tuple[int, ...] | None:
        """Read a list of a body. None: it is not there."""
        if name not in self._left:
            return None
        found = self._left.pop(name)
        if not isinstance(found, list):
            raise wrong_type(name, "an array", found)
        if len(found) > MOST_VALUES:
            raise invalid(name, f"Invalid {name!r}: expected at most {MOST_VALUES} values.")
        return tuple(Integer(low, high).read(name, value) or low for value in found)

    def choices(self, name: str, values: tuple[T, ...]) -> tuple[T, ...]:
        """Read a list of some values, each of them once."""
        return tuple(dict.fromkeys(cast(T, Choice(values).read(name, value)) for value in self.texts(name)))

    def time(self, name: str) -> int | None:
        """Read Unix seconds as microseconds."""
        seconds = self.integer(name, 0, LATEST)
        return None if seconds is None else seconds * SECOND

    def money(self, name: str) -> int | None:
        """Read an amount in nano-units: a number, or its text."""
        if name not in self._left:
            return None
        value = self._left.pop(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise wrong_type(name, "a number", value)
        try:
            nano = to_nano(value)
        except ValueError:
            raise invalid(name, f"Invalid {name!r}: {shortened(str(value))!r} is no amount of money.") from None
        if not 0 <= nano < 1 << 62:
            raise invalid(name, f"Invalid {name!r}: expected an amount from 0 to 4 billion.")
        return nano

    def _read(self, name: str, rule: Rule) -> Any:
        if name not in self._left:
            return None
        value = self._left.pop(name)
        if not self._is_text:
            return rule.read(name, value)
        if len(value) > 1:
            raise invalid(name, f"Invalid {name!r}: given {len(value)} times. Give it once.")
        return rule.parse(name, value[0])


def _line(name: str, value: str) -> str:
    """Return a line of text. A database takes no NUL, and no half of a surrogate pair. Raises InvalidRequest."""
    if not value.isprintable():
        raise invalid(name, f"Invalid {name!r}: expected one line of text.")
    return value


def check_span(begin: str, since: int, end: str, until: int | None) -> None:
    """Raise InvalidRequest, by the names of both times, for a span that ends before it has begun. None: it goes on."""
    if until is not None and until <= since:
        raise invalid(end, f"{end!r} has to be after {begin!r}.")


def query_fields(items: Iterable[tuple[str, str]]) -> Fields:
    values = dict[str, list[str]]()
    for name, value in items:
        values.setdefault(name, []).append(value)
    return Fields(values, is_text=True)
