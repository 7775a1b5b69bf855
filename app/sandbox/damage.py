"""Faults in what an answer says: refusals in every error shape seen, and spoiled pictures, base64 and JSON.

Knows nothing of connections (delivery.py breaks those).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator

from app.sandbox.faults import Fault, Faults
from app.sandbox.order import Refusal, openai_error

HTML = b"<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>\n"
_WORDS = {
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    402: ("Payment required.", "invalid_request_error", "payment_required"),
    403: ("Your organization must be verified to use this model.", "invalid_request_error", None),
    404: ("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached for images per minute.", "requests", "rate_limit_exceeded"),
    503: ("The engine is currently overloaded, please try again later.", "service_unavailable_error", "overloaded"),
}


def moderated() -> Refusal:
    return Refusal(
        "Your request was rejected by the safety system: the prompt violates the content policy.",
        kind="image_generation_user_error",
        code="moderation_blocked",
    )


def failed() -> Refusal:
    return Refusal("Image generation failed", kind="image_generation_server_error", code="image_generation_failed")


def exhausted() -> Refusal:
    return Refusal(
        "You exceeded your current quota, please check your plan and billing details.",
        status=429,
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def refusal_asked_for(faults: Faults) -> Refusal | None:
    """Return the refusal with an HTTP status that the faults ask for, if any."""
    if "moderation" in faults:
        return moderated()
    if "quota" in faults:
        return exhausted()
    if faults.status is None:
        return None
    status = int(faults.status.name)
    default = ("The server had an error.", "server_error", "server_error")
    refused = ("The request was refused.", "invalid_request_error", None)
    message, kind, code = _WORDS.get(status, default if status >= 500 else refused)
    return Refusal(message, status=status, kind=kind, code=code)


def error_body(refusal: Refusal, fault: Fault | None, own: Callable[[Refusal], dict[str, object]]) -> tuple[str, bytes]:
    """Return media type and body of a refusal: in the provider's own shape, or in the one that the fault names."""
    shape = None if fault is None else fault.options.get("shape")
    if shape == "html":
        return "text/html", HTML
    if shape == "empty":
        return "text/plain", b""
    return "application/json", json.dumps(own(refusal) if shape is None else _shaped(refusal, shape)).encode()


def _shaped(refusal: Refusal, shape: str) -> dict[str, object]:
    message, code = refusal.message, refusal.code
    shapes: dict[str, dict[str, object]] = {
        "failed": {"data": None, "message": message, "status": "failed"},
        "openai": openai_error(refusal),
        "litellm": {"error": {"message": message, "type": code, "param": None, "code": str(refusal.status)}},
        "detail": {"detail": message},
        "detail_list": {"detail": [{"loc": ["body", "prompt"], "msg": message, "type": "value_error"}]},
        "message": {"status": "error", "message": message},
        "error_string": {"error": message},
        "draft": {"status": "error", "error": {"code": code, "message": message, "details": None}},
    }
    return shapes[shape]


def spoiled_picture(data: bytes, faults: Faults) -> bytes:
    """Return the picture's bytes, cut off before their end or replaced by a page."""
    if "notimage" in faults:
        return HTML
    if "truncated_image" in faults:
        return data[: -max(16, len(data) // 4)]
    return data


def spoiled_base64(text: str, faults: Faults, media_type: str) -> str:
    """Return the base64 with foreign characters, line breaks or a data-URL prefix, or without its padding."""
    if "badbase64" in faults:
        middle = len(text) // 2
        text = f"{text[:middle]}%#!{text[middle:]}"
    if "unpadded" in faults:
        text = text.rstrip("=")
    if "newlines" in faults:
        text = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    return f"data:{media_type};base64,{text}" if "dataurl" in faults else text


def json_text(value: object, faults: Faults, *, one_line: bool = False) -> bytes:
    """Return JSON, compact or pretty, with the escapes that other languages' encoders use."""
    if "pretty" in faults and not one_line:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    else:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if "json_escaped" in faults:  # both characters occur inside of strings only
        text = text.replace("/", "\\/").replace("=", "\\u003d")
    return text.encode()


def compressed(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1)


def gzip_bomb(megabytes: int) -> Iterator[bytes]:
    """Yield the gzip pieces of a JSON answer that unpacks to this many MiB of base64."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(b'{"created":0,"data":[{"b64_json":"')
    block = b"A" * 1024 * 1024
    for _ in range(megabytes):
        yield packer.compress(block)
    yield packer.compress(b'"}]}') + packer.flush()
