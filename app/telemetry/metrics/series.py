"""Families of series, and their values. Plain dictionaries of one event loop: counting costs less than a microsecond,
and a thread turns a snapshot of all of them into text. Knows no metric."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Labels = tuple[str, ...]  # the values, in the order of the family's labels
OTHER = "other"  # for every name beyond the bound
NONE = "none"  # where there is no such thing, as no provider was asked


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. `name` is the whole one, as queries have it. `buckets` are upper bounds, of a histogram alone."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Exemplar:
    """The trace of one observation. `at` is Unix time."""

    trace_id: str
    value: float
    at: float


@dataclass(slots=True)
class Bins:
    """The observations of one series: a number for each bucket, and one for those beyond the last."""

    counts: list[int]
    sum: float = 0.0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)  # the newest, by bucket

    def copy(self) -> Bins:
        return Bins(list(self.counts), self.sum, dict(self.exemplars))


@dataclass(slots=True, eq=False)
class Numbers:
    """The series of a counter, or of a gauge."""

    family: Family
    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, *labels: str, amount: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def begin(self, *values: str) -> None:
        """Begin the series of a counter with one label at 0, so that its first count is an increase."""
        for value in values:
            self.values.setdefault((value,), 0)

    def replace(self, values: Mapping[Labels, float]) -> None:
        self.values = dict(values)


@dataclass(slots=True, eq=False)
class Histogram:
    """The series of a histogram."""

    family: Family
    values: dict[Labels, Bins] = field(default_factory=dict)

    def observe(self, value: float, *labels: str, exemplar: Exemplar | None = None) -> None:
        bins = self.values.get(labels)
        if bins is None:
            bins = self.values[labels] = Bins([0] * (len(self.family.buckets) + 1))
        index = bisect_left(self.family.buckets, value)
        bins.counts[index] += 1
        bins.sum += value
        if exemplar is not None:
            bins.exemplars[index] = exemplar


@dataclass(slots=True)
class Names:
    """Bounds the values of a label: the first `most` names stay themselves, and every later one is `other`."""

    most: int
    _known: set[str] = field(default_factory=set)

    def __call__(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) >= self.most:
            return OTHER
        self._known.add(name)
        return name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All series at one moment, for a thread."""

    numbers: tuple[tuple[Family, Mapping[Labels, float]], ...]
    histograms: tuple[tuple[Family, Mapping[Labels, Bins]], ...]
