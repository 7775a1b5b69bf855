"""The memory of deployments: which ones cool down, why and for how long. Pure: it is fed with outcomes, and the clock
is passed in. Knows no request, and does not choose."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from app.catalog.deployments import Deployment
from app.errors import Failure, UpstreamError

Reason = Literal["limited", "account", "failing"]

# Seconds: the first pause, the longest. Each pause in a row is twice as long as the one before.
LIMITED = (5.0, 60.0)  # where a 429 does not say for how long
ACCOUNT = (60.0, 600.0)  # the operator has to pay a bill or change a key
FAILING = (10.0, 120.0)
LONGEST_RETRY_AFTER = 86_400.0  # a Retry-After above this is a mistake
FAILURES_IN_A_ROW = 3

_FAILURES = {Failure.NOT_SENT, Failure.UNAVAILABLE, Failure.FAILED, Failure.UNCERTAIN}


@dataclass(frozen=True, slots=True)
class Cooling:
    """Why a deployment should not be asked now. `left`: seconds; 0 while a single trial shows whether it is back."""

    reason: Reason
    left: float


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """The memory of a deployment, or of a provider's account, at one moment.

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

    def lengthen(self, now: float, bounds: tuple[float, float], retry_after: float | None = None) -> None:
        """Begin a pause, or lengthen it. Failures of attempts that began before the pause don't extend it, unless the
        upstream says for how long."""
        first, longest = bounds
        if self.until <= now:
            self.times += 1
        elif retry_after is None:
            return
        seconds = min(longest, first * 2.0 ** min(self.times - 1, 20))
        if retry_after is not None:
            seconds = min(retry_after, LONGEST_RETRY_AFTER)
        self.until = max(self.until, now + seconds)


@dataclass(slots=True)
class _Row(_Pause):
    failures: int = 0  # in a row
    trial: bool = False  # one attempt finds out whether the deployment is back


class Health:
    """Keyed by names out of the configuration, so there are never more entries than deployments. A healthy deployment
    has none. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limited: dict[str, _Pause] = {}
        self._accounts: dict[str, _Pause] = {}  # by provider; by deployment, where only a model is out of bounds
        self._rows: dict[str, _Row] = {}

    def cooling(self, deployment: Deployment) -> Cooling | None:
        """Return the reason that counts most; None: the deployment may be asked."""
        if not (self._rows or self._limited or self._accounts):
            return None  # all are healthy
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
        """True if the deployment's last outcome was a failure."""
        return deployment.name in self._rows

    def succeeded(self, deployment: Deployment) -> None:
        """Note a delivery. A pause that the provider asked for stays: an attempt from before it may well succeed."""
        if not (self._rows or self._limited or self._accounts):
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
            # A key or a balance is the provider's; a provider also sends 403 to keep an account from a single model.
            key = name if error.status == 403 else deployment.provider.name
            self._accounts.setdefault(key, _Pause()).lengthen(now, ACCOUNT)
        elif error.failure is Failure.REFUSED:
            self._rows.pop(name, None)  # a host that reads a request and refuses it is alive
        elif error.failure in _FAILURES:
            row = self._rows.setdefault(name, _Row())
            row.failures += 1
            if row.failures >= FAILURES_IN_A_ROW:
                row.lengthen(now, FAILING)

    def snapshot(self) -> list[HealthSnapshot]:
        """Return one entry for each name and reason. A healthy deployment has none."""
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
        """Forget a provider whose entry has changed, perhaps just because of its failures."""
        for pauses in (self._limited, self._accounts, self._rows):
            for name in [name for name in pauses if name == provider or name.startswith(f"{provider}/")]:
                del pauses[name]

    def watching(self, deployment: Deployment) -> Watching:
        """Note how the attempt in the block ends, and make it the trial if one is due. UpstreamError means that it
        failed. Any other exception, as of a client that leaves, says nothing of the deployment."""
        return Watching(self, deployment)

    def begin_trial(self, deployment: Deployment) -> _Row | None:
        """Begin the trial that is due; None if none is."""
        row = self._rows.get(deployment.name) if self._rows else None
        if row is None or row.trial or row.failures < FAILURES_IN_A_ROW or row.until > self._clock():
            return None
        row.trial = True
        return row


class Watching(AbstractContextManager[None]):
    """An attempt whose end is noted."""

    __slots__ = ("_deployment", "_health", "_trial")
    _trial: _Row | None

    def __init__(self, health: Health, deployment: Deployment) -> None:
        self._health = health
        self._deployment = deployment

    def __enter__(self) -> None:
        self._trial = self._health.begin_trial(self._deployment)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._health.succeeded(self._deployment)
        elif isinstance(error, UpstreamError):
            self._health.failed(self._deployment, error)
        if self._trial is not None:
            self._trial.trial = False
