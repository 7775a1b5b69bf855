"""Write Grafana's dashboards and Prometheus' rules: `python -m scripts.observability`. `--check` compares only.

All queries stand here, so that a test can ask whether each metric exists and promtool whether each query is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
RUNBOOK = "docs/observability.md"

# Outcomes for which the gateway or a provider is to blame, and those together with what went well. Refusals, limits and
# callers that left are nobody's fault.
BAD = 'outcome=~"failed_unpaid|perhaps_paid|undelivered|interrupted"'
OWED = 'outcome=~"delivered|failed_unpaid|perhaps_paid|undelivered|interrupted"'
OBJECTIVE = 0.99  # of what is owed is delivered, over 30 days
WINDOWS = ("5m", "30m", "1h", "6h")


# --- rules ---


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. `lasts`: for how long its query has to hold."""

    name: str
    query: str
    lasts: str
    severity: Literal["page", "ticket", "info"]
    summary: str


def failure_ratio(window: str) -> str:
    bad = f"sum by (job) (rate(imagegw_drawings_total{{{BAD}}}[{window}]))"
    owed = f"sum by (job) (rate(imagegw_drawings_total{{{OWED}}}[{window}]))"
    return f"({bad} or 0 * group by (job) (imagegw_build_info)) / {owed}"


def recorded(window: str) -> str:
    return f"imagegw:failure_ratio:rate{window}"


def burns(factor: float, long: str, short: str) -> str:
    most = f"({factor:g} * {1 - OBJECTIVE:.2f})"
    return f"{recorded(long)} > {most} and {recorded(short)} > {most}"


RECORDS: Mapping[str, str] = {recorded(window): failure_ratio(window) for window in WINDOWS} | {
    "imagegw:drawings:rate5m": "sum by (job, outcome) (rate(imagegw_drawings_total[5m]))",
    "imagegw:cost:increase1h": "sum by (job, team, currency) (increase(imagegw_cost_total[1h]))",
    "imagegw:queue_seconds:p95_5m": (
        "histogram_quantile(0.95, sum by (job, provider, le) (rate(imagegw_queue_seconds_bucket[5m])))"
    ),
}

ALERTS: Sequence[Alert] = (
    Alert(
        "ImageGatewayMissing",
        "absent(imagegw_build_info)",
        "5m",
        "page",
        "No gateway tells its metrics.",
    ),
    Alert(
        "ImageGatewayDeliversNothing",
        f"sum by (job) (rate(imagegw_drawings_total{{{BAD}}}[5m])) > 0 unless "
        'sum by (job) (rate(imagegw_drawings_total{outcome="delivered"}[5m])) > 0',
        "5m",
        "page",
        "Images are asked for, and none is delivered.",
    ),
    Alert(
        "ImageGatewayFailsFast",
        burns(14.4, "1h", "5m"),
        "2m",
        "page",
        "{{ $value | humanizePercentage }} of the drawings failed in the last hour.",
    ),
    Alert(
        "ImageGatewayFailsSlowly",
        burns(6, "6h", "30m"),
        "15m",
        "ticket",
        "{{ $value | humanizePercentage }} of the drawings failed in the last six hours.",
    ),
    Alert(
        "ImageGatewayPerhapsPaid",
        'sum by (job) (increase(imagegw_drawings_total{outcome="perhaps_paid"}[1h])) / '
        f"sum by (job) (increase(imagegw_drawings_total{{{OWED}}}[1h])) > 0.01",
        "10m",
        "ticket",
        "{{ $value | humanizePercentage }} of the drawings were perhaps paid for and not had.",
    ),
    Alert(
        "ImageGatewayInDoubtForLong",
        "min_over_time(imagegw_in_doubt_open[1d]) > 0 and imagegw_in_doubt_open offset 1d > 0",
        "1h",
        "info",
        "{{ $value }} drawings have been in doubt for a day.",
    ),
    Alert(
        "ImageGatewayAccountRefused",
        "imagegw_provider_account_ok == 0",
        "1m",
        "page",
        "Provider {{ $labels.provider }} refuses the gateway's account.",
    ),
    Alert(
        "ImageGatewayProviderDown",
        "max by (job, instance, provider) (imagegw_provider_up) == 0",
        "10m",
        "ticket",
        "No model of provider {{ $labels.provider }} may be asked.",
    ),
    Alert(
        "ImageGatewayQueueSlow",
        "imagegw:queue_seconds:p95_5m > 30",
        "10m",
        "ticket",
        "One request in twenty waits {{ $value | humanizeDuration }} for a place at {{ $labels.provider }}.",
    ),
    Alert(
        "ImageGatewayQueueRefuses",
        "sum by (job, provider) (increase(imagegw_queue_refused_total[5m])) > 0",
        "5m",
        "ticket",
        "Requests get no place at {{ $labels.provider }}.",
    ),
    Alert(
        "ImageGatewayBudgetNearlyUsed",
        "imagegw_budget_used_ratio + imagegw_budget_held_ratio + imagegw_budget_in_doubt_ratio > 0.9",
        "5m",
        "ticket",
        "Budget {{ $labels.budget }} is used to {{ $value | humanizePercentage }}.",
    ),
    Alert(
        "ImageGatewayUnpriced",
        # A series that is new has no earlier value, from which `increase` could tell its first count.
        "sum by (job, provider, model) (imagegw_unpriced_total - imagegw_unpriced_total offset 1h > 0 "
        "or imagegw_unpriced_total unless imagegw_unpriced_total offset 1h)",
        "0m",
        "info",
        "Nobody knows what {{ $labels.model }} costs at {{ $labels.provider }}.",
    ),
    Alert(
        "ImageGatewayLedgerDown",
        "imagegw_ledger_up == 0",
        "1m",
        "page",
        "The ledger's database does not answer.",
    ),
    Alert(
        "ImageGatewayJournalWaits",
        "imagegw_ledger_journal_rows > 0",
        "5m",
        "page",
        "{{ $value }} records wait for the ledger's database.",
    ),
    Alert(
        "ImageGatewayRollupsLate",
        "min by (job) (imagegw_rollup_age_seconds) > 7200",
        "15m",
        "ticket",
        "Usage has not been summed up for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "ImageGatewayLedgerDrifts",
        "max by (job) (imagegw_ledger_drift) > 0",
        "0m",
        "ticket",
        "{{ $value }} sums of the ledger differ from their entries.",
    ),
    Alert(
        "ImageGatewayWebhookFails",
        "min_over_time(imagegw_outbox_pending[15m]) > 0",
        "15m",
        "ticket",
        "{{ $value }} messages could not be delivered.",
    ),
    Alert(
        "ImageGatewayRunsLost",
        "sum by (job, instance, why) (increase(imagegw_runs_lost_total[15m])) > 0",
        "0m",
        "ticket",
        "Runs were lost: {{ $labels.why }}.",
    ),
    Alert(
        "ImageGatewayDiskNearlyFull",
        "imagegw_disk_free_bytes / imagegw_disk_bytes < 0.1",
        "10m",
        "ticket",
        "The disk of the data directory has {{ $value | humanizePercentage }} left.",
    ),
    Alert(
        "ImageGatewayLoopLate",
        "histogram_quantile(0.99, sum by (job, instance, le) (rate(imagegw_loop_lag_seconds_bucket[5m]))) > 0.5",
        "10m",
        "ticket",
        "The event loop is late by {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "ImageGatewayConfigRefused",
        "imagegw_config_valid == 0",
        "5m",
        "ticket",
        "The newest configuration was refused, and the old one is in effect.",
    ),
    Alert(
        "ImageGatewayWrongKeys",
        'sum by (job) (increase(imagegw_auth_failures_total{why="slowed"}[10m])) > 0',
        "0m",
        "info",
        "Somebody tries many wrong keys.",
    ),
)


def record_rules() -> Mapping[str, Any]:
    rules = [{"record": name, "expr": query} for name, query in RECORDS.items()]
    return {"groups": [{"name": "image-gateway-records", "interval": "30s", "rules": rules}]}


def alert_rules() -> Mapping[str, Any]:
    rules = [
        {
            "alert": alert.name,
            "expr": alert.query,
            "for": alert.lasts,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook": f"{RUNBOOK}#{alert.name.lower()}"},
        }
        for alert in ALERTS
    ]
    return {"groups": [{"name": "image-gateway-alerts", "rules": rules}]}


# --- dashboards ---

RATE = "$__rate_interval"
JOB = 'job=~"$job"'
DRAWN = f'{JOB},model=~"$model",provider=~"$provider"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel, 12 columns wide and 8 high, or as `size` says. `queries` are by their legends."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table", "bargauge"] = "timeseries"
    size: tuple[int, int] = (12, 8)
    help: str = ""
    is_stacked: bool = False
    has_exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`variables` are the labels to choose by, with the metric that has their values."""

    name: str
    title: str
    panels: Sequence[Panel]
    variables: Mapping[str, str] = field(default_factory=dict)


def quantiles(metric: str, labels: str, by: str = "") -> Mapping[str, str]:
    rate = f"rate({metric}_bucket{{{labels}}}[{RATE}])"
    grouped = f"sum by ({by + ', ' if by else ''}le) ({rate})"
    suffix = f" {{{{{by}}}}}" if by else ""
    return {f"{name}{suffix}": f"histogram_quantile({q}, {grouped})" for name, q in (("p50", 0.5), ("p95", 0.95))}


def per_second(metric: str, labels: str, by: str) -> Mapping[str, str]:
    legend = " ".join(f"{{{{{name.strip()}}}}}" for name in by.split(","))
    return {legend: f"sum by ({by}) (rate({metric}{{{labels}}}[{RATE}]))"}


def tile(title: str, query: str, unit: str = "short") -> Panel:
    return Panel(title, {"": query}, unit, "stat", (4, 4))


SERVICE = Dashboard(
    "service",
    "Image Gateway / Service",
    (
        tile("Delivered", f'sum(increase(imagegw_drawings_total{{{DRAWN},outcome="delivered"}}[$__range]))'),
        tile(
            "Failed",
            f"sum(increase(imagegw_drawings_total{{{DRAWN},{BAD}}}[$__range])) / "
            f"sum(increase(imagegw_drawings_total{{{DRAWN},{OWED}}}[$__range]))",
            "percentunit",
        ),
        tile("In flight", f"sum(imagegw_in_flight{{{JOB}}})"),
        tile("Waiting for a place", f"sum(imagegw_queue_waiting{{{JOB}}})"),
        tile("In doubt", f"max(imagegw_in_doubt_open{{{JOB}}})"),
        tile("Disk free", f"min(imagegw_disk_free_bytes{{{JOB}}} / imagegw_disk_bytes{{{JOB}}})", "percentunit"),
        Panel(
            "Drawings by outcome",
            per_second("imagegw_drawings_total", f'{JOB},model=~"$model"', "outcome"),
            "reqps",
            is_stacked=True,
        ),
        Panel(
            "Seconds of delivered drawings",
            quantiles("imagegw_drawing_seconds", f'{DRAWN},outcome="delivered"'),
            "s",
            has_exemplars=True,
        ),
        Panel("Seconds to the first image", quantiles("imagegw_first_image_seconds", DRAWN), "s", has_exemplars=True),
        Panel(
            "The gateway's own part",
            quantiles("imagegw_overhead_seconds", JOB, "operation"),
            "s",
            help="Of requests for one image: the time in which no provider and no place was waited for.",
        ),
        Panel("Requests by status", per_second("imagegw_http_requests_total", JOB, "status"), "reqps", is_stacked=True),
        Panel("Callers that left", per_second("imagegw_clients_gone_total", JOB, "phase"), "reqps"),
        Panel("Refused keys", per_second("imagegw_auth_failures_total", JOB, "why"), "reqps"),
        Panel("Refused by limits", per_second("imagegw_limited_total", JOB, "measure, scope"), "reqps"),
        Panel(
            "Bytes",
            {
                "in": f"sum(rate(imagegw_uploads_bytes_total{{{JOB}}}[{RATE}]))",
                "out": f"sum(rate(imagegw_answers_bytes_total{{{JOB}}}[{RATE}]))",
            },
            "Bps",
        ),
        Panel(
            "Room",
            {"{{store}}": f"max by (store) (imagegw_store_bytes{{{JOB}}} / imagegw_store_limit_bytes{{{JOB}}})"},
            "percentunit",
        ),
        Panel("Runs that are kept", {"{{state}}": f"sum by (state) (imagegw_runs{{{JOB}}})"}, is_stacked=True),
        Panel("Lateness of the event loop", quantiles("imagegw_loop_lag_seconds", JOB, "instance"), "s"),
        Panel("Memory", {"{{instance}}": f"process_resident_memory_bytes{{{JOB}}}"}, "bytes"),
        Panel(
            "Processor",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{JOB}}}[{RATE}])"},
            "percentunit",
        ),
        Panel("Seconds of work on pixels", quantiles("imagegw_conversion_seconds", JOB, "kind"), "s"),
        Panel(
            "Seconds of the administration, files and scrapes",
            quantiles("imagegw_http_request_seconds", JOB, "route"),
            "s",
        ),
    ),
    {"model": "imagegw_drawings_total", "provider": "imagegw_drawings_total"},
)

PROVIDERS = Dashboard(
    "providers",
    "Image Gateway / Providers",
    (
        Panel(
            "May be asked",
            {
                "{{provider}} {{model}}": "min by (provider, model) "
                f'(imagegw_provider_up{{{JOB},provider=~"$provider"}})'
            },
            kind="bargauge",
        ),
        Panel(
            "Cooling down",
            {
                "{{provider}} {{model}} {{why}}": "max by (provider, model, why) "
                f'(imagegw_provider_cooldown_seconds{{{JOB},provider=~"$provider"}})'
            },
            "s",
        ),
        Panel(
            "Account",
            {"{{provider}}": f'min by (provider) (imagegw_provider_account_ok{{{JOB},provider=~"$provider"}})'},
            kind="bargauge",
        ),
        Panel(
            "Attempts by result",
            per_second("imagegw_attempts_total", DRAWN, "provider, result"),
            "reqps",
            is_stacked=True,
        ),
        Panel(
            "Success",
            {
                "{{provider}}": f'sum by (provider) (rate(imagegw_attempts_total{{{DRAWN},result="ok"}}[{RATE}])) / '
                f'sum by (provider) (rate(imagegw_attempts_total{{{DRAWN},result!~"refused|cancelled"}}[{RATE}]))'
            },
            "percentunit",
        ),
        Panel(
            "Seconds of attempts that succeed",
            quantiles("imagegw_attempt_seconds", f'{DRAWN},result="ok"', "provider"),
            "s",
            has_exemplars=True,
        ),
        Panel("Failovers", per_second("imagegw_failovers_total", JOB, "from, to, why"), "reqps"),
        Panel("Repeats", per_second("imagegw_retries_total", f'{JOB},provider=~"$provider"', "provider, why"), "reqps"),
        Panel(
            "Repeats that were not made",
            {"{{instance}}": f"rate(imagegw_retry_budget_exhausted_total{{{JOB}}}[{RATE}])"},
            "reqps",
        ),
        Panel(
            "Places in use",
            {
                "{{provider}} {{model}}": "sum by (provider, model) "
                f'(imagegw_slots_in_use{{{JOB},provider=~"$provider"}})',
                "limit {{provider}} {{model}}": "sum by (provider, model) "
                f'(imagegw_slots_limit{{{JOB},provider=~"$provider"}})',
            },
        ),
        Panel(
            "Waiting for a place",
            {
                "{{provider}} {{model}}": "sum by (provider, model) "
                f'(imagegw_queue_waiting{{{JOB},provider=~"$provider"}})'
            },
        ),
        Panel(
            "Seconds in the queue", quantiles("imagegw_queue_seconds", f'{JOB},provider=~"$provider"', "provider"), "s"
        ),
        Panel(
            "Without a place",
            per_second("imagegw_queue_refused_total", f'{JOB},provider=~"$provider"', "provider, why"),
            "reqps",
        ),
    ),
    {"model": "imagegw_attempts_total", "provider": "imagegw_attempts_total"},
)

SPENT = f'{DRAWN},team=~"$team"'
MONEY = Dashboard(
    "money",
    "Image Gateway / Money",
    (
        tile("Spent", f"sum by (currency) (increase(imagegw_cost_total{{{SPENT}}}[$__range]))"),
        tile("Came in doubt", f"sum by (currency) (increase(imagegw_cost_in_doubt_total{{{JOB}}}[$__range]))"),
        tile("Drawings in doubt", f"max(imagegw_in_doubt_open{{{JOB}}})"),
        tile("Saved by joined runs", f"sum by (currency) (increase(imagegw_cost_saved_total{{{JOB}}}[$__range]))"),
        tile("Images", f"sum(increase(imagegw_images_total{{{DRAWN}}}[$__range]))"),
        tile("Without a price", f"sum(increase(imagegw_unpriced_total{{{DRAWN}}}[$__range]))"),
        Panel(
            "Money an hour, by project",
            {"{{team}} {{currency}}": f"sum by (team, currency) (rate(imagegw_cost_total{{{SPENT}}}[{RATE}])) * 3600"},
            is_stacked=True,
        ),
        Panel(
            "Money an hour, by model",
            {
                "{{model}} {{currency}}": "sum by (model, currency) "
                f"(rate(imagegw_cost_total{{{SPENT}}}[{RATE}])) * 3600"
            },
            is_stacked=True,
        ),
        Panel(
            "Price of an image",
            {
                "{{model}} {{provider}}": "sum by (model, provider) "
                f"(increase(imagegw_cost_total{{{SPENT}}}[$__range])) / "
                f"sum by (model, provider) (increase(imagegw_images_total{{{DRAWN}}}[$__range]))"
            },
            kind="table",
        ),
        Panel(
            "Budgets",
            {
                "{{budget}} spent": f"max by (budget) (imagegw_budget_used_ratio{{{JOB}}})",
                "{{budget}} in doubt": f"max by (budget) (imagegw_budget_in_doubt_ratio{{{JOB}}})",
                "{{budget}} held": f"max by (budget) (imagegw_budget_held_ratio{{{JOB}}})",
            },
            "percentunit",
            "bargauge",
        ),
        Panel(
            "Budgets start anew in",
            {"{{budget}}": f"min by (budget) (imagegw_budget_resets_seconds{{{JOB}}})"},
            "s",
            "table",
        ),
        Panel("Megapixels", per_second("imagegw_megapixels_total", DRAWN, "model"), is_stacked=True),
        Panel("Joined requests", per_second("imagegw_runs_joined_total", JOB, "how"), "reqps"),
        Panel("Keys", {"{{state}}": f"max by (state) (imagegw_keys{{{JOB}}})"}),
        Panel("Seconds of the ledger", quantiles("imagegw_ledger_seconds", JOB, "op"), "s"),
        Panel(
            "What waits",
            {
                "journal": f"max(imagegw_ledger_journal_rows{{{JOB}}})",
                "outbox": f"max(imagegw_outbox_pending{{{JOB}}})",
                "database away": f"1 - min(imagegw_ledger_up{{{JOB}}})",
            },
        ),
        Panel("Age of the sums", {"rollups": f"min(imagegw_rollup_age_seconds{{{JOB}}})"}, "s"),
        Panel("Sums that differ", {"ledger": f"max(imagegw_ledger_drift{{{JOB}}})"}),
    ),
    {"model": "imagegw_cost_total", "provider": "imagegw_cost_total", "team": "imagegw_cost_total"},
)

DASHBOARDS = (SERVICE, PROVIDERS, MONEY)
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def render(dashboard: Dashboard) -> Mapping[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "uid": f"image-gateway-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["image-gateway"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables(dashboard))},
        "links": [
            {"type": "dashboards", "tags": ["image-gateway"], "title": "Image Gateway", "asDropdown": True}
            | {"includeVars": True, "keepTime": True}
        ],
        "panels": list(_panels(dashboard.panels)),
    }


def _variables(dashboard: Dashboard) -> Iterator[Mapping[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    for name, metric in {"job": "imagegw_build_info", **dashboard.variables}.items():
        yield {
            "name": name,
            "type": "query",
            "datasource": SOURCE,
            "query": f"label_values({metric}, {name})",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _panels(panels: Sequence[Panel]) -> Iterator[Mapping[str, Any]]:
    x = y = row = 0
    for number, panel in enumerate(panels, 1):
        width, height = panel.size
        if x + width > 24:
            x, y, row = 0, y + row, 0
        row = max(row, height)
        targets = [
            {"refId": chr(65 + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            | ({"exemplar": True} if panel.has_exemplars else {})
            | ({"instant": True, "range": False, "format": "table"} if panel.kind == "table" else {})
            for index, (legend, query) in enumerate(panel.queries.items())
        ]
        stacking = {"custom": {"fillOpacity": 20, "stacking": {"mode": "normal"}}} if panel.is_stacked else {}
        yield {
            "id": number,
            "type": panel.kind,
            "title": panel.title,
            "description": panel.help,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": panel.unit, **stacking}, "overrides": []},
            "targets": targets,
        }
        x += width


def queries() -> Iterator[str]:
    """Return every query of the dashboards."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            yield from panel.queries.values()


# --- files ---

HEADER = "# Written by scripts/observability.py: change that, and run `python -m scripts.observability`.\n"


def files() -> Mapping[Path, str]:
    """Return the text of each file."""
    rules = {"alerts": alert_rules(), "records": record_rules()}
    return {
        DEPLOY / "prometheus" / f"{name}.yaml": HEADER + yaml.safe_dump(content, sort_keys=False, width=1000)
        for name, content in rules.items()
    } | {
        DEPLOY / "grafana" / f"{dashboard.name}.json": json.dumps(render(dashboard), indent=2) + "\n"
        for dashboard in DASHBOARDS
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 if a file is not current")
    only_checks = parser.parse_args().check
    old = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        if not only_checks:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path], encoding="utf-8")
        sys.stdout.write(f"{'is not current' if only_checks else 'written'}: {path.relative_to(ROOT)}\n")
    return 1 if old and only_checks else 0


if __name__ == "__main__":
    sys.exit(main())
