"""The choice of the next deployment: available ones (healthy, not full) by priority, then weight, then least in flight.
Pure: randomness is passed in, and nothing is sent or held here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from app.catalog.deployments import Deployment
from app.catalog.fitting import Fitted
from app.routing.health import Cooling, Health


class Places(Protocol):
    """How busy deployments are."""

    def in_flight(self, deployment: Deployment) -> int: ...

    def waiting(self, deployment: Deployment) -> int: ...

    def full(self, deployment: Deployment) -> bool:
        """True if a request would have to wait."""
        ...

    def crowded(self, deployment: Deployment) -> bool:
        """True if the queue would refuse a request."""
        ...


def choose(candidates: Sequence[Fitted], places: Places, random: Callable[[], float]) -> Fitted:
    """Return one of the candidates, none of which cools down. One with a free place goes before the first in order;
    when all are full, one where there is still room to wait. `random` gives a number from 0 up to 1."""
    if len(candidates) == 1:
        return candidates[0]
    free = [each for each in candidates if not places.full(each.deployment)]
    free = free or [each for each in candidates if not places.crowded(each.deployment)]
    return _draw_by_weight(free or candidates, places, random)


def _draw_by_weight(candidates: Sequence[Fitted], places: Places, random: Callable[[], float]) -> Fitted:
    """Draw a candidate by weight. Among those of the same weight, return the least busy one."""
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

    def load(each: Fitted) -> int:
        return places.in_flight(each.deployment) + places.waiting(each.deployment)

    return min(equals, key=lambda each: (load(each), each is not drawn))


def sort_out(candidates: Sequence[Fitted], health: Health) -> tuple[list[Fitted], list[tuple[Fitted, Cooling]]]:
    """Return the candidates that may be asked, and those that cool down, both in their order."""
    able, cooling = list[Fitted](), list[tuple[Fitted, Cooling]]()
    for candidate in candidates:
        pause = health.cooling(candidate.deployment)
        if pause is None:
            able.append(candidate)
        else:
            cooling.append((candidate, pause))
    return able, cooling


def last_resort(cooling: Sequence[tuple[Fitted, Cooling]]) -> Fitted | None:
    """Return the candidate whose pause ends first, of those that merely fail. Skips those that say that they serve
    nothing."""
    failing = [(candidate, pause) for candidate, pause in cooling if pause.reason == "failing"]
    return min(failing, key=lambda pair: pair[1].left)[0] if failing else None
