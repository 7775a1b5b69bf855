"""The metrics of a live gateway: who may read them, that they add up with the ledger, and that their series are few."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from app.ledger.values.changes import Actor
from app.ledger.values.directory import ApiKey
from app.ledger.values.drawings import Outcome
from app.sandbox.server import Sandbox
from app.telemetry.metrics.drawings import OUTCOMES
from tests.live.conftest import Start
from tests.live.crowds import drawn_by, simulated
from tests.live.servers import Config, Gateway
from tests.live.wire import Reply, ask, post, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"
DRAWING, METRICS, TIGHT = "the-drawing-key-of-team", "the-metrics-key-of-team", "the-tight-key-of-team"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def bearer(key: str) -> str:
    return f"Bearer {key}"


async def scrape(port: int, **headers: str) -> Reply:
    return await ask(port, request("GET", "/metrics", None, **headers))


async def read(port: int, **headers: str) -> Samples:
    """Scrape, past the text that serves for a second."""
    await asyncio.sleep(1.05)
    reply = await scrape(port, **headers)
    assert reply.status == 200, reply.body
    samples: Samples = defaultdict(float)
    for family in read_plain(reply.body.decode()):
        for sample in family.samples:
            samples[sample.name, frozenset(sample.labels.items())] += sample.value
    return samples


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the series of a metric that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, own), value in samples.items() if found == f"imagegw_{name}" and wanted <= own)


def config(sandbox: Sandbox) -> Config:
    return {
        "providers": {"openai": simulated(sandbox.base_url), "second": simulated(sandbox.base_url)},
        "models": {
            "flux": drawn_by("openai", "second") | {"profile": {"price": 0.04}, "aliases": ["quick"]},
            "free": drawn_by("openai"),
        },
        "projects": {"design": {}},
        "keys": [
            {"name": "team", "key": DRAWING, "project": "design"},
            {"name": "tight", "key": TIGHT, "images_per_minute": 2},
        ],
        "ledger": {"unpriced": "serve"},
        "metrics": {"port": 0},
    }


def own_port(gateway: Gateway) -> int:
    [line] = [line for line in gateway.lines() if line["event"] == "metrics are served"]
    found: int = line["port"]
    return found


async def draw(gateway: Gateway, prompt: str = "a fox", key: str = DRAWING, **fields: Any) -> Reply:
    headers = {name: fields.pop(name) for name in ("idempotency_key", "traceparent") if name in fields}
    body = {"model": "flux", "prompt": prompt, "size": "64x64", **fields}
    return await post(gateway.port, GENERATIONS, body, authorization=bearer(key), **headers)


async def test_the_sandbox_shows_its_metrics_to_everybody(start: Start) -> None:
    gateway = await start({})
    reply = await scrape(gateway.port)
    assert (reply.status, reply.header("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"imagegw_build_info" in reply.body and b"process_resident_memory_bytes" in reply.body


async def test_with_keys_it_takes_an_admin_key_or_the_scope(start: Start, sandbox: Sandbox) -> None:
    gateway = await start({**config(sandbox), "metrics": {}})
    assert (await scrape(gateway.port)).status == 401
    refused = await scrape(gateway.port, authorization=bearer(DRAWING))
    assert (refused.status, refused.error()["code"]) == (403, "insufficient_scope")
    resources = gateway.app.state.runtime.resources
    registry = await resources.book.registry()
    for name, scopes in (("prometheus", ("metrics",)), ("root", ("admin",)), ("books", ("usage",))):
        key = resources.mint(is_admin=name == "root")
        await registry.add_key(ApiKey(key.id, name, key.digest, scopes=scopes), Actor("gateway", "test"))
        await resources.book.refresh()
        status = (await scrape(gateway.port, authorization=bearer(key.text))).status
        assert status == (403 if name == "books" else 200), name


async def test_a_port_of_its_own_asks_for_no_key_and_takes_the_metrics_off_the_other(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox))
    port = own_port(gateway)
    assert (await scrape(port)).status == 200
    elsewhere = await scrape(gateway.port, authorization=bearer(DRAWING))
    assert elsewhere.status == 404 and "metrics.port" in elsewhere.error()["message"]
    assert (await ask(port, request("GET", "/v1/models"))).status == 404
    assert (await ask(port, request("POST", "/metrics", b"{}"))).status == 405
    assert (await ask(port, request("HEAD", "/metrics"))).status == 200


async def test_counters_add_up_with_the_ledger_after_a_mixed_load(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    for _ in range(3):
        assert (await draw(gateway)).status == 200
    assert (await draw(gateway, model="quick", n=2)).status == 200
    assert (await draw(gateway, model="free")).status == 200
    assert (await draw(gateway, "a [[fault*1:503]] fox")).status == 200  # the other provider draws it
    assert (await draw(gateway, "a [[fault:moderation]] fox")).status == 400
    assert (await draw(gateway, "a [[fault:cut_headers]] fox")).status == 502
    assert (await draw(gateway, "again", idempotency_key="1")).status == 200
    assert (await draw(gateway, "again", idempotency_key="1")).status == 200
    statuses = Counter([(await draw(gateway, key=TIGHT)).status for _ in range(4)])
    assert statuses == {200: 2, 429: 2}
    assert (await draw(gateway, n=99)).status == 400
    assert (await draw(gateway, model="unheard-of")).status == 400
    assert (await draw(gateway, key="wrong")).status == 401
    await gateway.request_lines(17)
    ledger = gateway.app.state.runtime.resources.ledger
    await until(lambda: not ledger.snapshot().open_drawings)  # their ends are written down together
    database = ledger.database
    rows = await database.query(
        "select model, outcome, count(*), sum(images), sum(cost_nano), sum(in_doubt_nano), sum(saved_nano), "
        "sum(case when outcome = 'joined' then 0 else images end) from drawing group by model, outcome"
    )
    samples = await read(own_port(gateway))
    words = {str(ours): theirs for ours, theirs in OUTCOMES.items()}
    for model, outcome, count, *_ in rows:
        assert total(samples, "drawings_total", model=model, outcome=words[outcome]) == count, (model, outcome)
    admitted = sum(total(samples, "drawings_total", outcome=word) for word in words.values())
    assert admitted == sum(row[2] for row in rows) == 12
    assert total(samples, "images_total") == sum(row[7] for row in rows)
    assert total(samples, "cost_total", currency="USD") == pytest.approx(sum(row[4] for row in rows) / 1e9)
    assert total(samples, "cost_total", team="design") == pytest.approx(0.28)
    assert total(samples, "cost_in_doubt_total") == pytest.approx(sum(row[5] for row in rows) / 1e9)
    assert total(samples, "cost_saved_total") == pytest.approx(sum(row[6] for row in rows) / 1e9) == 0.04
    assert total(samples, "megapixels_total", model="flux") == pytest.approx(0.004096 * 9)
    assert total(samples, "unpriced_total", model="free") == 1
    assert total(samples, "drawings_total", outcome="limited") == 2 == total(samples, "limited_total", measure="images")
    assert total(samples, "drawings_total", outcome="refused_caller", model="other") == 1
    assert total(samples, "drawings_total", outcome="refused_caller") == 2
    assert total(samples, "auth_failures_total", why="wrong") == 1
    assert total(samples, "runs_joined_total", how="idempotency_key") == 1
    assert total(samples, "attempts_total") == total(samples, "attempt_seconds_count") == 12
    assert total(samples, "attempts_total", result="perhaps_paid") == 1
    assert total(samples, "drawing_seconds_count", outcome="delivered") == 9
    assert total(samples, "first_image_seconds_count") == 9
    assert total(samples, "in_doubt_open") == 1
    assert total(samples, "in_flight") == 0
    assert (total(samples, "keys", state="stated"), total(samples, "keys")) == (2, 2)
    assert total(samples, "queue_seconds_count") >= 12
    assert total(samples, "http_requests_total", route=GENERATIONS) == 17
    assert total(samples, "uploads_bytes_total") > 500 and total(samples, "answers_bytes_total") > 1000


async def test_a_failover_and_a_cooldown_are_seen(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    for _ in range(4):
        await draw(gateway, "a [[fault@openai*1:429:retry_after=60]] fox")
    samples = await read(own_port(gateway))
    assert total(samples, "failovers_total", why="rate_limited", **{"from": "openai"}) >= 1
    assert total(samples, "provider_up", provider="openai") == 0
    assert 0 < total(samples, "provider_cooldown_seconds", provider="openai", why="limited") <= 60
    assert total(samples, "provider_account_ok") == 2


async def test_exemplars_carry_the_callers_trace_in_openmetrics_alone(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    await draw(gateway, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    [line] = await gateway.request_lines(1)
    assert line["trace_id"] == TRACE
    reply = await scrape(own_port(gateway), accept="application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert (reply.header("content-type") or "").startswith("application/openmetrics-text")
    found = {
        sample.name: sample.exemplar.labels
        for family in read_open(reply.body.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }
    histograms = ("drawing_seconds", "first_image_seconds", "attempt_seconds")
    assert found == {f"imagegw_{name}_bucket": {"trace_id": TRACE} for name in histograms}
    assert TRACE.encode() not in (await scrape(own_port(gateway))).body


async def test_odd_requests_make_no_series(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    port = own_port(gateway)
    await odd_requests(gateway, 0, 150)
    before = set(await read(port))
    await odd_requests(gateway, 150, 400)
    assert set(await read(port)) == before


@pytest.mark.slow
async def test_ten_thousand_odd_requests_make_no_series(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    port = own_port(gateway)
    await odd_requests(gateway, 0, 150)
    before = set(await read(port))
    await odd_requests(gateway, 150, 10_000)
    after = await read(port)
    assert set(after) == before and len(after) < 3000


async def odd_requests(gateway: Gateway, first: int, end: int) -> None:
    """Unknown models, keys, users, paths and methods: each is another one."""

    async def send(number: int) -> None:
        kind = number % 5
        if kind == 0:
            await draw(gateway, model=f"model-{number}")
        elif kind == 1:
            await draw(gateway, key=f"key-{number}")
        elif kind == 2:
            await draw(gateway, user=f"user-{number}", size=f"{number}x7", n=11)
        elif kind == 3:
            await ask(gateway.port, request("GET", f"/v1/models/m{number}/p{number}?q={number}"))
        else:
            name = "".join(chr(65 + int(digit)) for digit in str(number))
            await ask(gateway.port, request(f"X{name}", f"/{number}"))

    for some in range(first, end, 20):
        await asyncio.gather(*(send(number) for number in range(some, min(some + 20, end))))


async def test_no_label_tells_of_a_caller_and_its_request(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    await draw(gateway, "a secret unicorn", user="somebody@example.org")
    text = (await scrape(own_port(gateway))).body.decode()
    for word in ("unicorn", "somebody", DRAWING, '"team"', "64x64", sandbox.base_url, "upstream-secret"):
        assert word not in text, word
    assert not re.search(r'(?:key|user|prompt|size|url)="', text)


def test_the_words_of_the_ledger_are_all_known() -> None:
    assert set(OUTCOMES) == set(Outcome)
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)


async def test_budgets_are_told_by_their_ids(start: Start, sandbox: Sandbox) -> None:
    budgets = [{"project": "design", "amount": 1, "window": "day"}, {"amount": 10, "window": "total"}]
    gateway = await start({**config(sandbox), "budgets": budgets})
    await gateway.app.state.runtime.resources.book.refresh()
    for _ in range(2):
        assert (await draw(gateway)).status == 200
    samples = await read(own_port(gateway))
    used = sorted(value for (name, _), value in samples.items() if name == "imagegw_budget_used_ratio")
    assert used == pytest.approx([0.008, 0.08])
    assert total(samples, "budget_held_ratio") == total(samples, "budget_in_doubt_ratio") == 0
    [resets] = [value for (name, _), value in samples.items() if name == "imagegw_budget_resets_seconds"]
    assert 0 < resets <= 86_400


async def test_a_queue_is_seen_while_it_stands_and_what_it_refuses(start: Start, sandbox: Sandbox) -> None:
    provider = simulated(sandbox.base_url, max_concurrency=1)
    models = {"flux": drawn_by("openai")}
    settings = {"providers": {"openai": provider}, "models": models, "metrics": {"port": 0}, "queue": {"max_length": 1}}
    gateway = await start(settings)
    slow = [asyncio.create_task(draw(gateway, "a [[fault:slow:60]] fox")) for _ in range(2)]
    await until(lambda: any(each.waiting for each in gateway.app.state.runtime.resources.queues.snapshot()))
    assert (await draw(gateway)).status == 503
    reply = await scrape(own_port(gateway))
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    text = reply.body.decode()
    labels = '{model="gpt-image-2",provider="openai"}'
    for name, value in (("queue_waiting", 1), ("slots_in_use", 1), ("slots_limit", 1), ("provider_up", 1)):
        assert f"imagegw_{name}{labels} {value}.0" in text
    assert 'imagegw_queue_refused_total{provider="openai",why="full"} 1.0' in text
    assert 'imagegw_in_flight{operation="generations"} 2.0' in text


async def test_a_reload_is_counted_and_a_refused_one_stays_visible(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    gateway.app.state.runtime.resources.metrics_state.config_reloaded(is_valid=False)
    samples = await read(own_port(gateway))
    assert total(samples, "config_reloads_total", result="refused") == 1
    assert total(samples, "config_valid") == 0
