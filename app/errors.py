"""Everything that can go wrong, as one tree: whose fault it is, the status, and OpenAI's type and code.

ApiError                 what a caller gets, in OpenAI's envelope
├── InvalidRequest       400, the caller's: a parameter, a body, a file
├── Unauthenticated      401, the caller's: no virtual key, or a wrong one
├── Forbidden            403, a web page of another site, or a name that is not the gateway's
├── NotFound             404, a path, a model or a run that is not there
├── Conflict             409, what contradicts that which is there; asking again finds the same
├── TooLarge             413, a body over the limit
├── RateLimited          429, a key's or every deployment's limit
├── Unavailable          503, the gateway's: no room, no time, going down
└── UpstreamFailed       4xx or 5xx, what is left to say after the last attempt
UpstreamError            how one attempt failed; never sent as it is, `failover` decides what follows
FetchError               how the download of one image failed
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import Enum, auto
from typing import Any, Self

LONGEST_MESSAGE = 4000  # characters; the gateway's own messages are shorter
LONGEST_PARAM = 256


def shortened(text: str, longest: int = 64) -> str:
    """Shorten a foreign `text` for a message or a log line."""
    return text if len(text) <= longest else f"{text[:longest]}…"


@dataclass(eq=False, repr=False)
class ApiError(Exception):
    """A failure as callers see it. `should_retry` and `retry_after` (seconds) become the headers that the SDKs obey.

    The message and `param` are bounded here; a message shortens each foreign text that it quotes, so that its remedy is
    not lost.
    """

    message: str
    _: KW_ONLY
    param: str | None = None
    code: str | None = None
    status: int = 0  # 0: that of the class
    type: str = ""  # "": that of the class
    should_retry: bool | None = None  # None: that of the class
    retry_after: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    perhaps_paid: bool = False  # a drawing may have been made: asking again may pay again
    headers: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0  # requests that were sent to providers

    def __post_init__(self) -> None:
        self.message = shortened(self.message, LONGEST_MESSAGE)
        super().__init__(self.message)
        self.param = None if self.param is None else shortened(self.param, LONGEST_PARAM)
        self.status = self.status or self.__class__.status or 500
        self.type = self.type or self.__class__.type or "server_error"
        if self.should_retry is None:
            self.should_retry = self.__class__.should_retry

    def paid(self) -> Self:
        """Mark that a drawing may have been paid for: an SDK must not repeat the request."""
        self.should_retry, self.perhaps_paid = False, True
        return self

    def alone(self) -> Self:
        """Return a copy without the traceback, whose frames hold all that they worked on. Keep the copy, not the
        original."""
        return copy.copy(self)

    def envelope(self) -> dict[str, Any]:
        """Return OpenAI's error object, always with all four keys."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": {**self.details, **error}}


class InvalidRequest(ApiError):
    status = 400
    type = "invalid_request_error"


class Unauthenticated(ApiError):
    status = 401
    type = "invalid_request_error"


class Forbidden(ApiError):
    status = 403
    type = "invalid_request_error"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"


class Conflict(ApiError):
    status = 409
    type = "invalid_request_error"
    should_retry = False  # the SDKs would ask again, and find the same


class TooLarge(ApiError):
    status = 413
    type = "invalid_request_error"


class RateLimited(ApiError):
    status = 429
    type = "rate_limit_error"


class Unavailable(ApiError):
    status = 503
    type = "service_unavailable_error"


class UpstreamFailed(ApiError):
    status = 502
    type = "server_error"


class Failure(Enum):
    """The kinds of failure of an attempt: each says whether a repeat is allowed and whether a drawing may have been
    paid for."""

    NOT_SENT = auto()  # DNS, connect, TLS: the request never left
    RATE_LIMITED = auto()  # 429
    REFUSED = auto()  # the request itself: 400, 404, 413, 422, moderation
    CREDENTIAL = auto()  # 401, 402, 403, exhausted quota: the gateway's own account
    UNAVAILABLE = auto()  # 500, 502, 503
    FAILED = auto()  # a 200 that says that it failed
    UNCERTAIN = auto()  # perhaps drawn and paid for: timeouts, lost connections, cut or garbled answers


@dataclass(eq=False)
class UpstreamError(Exception):
    """The failure of one attempt. `message` is the upstream's text without secrets, or the gateway's where it gave
    none."""

    failure: Failure
    message: str
    status: int | None = None  # the upstream's status, if there was one
    type: str | None = None
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None  # seconds
    details: Mapping[str, Any] | None = None
    timed_out: bool = False
    is_final: bool = False  # the provider's verdict on the drawing: moderated, failed; not one exchange that failed

    def alone(self) -> Self:
        """Return a copy without the traceback."""
        return replace(self)

    @property
    def is_uncertain(self) -> bool:
        """True if the image may have been drawn and paid for."""
        return self.failure is Failure.UNCERTAIN

    def __str__(self) -> str:
        return f"{self.failure.name.lower()}: {self.message}"


_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Reason(Enum):
    """Why a download failed."""

    URL = auto()  # its scheme or its form
    PRIVATE = auto()  # a host that is not public
    REDIRECTS = auto()  # too many, or one that leads nowhere
    STATUS = auto()
    NO_IMAGE = auto()
    TOO_LARGE = auto()
    TIMED_OUT = auto()
    LOST = auto()  # no connection, or one that broke


@dataclass(eq=False)
class FetchError(Exception):
    """`message` continues a sentence that begins with "the image". It names the host and never the rest of the URL,
    which may be secret."""

    reason: Reason
    message: str
    status: int | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def may_pass(self) -> bool:
        """True if another attempt may go better."""
        return self.reason in (Reason.TIMED_OUT, Reason.LOST) or self.status in _TRANSIENT
