"""The OpenAPI document: `openapi.yaml`, completed with values of the code. Reads no configuration."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import FastAPI

from app.api.docs import page
from app.api.requests import validation
from app.api.requests.body import Limits
from app.api.requests.rules import MAX_EDGE, Boolean, Choice, Dimensions, Integer, Number, Rule, Structure, Text
from app.images import Operation

Schema = dict[str, Any]


def describe(app: FastAPI) -> None:
    """Give `app` the document of its endpoints (`/openapi.json`) and the page that shows it (`/docs`)."""
    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI's documentation shows
    app.router.routes.extend(page.routes())


@cache
def document() -> Schema:
    """Read the document, and fill in the values of its <names> and the parameters of each operation."""
    # Not at the top: a gateway that only draws images needs none of these.
    from importlib.metadata import version
    from importlib.resources import files

    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    max_images = Limits(upload_bytes=0, request_bytes=0).images
    text = files("app.api.docs").joinpath("openapi.yaml").read_text(encoding="utf-8")
    for name, value in (("version", version("image-gateway")), ("max_edge", MAX_EDGE), ("max_images", max_images)):
        text = text.replace(f"<{name}>", str(value))
    document: Schema = yaml.load(text, loader)  # noqa: S506 (a safe loader, in C)
    described = document.pop("x-parameters")
    for operation in Operation:
        content = document["paths"][f"/v1/images/{operation}"]["post"]["requestBody"]["content"]
        for kind, body in content.items():
            parameters = _parameters(operation, described, form=kind == "multipart/form-data")
            stated = body["schema"]["properties"]
            body["schema"]["properties"] = {
                name: parameters.get(name, {}) | stated.get(name, {}) for name in {**stated, **parameters}
            }
    return document


def _parameters(operation: Operation, described: dict[str, Schema], *, form: bool) -> dict[str, Schema]:
    """Return the schema of each parameter that the operation knows, as a form or as JSON spells it."""
    rules = {name: rule for name, rule in validation.RULES.items() if name not in validation.UNKNOWN[operation]}
    if operation is Operation.VARIATIONS:
        rules["prompt"] = validation.OPTIONAL_PROMPT
    schemas = {name: _schema(rule) | described[name] for name, rule in rules.items()}
    if form:
        del schemas["svg"]  # its fields are `svg[model]` and the like
        for schema in schemas.values():
            schema.pop("examples", None)  # a page would fill them in and send them
    else:
        for name in schemas.keys() - {"model", "prompt"}:
            _allow_null(schemas[name], rules[name])
    return schemas


def _allow_null(schema: Schema, rule: Rule) -> None:
    """Allow null: in JSON it counts as absent."""
    numbers = ["number"] if isinstance(rule, Text) and rule.numbers else []
    schema["type"] = [schema["type"], *numbers, "null"]
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]


def _schema(rule: Rule) -> Schema:
    """Return a rule as JSON Schema. Raises TypeError for an unknown kind of rule."""
    match rule:
        case Integer(low, high):
            return {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})
        case Number(least, most):
            return {"type": "number", "minimum": least, "maximum": most}
        case Boolean():
            return {"type": "boolean"}
        case Choice(values, synonyms):
            return {"type": "string", "enum": [*values, *synonyms]}
        case Text(longest, empty):
            return {"type": "string"} | ({} if empty else {"minLength": 1}) | {"maxLength": longest}
        case Dimensions():
            return {"type": "string", "pattern": r"^(auto|[1-9][0-9]{0,4}[xX][1-9][0-9]{0,4})$"}
        case Structure(required):
            return {"type": "object", "required": list(required)}
    raise TypeError(f"{type(rule).__name__!r} has no schema. Give it one here.")
