from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted
from app.catalog.profiles import Profile
from app.errors import Failure, UpstreamError
from app.images import ImageRequest, Operation
from app.routing.health import Cooling, Health
from app.routing.selection import choose, last_resort, sort_out


@dataclass
class Busy:
    """Places as a test says that they are, by model."""

    held: dict[str, int] = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)
    without_place: set[str] = field(default_factory=set)
    without_room: set[str] = field(default_factory=set)

    def in_flight(self, deployment: Deployment) -> int:
        return self.held.get(deployment.model, 0)

    def waiting(self, deployment: Deployment) -> int:
        return self.queued.get(deployment.model, 0)

    def full(self, deployment: Deployment) -> bool:
        return deployment.model in self.without_place | self.without_room

    def crowded(self, deployment: Deployment) -> bool:
        return deployment.model in self.without_room


def way(model: str, priority: int = 1, weight: int = 1) -> Fitted:
    deployment = Deployment(Provider("one", "openai", "http://localhost"), model, Profile(), priority, weight)
    return Fitted(deployment, ImageRequest(Operation.GENERATIONS, model))


def shares(ways: list[Fitted], busy: Busy, times: int = 4000) -> dict[str, float]:
    rng = random.Random(1)
    counts = Counter(choose(ways, busy, rng.random).deployment.model for _ in range(times))
    return {model: count / times for model, count in counts.items()}


def near(found: dict[str, float], expected: dict[str, float]) -> bool:
    return found.keys() == expected.keys() and all(abs(found[name] - expected[name]) < 0.04 for name in expected)


def test_the_lowest_priority_comes_first_however_busy_it_is() -> None:
    busy = Busy(held={"a": 50})
    assert shares([way("b", 2, weight=100), way("a", 1)], busy) == {"a": 1}


def test_one_with_a_free_place_is_preferred_to_waiting_at_the_first() -> None:
    assert shares([way("a", 1), way("b", 2), way("c", 3)], Busy(without_place={"a"})) == {"b": 1}


def test_when_all_are_full_the_first_is_waited_for() -> None:
    assert shares([way("a", 1), way("b", 2)], Busy(without_place={"a", "b"})) == {"a": 1}


def test_where_the_queue_is_full_nobody_goes_while_another_has_room() -> None:
    assert shares([way("a", 1), way("b", 2)], Busy(without_place={"b"}, without_room={"a"})) == {"b": 1}
    assert shares([way("a", 1), way("b", 2)], Busy(without_room={"a", "b"})) == {"a": 1}


def test_the_same_priority_shares_by_weight() -> None:
    ways = [way("a", weight=3), way("b", weight=1), way("c", priority=2)]
    assert near(shares(ways, Busy()), {"a": 0.75, "b": 0.25})


def test_weights_hold_however_busy_the_deployments_are() -> None:
    assert near(shares([way("a", weight=3), way("b", weight=1)], Busy(held={"a": 9})), {"a": 0.75, "b": 0.25})


def test_of_equal_weights_the_least_busy_takes_its_turn() -> None:
    ways = [way("a", weight=2), way("b"), way("c")]
    assert near(shares(ways, Busy(held={"b": 1})), {"a": 0.5, "c": 0.5})
    assert near(shares(ways, Busy(without_place={"a", "b", "c"}, queued={"c": 1})), {"a": 0.5, "b": 0.5})
    assert near(shares(ways, Busy()), {"a": 0.5, "b": 0.25, "c": 0.25})


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=6),
    st.sets(st.integers(0, 5)),
    st.sets(st.integers(0, 5)),
    st.floats(0, 1, exclude_max=True),
)
def test_nothing_is_chosen_while_a_better_class_or_priority_has_something(
    ways: list[tuple[int, int]], full: set[int], crowded: set[int], point: float
) -> None:
    candidates = [way(str(number), priority, weight) for number, (priority, weight) in enumerate(ways)]
    busy = Busy(without_place=set(map(str, full)), without_room=set(map(str, crowded)))

    def rank(each: Fitted) -> tuple[bool, bool, int]:
        return busy.crowded(each.deployment), busy.full(each.deployment), each.deployment.priority

    assert rank(choose(candidates, busy, lambda: point)) == min(map(rank, candidates))


def test_those_that_cool_down_are_told_from_those_that_may_be_asked() -> None:
    health = Health(lambda: 0.0)
    a, b, c = way("a"), way("b"), way("c")
    health.failed(b.deployment, UpstreamError(Failure.RATE_LIMITED, "slow down", retry_after=9))
    assert sort_out([a, b, c], health) == ([a, c], [(b, Cooling("limited", 9))])


def test_the_last_resort_is_the_failing_one_whose_pause_ends_first() -> None:
    a, b, c, d = (way(name) for name in "abcd")
    limited, account = (a, Cooling("limited", 1)), (b, Cooling("account", 1))
    assert last_resort([limited, account, (c, Cooling("failing", 30)), (d, Cooling("failing", 20))]) is d
    assert last_resort([limited, account]) is None
