"""Which deployment is asked next: available ones (healthy, not full) by priority, then weight, then least in flight.
Pure: randomness is passed in, and nothing is sent or held here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from app.catalog.deployments import Deployment
from app.routing.health import Cooling, Health


class Candidate(Protocol):
    """A way to serve the request: a deployment that can do what is asked."""

    @property
    def deployment(self) -> Deployment: ...


class Places(Protocol):
    """How busy deployments are."""

    def in_flight(self, deployment: Deployment) -> int: ...

    def waiting(self, deployment: Deployment) -> int: ...

    def full(self, deployment: Deployment) -> bool:
        """Whether a request would have to wait."""
        ...

    def crowded(self, deployment: Deployment) -> bool:
        """Whether it would not even be let in to wait."""
        ...


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], places: Places, random: Callable[[], float]) -> C:
    """One of the candidates, none of which cools down. Rather one with a free place than the first in order; when all
    are full, one where there is still room to wait. `random` gives a number from 0 up to 1."""
    if len(candidates) == 1:
        return candidates[0]
    free = [each for each in candidates if not places.full(each.deployment)]
    free = free or [each for each in candidates if not places.crowded(each.deployment)]
    return _drawn(free or candidates, places, random)


def _drawn(candidates: Sequence[C], places: Places, random: Callable[[], float]) -> C:
    """Weights share the load out; among equals of the one that was drawn, the least busy takes its turn."""
    first = min(each.deployment.priority for each in candidates)
    level = [each for each in candidates if each.deployment.priority == first]
    if len(level) == 1:
        return level[0]
    point = random() * sum(each.deployment.weight for each in level)
    drawn = level[-1]
    for each in level:
        point -= each.deployment.weight
        if point < 0:
            drawn = each
            break
    equals = [each for each in level if each.deployment.weight == drawn.deployment.weight]
    return min(equals, key=lambda each: (_busy(each, places), each is not drawn))


def _busy(candidate: Candidate, places: Places) -> int:
    return places.in_flight(candidate.deployment) + places.waiting(candidate.deployment)


def sorted_out(candidates: Sequence[C], health: Health) -> tuple[list[C], list[tuple[C, Cooling]]]:
    """Those that may be asked, and those that cool down, both in their order."""
    able: list[C] = []
    cooling: list[tuple[C, Cooling]] = []
    for candidate in candidates:
        pause = health.cooling(candidate.deployment)
        if pause is None:
            able.append(candidate)
        else:
            cooling.append((candidate, pause))
    return able, cooling


def last_resort(cooling: Sequence[tuple[C, Cooling]]) -> C | None:
    """Of those that merely fail, the one whose pause ends first. Who said that nothing would be served is not asked."""
    failing = [(candidate, pause) for candidate, pause in cooling if pause.reason == "failing"]
    return min(failing, key=lambda pair: pair[1].left)[0] if failing else None
