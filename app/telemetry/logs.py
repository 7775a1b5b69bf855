"""Log lines: one a request, and what operators have to know; JSON, or readable text on a terminal. Holds no prompt, no
image and no credential unless the configuration says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO

import structlog

from app.catalog.redaction import without_quotes
from app.errors import Failure, UpstreamError
from app.gateway.attempt import Attempt
from app.runs.run import Run
from app.telemetry import connection_errors


class Log:
    def __init__(
        self,
        format: Literal["auto", "text", "json"],
        *,
        requests: bool,
        stream: TextIO | None = None,
    ) -> None:
        out = stream or sys.stdout
        text = format == "text" or (format == "auto" and out.isatty())
        renderer: Any = (
            structlog.dev.ConsoleRenderer(colors=out.isatty()) if text else structlog.processors.JSONRenderer()
        )
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        chain = [structlog.processors.add_log_level, stamp, structlog.processors.format_exc_info, renderer]
        self._log: Any = structlog.wrap_logger(
            structlog.WriteLogger(out),
            processors=chain,
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )
        self._requests = requests

    def request(self, line: dict[str, object]) -> None:
        if self._requests:
            self._log.info("request", **line)

    def crash(self, request_id: str, error: BaseException) -> None:
        self._log.error("unexpected error", request_id=request_id, exc_info=error)

    def event(self, what: str, **facts: object) -> None:
        self._log.info(what, **facts)

    def warning(self, what: str, **facts: object) -> None:
        self._log.warning(what, **facts)

    def error(self, what: str, **facts: object) -> None:
        self._log.error(what, **facts)


class RunLog:
    """Logs each run that ends after its callers have left. `crashed` gets the id of a run in which the gateway itself
    failed."""

    def __init__(self, log: Log, crashed: Callable[[str, Exception], None]) -> None:
        self._log = log
        self._crashed = crashed

    def run_ended(self, run: Run) -> None:
        if run.present:
            return  # the line of the caller's request tells the rest
        error = run.recording.error
        facts = {
            "request_id": run.id,
            "key": run.call.key.name,
            "model": run.call.request.model,
            "outcome": run.state.name.lower(),
            "error": None if error is None else error.code or error.type,
        }
        self._log.event("run ended", **{name: value for name, value in facts.items() if value is not None})

    def run_crashed(self, run: Run, error: Exception) -> None:
        self._crashed(run.id, error)


class AttemptLog:
    """Logs each attempt that failed at its provider, under its run's id. Providers like to quote what they were asked;
    `prompts`: that may be logged."""

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
            self._log.error("provider refused the gateway's account", **said)
        else:
            self._log.warning("attempt failed", **said)

    def _reason(self, error: UpstreamError, attempt: Attempt) -> str | None:
        """The provider's words. None where they may quote a prompt that is not to be logged: a refusal speaks of it,
        and the prompt of a resumed attempt is not known any more."""
        if error.failure is Failure.REFUSED or (attempt.is_resumed and not self._prompts):
            return None
        request = attempt.call.request
        prompts = () if self._prompts else (request.prompt, request.parameters.get("negative_prompt"))
        return without_quotes(error.message, prompts)[:300]
