"""What every request gets, whatever becomes of it: an id, the time it took, a log line (`Frame`), and OpenAI's envelope
around whatever went wrong (`Envelope`). The outermost layers of the application."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.requests.body import ClientGone, Watched
from app.api.responses.sending import Answer, RequestLog, send_error
from app.errors import ApiError, shortened

GONE = "client_gone"
_ADDRESS = re.compile(r"[0-9A-Za-z.:%_\[\]-]{1,64}")
_TAKEN_OVER = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class Journal(Protocol):
    """Where log lines go."""

    def request(self, line: dict[str, object]) -> None: ...

    def crash(self, request_id: str, error: BaseException) -> None: ...


class Frame:
    """`new_id` gives a request id where the caller sent none that is safe to repeat. `logs_client`: the log line has
    the client's address."""

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
        request_id = self._id(scope)
        told = RequestLog(began=began)
        watched = Watched(receive, complete=not _has_body(scope))
        scope["state"] = {**scope.get("state", {}), "told": told, "request_id": request_id}

        async def framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.status = message["status"]
                told.first_byte = time.perf_counter()
                took = round((told.first_byte - began) * 1000)
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(took).encode()),
                ]
            else:
                told.bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, watched, framed)
        except ClientGone:
            told.error = GONE
        finally:
            client = _client(scope) if self._logs_client else None
            self._journal.request(_line(scope, request_id, client, told, time.perf_counter()))

    def _id(self, scope: Scope) -> str:
        said = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        return said.decode() if _TAKEN_OVER.fullmatch(said) else self._new_id()


class Envelope:
    """OpenAI's envelope around whatever goes wrong inside. Once an answer has begun nothing can be said any more: it is
    left unfinished, so that it breaks."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app = app
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
            return
        except ApiError as error:
            told = error.alone()  # the frames hold what was read: it is not needed while the refusal is sent
        except ClientGone:
            raise
        except Exception as crash:
            if scope["type"] != "http":
                raise
            self._journal.crash(scope["state"]["request_id"], crash)
            message = "The gateway failed. The request's id helps its operator to find out why."
            drawing = scope["state"]["told"].operation is not None  # and perhaps paid for
            told = ApiError(message, code="internal_error", should_retry=False if drawing else None)
        await _refuse(told, scope, receive, send)


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    told: RequestLog = scope["state"]["told"]
    told.fail(error)
    if not told.status:
        with Answer(scope, send) as answer:
            await send_error(answer, error, receive)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _client(scope: Scope) -> str | None:
    """The client's address: the other end of the connection, or what a trusted proxy says of it. None for anything
    that is not like an address, since a proxy may pass on what its client made up."""
    host, _ = scope.get("client") or ("", 0)
    return host if _ADDRESS.fullmatch(host) else None


def _line(scope: Scope, request_id: str, client: str | None, told: RequestLog, now: float) -> dict[str, object]:
    first = None if told.first_byte is None else round((told.first_byte - told.began) * 1000, 1)
    served = told.served
    line = {
        "request_id": request_id,
        "method": scope["method"],
        "path": shortened(scope["path"], 256),
        "status": 499 if told.error == GONE else told.status,
        "client": client,
        "key": told.key,
        "operation": told.operation,
        "model": told.model,
        "provider": served.provider if served else None,
        "attempts": told.attempts,
        "images": told.images or None,
        "bytes": told.bytes,
        "first_byte_ms": first,
        "ms": round((now - told.began) * 1000, 1),
        "error": told.error,
        "prompt": told.prompt,
    }
    return {name: value for name, value in line.items() if value is not None}
