"""Log lines: one for each request, and messages for operators; JSON, or readable text on a terminal. Holds no prompt,
no image and no credential unless the configuration says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TextIO

import structlog

from app.catalog.money import to_number
from app.catalog.redaction import without_quotes
from app.errors import Failure, UpstreamError, shortened
from app.gateway.attempt import Attempt
from app.runs.run import Run
from app.telemetry import connection_errors

LONGEST_REASON = 300  # characters of a provider's words
_ENCODER = json.JSONEncoder(default=repr)


class Log:
    """Writes lines. One that cannot be written, as on a full disk, is dropped: no request and no account fails for
    it."""

    def __init__(
        self,
        format: Literal["auto", "text", "json"],
        *,
        requests: bool,
        stream: TextIO | None = None,
    ) -> None:
        out = stream or sys.stdout
        self._write = structlog.WriteLogger(out).msg
        self._render = _as_json
        if format == "text" or (format == "auto" and out.isatty()):
            self._render = partial(_as_text, structlog.dev.ConsoleRenderer(colors=out.isatty()))
        self._requests = requests

    def request(self, line: dict[str, object]) -> None:
        if self._requests:
            self._tell("info", {**line, "event": "request"})

    def crash(self, request_id: str, error: BaseException) -> None:
        self.error("unexpected error", request_id=request_id, exc_info=error)

    def event(self, what: str, **facts: object) -> None:
        self._tell("info", {**facts, "event": what})

    def warning(self, what: str, **facts: object) -> None:
        self._tell("warning", {**facts, "event": what})

    def error(self, what: str, **facts: object) -> None:
        self._tell("error", {**facts, "event": what})

    def _tell(self, level: str, line: dict[str, object]) -> None:
        text = self._render(level, line)
        with suppress(OSError, ValueError):  # ValueError: it is closed, or the terminal lacks a character
            self._write(text)


def _as_json(level: str, line: dict[str, object]) -> str:
    """Render a line in one step. structlog's bound loggers and its renderer of JSON take three times as long."""
    line["level"] = level
    line["timestamp"] = _now()
    if "exc_info" in line:
        structlog.processors.format_exc_info(None, level, line)
    return _ENCODER.encode(line)


def _as_text(renderer: structlog.dev.ConsoleRenderer, level: str, line: dict[str, object]) -> str:
    """Render a line for a terminal."""
    line |= {"level": level, "timestamp": _now()}
    return renderer(None, level, structlog.processors.format_exc_info(None, level, line))


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class RunLog:
    """Logs each run that ends after its callers have left. `crashed` gets the id of a run in which the gateway itself
    failed."""

    def __init__(self, log: Log, crashed: Callable[[str, Exception], None]) -> None:
        self._log = log
        self._crashed = crashed

    def run_ended(self, run: Run) -> None:
        if run.present:
            return  # the line of the caller's request has the rest
        error = run.recording.error
        account = run.call.account
        facts = {
            "request_id": run.id,
            "key": run.call.key.name,
            "model": run.call.request.model,
            "outcome": run.state.name.lower(),
            "cost": None if account is None or account.told is None else to_number(account.told),
            "cost_in_doubt": to_number(account.in_doubt) if account is not None and account.in_doubt else None,
            "error": None if error is None else error.code or error.type,
        }
        self._log.event("run ended", **{name: value for name, value in facts.items() if value is not None})

    def run_crashed(self, run: Run, error: Exception) -> None:
        self._crashed(run.id, error)


class AttemptLog:
    """Logs each attempt that failed at its provider, under its run's id. Providers may quote the prompt; `prompts`
    allows logging it."""

    def __init__(self, log: Log, *, prompts: bool) -> None:
        self._log = log
        self._prompts = prompts

    def attempt_began(self, attempt: Attempt) -> None:
        pass

    def first_image(self, attempt: Attempt) -> None:
        pass

    def attempt_ended(self, attempt: Attempt) -> None:
        error = attempt.error
        if not isinstance(error, UpstreamError):
            return
        facts = {
            "request_id": attempt.call.id,
            "provider": attempt.deployment.provider.name,
            "model": attempt.deployment.model,
            "failure": error.failure.name.lower(),
            "status": error.status,
            "reason": self._reason(error, attempt),
            "cause": connection_errors.explain(error),
        }
        said = {name: value for name, value in facts.items() if value is not None}
        if error.failure is Failure.CREDENTIAL:  # the operator has to see to it
            remedy = f"correct `providers.{attempt.deployment.provider.name}.api_key`, or see to the account there"
            self._log.error("provider refused the gateway's account", **said, remedy=remedy)
        else:
            self._log.warning("attempt failed", **said)

    def _reason(self, error: UpstreamError, attempt: Attempt) -> str | None:
        """Return the provider's message. None if it may quote a prompt that must not be logged: a refusal explains it,
        and the prompt of a resumed attempt is not known any more."""
        if self._prompts:
            return shortened(error.message, LONGEST_REASON)
        if error.failure is Failure.REFUSED or attempt.is_resumed:
            return None
        request = attempt.call.request
        prompts = (request.prompt, request.parameters.get("negative_prompt"))
        return shortened(without_quotes(error.message, prompts), LONGEST_REASON)
