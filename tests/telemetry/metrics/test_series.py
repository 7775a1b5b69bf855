"""Series and the text of a scrape."""

import asyncio
import threading

import pytest

from app.telemetry.metrics import exposition
from app.telemetry.metrics.exposition import Exposition, write
from app.telemetry.metrics.families import Metrics
from app.telemetry.metrics.series import OTHER, Exemplar, Names, Snapshot


def test_names_beyond_the_bound_are_other_and_the_first_stay_themselves() -> None:
    names = Names(2)
    assert [names(name) for name in ("a", "b", "c", "a", "d", "b")] == ["a", "b", OTHER, "a", OTHER, "b"]


def test_a_histogram_counts_each_value_in_the_bucket_that_ends_at_it_or_above() -> None:
    metrics = Metrics()
    for seconds in (0.25, 0.3, 700.0):
        metrics.attempt_seconds.observe(seconds, "flux", "openai", "ok")
    lines = write(metrics.snapshot(), is_open=False).decode()
    labels = 'model="flux",provider="openai",result="ok"'
    for bound, count in (("0.25", 1.0), ("0.5", 2.0), ("600.0", 2.0), ("+Inf", 3.0)):
        assert f'imagegw_attempt_seconds_bucket{{le="{bound}",{labels}}} {count}' in lines
    assert f"imagegw_attempt_seconds_count{{{labels}}} 3.0" in lines
    assert f"imagegw_attempt_seconds_sum{{{labels}}} 700.55" in lines


def test_a_snapshot_does_not_change_while_counting_goes_on() -> None:
    metrics = Metrics()
    metrics.failovers.add("a", "b", "failed")
    metrics.drawing_seconds.observe(1.0, "edits", "m", "p", "delivered")
    before = metrics.snapshot()
    text = write(before, is_open=True)
    metrics.failovers.add("a", "b", "failed")
    metrics.drawing_seconds.observe(1.0, "edits", "m", "p", "delivered", exemplar=Exemplar("f" * 32, 1.0, 0.0))
    changed = [line for line in write(before, is_open=True).splitlines() if line not in text.splitlines()]
    assert [line for line in changed if b"imagegw_" in line] == []


def test_every_family_has_a_name_of_its_own_a_sentence_and_bounded_labels() -> None:
    families = Metrics().families
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("imagegw_") and family.help.endswith(".")
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert bool(family.buckets) == (family.kind == "histogram")
        assert not {"key", "user", "prompt", "size", "url", "error"} & set(family.labels)


def test_a_scrape_is_written_in_a_thread_and_its_text_serves_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, threads, reads = [100.0], list[int](), list[int]()

    def note(snapshot: Snapshot, *, is_open: bool) -> bytes:
        threads.append(threading.get_ident())
        return b"text"

    async def read() -> None:
        reads.append(threading.get_ident())

    monkeypatch.setattr(exposition, "write", note)

    async def scrape() -> None:
        exposed = Exposition(Metrics(), read, clock=lambda: now[0])
        await asyncio.gather(*(exposed.render("text/plain") for _ in range(10)))
        now[0] += 0.9
        await exposed.render("*/*")
        assert len(threads) == 1
        await exposed.render("application/openmetrics-text;version=1.0.0")
        now[0] += 0.2
        await exposed.render("")

    asyncio.run(scrape())
    assert len(threads) == len(reads) == 3
    assert set(reads) == {threading.get_ident()} and threading.get_ident() not in threads
