"""What callers are answered, as JSON Schema and OpenAPI responses: images, streams, models, errors, headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_BINARY: Schema = {"type": "string", "format": "binary"}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(properties: Schema, *required: str, about: str = "") -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema | ({"description": about} if about else {})


def _said(about: str, schema: Schema = _STRING, **more: Any) -> Schema:
    return {**schema, "description": about, **more}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(*types: str) -> Schema:
    return {"type": [*types, "null"]}


# --- images ---

_BASE64 = _said("The image as base64 text.", contentEncoding="base64")
_URL = _said(
    "Where the image lies: an address of this gateway's that is good for a while, without a key; or, where the "
    "operator says so, the provider's own.",
    format="uri",
)
_IMAGE = {
    "revised_prompt": _said("What the provider made of the prompt."),
    "seed": _said("What draws this image again.", {"type": "integer"}),
}
_FACTS = {
    "background": _STRING,
    "output_format": _said("What the images are encoded as.", examples=["png", "jpeg", "webp"]),
    "quality": _STRING,
    "safety_identifier": _said("As it was sent, where the provider repeats it."),
    "size": _said("`WIDTHxHEIGHT` in pixels.", examples=["1024x1024"]),
}
_TOKENS = _object({"text_tokens": _COUNT, "image_tokens": _COUNT})
_GATEWAY = _object(
    {
        "provider": _STRING,
        "model": _said("As the provider calls it."),
        "attempts": _said("Requests sent to providers for this call so far.", _COUNT),
        "dropped": _said("Parameters that were not honoured.", _list(_STRING)),
        "mapped": _said("Parameters that were changed, as `size=1024x768`.", _list(_STRING)),
    },
    *("provider", "model", "attempts", "dropped", "mapped"),
    about="What the `x-gateway-…` headers say.",
)
_USAGE = _ref("schemas", "Usage")
_EVENT = {"created_at": _said("Seconds since 1970.", _COUNT), **_FACTS, "index": _said("Which of the `n`.", _COUNT)}
_EVENT_REQUIRED = ("type", "created_at", "background", "output_format", "quality", "size", "index")


def _event_type(what: str) -> Schema:
    return {"type": "string", "enum": [f"image_{kind}.{what}" for kind in ("generation", "edit", "variation")]}


_IMAGES: Schema = {
    "ImagesResponse": _object(
        {
            "created": _said("Seconds since 1970.", _COUNT),
            "data": _list(_ref("schemas", "Image")),
            **_FACTS,
            "usage": _USAGE,
            "gateway": _GATEWAY,
        },
        *("created", "data"),
    ),
    "Image": _object({"b64_json": _BASE64, "url": _URL, **_IMAGE})
    | {"oneOf": [{"required": ["b64_json"]}, {"required": ["url"]}]},
    "Usage": _object(
        {
            "input_tokens": _COUNT,
            "output_tokens": _COUNT,
            "total_tokens": _COUNT,
            "input_tokens_details": _TOKENS,
            "output_tokens_details": _TOKENS,
        },
        about="As far as the provider tells it.",
    ),
    "PartialImageEvent": _object(
        {
            "type": _event_type("partial_image"),
            "b64_json": _BASE64,
            **_EVENT,
            "partial_image_index": _said("Which of the unfinished images, from 0.", _COUNT),
        },
        *(*_EVENT_REQUIRED, "b64_json", "partial_image_index"),
    ),
    "CompletedEvent": _object(
        {
            "type": _event_type("completed"),
            "b64_json": _BASE64,
            "url": _URL,
            **_EVENT,
            **_IMAGE,
            "gateway": _GATEWAY,
            "usage": _USAGE,
        },
        *(*_EVENT_REQUIRED, "gateway"),
    ),
    "ErrorEvent": _object({"type": {"const": "error"}, "error": _ref("schemas", "ErrorDetails")}, "type", "error"),
    "ImageEvent": {"oneOf": [_ref("schemas", f"{name}Event") for name in ("PartialImage", "Completed", "Error")]},
    "ServerSentEvent": _object(
        {
            "event": _said("The same as `type` in the data; `error` for errors."),
            "data": _said(
                "An ImageEvent.", contentMediaType="application/json", contentSchema=_ref("schemas", "ImageEvent")
            ),
        },
        "data",
        about="One event: a line `event: …`, a line `data: …` and an empty line. Lines that begin with `:` keep the "
        "connection alive and mean nothing.",
    ),
}

# --- models, health, errors ---

_CAPABILITIES = _object(
    {
        "operations": _list({"type": "string", "enum": ["edits", "generations", "variations"]}),
        "sizes": _said("Each that can be chosen, as `1024x1024`, or bounds in words.", _list(_STRING)),
        "max_n": _COUNT,
        "output_formats": _list(_STRING),
        "mask": _said("Edits may have a mask.", {"type": "boolean"}),
        "mask_required": {"type": "boolean"},
        "max_images": _said("Input images of an edit.", _COUNT),
        "parameters": _said("Those that are understood; null: any.", {**_or_null("array"), "items": _STRING}),
        "streaming": {"type": "boolean"},
        "partial_images": _said("Streams may show unfinished images.", {"type": "boolean"}),
        "price_per_image": _said("In US dollars, where it is known.", _or_null("number")),
        "typical_seconds": _said("How long a drawing takes, where it is known.", _or_null("number")),
        "aliases": _list(_STRING),
        "deployments": _said("`provider/model`, in the order in which they are tried.", _list(_STRING)),
    },
    about="What at least one of the model's deployments can do.",
)
_OTHERS: Schema = {
    "Model": _object(
        {
            "id": _STRING,
            "object": {"const": "model"},
            "created": _COUNT,
            "owned_by": _said("The first provider."),
            "capabilities": _CAPABILITIES,
        },
        *("id", "object", "created", "owned_by", "capabilities"),
    ),
    "ModelList": _object({"object": {"const": "list"}, "data": _list(_ref("schemas", "Model"))}, "object", "data"),
    "Health": _object({"status": _STRING}, "status"),
    "Error": _object({"error": _ref("schemas", "ErrorDetails")}, "error"),
    "ErrorDetails": _object(
        {
            "message": _said("What is wrong, and what helps."),
            "type": _said("The family.", examples=["invalid_request_error", "rate_limit_error", "server_error"]),
            "param": _said("The parameter at fault, as `size` or `image[0]`.", _or_null("string")),
            "code": _said("What programs should look at.", _or_null("string"), examples=["invalid_value"]),
        },
        *("message", "type", "param", "code"),
        about="OpenAI's error object; a provider's further words on a refusal stand beside these four.",
    ),
}
SCHEMAS: Schema = _IMAGES | _OTHERS

# --- headers ---

_SAID_OF_HEADERS = {
    "x-request-id": "The caller's own `X-Request-Id`, or a new one. Also the name of the run.",
    "openai-processing-ms": "Milliseconds until the answer began.",
    "x-gateway-provider": "Who drew.",
    "x-gateway-model": "The model, as the provider calls it.",
    "x-gateway-attempts": "Requests sent to providers.",
    "x-gateway-dropped": "Hints that were not honoured, comma-separated.",
    "x-gateway-mapped": "Parameters that were changed, as `size=1024x768`.",
    "x-should-retry": "`false` where trying again would pay again, or not help. Both official SDKs obey it.",
    "retry-after": "Seconds until it is worth trying again.",
    "retry-after-ms": "The same in milliseconds.",
    "www-authenticate": "`Bearer`.",
    "content-range": "Which bytes of how many.",
    "etag": "The image's name; it never changes.",
}
_NUMBERS = {"openai-processing-ms", "x-gateway-attempts", "retry-after", "retry-after-ms"}
_ALWAYS = ("x-request-id", "openai-processing-ms")
HEADERS: Schema = {
    name: {"description": about, "required": name in _ALWAYS, "schema": _COUNT if name in _NUMBERS else _STRING}
    for name, about in _SAID_OF_HEADERS.items()
}
_SERVED = ("provider", "model", "attempts", "dropped", "mapped")


def _headers(*names: str) -> Schema:
    return {name: _ref("headers", name) for name in (*_ALWAYS, *names)}


# --- responses ---

_FAILURES = {
    400: (
        "A parameter, the body or an image is at fault, or the provider refused the request.",
        "invalid_value",
        "size",
    ),
    401: ("No key, or a wrong one.", "invalid_api_key", None),
    403: (
        "The link is not one of this gateway's, or has expired. Or, at a gateway without keys, a web page of another "
        "site sent the request, or the gateway is called by a name that it does not know.",
        "url_expired",
        None,
    ),
    404: ("There is no such thing, or not for this key.", "not_found", None),
    409: ("The `Idempotency-Key` was used for another request.", "idempotency_key_reused", "Idempotency-Key"),
    413: ("The request or one of its images is too large.", "file_too_large", "image"),
    416: ("The image has no such bytes.", "range_not_satisfiable", None),
    422: ("The provider refused the request.", None, None),
    429: ("The key's limit, or every provider's, is reached.", "rate_limit_exceeded", None),
    500: ("The gateway failed.", "internal_error", None),
    502: ("The provider failed; with `x-should-retry: false` it may have drawn.", "upstream_broken_answer", None),
    503: ("No room, too long a queue, or the provider is down.", "server_is_overloaded", None),
    504: ("The provider took too long; it may have drawn.", "upstream_timeout", None),
}
_LATER = ["retry-after", "retry-after-ms"]
_ALSO = {401: ["www-authenticate"], 416: ["content-range"], 429: _LATER, 502: _LATER, 503: _LATER}
_TYPES = {429: "rate_limit_error", 500: "server_error", 502: "server_error", 503: "service_unavailable_error"}


def failures(statuses: Iterable[int]) -> Schema:
    """References to the responses of these statuses."""
    return {str(status): _ref("responses", f"Error{status}") for status in statuses}


def _failure(status: int) -> Schema:
    about, code, param = _FAILURES[status]
    more = ["x-should-retry", *_ALSO.get(status, [])]
    error = {"message": about, "type": _TYPES.get(status, "invalid_request_error"), "param": param, "code": code}
    return {
        "description": about,
        "headers": _headers(*more),
        "content": {"application/json": {"schema": _ref("schemas", "Error"), "example": {"error": error}}},
    }


RESPONSES: Schema = {f"Error{status}": _failure(status) for status in _FAILURES}
_RESPONSE_EXAMPLE = {
    "created": 1763683200,
    "data": [{"b64_json": "iVBORw0KGgo…", "seed": 42}],
    "output_format": "png",
    "size": "1024x1024",
}
_STREAM_EXAMPLE = """\
event: image_generation.completed
data: {"type":"image_generation.completed","b64_json":"iVBORw0KGgo…","created_at":1763683200,"size":"1024x1024",\
"quality":"auto","background":"auto","output_format":"png","index":0,"gateway":{"provider":"netmind",\
"model":"black-forest-labs/FLUX.1-schnell","attempts":1,"dropped":[],"mapped":[]}}

"""

IMAGES_ANSWER: Schema = {
    "description": "The images: as JSON, as a stream of events (`stream: true`), or, with `Accept: image/…` and one "
    "image, as the image itself.",
    "headers": _headers(*(f"x-gateway-{name}" for name in _SERVED)),
    "content": {
        "application/json": {"schema": _ref("schemas", "ImagesResponse"), "example": _RESPONSE_EXAMPLE},
        "text/event-stream": {"schema": _ref("schemas", "ServerSentEvent"), "example": _STREAM_EXAMPLE},
        **{f"image/{kind}": {"schema": _BINARY} for kind in ("png", "jpeg", "webp")},
    },
}
RESPONSES["Images"] = IMAGES_ANSWER


def answer(schema: str, about: str) -> Schema:
    """A small answer in JSON."""
    content = {"application/json": {"schema": _ref("schemas", schema)}}
    return {"description": about, "headers": _headers(), "content": content}


def file_answers() -> Schema:
    kinds = ("png", "jpeg", "webp", "gif", "svg+xml")
    content = {f"image/{kind}": {"schema": _BINARY} for kind in kinds}
    return {
        "200": {"description": "The image.", "headers": _headers("etag"), "content": content},
        "206": {"description": "A part of it.", "headers": _headers("etag", "content-range"), "content": content},
        "304": {"description": "It is the one that the caller has.", "headers": _headers("etag")},
    }
