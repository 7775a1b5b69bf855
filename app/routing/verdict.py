"""The error that a caller gets when no attempt has delivered: one for all of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.catalog.deployments import Deployment
from app.catalog.fitting import Fitted
from app.errors import ApiError, Failure, RateLimited, UpstreamError, UpstreamFailed
from app.routing.health import LONGEST_RETRY_AFTER, Cooling


def verdict(
    failures: Sequence[tuple[Fitted, UpstreamError]], cooling: Sequence[tuple[Fitted, Cooling]] = ()
) -> ApiError:
    """Return the caller's error after these failures, the last attempt's last, while the rest cools down."""
    failures = [*_predict(cooling), *failures]
    limited = [error for _, error in failures if error.failure is Failure.RATE_LIMITED]
    retry_after = _soonest(limited)
    others = [pair for pair in failures if pair[1].failure is not Failure.RATE_LIMITED]
    if not others:
        return RateLimited(
            "Every provider of this model is at its rate limit. Try again later.",
            code="rate_limit_exceeded",
            retry_after=retry_after,
        )
    # A failure that passes says more to the caller than an account that was refused.
    candidate, error = ([pair for pair in others if pair[1].failure is not Failure.CREDENTIAL] or others)[-1]
    if error.failure is Failure.REFUSED:
        answer = pass_refusal_on(error)
    elif error.failure is Failure.CREDENTIAL:
        answer = _blame_account(candidate.deployment, retry_after)
    else:
        answer = _blame(candidate.deployment, error)
    return answer.paid() if any(error.is_uncertain for _, error in failures) else answer


def _predict(cooling: Sequence[tuple[Fitted, Cooling]]) -> list[tuple[Fitted, UpstreamError]]:
    """Return the failures of deployments that were not asked, since they failed so a moment ago."""
    failure = {"limited": Failure.RATE_LIMITED, "account": Failure.CREDENTIAL, "failing": Failure.UNAVAILABLE}
    return [
        (candidate, UpstreamError(failure[pause.reason], "it failed several times in a row", retry_after=pause.left))
        for candidate, pause in cooling
    ]


def pass_refusal_on(error: UpstreamError) -> ApiError:
    """Return a refusal as the caller's own: status, type, code and param of the upstream, in OpenAI's envelope."""
    return UpstreamFailed(
        error.message,
        status=error.status if error.status in (400, 404, 413, 422) else 400,
        type=error.type or "invalid_request_error",
        code=error.code,
        param=error.param,
        details=error.details or {},
        should_retry=False,
    )


def _blame_account(deployment: Deployment, retry_after: float | None) -> ApiError:
    """Return the error for an account that was refused. `retry_after`: seconds until another deployment is out of its
    rate limit; None: a retry is useless."""
    return UpstreamFailed(
        f"The gateway's account with provider {deployment.provider.name!r} was not accepted. "
        "Tell the gateway's operator.",
        code="upstream_account_refused",
        should_retry=False if retry_after is None else None,
        retry_after=retry_after,
    )


def _blame(deployment: Deployment, error: UpstreamError) -> ApiError:
    provider, reason = deployment.provider.name, error.message.rstrip(".")
    if error.is_uncertain:
        again = "" if deployment.provider.retry_timeouts else ", so it is not tried again"
        return UpstreamFailed(
            f"Provider {provider!r} did not deliver: {reason}. The image may have been drawn{again}.",
            status=504 if error.timed_out else 502,
            code="upstream_timeout" if error.timed_out else "upstream_broken_answer",
            should_retry=False,
        )
    return UpstreamFailed(
        f"Provider {provider!r} failed: {error.message}",
        status=503 if error.status == 503 else 504 if error.timed_out else 502,
        code="upstream_unavailable",
        retry_after=_soonest([error]),
    )


def _soonest(errors: Sequence[UpstreamError]) -> float | None:
    """Return the seconds before a retry: at most as long as the gateway itself would wait."""
    times = [error.retry_after for error in errors if error.retry_after is not None]
    return min([LONGEST_RETRY_AFTER, *times]) if times else None
