"""Which attempt comes next, given how the last one failed: the table in `docs/money.md`. Pure: no I/O; health, places,
randomness and clock are passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Generic

from app.catalog.deployments import Deployment
from app.errors import ApiError, Failure, RateLimited, UpstreamError, UpstreamFailed
from app.routing.health import LONGEST_TOLD, Cooling, Health
from app.routing.selection import C, Candidate, Places, choose, last_resort, sorted_out


@dataclass(frozen=True, slots=True)
class Attempt(Generic[C]):
    candidate: C
    number: int  # of the requests sent upstream for this image, from 1
    wait: float = 0.0  # seconds, before it is made
    regardless: bool = False  # made although the deployment cools down: there is nothing else


# Sent how an attempt failed, or None if it was not made because its deployment began to cool down meanwhile.
Plan = Generator[Attempt[C], UpstreamError | None, None]

# The next deployment may well do what this one could not; nothing was drawn, or it says so itself.
_ELSEWHERE = {Failure.NOT_SENT, Failure.RATE_LIMITED, Failure.CREDENTIAL, Failure.UNAVAILABLE, Failure.FAILED}


class RetryBudget:
    """Keeps attempts after the first from multiplying an outage: they may be `share` of the requests of the last
    `seconds`, and `least` more. The clock (seconds) is passed in."""

    def __init__(
        self, clock: Callable[[], float], *, share: float = 0.2, least: int = 10, seconds: float = 10.0
    ) -> None:
        self._clock = clock
        self._share = share
        self._least = least
        self._tick = seconds / 10
        self._ticks: deque[list[int]] = deque()  # [which, requests, attempts taken], the last ten of them
        self._requests = self._taken = 0

    def asked(self) -> None:
        """A request came."""
        self._now()[1] += 1
        self._requests += 1

    def take(self) -> bool:
        """Whether one more attempt may be made; it then counts."""
        now = self._now()
        if self._taken + 1 > self._least + self._share * self._requests:
            return False
        now[2] += 1
        self._taken += 1
        return True

    def _now(self) -> list[int]:
        which, ticks = int(self._clock() / self._tick), self._ticks
        while ticks and ticks[0][0] <= which - 10:
            _, requests, taken = ticks.popleft()
            self._requests -= requests
            self._taken -= taken
        if not ticks or ticks[-1][0] != which:
            ticks.append([which, 0, 0])
        return ticks[-1]


def plan(
    candidates: Sequence[C],
    health: Health,
    places: Places,
    budget: RetryBudget,
    random: Callable[[], float],
) -> Plan[C]:
    """Yields attempts and is sent how each ended. Raises ApiError, what to tell the caller, when none is left.

    Whoever makes an attempt tells `health` of its end before the plan. `random` gives a number from 0 up to 1.
    """
    budget.asked()
    failures: list[tuple[C, UpstreamError]] = []
    left, cooling = list(candidates), list[tuple[C, Cooling]]()
    skipped = 0
    regardless = False
    while left and not regardless:
        able, cooling = sorted_out(left, health)
        regardless = not able
        candidate = choose(able, places, random) if able else last_resort(cooling)
        if candidate is None:
            break
        deployment = candidate.deployment
        left = [each for each in left if each is not candidate]
        for again in range(1 + deployment.provider.retries):
            if again and health.cooling(deployment):
                break
            if failures and not _affordable(deployment, again, health, budget):
                break
            wait = 0.25 * 2 ** (again - 1) * (0.5 + random() / 2) if again else 0.0
            # Who was skipped as often as there are candidates is not sent round any more.
            made = regardless or skipped >= len(candidates)
            error = yield Attempt(candidate, len(failures) + 1, wait, made)
            if error is None:
                skipped += 1
                if not again and not made:
                    left.append(candidate)
                break
            failures.append((candidate, _with_time_left(error, health.cooling(deployment))))
            if not _again_here(error, deployment):
                break
        if failures and not _go_on(failures[-1][1], failures[-1][0].deployment):
            raise verdict(failures)
    asked = [candidate for candidate, _ in failures]
    raise verdict(failures, [pair for pair in cooling if not any(pair[0] is each for each in asked)])


def _affordable(deployment: Deployment, again: int, health: Health, budget: RetryBudget) -> bool:
    """Turning to a deployment of which nothing bad is known multiplies no outage, so it costs nothing. Otherwise a
    crowd would be sent away whenever one of two providers drops what it had in flight."""
    return (not again and not health.in_doubt(deployment)) or budget.take()


def _again_here(error: UpstreamError, deployment: Deployment) -> bool:
    return error.failure is Failure.NOT_SENT or (deployment.provider.retry_timeouts and _uncertain(error))


def _go_on(error: UpstreamError, deployment: Deployment) -> bool:
    return error.failure in _ELSEWHERE or (deployment.provider.retry_timeouts and _uncertain(error))


def _with_time_left(error: UpstreamError, pause: Cooling | None) -> UpstreamError:
    """A 429 as the caller may be told: with the time for which nobody will be asked, whatever the upstream said."""
    limited = error.failure is Failure.RATE_LIMITED and pause is not None and pause.reason == "limited"
    return replace(error, retry_after=pause.left) if limited and pause else error


def _uncertain(error: UpstreamError) -> bool:
    return error.failure is Failure.UNCERTAIN


def verdict(
    failures: Sequence[tuple[Candidate, UpstreamError]], cooling: Sequence[tuple[Candidate, Cooling]] = ()
) -> ApiError:
    """What a caller is told after these failures, the last attempt's last, when the rest cools down."""
    failures = [*_foretold(cooling), *failures]
    limited = [error for _, error in failures if error.failure is Failure.RATE_LIMITED]
    retry_after = _soonest(limited)
    told = [pair for pair in failures if pair[1].failure is not Failure.RATE_LIMITED]
    if not told:
        return RateLimited(
            "Every provider of this model is at its rate limit. Try again later.",
            code="rate_limit_exceeded",
            retry_after=retry_after,
        )
    # A failure that passes says more than an account that does not.
    candidate, error = ([pair for pair in told if pair[1].failure is not Failure.CREDENTIAL] or told)[-1]
    if error.failure is Failure.REFUSED:
        answer = told_as_it_is(error)
    elif error.failure is Failure.CREDENTIAL:
        answer = _account_refused(candidate.deployment, retry_after)
    else:
        answer = _blamed(candidate.deployment, error)
    if any(_uncertain(error) for _, error in failures):
        answer.should_retry, answer.perhaps_paid = False, True
    return answer


def _foretold(cooling: Sequence[tuple[Candidate, Cooling]]) -> list[tuple[Candidate, UpstreamError]]:
    """What deployments would have said that were not asked because they said it a moment ago."""
    failure = {"limited": Failure.RATE_LIMITED, "account": Failure.CREDENTIAL, "failing": Failure.UNAVAILABLE}
    return [
        (candidate, UpstreamError(failure[pause.reason], "it failed several times in a row", retry_after=pause.left))
        for candidate, pause in cooling
    ]


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


def _account_refused(deployment: Deployment, retry_after: float | None) -> ApiError:
    """`retry_after`: seconds until another deployment is out of its rate limit; without one nobody need come back."""
    return UpstreamFailed(
        f"The gateway's account with provider {deployment.provider.name!r} was not accepted. "
        "Tell the gateway's operator.",
        code="upstream_account_refused",
        should_retry=False if retry_after is None else None,
        retry_after=retry_after,
    )


def _blamed(deployment: Deployment, error: UpstreamError) -> ApiError:
    provider, reason = deployment.provider.name, error.message.rstrip(".")
    if _uncertain(error):
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
    """Seconds; no caller is told to stay away for longer than the gateway itself would."""
    told = [error.retry_after for error in errors if error.retry_after is not None]
    return min([LONGEST_TOLD, *told]) if told else None
