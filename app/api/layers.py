"""The outermost layers of the application. `Frame` gives each request an id, its time and a log line; `Envelope` puts
each failure into OpenAI's error envelope."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.connection import header
from app.api.requests.body import ClientGone, Watched
from app.api.responses.sending import Answer, RequestLog, send_error
from app.errors import ApiError, shortened

GONE = "client_gone"
_ADDRESS = re.compile(r"[0-9A-Za-z.:%_\[\]-]{1,64}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-[!-~]*)?")
_SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Journal(Protocol):
    """A sink for log lines."""

    def request(self, line: dict[str, object]) -> None: ...

    def crash(self, request_id: str, error: BaseException) -> None: ...


class RequestObserver(Protocol):
    """Observes the end of each request: its method, the path by which it was routed, its facts, and its seconds."""

    def request_ended(self, method: str, path: str, facts: RequestLog, seconds: float) -> None: ...


class RequestSpan(Protocol):
    """A request in a trace."""

    @property
    def trace_id(self) -> str: ...

    def end(self, method: str, path: str, facts: RequestLog) -> None: ...


class Tracing(Protocol):
    """Begins the span of each request, which stays the current one until its end. None: this path is not traced."""

    def begin(
        self, method: str, path: str, traceparent: str | None, tracestate: str | None, request_id: str
    ) -> RequestSpan | None: ...


class Frame:
    """Gives each request an id, its time and a log line. `new_id` makes an id where the caller sent none that is safe
    to repeat. `logs_client`: the log line has the client's address. `observer` and `tracing` return the ones there are
    now."""

    def __init__(
        self,
        app: ASGIApp,
        journal: Journal,
        new_id: Callable[[], str],
        *,
        logs_client: bool = True,
        observer: Callable[[], RequestObserver | None] = lambda: None,
        tracing: Callable[[], Tracing | None] = lambda: None,
    ) -> None:
        self._app = app
        self._tracing = tracing
        self._observer = observer
        self._journal = journal
        self._new_id = new_id
        self._logs_client = logs_client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, path = time.perf_counter(), scope["path"]  # as the caller spells it
        given = header(scope, b"x-request-id") or ""
        request_id = given if _SAFE_ID.fullmatch(given) else self._new_id()
        traceparent, tracing, span = header(scope, b"traceparent"), self._tracing(), None
        log = RequestLog(began=began, trace_id=trace_id(traceparent))
        if tracing is not None:
            span = tracing.begin(scope["method"], path, traceparent, header(scope, b"tracestate"), request_id)
            log.trace_id = span.trace_id if span else log.trace_id
        watched = Watched(receive, complete=not _has_body(scope))
        scope["state"] = {**scope.get("state", {}), "log": log, "request_id": request_id, "headers": ()}

        async def framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                log.status = message["status"]
                log.first_byte = time.perf_counter()
                took = round((log.first_byte - began) * 1000)
                message["headers"] = [
                    *message["headers"],
                    *scope["state"]["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(took).encode()),
                ]
            else:
                log.bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, watched, framed)
        except ClientGone:
            log.error = GONE
        finally:
            client, now = _client(scope) if self._logs_client else None, time.perf_counter()
            log.received = watched.received
            if span is not None:
                span.end(scope["method"], scope["path"], log)
            if (observer := self._observer()) is not None:
                observer.request_ended(scope["method"], scope["path"], log, now - began)
            self._journal.request(_line(scope["method"], path, request_id, client, log, now))


class Envelope:
    """Answers each failure in OpenAI's error envelope. An answer that has begun is left unfinished instead, so that it
    breaks."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app = app
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
            return
        except ApiError as error:
            refusal = error.alone()  # its frames hold the request, which is not needed while the refusal is sent
        except ClientGone:
            raise
        except Exception as crash:
            if scope["type"] != "http":
                raise
            self._journal.crash(scope["state"]["request_id"], crash)
            message = "The gateway failed. The request's id helps its operator to find out why."
            drawing = scope["state"]["log"].operation is not None  # and perhaps paid for
            refusal = ApiError(message, code="internal_error", should_retry=False if drawing else None)
        log: RequestLog = scope["state"]["log"]
        log.fail(refusal)
        if not log.status:
            await send_error(Answer(scope, send), refusal, receive)


def trace_id(traceparent: str | None) -> str | None:
    """Return the caller's trace id from a header of W3C's Trace Context. None: the header is missing or malformed."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[2] if match and match[1] != "ff" and match[2].strip("0") and match[3].strip("0") else None


def _has_body(scope: Scope) -> bool:
    return header(scope, b"transfer-encoding") is not None or header(scope, b"content-length") not in (None, "0")


def _client(scope: Scope) -> str | None:
    """Return the client's address: that of the connection, or the one that a trusted proxy states. None for text that
    does not look like an address: a proxy may pass on its client's invention."""
    host, _ = scope.get("client") or ("", 0)
    return host if _ADDRESS.fullmatch(host) else None


def _line(
    method: str, path: str, request_id: str, client: str | None, log: RequestLog, now: float
) -> dict[str, object]:
    first = None if log.first_byte is None else round((log.first_byte - log.began) * 1000, 1)
    served = log.served
    line = {
        "request_id": request_id,
        "trace_id": log.trace_id,
        "method": method,
        "path": shortened(path, 256),
        "status": 499 if log.error == GONE else log.status,
        "client": client,
        "key": log.key,
        "operation": log.operation,
        "model": log.model,
        "provider": served.provider if served else None,
        "attempts": log.attempts,
        "images": log.images or None,
        "bytes": log.bytes,
        "first_byte_ms": first,
        "ms": round((now - log.began) * 1000, 1),
        "cost": log.cost,
        "cost_in_doubt": log.cost_in_doubt,
        "error": log.error,
        "param": log.param,
        "message": log.message,
        "prompt": log.prompt,
    }
    return {name: value for name, value in line.items() if value is not None}
