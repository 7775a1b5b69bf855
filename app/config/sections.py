"""Sections of the configuration as models, and layers: sections over the values of a dataclass. Knows no setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator

from app.config.errors import refusal

Values = TypeVar("Values", bound=Any)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a truth value for a number: YAML's `yes` is true, which Python takes for 1."""
        if isinstance(value, bool) and _kinds(cls.model_fields[info.field_name or ""].annotation) & {int, float}:
            raise refusal(f"is {str(value).lower()}", "write a number")
        return value


class Layer(Section):
    """A section that is laid over the values of a dataclass. Its settings are the fields of that class."""

    def over(self, below: Values) -> Values:
        """Return `below` with the settings that this layer states. Null states nothing about a field that cannot be
        None."""
        kinds = get_type_hints(type(below), include_extras=True)
        stated: dict[str, Any] = {}
        for name in self.model_fields_set:
            value = getattr(self, name)
            if isinstance(value, Layer):
                stated[name] = value.over(getattr(below, name))
            elif value is not None or NoneType in get_args(kinds[name]):
                stated[name] = value
        return replace(below, **stated)


def layer_of(values: type, readers: Mapping[Any, Any]) -> type[Layer]:
    """Return the layer whose settings are the fields of the dataclass `values`, all of them optional.

    `readers` tells how to read a setting, by the annotation of its field or by a part of that. Without an entry,
    pydantic reads the annotation itself, and refuses an empty list.
    """
    kinds = get_type_hints(values, include_extras=True)
    fields: dict[str, Any] = {name: (_reader(kind, readers) | None, None) for name, kind in kinds.items()}
    return create_model(f"{values.__name__}Layer", __base__=Layer, **fields)


def _reader(kind: Any, readers: Mapping[Any, Any]) -> Any:
    if kind in readers:
        return readers[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return Union[tuple(_reader(argument, readers) for argument in arguments)]  # noqa: UP007 (made at run time)
    if origin in (tuple, frozenset):
        return Annotated[origin[tuple(_reader(argument, readers) for argument in arguments)], Field(min_length=1)]
    return kind


def _kinds(annotation: Any) -> set[Any]:
    """Return the types in the union that an annotation may be."""
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation}
