"""The OpenAPI document: `openapi.yaml` and `management.yaml`, completed with values of the code. Reads no
configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.api.docs import page
from app.api.files import base_url
from app.api.requests import validation
from app.api.requests.body import Limits
from app.api.requests.rules import MAX_EDGE, Boolean, Choice, Dimensions, Integer, Number, Rule, Structure, Text
from app.catalog.parameters import ALIASES
from app.images import Operation

Schema = dict[str, Any]


def describe(app: FastAPI, public_url: Callable[[], str | None], start: Callable[[], str]) -> None:
    """Give `app` the document of its endpoints (`/openapi.json`) and the page that shows it (`/docs`). The document
    names the server by `public_url`, or else as the reader does. `start` is the page to which `/` leads browsers."""

    async def serve_document(request: Request) -> JSONResponse:
        return JSONResponse({**document(), "servers": [{"url": base_url(request.scope, public_url())}]})

    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI's documentation shows
    app.router.routes.extend([Route("/openapi.json", serve_document, methods=["GET"]), *page.routes(start)])


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
    administration: Schema = yaml.load(files("app.api.docs").joinpath("management.yaml").read_text("utf-8"), loader)  # noqa: S506
    document["paths"] |= administration["paths"]
    document["components"]["schemas"] |= administration["components"]["schemas"]
    described, estimate = document.pop("x-parameters"), document.pop("x-estimate")
    for operation in Operation:
        content = document["paths"][f"/v1/images/{operation}"]["post"]["requestBody"]["content"]
        for kind, body in content.items():
            parameters = _parameters(operation, described, form=kind == "multipart/form-data")
            stated = body["schema"]["properties"]
            body["schema"]["properties"] = {
                name: parameters.get(name, {}) | stated.get(name, {}) for name in {**stated, **parameters}
            }
        drawing = document["paths"][f"/v1/images/{operation}"]["post"]
        same = {"operationId": f"estimateImage{operation.capitalize()}", "requestBody": drawing["requestBody"]}
        document["paths"][f"/v1/images/{operation}/estimate"] = {"post": estimate | same}
    return document


def _parameters(operation: Operation, described: dict[str, Schema], *, form: bool) -> dict[str, Schema]:
    """Return the schema of each parameter that the operation knows, as a form or as JSON spells it."""
    unknown = ALIASES.keys() | validation.UNKNOWN[operation]
    rules = {name: rule for name, rule in validation.RULES.items() if name not in unknown}
    if operation is Operation.VARIATIONS:
        rules["prompt"] = validation.OPTIONAL_PROMPT
    schemas = {name: _schema(rule) | _in_words(name, described[name]) for name, rule in rules.items()}
    if form:
        del schemas["svg"]  # its fields are `svg[model]` and the like
        for schema in schemas.values():
            schema.pop("examples", None)  # a page would fill them in and send them
    else:
        for name in schemas.keys() - {"prompt"}:
            _allow_null(schemas[name], rules[name])
    return schemas


def _in_words(name: str, described: Schema) -> Schema:
    """Move the default and the other names of a parameter into its description."""
    words = [described["description"]]
    if synonyms := [f"`{synonym}`" for synonym, ours in ALIASES.items() if ours == name]:
        words.append(f"Also under the name {' or '.join(synonyms)}.")
    if "default" in described:
        words.append(f"Without it: `{str(described['default']).lower()}`.")
    return {key: value for key, value in described.items() if key != "default"} | {"description": " ".join(words)}


def _allow_null(schema: Schema, rule: Rule) -> None:
    """Allow null: in JSON it counts as absent."""
    if "enum" in schema:  # generators make one type of this, and several of an enum that has null in it
        schema["anyOf"] = [{"type": schema.pop("type"), "enum": schema.pop("enum")}, {"type": "null"}]
        return
    numbers = ["number"] if isinstance(rule, Text) and rule.numbers else []
    schema["type"] = [schema["type"], *numbers, "null"]


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
