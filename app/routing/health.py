"""What is remembered of deployments: which ones cool down, why and for how long. Pure: fed with outcomes, the clock is
passed in. Knows no request, and does not choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from app.catalog.deployments import Deployment
from app.errors import Failure, UpstreamError

Reason = Literal["limited", "account", "failing"]

# Seconds: the first pause, the longest. Each pause in a row is twice as long as the one before.
LIMITED = (5.0, 60.0)  # where a 429 does not say for how long
ACCOUNT = (60.0, 600.0)  # somebody has to pay a bill or change a key
FAILING = (10.0, 120.0)
LONGEST_TOLD = 86_400.0  # a Retry-After above this is somebody's mistake
FAILURES_IN_A_ROW = 3

_FAILURES = {Failure.NOT_SENT, Failure.UNAVAILABLE, Failure.FAILED, Failure.UNCERTAIN}


@dataclass(frozen=True, slots=True)
class Cooling:
    """Why a deployment should not be asked now. `left`: seconds; 0 while a single trial shows whether it is back."""

    reason: Reason
    left: float


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """What is remembered of a deployment, or of a provider's account, at one moment.

    `left`: seconds until the pause ends; 0 if it is over. `failures`: in a row. `trial`: one attempt finds out now
    whether the deployment is back."""

    name: str
    reason: Reason
    left: float
    failures: int = 0
    trial: bool = False


@dataclass(slots=True)
class _Pause:
    until: float = 0.0
    times: int = 0  # in a row

    def lengthen(self, now: float, bounds: tuple[float, float], told: float | None = None) -> None:
        """What was already under way when the pause began makes it no longer, except by what the upstream tells."""
        first, longest = bounds
        if self.until <= now:
            self.times += 1
        elif told is None:
            return
        seconds = min(longest, first * 2.0 ** min(self.times - 1, 20)) if told is None else min(told, LONGEST_TOLD)
        self.until = max(self.until, now + seconds)


@dataclass(slots=True)
class _Row(_Pause):
    failures: int = 0  # in a row
    trial: bool = False  # one attempt finds out whether the deployment is back

    def half_open(self, now: float) -> bool:
        return self.failures >= FAILURES_IN_A_ROW and self.until <= now


class Health:
    """Keyed by names out of the configuration, so there are never more entries than deployments. What is well has none.

    `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limited: dict[str, _Pause] = {}
        self._accounts: dict[str, _Pause] = {}  # by provider; by deployment, where only a model is out of bounds
        self._rows: dict[str, _Row] = {}

    def cooling(self, deployment: Deployment) -> Cooling | None:
        """The reason that counts most; None: it may be asked."""
        if not (self._limited or self._accounts or self._rows):
            return None
        now, name = self._clock(), deployment.name
        accounts = [self._accounts.get(key) for key in (deployment.provider.name, name)]
        account = max((pause.until for pause in accounts if pause), default=now)
        if account > now:
            return Cooling("account", account - now)
        if (pause := self._limited.get(name)) and pause.until > now:
            return Cooling("limited", pause.until - now)
        if row := self._rows.get(name):
            if row.until > now:
                return Cooling("failing", row.until - now)
            if row.trial:
                return Cooling("failing", 0.0)
        return None

    def in_doubt(self, deployment: Deployment) -> bool:
        """Whether the last that was heard of it is that it failed."""
        return deployment.name in self._rows

    def succeeded(self, deployment: Deployment) -> None:
        """It delivered. A pause that the provider asked for stays: what was under way before may well succeed."""
        if not (self._limited or self._accounts or self._rows):
            return
        now, name = self._clock(), deployment.name
        self._rows.pop(name, None)
        for pauses, key in ((self._limited, name), (self._accounts, name), (self._accounts, deployment.provider.name)):
            if (pause := pauses.get(key)) and pause.until <= now:
                del pauses[key]

    def failed(self, deployment: Deployment, error: UpstreamError) -> None:
        now, name = self._clock(), deployment.name
        if error.failure is Failure.RATE_LIMITED:
            # A Retry-After of 0 says nothing: mostly a date that has passed, by a clock that differs from ours.
            self._limited.setdefault(name, _Pause()).lengthen(now, LIMITED, error.retry_after or None)
        elif error.failure is Failure.CREDENTIAL:
            # A key or a balance is the provider's; 403 is also how a provider keeps an account from a single model.
            key = name if error.status == 403 else deployment.provider.name
            self._accounts.setdefault(key, _Pause()).lengthen(now, ACCOUNT)
        elif error.failure is Failure.REFUSED:
            self._rows.pop(name, None)  # who reads a request and refuses it is alive
        elif error.failure in _FAILURES:
            row = self._rows.setdefault(name, _Row())
            row.failures += 1
            if row.failures >= FAILURES_IN_A_ROW:
                row.lengthen(now, FAILING)

    def snapshot(self) -> list[HealthSnapshot]:
        """Return one entry for each name and reason. What is well has none."""
        now = self._clock()
        pauses: tuple[tuple[Reason, dict[str, _Pause]], ...] = (("account", self._accounts), ("limited", self._limited))
        return [
            *(HealthSnapshot(name, why, max(0.0, each.until - now)) for why, of in pauses for name, each in of.items()),
            *(
                HealthSnapshot(name, "failing", max(0.0, row.until - now), row.failures, row.trial)
                for name, row in self._rows.items()
            ),
        ]

    def forget(self, provider: str) -> None:
        """The provider's entry has changed, perhaps just because of what is remembered of it."""
        for pauses in (self._limited, self._accounts, self._rows):
            for name in [name for name in pauses if name == provider or name.startswith(f"{provider}/")]:
                del pauses[name]

    def watching(self, deployment: Deployment) -> Watch:
        """For the block in which one attempt is made: tells how it ended, and makes it the trial if one is due."""
        return Watch(self, deployment)

    def _begun(self, deployment: Deployment) -> _Row | None:
        row = self._rows.get(deployment.name)
        if row is None or row.trial or not row.half_open(self._clock()):
            return None
        row.trial = True
        return row


class Watch:
    """UpstreamError means failed, an end without an exception succeeded. Whatever else ends the block, such as a client
    that leaves, blames nobody."""

    __slots__ = ("_deployment", "_health", "_trial")

    def __init__(self, health: Health, deployment: Deployment) -> None:
        self._health = health
        self._deployment = deployment
        self._trial: _Row | None = None

    def __enter__(self) -> None:
        self._trial = self._health._begun(self._deployment)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._trial is not None:
            self._trial.trial = False
        if error is None:
            self._health.succeeded(self._deployment)
        elif isinstance(error, UpstreamError):
            self._health.failed(self._deployment, error)
