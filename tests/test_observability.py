"""The dashboards and rules in `deploy/`: current, over metrics that exist, and good ones in promtool's eyes.

promtool is a part of Prometheus (Debian: the package `prometheus`)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from app.telemetry.metrics.families import Metrics
from scripts import observability
from scripts.observability import ALERTS, DASHBOARDS, RECORDS, ROOT, files, queries
from tests.documentation.pages import anchors, page
from tests.live.servers import serving
from tests.live.wire import ask, post, request
from tests.sdks.environments import leave_out

RULES = sorted((ROOT / "deploy/prometheus").glob("*.yaml"))
FAMILIES = {family.name: family for family in Metrics().families}
PARTS = {
    name + suffix
    for name, family in FAMILIES.items()
    for suffix in (("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",))
}


def every_query() -> list[str]:
    return [*queries(), *RECORDS.values(), *(alert.query for alert in ALERTS)]


def promtool(*words: str, stdin: str = "") -> str:
    """Run promtool; fail with what it says if it finds a fault."""
    found = shutil.which("promtool")
    if found is None:
        leave_out("no promtool here: install Debian's package `prometheus`")
    done = subprocess.run([found or "", *words], input=stdin, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_the_files_are_what_the_script_writes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == files()[path], "run `python -m scripts.observability`"


def test_the_files_are_all_that_is_there() -> None:
    there = {path for folder in ("grafana", "prometheus") for path in (ROOT / "deploy" / folder).iterdir()}
    assert there == set(files())


def test_every_metric_of_a_query_exists() -> None:
    for query in every_query():
        named = set(re.findall(r"\bimagegw_\w+", query))
        assert named - PARTS == set(), query
        recorded = set(re.findall(r"\bimagegw:[\w:]+", query))
        assert recorded - set(RECORDS) == set(), query


def test_every_label_of_a_query_is_one_of_its_metric() -> None:
    for query in every_query():
        for name, matchers in re.findall(r"\b(imagegw_\w+)\{([^}]*)\}", query):
            family = FAMILIES[re.sub(r"_(bucket|sum|count)$", "", name) if name not in FAMILIES else name]
            used = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers))
            assert used - {"job", "instance"} <= set(family.labels), query


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {name for query in queries() for name in re.findall(r"\bimagegw_\w+", query)}
    rest = {name for name in PARTS if name not in shown and not name.endswith(("_sum", "_count"))}
    assert rest == {"imagegw_build_info", "imagegw_config_valid", "imagegw_config_reloads_total"} | {
        "imagegw_ledger_errors_total",
        "imagegw_runs_lost_total",
    }


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    text = page(observability.RUNBOOK)
    assert {alert.name.lower() for alert in ALERTS} <= set(anchors(text))
    named = re.findall(r"^### (ImageGateway\w+)$", text, re.MULTILINE)
    assert named == [alert.name for alert in ALERTS]


def test_the_panels_of_a_dashboard_lie_side_by_side_and_have_titles_of_their_own() -> None:
    for dashboard in DASHBOARDS:
        panels = observability.render(dashboard)["panels"]
        places = [
            (x, y)
            for panel in panels
            for at in [panel["gridPos"]]
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        assert len(places) == len(set(places)) and max(x for x, _ in places) < 24
        titles = [panel["title"] for panel in panels]
        assert len(titles) == len(set(titles))
        json.dumps(panels)


def test_promtool_accepts_the_rules() -> None:
    assert len(RULES) == 2
    promtool("check", "rules", *map(str, RULES))


@pytest.mark.slow
def test_the_alerts_come_of_recorded_series_when_they_should() -> None:
    path = ROOT / "tests/prometheus/rules.test.yaml"
    tests = yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
    expected = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert expected == {alert.name for alert in ALERTS}
    promtool("test", "rules", str(path))


def test_promtool_can_read_every_query_of_the_dashboards(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$__(rate_interval|range)", "5m", query)}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_promtool_finds_no_fault_in_a_real_scrape(tmp_path: Path) -> None:
    async with serving({}, tmp_path) as gateway:
        await post(gateway.port, "/v1/images/generations", {"prompt": "a fox", "size": "256x256"})
        reply = await ask(gateway.port, request("GET", "/metrics"))
    assert b"imagegw_drawings_total{" in reply.body
    assert promtool("check", "metrics", stdin=reply.body.decode()).strip() == ""
