from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import PositiveInt, StringConstraints, ValidationError

from app.config.sections import layer_of

Code = Annotated[str, "code"]


@dataclass(frozen=True, slots=True)
class Edge:
    low: int | None = None
    high: int = 9


@dataclass(frozen=True, slots=True)
class Thing:
    count: int = 1
    code: Code | None = "a"
    names: tuple[Code, ...] = ("b",)
    edge: Edge = Edge()


READERS = {int: PositiveInt, Code: Annotated[str, StringConstraints(to_upper=True)]}
THING = layer_of(Thing, READERS | {Edge: layer_of(Edge, READERS)})


@pytest.mark.parametrize(
    ("stated", "together"),
    [
        ({}, Thing()),
        ({"count": 3}, Thing(count=3)),
        ({"code": "x", "names": ["y", "z"]}, Thing(code="X", names=("Y", "Z"))),
        ({"edge": {"low": 4}}, Thing(edge=Edge(low=4))),
        ({"count": None, "names": None, "edge": None}, Thing()),
        ({"code": None}, Thing(code=None)),
        ({"edge": {"high": None}}, Thing()),
    ],
)
def test_a_layer_changes_the_fields_that_it_states(stated: dict[str, Any], together: Thing) -> None:
    assert THING.model_validate(stated).over(Thing()) == together


def test_null_takes_back_a_value_that_may_be_none() -> None:
    assert THING.model_validate({"edge": {"low": None}}).over(Thing(edge=Edge(low=5, high=6))) == Thing(
        edge=Edge(high=6)
    )


@pytest.mark.parametrize(
    ("stated", "path", "kind"),
    [
        ({"count": 0}, ("count",), "greater_than"),
        ({"count": True}, ("count",), "refused"),
        ({"code": 1}, ("code",), "string_type"),
        ({"names": []}, ("names",), "too_short"),
        ({"names": ["a", 1]}, ("names", 1), "string_type"),
        ({"edge": {"high": "x"}}, ("edge", "high"), "int_parsing"),
        ({"edge": {"hihg": 1}}, ("edge", "hihg"), "extra_forbidden"),
    ],
)
def test_a_layer_refuses_a_value_by_its_place(stated: dict[str, Any], path: tuple[str | int, ...], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        THING.model_validate(stated)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [(path, kind)]
