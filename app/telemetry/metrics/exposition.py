"""The text of a scrape. The event loop makes a snapshot; a thread turns it into text, by prometheus-client, which is
imported there at the first scrape. The text serves for a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.telemetry.metrics.families import Metrics
from app.telemetry.metrics.series import Bins, Family, Labels, Snapshot

CACHED_SECONDS = 1.0
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LAG_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Exposition:
    """`read` brings the gauges up to date."""

    metrics: Metrics
    read: Callable[[], Awaitable[None]]
    clock: Callable[[], float] = time.monotonic
    _texts: dict[bool, tuple[float, bytes]] = field(default_factory=dict, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def render(self, accept: str) -> tuple[str, bytes]:
        """Return the type and the text of a scrape, in the format that the `Accept` header asks for."""
        is_open = "application/openmetrics-text" in accept
        async with self._lock:
            made_at, text = self._texts.get(is_open, (0.0, b""))
            if not text or self.clock() - made_at >= CACHED_SECONDS:
                await self.read()
                text = await asyncio.to_thread(write, self.metrics.snapshot(), is_open=is_open)
                self._texts[is_open] = self.clock(), text
        return (OPENMETRICS if is_open else PLAIN), text


def write(snapshot: Snapshot, *, is_open: bool) -> bytes:
    """Write a snapshot as text, for a thread. Exemplars are in OpenMetrics alone (`is_open`)."""
    from prometheus_client import ProcessCollector, exposition
    from prometheus_client.openmetrics import exposition as openmetrics

    collected = _Collected([*_families(snapshot), *ProcessCollector(registry=None).collect()])
    generate: Any = openmetrics.generate_latest if is_open else exposition.generate_latest
    text: bytes = generate(collected)
    return text


@dataclass(frozen=True, slots=True)
class _Collected:
    """Stands for the library's registry."""

    families: list[Any]

    def collect(self) -> list[Any]:
        return self.families


def _families(snapshot: Snapshot) -> Iterator[Any]:
    from prometheus_client.metrics_core import Metric

    for family, numbers in snapshot.numbers:
        metric = Metric(family.name.removesuffix("_total"), family.help, family.kind)
        for labels, value in sorted(numbers.items()):
            metric.add_sample(family.name, _named(family, labels), value)
        yield metric
    for family, series in snapshot.histograms:
        metric = Metric(family.name, family.help, family.kind)
        for labels, bins in sorted(series.items()):
            _add_bins(metric, family, _named(family, labels), bins)
        yield metric


def _add_bins(metric: Any, family: Family, named: dict[str, str], bins: Bins) -> None:
    from prometheus_client.samples import Exemplar

    total = 0
    for index, bound in enumerate((*family.buckets, float("inf"))):
        total += bins.counts[index]
        found = bins.exemplars.get(index)
        exemplar = Exemplar({"trace_id": found.trace_id}, found.value, found.at) if found else None
        text = "+Inf" if bound == float("inf") else repr(float(bound))
        metric.add_sample(f"{family.name}_bucket", {**named, "le": text}, total, None, exemplar)
    metric.add_sample(f"{family.name}_count", named, total)
    metric.add_sample(f"{family.name}_sum", named, bins.sum)


def _named(family: Family, labels: Labels) -> dict[str, str]:
    return dict(zip(family.labels, labels, strict=True))


async def watch_loop(metrics: Metrics, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Measure again and again how late the event loop is, until the task is cancelled."""
    while True:
        began = time.perf_counter()
        await sleep(LAG_SECONDS)
        metrics.loop_lag_seconds.observe(max(0.0, time.perf_counter() - began - LAG_SECONDS))
