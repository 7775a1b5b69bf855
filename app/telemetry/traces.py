"""Traces, by OpenTelemetry's SDK: imported only where its own variables ask for them.

A request is a server span. Admission, queues, the ledger and work on pixels are inner spans below it. Each attempt is a
client span, by the conventions for generative AI. No span has a prompt, a key, or an address with its query.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.catalog.deployments import Deployment
from app.catalog.money import to_number
from app.gateway.attempt import Attempt
from app.ledger.values.drawings import Settlement
from app.telemetry.metrics.drawings import OUTCOMES, result_of
from app.telemetry.metrics.requests import RequestFacts, route_of

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OTLP = "http/protobuf"
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # probes are not traced
NANO = 1_000_000_000
_USAGE = (  # of an answer, and the attribute
    ("input_tokens", None, "gen_ai.usage.input_tokens"),
    ("output_tokens", None, "gen_ai.usage.output_tokens"),
    ("input_tokens_details", "image_tokens", "gen_ai.usage.image.input_tokens"),
    ("input_tokens_details", "text_tokens", "gen_ai.usage.text.input_tokens"),
    ("output_tokens_details", "image_tokens", "gen_ai.usage.image.output_tokens"),
)


class Provider(Protocol):
    """The SDK's provider of tracers, as far as it is needed."""

    def get_tracer(self, instrumenting_module_name: str) -> trace.Tracer: ...

    def shutdown(self) -> None: ...


def is_wanted(environ: Mapping[str, str]) -> bool:
    """True if OpenTelemetry's variables say where traces go."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" and (bool(exporter) or any(environ.get(name, "").strip() for name in ENDPOINTS))


def find_fault(environ: Mapping[str, str]) -> str | None:
    """Return the variable with an unsupported value, and the remedy. None: there is no fault."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if exporter != "otlp":
        return f"OTEL_TRACES_EXPORTER is {exporter!r}; traces leave by 'otlp' alone"
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), OTLP)
    return None if protocol == OTLP else f"the protocol {protocol!r} is not spoken; set {PROTOCOLS[1]} to {OTLP!r}"


def open_provider(environ: Mapping[str, str]) -> Provider:
    """Return the SDK's provider, which sends traces in a thread of its own. It reads the rest of its variables itself.
    Raises ImportError if the extra `otel` is not installed."""
    from importlib.metadata import version

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes = {"service.version": version("image-gateway")}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes["service.name"] = "image-gateway"
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class RequestSpan:
    """The server span of one request. It is the current one from its begin to its end."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token = context.attach(trace.set_span_in_context(span))

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def end(self, method: str, path: str, facts: RequestFacts) -> None:
        span, status = self._span, 499 if facts.error == "client_gone" else facts.status
        route = route_of(path)
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if facts.joined is not None:
            span.set_attribute("imagegw.joined", facts.joined)
        if facts.error is not None:
            span.set_attribute("error.type", facts.error)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        context.detach(self._token)
        span.end()


class Traces:
    """An observer of requests, attempts, queues, the ledger and work on pixels. The span of a request is the current
    one in its task, and in the tasks that its run begins. `wall` gives Unix time."""

    def __init__(self, provider: Provider, wall: Callable[[], float] = time.time) -> None:
        self._tracer = provider.get_tracer("image-gateway")
        self._propagator = TraceContextTextMapPropagator()
        self._wall = wall
        self._attempts = dict[Attempt, Span]()  # under way

    def begin(
        self, method: str, path: str, traceparent: str | None, tracestate: str | None, request_id: str
    ) -> RequestSpan | None:
        """Begin the span of a request; None for probes."""
        if path in QUIET:
            return None
        carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
        parent = self._propagator.extract(carrier, context.Context())
        attributes = {"imagegw.run.id": request_id}
        return RequestSpan(self._tracer.start_span(method, parent, SpanKind.SERVER, attributes))

    def note(self, name: str, seconds: float, attributes: Mapping[str, str] | None = None) -> None:
        """Note work that has just ended as an inner span of the current one."""
        if not trace.get_current_span().get_span_context().is_valid:
            return  # work of the gateway's own
        end = int(self._wall() * NANO)
        began = end - int(seconds * NANO)
        self._tracer.start_span(name, attributes=dict(attributes or {}), start_time=began).end(end)

    def settled(self, settlement: Settlement) -> None:
        """Note the drawing's result on the request's span."""
        span = trace.get_current_span()
        if span.is_recording():  # its caller has not left
            span.set_attribute("imagegw.outcome", OUTCOMES[settlement.outcome])
            span.set_attribute("imagegw.cost", to_number(settlement.cost))

    # --- an observer of queues ---

    def waited(self, deployment: Deployment, seconds: float) -> None:
        self.note("queue", seconds, {"gen_ai.provider.name": deployment.provider.name})

    def refused(self, deployment: Deployment, why: str) -> None:
        self.note("queue", 0.0, {"gen_ai.provider.name": deployment.provider.name, "error.type": why})

    # --- an observer of attempts ---

    def attempt_began(self, attempt: Attempt) -> None:
        deployment, request = attempt.deployment, attempt.fitted.request
        address = urlsplit(deployment.provider.base_url)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.output.type": "image",
            "gen_ai.provider.name": deployment.provider.name,
            "gen_ai.request.model": deployment.model,
            "gen_ai.request.stream": request.stream,
            "server.address": address.hostname or "",
            "server.port": address.port or (443 if address.scheme == "https" else 80),
            "imagegw.run.id": attempt.call.id,
            "imagegw.attempt": attempt.number,
        }
        if request.n != 1:
            attributes["gen_ai.request.choice.count"] = request.n
        if isinstance(seed := request.parameters.get("seed"), int):
            attributes["gen_ai.request.seed"] = seed
        span = self._tracer.start_span(f"generate_content {deployment.model}", None, SpanKind.CLIENT, attributes)
        if attempt.number > 1:
            span.add_event("retry", {"imagegw.attempt": attempt.number})
        self._attempts[attempt] = span
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        attempt.traceparent = carrier.get("traceparent")

    def first_image(self, attempt: Attempt) -> None:
        if (span := self._attempts.get(attempt)) is not None:
            span.add_event("first image")  # which is the commit point
            seconds = (attempt.first_image_at or attempt.began) - attempt.began
            span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def attempt_ended(self, attempt: Attempt) -> None:
        span = self._attempts.pop(attempt, None)
        if span is None:
            return
        result = result_of(attempt)
        span.set_attribute("imagegw.result", result)
        if result != "ok":
            span.set_attribute("error.type", result)
            span.set_status(Status(StatusCode.ERROR))
        usage: Mapping[str, Any] = attempt.usage or {}
        for name, inner, attribute in _USAGE:
            value = usage.get(name)
            if inner is not None:
                value = value.get(inner) if isinstance(value, Mapping) else None
            if isinstance(value, int):
                span.set_attribute(attribute, value)
        span.end()
