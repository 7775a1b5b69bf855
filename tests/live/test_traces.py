"""Traces of a live gateway, as a collector gets them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.sandbox.server import Sandbox
from tests.live.crowds import drawn_by, simulated
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import serving
from tests.live.wire import ask, post, request

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Collector:
    """Takes spans by OTLP over HTTP, and keeps them."""

    def __init__(self) -> None:
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Any] = []
        taken = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                    taken.resources.append(attributes(each.resource))
                    taken.spans += [span for scope in each.scope_spans for span in scope.spans]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    running = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield running
    running.close()


async def test_a_drawing_is_a_trace_with_its_steps(collector: Collector, sandbox: Sandbox, tmp_path: Path) -> None:
    config = {
        "providers": {"openai": simulated(sandbox.base_url), "second": simulated(sandbox.base_url)},
        "models": {"flux": drawn_by("openai", "second") | {"profile": {"price": 0.04, "output_formats": ["png"]}}},
    }
    async with serving(config, tmp_path) as gateway:
        body = {"model": "flux", "prompt": "a [[fault*1:503]] unicorn", "size": "64x64", "output_format": "jpeg"}
        reply = await post(gateway.port, GENERATIONS, body, traceparent=TRACEPARENT)
        assert reply.status == 200
        assert (await ask(gateway.port, request("GET", "/healthz"))).status == 200
        [line] = [line for line in await gateway.request_lines(2) if line["path"] == GENERATIONS]
        assert line["trace_id"] == TRACE
    [server] = collector.named(f"POST {GENERATIONS}")
    assert server.kind == 2 and server.parent_span_id.hex() == PARENT
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert {span.parent_span_id for span in collector.spans if span is not server} == {server.span_id}
    names = [span.name for span in collector.spans]
    first, second = collector.named("generate_content gpt-image-2")
    assert (names.count("queue"), names.count("sent"), names.count("settle"), names.count("admit")) == (2, 2, 1, 1)
    assert "convert" in names
    told = attributes(server)
    assert told["imagegw.outcome"] == "delivered" and told["imagegw.cost"] == 0.04
    assert told["imagegw.run.id"] == reply.header("x-request-id")
    assert told["http.response.status_code"] == 200
    assert attributes(first)["error.type"] == "failed" and [event.name for event in first.events] == []
    assert [event.name for event in second.events] == ["retry", "first image"]
    told = attributes(second)
    assert told["gen_ai.operation.name"] == "generate_content" and told["gen_ai.output.type"] == "image"
    assert told["gen_ai.provider.name"] == "second" and told["gen_ai.request.model"] == "gpt-image-2"
    assert told["gen_ai.response.time_to_first_chunk"] >= 0 and told["imagegw.result"] == "ok"
    assert told["server.address"] == "127.0.0.1"
    assert second.kind == 3
    assert collector.resources[0]["service.name"] == "image-gateway"
    text = repr(collector.spans)
    assert "unicorn" not in text and "upstream-secret" not in text


async def test_a_request_without_a_trace_begins_one(collector: Collector, tmp_path: Path) -> None:
    async with serving({}, tmp_path) as gateway:
        assert (await post(gateway.port, GENERATIONS, {"model": "nothing"})).status == 400
        [line] = await gateway.request_lines(1)
    [span] = collector.spans
    assert span.trace_id.hex() == line["trace_id"] and not span.parent_span_id
    assert attributes(span)["error.type"] == "missing_required_parameter"


@pytest.mark.parametrize("is_traced", [True, False])
async def test_a_provider_learns_of_the_attempts_span_if_its_profile_says_so(
    collector: Collector, upstream: Scripted, tmp_path: Path, is_traced: bool
) -> None:
    headers = await sent_headers(upstream, tmp_path, traceparent=is_traced)
    [attempt] = collector.named("generate_content m")
    assert headers.get("traceparent") == (f"00-{TRACE}-{attempt.span_id.hex()}-01" if is_traced else None)


@pytest.mark.parametrize("is_traced", [True, False])
async def test_without_spans_a_provider_gets_the_callers_header_if_its_profile_says_so(
    upstream: Scripted, tmp_path: Path, is_traced: bool
) -> None:
    headers = await sent_headers(upstream, tmp_path, traceparent=is_traced)
    assert headers.get("traceparent") == (TRACEPARENT if is_traced else None)


async def sent_headers(upstream: Scripted, folder: Path, **profile: bool) -> dict[str, str]:
    """The headers that a provider got with a drawing."""
    url = upstream.at("p", answer(image_json(PIXEL)))
    config = {
        "providers": {"p": {"dialect": "openai", "base_url": url, "api_key": "k", "preset": "none"}},
        "models": {"m": {"deployments": [{"provider": "p"}], "profile": profile}},
    }
    async with serving(config, folder) as gateway:
        reply = await post(gateway.port, GENERATIONS, {"model": "m", "prompt": "x"}, traceparent=TRACEPARENT)
        assert reply.status == 200, reply.body
    [received] = upstream.received("p")
    return received.headers


async def test_a_protocol_that_is_not_spoken_is_logged_and_the_gateway_serves(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    async with serving({}, tmp_path) as gateway:
        assert (await ask(gateway.port, request("GET", "/healthz"))).status == 200
        [line] = [line for line in gateway.lines() if line["event"] == "traces are not sent"]
    assert "grpc" in line["reason"]


def test_without_variables_no_sdk_is_loaded(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from app.config.loading import load
from app.main import create_app
async def run():
    app = create_app(load(None, {}))
    async with app.router.lifespan_context(app):
        return [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "app.telemetry.traces"))]
print(asyncio.run(run()), "prometheus_client" in sys.modules)
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] False"
