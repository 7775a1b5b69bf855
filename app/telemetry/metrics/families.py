"""Every metric of the gateway, with its labels and buckets. `docs/observability.md` says what each is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from app.telemetry.metrics.series import Bins, Family, Histogram, Labels, Names, Numbers, Snapshot

PREFIX = "imagegw_"
MODELS, PROVIDERS, PROJECTS = 500, 100, 100  # different ones; the rest is `other`
BUDGETS = 200  # that have gauges
# Seconds. A drawing takes from a fraction of one to ten minutes.
DRAWING = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0)
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
QUEUE = (0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
HTTP = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All series of a process. `models`, `providers` and `projects` bound those labels."""

    def __init__(self) -> None:
        self.models, self.providers, self.projects = Names(MODELS), Names(PROVIDERS), Names(PROJECTS)
        self._numbers: list[Numbers] = []
        self._histograms: list[Histogram] = []
        counter, gauge, histogram = self._counter, self._gauge, self._histogram

        # Requests
        self.http_requests = counter("http_requests", "Requests by route and status", "route", "method", "status")
        self.http_request_seconds = histogram(
            "http_request_seconds", "Seconds of requests that draw nothing", HTTP, "route"
        )
        self.clients_gone = counter("clients_gone", "Callers that left before their answer was complete", "phase")
        self.auth_failures = counter("auth_failures", "Requests refused for their key", "why")
        self.uploads_bytes = counter("uploads_bytes", "Bytes of the bodies of requests")
        self.answers_bytes = counter("answers_bytes", "Bytes of the bodies of answers")

        # Drawings
        drawing = ("operation", "model", "provider")
        self.drawings = counter("drawings", "Requests for images, by how they ended", *drawing, "outcome")
        self.images = counter("images", "Images that were drawn", *drawing)
        self.megapixels = counter("megapixels", "Megapixels that were drawn", "model", "provider")
        self.drawing_seconds = histogram(
            "drawing_seconds", "Seconds from the admission of a request to its end", DRAWING, *drawing, "outcome"
        )
        self.first_image_seconds = histogram(
            "first_image_seconds", "Seconds from the admission of a request to its first image data", DRAWING, *drawing
        )
        self.overhead_seconds = histogram(
            "overhead_seconds",
            "Seconds of a request for one image in which no attempt and no queue was waited for",
            SHORT,
            "operation",
        )
        self.in_flight = gauge("in_flight", "Requests that were admitted and have not ended", "operation")

        # Providers
        attempt = ("model", "provider", "result")
        self.attempts = counter("attempts", "Attempts at providers, by their result", *attempt)
        self.attempt_seconds = histogram("attempt_seconds", "Seconds of an attempt", DRAWING, *attempt)
        self.failovers = counter("failovers", "Turns from one provider to the next", "from", "to", "why")
        self.retries = counter("retries", "Attempts made again at the same deployment", "provider", "why")
        self.retry_budget_exhausted = counter(
            "retry_budget_exhausted", "Attempts that were not made, since too many were made again"
        )
        deployment = ("provider", "model")
        self.queue_seconds = histogram("queue_seconds", "Seconds an attempt waited for its place", QUEUE, "provider")
        self.queue_refused = counter("queue_refused", "Requests that got no place", "provider", "why")
        self.queue_waiting = gauge("queue_waiting", "Requests that wait for a place at a deployment", *deployment)
        self.slots_in_use = gauge("slots_in_use", "Places that are taken at a deployment", *deployment)
        self.slots_limit = gauge("slots_limit", "Places that a deployment has, where they are limited", *deployment)
        self.provider_up = gauge("provider_up", "1 if a deployment may be asked, 0 while it cools down", *deployment)
        self.provider_cooldown_seconds = gauge(
            "provider_cooldown_seconds", "Seconds until a deployment is asked again", *deployment, "why"
        )
        self.provider_account_ok = gauge(
            "provider_account_ok", "0 while a provider refuses the gateway's account", "provider"
        )

        # Money
        self.cost = counter(
            "cost", "Money for settled drawings, in units of the currency", *deployment, "team", "currency"
        )
        self.cost_in_doubt = counter(
            "cost_in_doubt",
            "Money that came in doubt, be it resolved later",
            "provider",
            "currency",
        )
        self.cost_saved = counter("cost_saved", "Money that answers from existing runs did not cost", "how", "currency")
        self.unpriced = counter("unpriced", "Delivered drawings whose price is unknown", *deployment)
        self.budget_used_ratio = gauge("budget_used_ratio", "Spent part of a budget, in its present period", "budget")
        self.budget_held_ratio = gauge("budget_held_ratio", "Part of a budget that running requests hold", "budget")
        self.budget_in_doubt_ratio = gauge("budget_in_doubt_ratio", "Part of a budget that is in doubt", "budget")
        self.budget_resets_seconds = gauge("budget_resets_seconds", "Seconds until a budget starts anew", "budget")
        self.limited = counter("limited", "Requests refused by a limit", "measure", "scope")
        self.keys = gauge("keys", "API keys", "state")

        # Runs and room
        self.runs = gauge("runs", "Runs that are kept", "state")
        self.runs_joined = counter("runs_joined", "Requests that were answered from an existing run", "how")
        self.runs_lost = counter("runs_lost", "Runs that a fault of the gateway ended or did not keep", "why")
        self.store_bytes = gauge("store_bytes", "Bytes that are kept", "store")
        self.store_limit_bytes = gauge("store_limit_bytes", "Bytes that may be kept", "store")
        self.disk_bytes = gauge("disk_bytes", "Bytes of the disk that has the data directory")
        self.disk_free_bytes = gauge("disk_free_bytes", "Free bytes of the disk that has the data directory")
        self.conversion_seconds = histogram("conversion_seconds", "Seconds of work on pixels", SHORT, "kind")

        # The ledger and the process
        self.ledger_seconds = histogram("ledger_seconds", "Seconds of a call of the ledger", SHORT, "op")
        self.ledger_errors = counter("ledger_errors", "Calls that the ledger refused for its own sake", "op", "why")
        self.ledger_up = gauge("ledger_up", "1 while the ledger's database answers")
        self.ledger_journal_rows = gauge("ledger_journal_rows", "Records that wait for the database")
        self.in_doubt_open = gauge("in_doubt_open", "Drawings that are in doubt")
        self.outbox_pending = gauge("outbox_pending", "Messages that have not been delivered")
        self.rollup_age_seconds = gauge(
            "rollup_age_seconds", "Seconds since the end of the last hour that is summed up"
        )
        self.ledger_drift = gauge(
            "ledger_drift", "Sums of the ledger that differed from their entries at the last look"
        )
        self.loop_lag_seconds = histogram("loop_lag_seconds", "Seconds that the event loop was late", SHORT)
        self.config_reloads = counter("config_reloads", "Configurations that were read while running", "result")
        self.config_valid = gauge("config_valid", "0 if the newest configuration was refused")
        self.build_info = gauge("build_info", "1, with the versions", "version", "python")

        self.clients_gone.begin("sending", "waiting", "receiving")
        self.auth_failures.begin("missing", "wrong", "slowed")
        self.runs_lost.begin("crashed", "unkept")
        self.config_reloads.begin("applied", "refused")

    @property
    def families(self) -> Sequence[Family]:
        return [each.family for each in self._numbers] + [each.family for each in self._histograms]

    def snapshot(self) -> Snapshot:
        """Copy everything: about a millisecond for some thousand series."""
        numbers = tuple((each.family, dict(each.values)) for each in self._numbers)
        return Snapshot(numbers, tuple((each.family, _copies(each.values)) for each in self._histograms))

    def _counter(self, name: str, help: str, *labels: str) -> Numbers:
        return self._add("counter", f"{name}_total", help, labels)

    def _gauge(self, name: str, help: str, *labels: str) -> Numbers:
        return self._add("gauge", name, help, labels)

    def _add(self, kind: Literal["counter", "gauge"], name: str, help: str, labels: tuple[str, ...]) -> Numbers:
        numbers = Numbers(Family(PREFIX + name, kind, f"{help}.", labels))
        if kind == "counter" and not labels:
            numbers.add(amount=0)  # so that its first increase shows
        self._numbers.append(numbers)
        return numbers

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        histogram = Histogram(Family(PREFIX + name, "histogram", f"{help}.", labels, buckets))
        self._histograms.append(histogram)
        return histogram


def _copies(values: dict[Labels, Bins]) -> dict[Labels, Bins]:
    return {labels: bins.copy() for labels, bins in values.items()}
