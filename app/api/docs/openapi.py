"""The OpenAPI document: which endpoints there are, and what they take and answer. It is put together when it is first
asked for, and looks at no configuration."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import FastAPI

from app.api.docs import page
from app.images import Operation

Schema = dict[str, Any]

_ABOUT = """\
OpenAI's Images API, whichever provider draws. Point an official SDK at `/v1` of this server, ask for a model by name.

- **Nothing is dropped without a word.** What a model must be able to do and cannot is refused; hints that it cannot \
honour are named in `x-gateway-dropped`.
- **Every error** has OpenAI's envelope, and every answer an `x-request-id`.
- **A drawing that was sent to a provider is not lost** when its caller leaves: `GET /v1/images/runs/{run}` has it, \
and so has the same request under the same `Idempotency-Key`.
"""
_OPERATIONS: dict[Operation, tuple[str, str, str]] = {
    Operation.GENERATIONS: ("createImage", "Draw images from a prompt", "A JSON object."),
    Operation.EDITS: (
        "createImageEdit",
        "Edit images",
        "A form with the images as files, or JSON with them as data URLs. The parts of a form may come in any order.",
    ),
    Operation.VARIATIONS: (
        "createImageVariation",
        "Vary an image",
        "A form with the image as a file.",
    ),
}
_ANSWER = """

`stream: true` answers with server-sent events. `Accept: image/png` (or `image/jpeg`, `image/webp`, `image/*`), with \
one image, answers with the image and nothing else."""
_RETRY = " The official SDKs' own retries (`x-stainless-retry-count`) join the drawing that is under way."
_TAGS = {
    "images": "Draw, edit and vary.",
    "models": "What there is to draw with.",
    "health": "For whoever watches over the gateway.",
}
_DRAWING = (400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504)


def describe(app: FastAPI) -> None:
    """Gives `app` the document of its endpoints (`/openapi.json`) and the page that shows it (`/docs`)."""
    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI's documentation shows
    app.router.routes.extend(page.routes())


@cache
def document() -> Schema:
    # Not at the top: nobody who only draws images needs them.
    from importlib.metadata import version

    from app.api.docs import answers

    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Image Gateway",
            "version": version("image-gateway"),
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "security": [{"key": []}],
        "paths": _images() | _models() | _files() | _health(),
        "components": {
            "schemas": answers.SCHEMAS,
            "headers": answers.HEADERS,
            "responses": answers.RESPONSES,
            "parameters": _HEADERS,
            "securitySchemes": {"key": _KEY},
        },
    }


_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "The key that the gateway's operator gave you. A gateway that has no keys asks for none.",
}
_HEADERS = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same request gets the same images, and is drawn and paid for once."
        + _RETRY,
        "schema": {"type": "string", "maxLength": 255},
    },
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "The caller's own name of the request: up to 128 letters, digits and `._:/+=@-`. Any other is "
        "replaced.",
        "schema": {"type": "string"},
    },
}


def _images() -> Schema:
    from app.api.docs import answers
    from app.api.docs.parameters import bodies

    ok = {"200": {"$ref": "#/components/responses/Images"}}
    paths: Schema = {}
    for operation, (name, summary, about) in _OPERATIONS.items():
        paths[f"/v1/images/{operation}"] = {
            "post": {
                "operationId": name,
                "tags": ["images"],
                "summary": summary,
                "description": about + _ANSWER,
                "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _HEADERS],
                "requestBody": {"required": True, "content": bodies(operation)},
                "responses": ok | answers.failures(_DRAWING),
            }
        }
    about = "Waits for it if need be, and answers as its caller would have been answered, errors included."
    paths["/v1/images/runs/{run}"] = _get(
        "getRun",
        "images",
        "The images of an earlier request",
        ok | answers.failures(_DRAWING),
        about,
        _in_path("run", "The `x-request-id` of that request."),
    )
    return paths


def _models() -> Schema:
    from app.api.docs.answers import answer, failures

    listed = {"200": answer("ModelList", "The models."), **failures((401, 403, 500))}
    one = {"200": answer("Model", "The model."), **failures((401, 403, 404, 500))}
    model = _in_path("model", "Its id or an alias. Slashes may be raw or `%2F`.")
    return {
        "/v1/models": _get("listModels", "models", "The models that your key may use", listed),
        "/v1/models/{model}": _get("retrieveModel", "models", "One model", one, "", model),
    }


def _files() -> Schema:
    from app.api.docs.answers import failures, file_answers

    signed = [
        _in_path("name", "As the link says."),
        _in_query("key", "^[0-9a-f]{16}$"),
        _in_query("expires", "^[0-9]{1,15}$"),
        _in_query("signature", "^[0-9a-f]{64}$"),
        {"name": "Range", "in": "header", "schema": {"type": "string"}, "description": "`bytes=0-1023`, one range."},
        {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}, "description": "An `etag`."},
    ]
    responses = file_answers() | failures((403, 404, 416, 500))
    about = "The addresses in `data[].url`: signed, expiring, and good without a key. Use them exactly as they came."
    summary = "An image that was handed out as a URL"
    return {"/files/{name}": _get("getFile", "images", summary, responses, about, *signed, open=True)}


def _health() -> Schema:
    from app.api.docs.answers import answer

    alive = {"200": answer("Health", "It is.")}
    ready = {"200": answer("Health", "It is."), "503": answer("Health", "It is starting, or going down.")}
    return {
        "/healthz": _get("healthz", "health", "Is the gateway alive?", alive, open=True),
        "/readyz": _get("readyz", "health", "Is it able to serve?", ready, open=True),
    }


def _get(
    name: str, tag: str, summary: str, responses: Schema, about: str = "", *parameters: Schema, open: bool = False
) -> Schema:
    """A path that takes GET; `open`: without a key."""
    operation: Schema = {"operationId": name, "tags": [tag], "summary": summary, "responses": responses}
    if about:
        operation["description"] = about
    if parameters:
        operation["parameters"] = list(parameters)
    if open:
        operation["security"] = []
    return {"get": operation}


def _in_path(name: str, about: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": about}


def _in_query(name: str, pattern: str) -> Schema:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "query", "required": True, "schema": schema, "description": "Part of the link."}
