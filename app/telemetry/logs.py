"""Log lines: one a request, and what operators have to know; JSON, or readable text on a terminal. Holds no prompt, no
image and no credential unless the configuration says so."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import structlog

from app.catalog.deployments import Deployment
from app.errors import Failure, UpstreamError
from app.images import ImageRequest
from app.telemetry import connection_errors as causes
from app.telemetry.redaction import without_quotes

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)  # of the request that is worked on


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

    def attempt_failed(
        self, deployment: Deployment, error: UpstreamError, request: ImageRequest, *, prompts: bool = False
    ) -> None:
        """A refused account is the operator's to see to, so it stands out. Providers like to quote what they were
        asked; `prompts`: that may be logged."""
        refused = error.failure is Failure.CREDENTIAL
        words = error.message if prompts else without_quotes(error.message, _prompts(request))
        facts = {
            "request_id": REQUEST_ID.get(),
            "provider": deployment.provider.name,
            "model": deployment.model,
            "failure": error.failure.name.lower(),
            "status": error.status,
            "reason": None if error.failure is Failure.REFUSED else words[:300],
            "cause": causes.told(error),
        }
        said = {name: value for name, value in facts.items() if value is not None}
        if refused:
            self._log.error("provider refused the gateway's account", **said)
        else:
            self._log.warning("attempt failed", **said)

    def event(self, what: str, **facts: object) -> None:
        self._log.info(what, **facts)

    def warning(self, what: str, **facts: object) -> None:
        self._log.warning(what, **facts)


def _prompts(request: ImageRequest) -> tuple[str | None, str | None]:
    return request.prompt, request.parameters.get("negative_prompt")
