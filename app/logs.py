"""Log lines: one a request, and what operators have to know; JSON, or readable text on a terminal. Holds no prompt, no
image and no credential unless the configuration says so."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import structlog

from app.deployments import Deployment
from app.errors import Failure, UpstreamError
from app.images import ImageRequest
from app.redaction import without_quotes

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)  # of the request that is worked on


class Log:
    def __init__(
        self,
        format: Literal["auto", "text", "json"],
        *,
        requests: bool,
        prompts: bool = False,
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
        self._prompts = prompts

    def request(self, line: dict[str, object]) -> None:
        if self._requests:
            self._log.info("request", **line)

    def crash(self, request_id: str, error: BaseException) -> None:
        self._log.error("unexpected error", request_id=request_id, exc_info=error)

    def attempt_failed(self, deployment: Deployment, error: UpstreamError, request: ImageRequest) -> None:
        """A refused account is the operator's to see to, so it stands out. Providers like to quote what they were
        asked."""
        refused = error.failure is Failure.CREDENTIAL
        facts = {
            "request_id": REQUEST_ID.get(),
            "provider": deployment.provider.name,
            "model": deployment.model,
            "failure": error.failure.name.lower(),
            "status": error.status,
            "reason": None if error.failure is Failure.REFUSED else self._told(error.message, request)[:300],
            "cause": str(error.__cause__)[:300] if error.__cause__ else None,
        }
        said = {name: value for name, value in facts.items() if value is not None}
        if refused:
            self._log.error("provider refused the gateway's account", **said)
        else:
            self._log.warning("attempt failed", **said)

    def _told(self, text: str, request: ImageRequest) -> str:
        prompts = (request.prompt, request.parameters.get("negative_prompt"))
        return text if self._prompts else without_quotes(text, prompts)

    def event(self, what: str, **facts: object) -> None:
        self._log.info(what, **facts)

    def warning(self, what: str, **facts: object) -> None:
        self._log.warning(what, **facts)
