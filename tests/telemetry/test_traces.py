"""When traces are sent, and when not."""

import pytest

from app.telemetry.traces import find_fault, is_wanted

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_traces_are_sent_where_a_variable_says_where_to(environ: dict[str, str]) -> None:
    assert is_wanted(environ) and find_fault(environ) is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "images"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
        ENDPOINT | {"OTEL_SDK_DISABLED": "true"},
    ],
)
def test_they_are_not_sent_otherwise(environ: dict[str, str]) -> None:
    assert not is_wanted(environ)


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
    ],
)
def test_what_is_not_spoken_is_a_fault(environ: dict[str, str], word: str) -> None:
    assert word in (find_fault(environ) or "")
