"""The named values of one request, checked one by one against what a provider documents.

Knows no provider: each passes the names, ranges and choices of its own documents.
"""

from __future__ import annotations

from collections.abc import Collection

from app.sandbox.incoming import FilePart, Incoming
from app.sandbox.order import Refusal


class Fields:
    """Typed access to JSON or form fields. Every method raises Refusal for a value that is not what was asked."""

    def __init__(self, incoming: Incoming, *, form: bool, nulls_absent: Collection[str] = ()) -> None:
        wanted = "multipart/form-data" if form else "application/json"
        if incoming.media_type != wanted:
            raise Refusal(
                f"Unsupported content type: {incoming.media_type!r}. This operation only accepts {wanted!r}.",
                code="unsupported_content_type",
            )
        if incoming.problem is not None:
            raise Refusal(incoming.problem)
        self._form = form
        self._values: dict[str, object] = {}
        self._files: dict[str, list[FilePart]] = {}
        for name, value in incoming.fields or (incoming.json or {}).items():
            if isinstance(value, FilePart):
                self._files.setdefault(name, []).append(value)
            elif name in self._values:
                raise Refusal(f"Duplicate parameter: {name!r}.", param=name, code="duplicate_parameter")
            elif value is not None or name not in nulls_absent:
                self._values[name] = value

    def names(self) -> list[str]:
        return [*self._values, *self._files]

    def only(self, allowed: Collection[str], files: Collection[str] = ()) -> None:
        """Refuse every field outside of `allowed` (values) and `files` (file parts)."""
        for name in self._values:
            if name in files:
                raise Refusal(f"Invalid type for {name!r}: expected a file.", param=name, code="invalid_type")
            if name not in allowed:
                raise Refusal(f"Unknown parameter: {name!r}.", param=name, code="unknown_parameter")
        for name in self._files:
            if name not in files:
                raise Refusal(f"Unknown parameter: {name!r}.", param=name, code="unknown_parameter")

    def has(self, name: str) -> bool:
        return name in self._values or name in self._files

    def text(self, name: str, default: str | None = None) -> str:
        """Return a non-empty text; without a default the field is required."""
        value = self._values.get(name, default)
        if value is None and name not in self._values:
            raise Refusal(f"Missing required parameter: {name!r}.", param=name, code="missing_required_parameter")
        if not isinstance(value, str):
            raise self._wrong_type(name, "a string")
        if not value:
            raise Refusal(f"Invalid {name!r}: empty string.", param=name, code="empty_string")
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        value = self.text(name, default)
        if value not in choices:
            listed = ", ".join(repr(choice) for choice in choices)
            raise Refusal(
                f"Invalid value: {value!r}. Supported values are: {listed}.", param=name, code="invalid_value"
            )
        return value

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        value = self._values.get(name, default)
        if self._form and isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise self._wrong_type(name, "an integer") from None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong_type(name, "an integer")
        if value < low:
            message = (
                f"Invalid {name!r}: integer below minimum value. Expected a value >= {low}, but got {value} instead."
            )
            raise Refusal(message, param=name, code="integer_below_min_value")
        if value > high:
            message = (
                f"Invalid {name!r}: integer above maximum value. Expected a value <= {high}, but got {value} instead."
            )
            raise Refusal(message, param=name, code="integer_above_max_value")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._values.get(name, default)
        if self._form and isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise self._wrong_type(name, "a number") from None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong_type(name, "a number")
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        value = self._values.get(name, default)
        if self._form and value in ("true", "false"):
            value = value == "true"
        if not isinstance(value, bool):
            raise self._wrong_type(name, "a boolean")
        return value

    def file(self, name: str) -> FilePart:
        """Return exactly one picture under this name."""
        files = self.files(name)
        if len(files) > 1:
            raise Refusal(f"Duplicate parameter: {name!r}.", param=name, code="duplicate_parameter")
        return files[0]

    def files(self, name: str) -> list[FilePart]:
        """Return one picture or more under this name, in order."""
        files = self._files.get(name, [])
        if not files:
            raise Refusal(f"Missing required parameter: {name!r}.", param=name, code="missing_required_parameter")
        for number, part in enumerate(files, start=1):
            if part.facts is None or part.facts.format not in ("png", "jpeg", "webp"):
                raise Refusal(
                    f"Invalid image file or mode for image {number}, please check your image file.",
                    kind="image_generation_user_error",
                    param=name,
                    code="invalid_image_file",
                )
        return files

    @staticmethod
    def _wrong_type(name: str, expected: str) -> Refusal:
        return Refusal(f"Invalid type for {name!r}: expected {expected}.", param=name, code="invalid_type")
