"""Which attempt comes next, given how the last one failed: the table in `docs/money.md`. Pure: no clock, no I/O; jitter
and the health of deployments are passed in."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from app.deployments import Deployment
from app.errors import ApiError, Failure, RateLimited, UpstreamError, UpstreamFailed


class Candidate(Protocol):
    """A way to serve the request: a deployment that can do what is asked."""

    @property
    def deployment(self) -> Deployment: ...


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True, slots=True)
class Attempt(Generic[C]):
    candidate: C
    number: int  # of the requests sent upstream for this image, from 1
    wait: float = 0.0  # seconds, before it is made


Plan = Generator[Attempt[C], UpstreamError, ApiError]

# The next deployment may well do what this one could not; nothing was drawn, or it says so itself.
_ELSEWHERE = {Failure.NOT_SENT, Failure.RATE_LIMITED, Failure.CREDENTIAL, Failure.UNAVAILABLE, Failure.FAILED}


def plan(candidates: Sequence[C], jitter: Callable[[], float] = lambda: 1.0) -> Plan[C]:
    """Yields attempts, is sent how each failed, and returns what to tell the caller when none is left."""
    number = 0
    failures: list[tuple[C, UpstreamError]] = []
    for candidate in candidates:
        provider = candidate.deployment.provider
        for again in range(1 + provider.retries):
            number += 1
            wait = 0.25 * 2 ** (again - 1) * jitter() if again else 0.0
            error = yield Attempt(candidate, number, wait)
            failures.append((candidate, error))
            if not _again_here(error, retry_timeouts=provider.retry_timeouts):
                break
        if not _go_on(error, retry_timeouts=provider.retry_timeouts):
            break
    return verdict(failures)


def _again_here(error: UpstreamError, *, retry_timeouts: bool) -> bool:
    return error.failure is Failure.NOT_SENT or (retry_timeouts and error.failure is Failure.UNCERTAIN)


def _go_on(error: UpstreamError, *, retry_timeouts: bool) -> bool:
    return error.failure in _ELSEWHERE or (retry_timeouts and error.failure is Failure.UNCERTAIN)


def verdict(failures: Sequence[tuple[Candidate, UpstreamError]]) -> ApiError:
    """What a caller is told after these failures, the last attempt's last."""
    limited = [error for _, error in failures if error.failure is Failure.RATE_LIMITED]
    if limited and len(limited) == len(failures):
        waits = [error.retry_after for error in limited if error.retry_after is not None]
        return RateLimited(
            "Every provider of this model is at its rate limit. Try again later.",
            code="rate_limit_exceeded",
            retry_after=min(waits, default=None),
        )
    told = [pair for pair in failures if pair[1].failure is not Failure.RATE_LIMITED]
    candidate, error = told[-1]
    return told_as_it_is(error) if error.failure is Failure.REFUSED else _blamed(candidate.deployment, error)


def told_as_it_is(error: UpstreamError) -> ApiError:
    """A refusal is the caller's: status, type, code and param of the upstream, in OpenAI's envelope."""
    return UpstreamFailed(
        error.message,
        status=error.status if error.status in (400, 404, 413, 422) else 400,
        type=error.type or "invalid_request_error",
        code=error.code,
        param=error.param,
        details=error.details,
        should_retry=False,
    )


def _blamed(deployment: Deployment, error: UpstreamError) -> ApiError:
    provider = deployment.provider.name
    if error.failure is Failure.CREDENTIAL:
        return UpstreamFailed(
            f"The gateway's account with provider {provider!r} was not accepted. Tell the gateway's operator.",
            code="upstream_account_refused",
            should_retry=False,
        )
    if error.failure is Failure.UNCERTAIN:
        return UpstreamFailed(
            f"Provider {provider!r} did not deliver: {error.message}. The image may have been drawn, so it is not "
            "tried again.",
            status=504 if error.timed_out else 502,
            code="upstream_timeout" if error.timed_out else "upstream_broken_answer",
            should_retry=False,
        )
    return UpstreamFailed(
        f"Provider {provider!r} failed: {error.message}",
        status=503 if error.status == 503 else 504 if error.timed_out else 502,
        code="upstream_unavailable",
        retry_after=error.retry_after,
    )
