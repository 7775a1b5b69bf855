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
_SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Journal(Protocol):
    """A sink for log lines."""

    def request(self, line: dict[str, object]) -> None: ...

    def crash(self, request_id: str, error: BaseException) -> None: ...


class Frame:
    """Gives each request an id, its time and a log line. `new_id` makes an id where the caller sent none that is safe
    to repeat. `logs_client`: the log line has the client's address."""

    def __init__(self, app: ASGIApp, journal: Journal, new_id: Callable[[], str], *, logs_client: bool = True) -> None:
        self._app = app
        self._journal = journal
        self._new_id = new_id
        self._logs_client = logs_client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = header(scope, b"x-request-id") or ""
        request_id = given if _SAFE_ID.fullmatch(given) else self._new_id()
        log = RequestLog(began=began)
        watched = Watched(receive, complete=not _has_body(scope))
        scope["state"] = {**scope.get("state", {}), "log": log, "request_id": request_id}

        async def framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                log.status = message["status"]
                log.first_byte = time.perf_counter()
                took = round((log.first_byte - began) * 1000)
                message["headers"] = [
                    *message["headers"],
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
            client = _client(scope) if self._logs_client else None
            self._journal.request(_line(scope, request_id, client, log, time.perf_counter()))


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
            with Answer(scope, send) as answer:
                await send_error(answer, refusal, receive)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _client(scope: Scope) -> str | None:
    """The client's address: that of the connection, or the one that a trusted proxy states. None for text that is not
    like an address, since a proxy may pass on the invention of its client."""
    host, _ = scope.get("client") or ("", 0)
    return host if _ADDRESS.fullmatch(host) else None


def _line(scope: Scope, request_id: str, client: str | None, log: RequestLog, now: float) -> dict[str, object]:
    first = None if log.first_byte is None else round((log.first_byte - log.began) * 1000, 1)
    served = log.served
    line = {
        "request_id": request_id,
        "method": scope["method"],
        "path": shortened(scope["path"], 256),
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
        "error": log.error,
        "prompt": log.prompt,
    }
    return {name: value for name, value in line.items() if value is not None}
