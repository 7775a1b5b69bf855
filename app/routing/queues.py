"""Places at deployments and their providers, and the queues for them: fair between keys, bounded in length and time.
Knows no request, and does not choose where one goes."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal, Protocol

from app.catalog.deployments import Deployment
from app.errors import Unavailable

GUESSED_SECONDS = 10.0  # how long a drawing holds its place, where nothing is known
_QUEUE_FULL = "is busy and its queue is full"
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 60.0  # OpenAI's Node SDK takes a Retry-After above 60 s for none


class QueueObserver(Protocol):
    """Observes how long each request waited for its place, in seconds, and which requests got none."""

    def waited(self, deployment: Deployment, seconds: float) -> None: ...

    def refused(self, deployment: Deployment, why: Literal["full", "late"]) -> None: ...


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """One deployment's queue at one moment. `seconds`: for how long a place was held lately; None before the first."""

    deployment: str
    held: int
    waiting: int
    seconds: float | None


@dataclass(slots=True, eq=False)
class Slots:
    """No place is free while a waiter could have it: a place that is given back goes straight to the next in turn. So
    no request overtakes another, and none wakes up in vain.

    Counts are kept under names out of the configuration. Models that share a deployment share its count, each with the
    limit that its own entry states. `clock` gives seconds; up to `max_length` requests wait for a deployment, each up
    to `max_seconds`. When that many wait, a key that has fewer of them than another takes the other's last place.
    """

    clock: Callable[[], float]
    max_length: int
    max_seconds: float
    observers: Sequence[QueueObserver] = ()
    _lanes: dict[str, _DeploymentQueue] = field(default_factory=dict)
    _hosts: dict[str, _ProviderQueue] = field(default_factory=dict)

    def hold(self, deployment: Deployment, key: str, run: str = "") -> Place:
        """Wait for a place if need be, and hold it while the block lasts. Entering returns the seconds of the wait, or
        raises Unavailable when the queue is full or the time is up. `place_of` finds the request under the id `run`."""
        return Place(self, deployment, key, run)

    def place_of(self, run: str, key: str) -> int | None:
        """Return the place of a key's run in the queue of its deployment, by the turns of the keys: 1 is the next.
        None: it waits in no queue."""
        places = [place for host in self._hosts.values() if (place := host.place_of(run, key)) is not None]
        return min(places, default=None)

    def in_flight(self, deployment: Deployment) -> int:
        return self._lane(deployment).held

    def waiting(self, deployment: Deployment) -> int:
        return self._lane(deployment).waiting

    def full(self, deployment: Deployment) -> bool:
        """True if a request would have to wait."""
        return not self._lane(deployment).open_to(deployment)

    def crowded(self, deployment: Deployment) -> bool:
        """True if the queue would refuse a request."""
        lane = self._lane(deployment)
        return lane.waiting >= self.max_length and not lane.open_to(deployment)

    def snapshot(self) -> list[QueueSnapshot]:
        """Return the queues of the deployments that were asked for so far."""
        return [QueueSnapshot(name, each.held, each.waiting, each.seconds) for name, each in self._lanes.items()]

    def _lane(self, deployment: Deployment) -> _DeploymentQueue:
        name = deployment.name
        if name not in self._lanes:
            host = self._hosts.setdefault(deployment.provider.name, _ProviderQueue())
            self._lanes[name] = _DeploymentQueue(host)
        return self._lanes[name]

    async def take(self, deployment: Deployment, key: str, run: str = "") -> _DeploymentQueue:
        """Take a place, which must be given back to the queue."""
        lane = self._lane(deployment)
        if lane.open_to(deployment):
            lane.take()
        else:
            await self._wait(Waiter(deployment, key, lane, asyncio.get_running_loop().create_future(), run))
        return lane

    async def _wait(self, waiter: Waiter) -> None:
        """Wait for the place, and take it."""
        lane = waiter.lane
        if lane.waiting >= self.max_length and not lane.make_room(waiter.key):
            self._refuse(waiter, "full")
            raise _unavailable(waiter, _QUEUE_FULL)
        lane.join(waiter)
        timer = asyncio.get_running_loop().call_later(self.max_seconds, _time_is_up, waiter)
        try:
            came = await waiter.place
        except BaseException:
            # A request that leaves in the moment in which the place came hands it on.
            if waiter.place.cancelled() or not waiter.place.done():
                lane.leave(waiter)
            elif waiter.place.result():
                lane.give_back()
            raise
        finally:
            timer.cancel()
        if not came:
            self._refuse(waiter, "full" if waiter.crowded_out else "late")
            late = f"is busy: no place came free within {self.max_seconds:g} s"
            raise _unavailable(waiter, _QUEUE_FULL if waiter.crowded_out else late)

    def _refuse(self, waiter: Waiter, why: Literal["full", "late"]) -> None:
        for observer in self.observers:
            observer.refused(waiter.deployment, why)


class Place(AbstractAsyncContextManager[float]):
    """A place while its block lasts."""

    __slots__ = ("_deployment", "_key", "_lane", "_run", "_since", "_slots")
    _lane: _DeploymentQueue
    _since: float

    def __init__(self, slots: Slots, deployment: Deployment, key: str, run: str) -> None:
        self._run = run
        self._slots = slots
        self._deployment = deployment
        self._key = key

    async def __aenter__(self) -> float:
        asked = self._slots.clock()
        self._lane = await self._slots.take(self._deployment, self._key, self._run)
        self._since = self._slots.clock()
        for observer in self._slots.observers:
            observer.waited(self._deployment, self._since - asked)
        return self._since - asked

    async def __aexit__(self, *_: object) -> None:
        self._lane.learn(self._slots.clock() - self._since)
        self._lane.give_back()


@dataclass(slots=True, eq=False)
class Waiter:
    deployment: Deployment
    key: str
    lane: _DeploymentQueue
    place: asyncio.Future[bool]  # True: it came, and counts as taken already; False: it will not come
    run: str = ""
    crowded_out: bool = False


@dataclass(slots=True, eq=False)
class _ProviderQueue:
    """A provider: how many places are taken there, and its waiters by key. The key whose turn is next comes first."""

    held: int = 0
    queues: OrderedDict[str, dict[Waiter, None]] = field(default_factory=OrderedDict)

    def next(self) -> Waiter | None:
        """Return the first waiter in turn that can use a free place. One that was cancelled, but has not noticed yet,
        is passed over."""
        waiters = (waiter for queue in self.queues.values() for waiter in queue)
        able = (each for each in waiters if each.lane.open_to(each.deployment) and not each.place.done())
        return next(able, None)

    def place_of(self, run: str, key: str) -> int | None:
        """Return the place of a run's first waiter among those of its deployment."""
        rounds = zip_longest(*self.queues.values())  # a key's second waiter comes after the first one of each other key
        ahead = Counter[int]()
        for waiter in (waiter for turn in rounds for waiter in turn if waiter is not None):
            ahead[id(waiter.lane)] += 1
            if (waiter.run, waiter.key) == (run, key):
                return ahead[id(waiter.lane)]
        return None


@dataclass(slots=True, eq=False)
class _DeploymentQueue:
    """A deployment: how many places are taken there, and how many requests wait."""

    host: _ProviderQueue
    held: int = 0
    waiting: int = 0
    seconds: float | None = None  # for which places were held lately

    def open_to(self, deployment: Deployment) -> bool:
        most, most_there = deployment.max_concurrency, deployment.provider.max_concurrency
        return (most is None or self.held < most) and (most_there is None or self.host.held < most_there)

    def take(self) -> None:
        self.held += 1
        self.host.held += 1

    def give_back(self) -> None:
        """Give a place to the next in turn. It serves one at most: no waiter could use any other free place."""
        self.held -= 1
        self.host.held -= 1
        if self.host.queues and (waiter := self.host.next()):
            waiter.lane.take()
            waiter.lane.leave(waiter)
            if waiter.key in self.host.queues:
                self.host.queues.move_to_end(waiter.key)
            waiter.place.set_result(True)

    def join(self, waiter: Waiter) -> None:
        self.waiting += 1
        self.host.queues.setdefault(waiter.key, {})[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        self.waiting -= 1
        queue = self.host.queues[waiter.key]
        del queue[waiter]
        if not queue:
            del self.host.queues[waiter.key]

    def make_room(self, key: str) -> bool:
        """Evict the newest waiter of the key with the longest queue, unless that would leave it fewer waiters than
        `key` then has. Keeps one key from filling the queue. Return True if there is room now."""
        waiting = {name: [each for each in queue if each.lane is self] for name, queue in self.host.queues.items()}
        longest = max(waiting.values(), key=len, default=[])
        if len(longest) <= len(waiting.get(key, ())) + 1:
            return False
        last = longest[-1]
        if last.place.done():  # it is leaving anyway, and counts until it has noticed
            return False
        self.leave(last)
        last.crowded_out = True
        last.place.set_result(False)
        return True

    def learn(self, seconds: float) -> None:
        self.seconds = seconds if self.seconds is None else self.seconds + 0.2 * (seconds - self.seconds)


def _time_is_up(waiter: Waiter) -> None:
    if not waiter.place.done():
        waiter.lane.leave(waiter)
        waiter.place.set_result(False)


def _unavailable(waiter: Waiter, why: str) -> Unavailable:
    wait = _estimate_wait(waiter.lane, waiter.deployment)
    return Unavailable(
        f"Provider {waiter.deployment.provider.name!r} {why}. Try again in {wait:.0f} s.",
        code="server_is_overloaded",
        retry_after=wait,
    )


def _estimate_wait(lane: _DeploymentQueue, deployment: Deployment) -> float:
    """Return the seconds until those that wait now are through and one more is served."""
    seconds = lane.seconds or deployment.profile.typical_seconds or GUESSED_SECONDS
    queues = (
        (lane.waiting, deployment.max_concurrency),
        (sum(len(queue) for queue in lane.host.queues.values()), deployment.provider.max_concurrency),
    )
    longest = max((seconds * (waiting + 1) / places for waiting, places in queues if places), default=seconds)
    return min(max(longest, SHORTEST_WAIT), LONGEST_WAIT)
