"""The choice of the next attempt, given how the last one failed: the table in `docs/money.md`. Pure: no I/O; health,
places, randomness and clock are passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

from app.catalog.deployments import Deployment
from app.catalog.fitting import Fitted
from app.errors import Failure, UpstreamError
from app.routing.health import Cooling, Health
from app.routing.selection import Places, choose, last_resort, sort_out
from app.routing.verdict import verdict


@dataclass(frozen=True, slots=True)
class Choice:
    """The attempt to make next."""

    candidate: Fitted
    number: int  # of the requests sent upstream for this image, from 1
    wait: float = 0.0  # seconds, before it is made
    regardless: bool = False  # made although the deployment cools down: there is nothing else


# The caller sends how an attempt failed, or None if it was not made: its deployment began to cool down meanwhile.
Plan = Generator[Choice, UpstreamError | None, None]

# The next deployment may well do what this one could not; nothing was drawn, or it says so itself.
_ELSEWHERE = {Failure.NOT_SENT, Failure.RATE_LIMITED, Failure.CREDENTIAL, Failure.UNAVAILABLE, Failure.FAILED}


@dataclass(frozen=True, slots=True)
class RetrySnapshot:
    """The requests of the last seconds, and the attempts beyond the first that were made for them. `ticks`: the spans
    of time that are counted apart. `refused`: attempts that might not be made, since the start."""

    requests: int
    attempts: int
    ticks: int
    refused: int = 0


@dataclass(slots=True, eq=False)
class RetryBudget:
    """Keeps attempts after the first from multiplying an outage: they may be `share` of the requests of the last
    `seconds`, and `least` more. The clock (seconds) is passed in."""

    clock: Callable[[], float]
    share: float = 0.2
    least: int = 10
    seconds: float = 10.0
    _ticks: deque[list[int]] = field(default_factory=deque)  # [which, requests, attempts taken], the last ten of them
    _requests: int = 0
    _taken: int = 0
    _refused: int = 0

    def count_request(self) -> None:
        self._now()[1] += 1
        self._requests += 1

    def take(self) -> bool:
        """Return True if one more attempt may be made, and count it."""
        now = self._now()
        if self._taken + 1 > self.least + self.share * self._requests:
            self._refused += 1
            return False
        now[2] += 1
        self._taken += 1
        return True

    def snapshot(self) -> RetrySnapshot:
        self._now()
        return RetrySnapshot(self._requests, self._taken, len(self._ticks), self._refused)

    def _now(self) -> list[int]:
        which, ticks = int(self.clock() / (self.seconds / 10)), self._ticks
        while ticks and ticks[0][0] <= which - 10:
            _, requests, taken = ticks.popleft()
            self._requests -= requests
            self._taken -= taken
        if not ticks or ticks[-1][0] != which:
            ticks.append([which, 0, 0])
        return ticks[-1]


def plan(
    candidates: Sequence[Fitted], health: Health, places: Places, budget: RetryBudget, random: Callable[[], float]
) -> Plan:
    """Yield attempts; the caller sends how each ended. Raises the caller's ApiError when none is left.

    The caller reports an attempt's end to `health` first, and then to the plan. `random` gives a number from 0 up to
    1.
    """
    budget.count_request()
    failures: list[tuple[Fitted, UpstreamError]] = []
    left, cooling = list(candidates), list[tuple[Fitted, Cooling]]()
    skipped = 0
    regardless = False
    while left and not regardless:
        able, cooling = sort_out(left, health)
        regardless = not able
        candidate = choose(able, places, random) if able else last_resort(cooling)
        if candidate is None:
            break
        deployment = candidate.deployment
        left = [each for each in left if each is not candidate]
        for again in range(1 + deployment.provider.retries):
            if again and health.cooling(deployment):
                break
            if failures and not _is_affordable(deployment, again, health, budget):
                break
            wait = 0.25 * 2 ** (again - 1) * (0.5 + random() / 2) if again else 0.0
            # After as many skips as candidates, attempt it regardless of its cooldown.
            made = regardless or skipped >= len(candidates)
            error = yield Choice(candidate, len(failures) + 1, wait, made)
            if error is None:
                skipped += 1
                if not again and not made:
                    left.append(candidate)
                break
            failures.append((candidate, _with_time_left(error, health.cooling(deployment))))
            if not _may_follow(error, deployment, {Failure.NOT_SENT}):
                break
        if failures and not _may_follow(failures[-1][1], failures[-1][0].deployment, _ELSEWHERE):
            raise verdict(failures)
    asked = [candidate for candidate, _ in failures]
    raise verdict(failures, [pair for pair in cooling if not any(pair[0] is each for each in asked)])


def _is_affordable(deployment: Deployment, again: int, health: Health, budget: RetryBudget) -> bool:
    """True if the attempt may be made. An attempt at a deployment without known failures costs nothing, since it
    multiplies no outage. Otherwise many callers would be refused whenever one of two providers drops its requests."""
    return (not again and not health.in_doubt(deployment)) or budget.take()


def _may_follow(error: UpstreamError, deployment: Deployment, failures: set[Failure]) -> bool:
    """True if another attempt may follow this error of the deployment, one of `failures`."""
    return error.failure in failures or (deployment.provider.retry_timeouts and error.is_uncertain)


def _with_time_left(error: UpstreamError, pause: Cooling | None) -> UpstreamError:
    """Put the time left of the pause into a 429, in the place of the upstream's own `Retry-After`."""
    if error.failure is Failure.RATE_LIMITED and pause is not None and pause.reason == "limited":
        return replace(error, retry_after=pause.left)
    return error
