"""How upstreams say that something went wrong: one reader for every shape of error that has been seen, and the
classes of `Failure` that they fall into. Knows no provider by name, since hosts sit behind proxies of other makes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from app.dialects import ResponseHead
from app.errors import Failure, UpstreamError

_QUOTA = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
}
# Where a 429 has no code of its own: waiting would not help.
_BALANCE_TOLD = re.compile(r"insufficient[_ ](balance|credit|funds)", re.I)
_QUOTA_TOLD = re.compile(r"insufficient[_ ]quota|exceeded your (current )?quota", re.I)
# Where it would: some hosts call a rate limit a quota.
_RATE_TOLD = re.compile(r"\bper[_ -]?(second|minute|hour|day)\b|\brate[_ -]?limit|/ ?(sec|min|minute|hour|day)\b", re.I)
_MODERATION = re.compile(r"moderation|content[_ ]?policy|content[_ ]?filter|nsfw|safety (system|filter|check)", re.I)
_REFUSALS = {400, 404, 413, 422}
_ACCOUNT = {401, 402, 403}
_TRANSIENT = {500, 502, 503}
_TIMED_OUT = {408, 504, 522, 524}
_GOOD_WORDS = {"success", "succeeded", "ok", "completed", "complete", "done", "finished", "none", "null", "no error"}
_GOOD_CODES = {"0", "200", "201", "202"} | _GOOD_WORDS
# The words with which a status, or the name of an event, begins or ends if no image will come.
_WORD = (
    r"(?:fail(?:ed|ure)?|error(?:ed)?|cancell?ed|rejected|blocked|expired|timed?[\W_]?out|abort(?:ed)?|refused|denied)"
)
_FAILED = re.compile(rf"(?!(?:no|without)[\W_])(?:{_WORD}[\s:].*|(?:.*[\W_])?{_WORD})", re.I | re.S)
_ENDING = re.compile(rf"(?:image.*[\W_]|response\.)?{_WORD}", re.I)  # of the names of events
# Words of an answer without an image that say that one is being drawn, or was.
_PERHAPS_DRAWN = re.compile(
    r"\b(?:(?:en|re)?queue[ds]?|pending|in[ _-]progress|dispatched|stored|ready|rendering|drawing|processing|processed"
    r"|submitted|scheduled|accepted|received|started|running|generating|generated|created|wait(?:ing)?|success\w*"
    r"|succeeded|completed?|finished|done|ok)\b",
    re.I,
)
# Where an answer in a shape of its own, beside `data`, may hold the images or say where they will be.
_PERHAPS_IMAGES = (
    "b64_json", "image", "images", "output", "outputs", "artifacts", "result", "results", "url", "urls",
    "id", "task", "task_id", "job", "job_id", "request_id", "polling_url", "status_url", "data",
)  # fmt: skip
_SECRETS = re.compile(
    r"\b(?:sk|ak|pk|rk)[-_][\w-]{6,}|\b(?i:Bearer)\s+\S{6,}|(?<![0-9a-fA-F])[0-9a-fA-F]{32,}"
    r"|\beyJ[\w-]{10,}[\w.-]*"
)
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{100,}+")  # tried once for each run of such characters
_MOST_DETAILS = 16  # on each of three levels
LONGEST_MESSAGE = 1000
_REDIRECTED = "it redirects (status {}), which is not followed; `base_url` has to name the place itself"


def from_status(head: ResponseHead, body: bytes) -> UpstreamError:
    """Return the failure of an answer with a status other than 2xx."""
    words, wait = ErrorText(parse_json(body)), _retry_after(head.headers)
    status = head.status
    return UpstreamError(
        failure=_by_status(status, words, wait),
        message=words.message or (f"status {status}" if status >= 400 else _REDIRECTED.format(status)),
        status=status,
        type=words.type,
        code=words.code,
        param=words.param,
        retry_after=wait,
        details=words.details,
        timed_out=status in _TIMED_OUT,
    )


def from_document(document: Any, *, delivered: bool = False) -> UpstreamError | None:
    """Return the failure that a document under a 2xx status reports, or None.

    `delivered`: it holds images, so only an error or a word of failure counts. Without images, its text is the reason,
    unless it may mean that a drawing is under way, and so perhaps paid for.
    """
    if not isinstance(document, dict):
        return UpstreamError(Failure.UNCERTAIN, "the answer is JSON, but no object")
    if says_failed(document):
        return from_text(ErrorText(document))
    return None if delivered else _instead_of_an_image(document)


def from_event(data: Any, name: str) -> UpstreamError:
    """Return the failure of an event whose name, or `type`, is one of failure. `data`: JSON of any shape, or a text."""
    if isinstance(data, dict) and not data.get("error"):  # laid flat
        data = {key: value for key, value in data.items() if key != "type" or value not in ("error", name)}
        return from_text(ErrorText({"error": data}))
    return from_text(ErrorText(data if isinstance(data, dict) else {"error": data}))


def failed_event(document: Mapping[str, Any], name: str) -> UpstreamError | None:
    """Return the failure that an event reports: by its name or `type`, by an error, or, if it has neither name nor
    type, by a word of failure. Such words in other events may be about something that the host gets over."""
    called = [each for each in (name, document.get("type")) if isinstance(each, str) and each not in ("", "message")]
    for each in called:
        if ends_stream(each):
            return from_event(document, each)
    fails = says_failed(document) if not called else _is_error(document.get("error"))
    return from_text(ErrorText(document)) if fails else None


def ends_stream(called: str) -> bool:
    """True if an event of this name says that no image will come."""
    return _ENDING.fullmatch(called.strip()) is not None


def says_failed(document: Mapping[str, Any]) -> bool:
    """True if the document holds an error, or an explicit word of failure."""
    status = document.get("status")
    return (
        document.get("success") is False
        or document.get("success") == "false"
        or (isinstance(status, str) and _FAILED.fullmatch(status.strip()) is not None)
        or _is_error(document.get("error"))
    )


def from_text(words: ErrorText) -> UpstreamError:
    """Return the failure of an answer that began as a good one, and then says in these words that there is no image."""
    refused = _is_moderated(words) or _is_refusal_code(words.code)
    failure = Failure.CREDENTIAL if _is_exhausted(words) else Failure.REFUSED if refused else Failure.FAILED
    message = words.message or "the answer says that it failed, without a reason"
    status = 400 if refused else None
    return UpstreamError(failure, message, status, words.type, words.code, words.param, details=words.details)


def _is_error(error: Any) -> bool:
    """True if the value reports an error. Some hosts always send `error`, with a code or a word for success."""
    if not isinstance(error, dict):
        return bool(error) and str(error).strip().lower() not in _GOOD_CODES
    code, message = _text(error.get("code")), error.get("message")
    said = code or (message if isinstance(message, str) else "")
    return any(error.values()) and said.strip().lower() not in _GOOD_CODES


def _instead_of_an_image(document: Mapping[str, Any]) -> UpstreamError | None:
    if error := _of_an_image(document):
        return from_text(ErrorText({"error": error}))
    words, status = ErrorText(document), document.get("status")
    if _is_refusal_code(words.code) or _MODERATION.search(words.code or ""):
        return from_text(words)
    if isinstance(status, str) and status.strip() and status.strip().lower() not in _GOOD_WORDS:
        return UpstreamError(Failure.UNCERTAIN, f"it says {scrub(status)!r} instead of giving the image")
    return from_text(words) if _is_reason(words, document) else None


def _of_an_image(document: Mapping[str, Any]) -> Any:
    """Return the error under `data` of the first image that has one."""
    data = document.get("data")
    errors = (entry.get("error") for entry in data if isinstance(entry, dict)) if isinstance(data, list) else ()
    return next(filter(_is_error, errors), None)


def _is_reason(words: ErrorText, document: Mapping[str, Any]) -> bool:
    """True if the words can only mean that nothing was drawn."""
    status, message = document.get("status"), words.message.lower()
    if document.get("errors"):
        return True
    if isinstance(status, str) or document.get("success") is True:
        return False
    if {_text(status), (words.code or "").lower(), message} & _GOOD_CODES:
        return False
    if any(document.get(key) not in (None, [], {}) for key in _PERHAPS_IMAGES):
        return False
    return bool(message) and not _PERHAPS_DRAWN.search(message)


def _is_refusal_code(code: str | None) -> bool:
    return code is not None and ((code.isdecimal() and int(code) in _REFUSALS) or code.startswith("invalid_"))


def _is_moderated(words: ErrorText) -> bool:
    return _is_coded_as_moderated(words) or bool(_MODERATION.search(words.message))


def _is_coded_as_moderated(words: ErrorText) -> bool:
    return any(map(_MODERATION.search, (words.code or "", words.type or "")))


def _is_exhausted(words: ErrorText) -> bool:
    return any(word in _QUOTA or word.startswith("billing_") for word in (words.code, words.type) if word)


def _by_status(status: int, words: ErrorText, wait: float | None) -> Failure:
    if _is_exhausted(words):
        return Failure.CREDENTIAL
    if status in _ACCOUNT:
        return Failure.REFUSED if status == 403 and _is_moderated(words) else Failure.CREDENTIAL
    if status == 429:
        passes = wait or _RATE_TOLD.search(words.message)
        exhausted = _BALANCE_TOLD.search(words.message) or (_QUOTA_TOLD.search(words.message) and not passes)
        return Failure.CREDENTIAL if exhausted else Failure.RATE_LIMITED
    if status in _TIMED_OUT:
        return Failure.UNCERTAIN
    # A server that fails may mention its moderation, or the prompt: then only a code means a refusal.
    if status in _REFUSALS or (_is_moderated(words) if status < 500 else _is_coded_as_moderated(words)):
        return Failure.REFUSED
    if status in _TRANSIENT or status < 400:
        return Failure.UNAVAILABLE
    return Failure.UNCERTAIN if status >= 500 else Failure.REFUSED


class ErrorText:
    """Message, type, code and param of an error in any of the known shapes; of a document that is no object, none."""

    __slots__ = ("code", "details", "message", "param", "type")

    def __init__(self, document: Any) -> None:
        said = document if isinstance(document, dict) else {}
        several = said.get("errors")
        errors = (said.get("error"), *(several if isinstance(several, list) else ()))
        inner: dict[str, Any] = next((each for each in errors if isinstance(each, dict)), said)
        self.message = scrub("; ".join(dict.fromkeys(_sentences(said))))
        self.type, self.code, self.param = (_text(inner.get(name)) for name in ("type", "code", "param"))
        # They are kept with the error, and passed on as they are.
        details = inner.get("moderation_details")
        self.details = {"moderation_details": details} if isinstance(details, dict) and _is_small(details) else None


def _sentences(document: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts of the known shapes: `error.message`, `error`, `detail` (a text, a list or an object), `message`,
    `msg`, `errors`."""
    if isinstance(document, str):
        if document.strip():
            yield document.strip()
    elif isinstance(document, list) and depth < 4:
        for item in document[:5]:
            yield from _sentences(item, depth + 1)
    elif isinstance(document, dict) and depth < 4:
        for key in ("error", "detail", "errors", "message", "msg"):
            found = list(_sentences(document.get(key), depth + 1))
            if found:
                steps = document.get("loc")
                where = f"{_join(steps)}: " if isinstance(steps, list) else ""
                yield from (where + sentence for sentence in found)
                return


def _join(steps: list[Any]) -> str:
    return ".".join(str(step)[:64] for step in steps[:8] if isinstance(step, str | int))


def _is_small(value: Any, levels: int = 3) -> bool:
    if isinstance(value, dict):
        return len(value) <= _MOST_DETAILS and all(map(_is_small, value)) and _is_small(list(value.values()), levels)
    if isinstance(value, list):
        return levels > 0 and len(value) <= _MOST_DETAILS and all(_is_small(item, levels - 1) for item in value)
    if isinstance(value, int | float):
        return abs(value) <= 2**64
    return value is None or len(value) <= LONGEST_MESSAGE


def scrub(text: str) -> str:
    """Return `text`, shortened to a message, without anything that looks like a credential, its hash or base64."""
    text = _BASE64.sub("[…]", _SECRETS.sub("[…]", text))
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…"


def parse_json(body: bytes) -> Any:
    """Return the JSON value of `body`, or None if it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return scrub(str(value)) or None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds from `retry-after-ms`, or from `retry-after` as a number or as an HTTP date."""
    said = headers.get("retry-after", "")
    for number, unit in ((headers.get("retry-after-ms", ""), 1000), (said, 1)):
        if re.fullmatch(r"\s*[0-9]+(?:\.[0-9]*)?\s*", number) and math.isfinite(seconds := float(number) / unit):
            return seconds
    return _seconds_until(said, headers.get("date", ""))


def _seconds_until(date: str, now: str) -> float | None:
    """Return the seconds until `date`. `now` is the answer's own date, so that two clocks need not agree."""
    try:
        until, since = (at if at.tzinfo else at.replace(tzinfo=UTC) for at in map(parsedate_to_datetime, (date, now)))
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (until - since).total_seconds())
