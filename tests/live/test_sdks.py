"""The official SDKs, unmodified, against a gateway process: every generation of them makes the same calls and must see
the same."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live import pictures
from tests.live.loops import in_thread
from tests.live.pictures import encoded, heavy, text
from tests.live.scripted import End, Scripted, answer, event, head, image_json, refusal
from tests.live.servers import Process, process, provider, sandbox_providers, served_by
from tests.sdks.environments import PYTHON_SDKS, required_node_sdk, required_python_sdk

HERE = Path(__file__).parent
KEY = "team-key-12345678"
SCHNELL = "black-forest-labs/FLUX.1-schnell"
NODE_SDKS = ("openai", "openai6")
PICTURE = text(heavy(300_000))


@dataclass(frozen=True, slots=True)
class Stage:
    """A gateway, the simulated providers behind it, and a host for every way to fail."""

    gateway: Process
    sandbox: Sandbox
    upstream: Scripted
    folder: Path


@dataclass(frozen=True, slots=True)
class Report:
    """What one SDK saw."""

    name: str
    version: str
    calls: dict[str, dict[str, Any]]
    stage: Stage

    @property
    def prefix(self) -> str:
        return prefix(self.name)

    def requests(self, call: str) -> int:
        """How many requests the gateway saw of a call."""
        return len(self.stage.gateway.lines(self.prefix + call, count=1))

    def arrived(self, host: str, call: str) -> int:
        """How many requests a failing host saw of a call."""
        prompts = [received.json["prompt"] for received in self.stage.upstream.received(host)]
        return prompts.count(f"a fox, {self.prefix}{call}")


def prefix(name: str) -> str:
    return f"sdk-{name}-"


def failing_hosts(upstream: Scripted) -> dict[str, Any]:
    """Providers, each of which fails in its own way, always."""
    moderation = {"moderation_stage": "input", "categories": ["violence"]}
    blocked = refusal("blocked", code="moderation_blocked", type="image_generation_user_error", param=None)
    blocked["error"]["moderation_details"] = moderation
    half = answer(image_json(PICTURE))[:200_000]
    partial = event("image_generation.partial_image", partial_image_index=0, b64_json=text(encoded()))
    kaput = event("error", error={"message": "kaput", "type": "server_error", "param": None, "code": "kaput"})
    hosts = {
        "limited": upstream.at("limited", answer(refusal("slow down"), 429, retry_after_ms="20")),
        "busy": upstream.at("busy", answer(refusal("overloaded"), 503, retry_after_ms="20")),
        "silent": upstream.at("silent", End.HANG),
        "locked": upstream.at("locked", answer(refusal("Incorrect API key"), 401)),
        "strict": upstream.at("strict", answer(blocked, 400)),
        "garbled": upstream.at("garbled", answer(b"<html>bad gateway</html>", 200, "text/html")),
        "broken": upstream.at("broken", half, 0.05, End.CLOSE),
        "failing": upstream.at(
            "failing", head(200, "text/event-stream", connection="close"), partial, 0.02, kaput, End.CLOSE
        ),
    }
    return {name: provider(url, retries=0, timeout={"read": 0.3}) for name, url in hosts.items()}


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("sdks")
    (folder / "photo.png").write_bytes(encoded())
    (folder / "photo.jpg").write_bytes(encoded(format="JPEG"))
    (folder / "mask.png").write_bytes(pictures.mask())
    with ExitStack() as stack:
        sandbox = stack.enter_context(in_thread(Sandbox))
        upstream = stack.enter_context(in_thread(Scripted))
        failing = failing_hosts(upstream)
        models = {
            "gpt-image-2": served_by("openai", profile={"results": ["b64_json"]}),
            SCHNELL: served_by("nebula", "netmind"),
            "stabilityai/stable-diffusion-xl-base-1.0": served_by("nebula"),
            "black-forest-labs/FLUX.1-Kontext-dev": served_by("nebul"),
            "black-forest-labs/FLUX.1-Redux-dev": served_by("netmind"),
            **{name: served_by(name) for name in failing},
        }
        config = {
            "providers": {**sandbox_providers(sandbox.base_url), **failing},
            "models": models,
            "keys": [{"name": "team", "key": KEY}],
        }
        gateway = stack.enter_context(process(config, folder))
        yield Stage(gateway, sandbox, upstream, folder)


@pytest.fixture(scope="session", params=[*PYTHON_SDKS, *NODE_SDKS])
def report(request: pytest.FixtureRequest, stage: Stage) -> Report:
    """What the SDK of this generation saw."""
    return _report(request.param, stage)


@pytest.fixture(scope="session", params=PYTHON_SDKS)
def python_report(request: pytest.FixtureRequest, stage: Stage) -> Report:
    return _report(request.param, stage)


@pytest.fixture(scope="session", params=NODE_SDKS)
def node_report(request: pytest.FixtureRequest, stage: Stage) -> Report:
    return _report(request.param, stage)


_REPORTS: dict[str, Report] = {}


def _report(name: str, stage: Stage) -> Report:
    if name not in _REPORTS:
        arguments = [f"{stage.gateway.url}/v1", KEY, prefix(name), str(stage.folder)]
        run = _node if name in NODE_SDKS else _python
        done = run(name, arguments)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        _REPORTS[name] = Report(name, said["version"], said["calls"], stage)
    return _REPORTS[name]


def _python(generation: str, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    python = required_python_sdk(generation)
    return subprocess.run(
        [python, HERE / "sdk_calls.py", *arguments], capture_output=True, text=True, timeout=120, env={}, check=False
    )


def _node(sdk: str, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    node = required_node_sdk()
    script = (HERE / "sdk_calls.mjs").read_text()
    command: list[str | Path] = [node.binary, "--input-type=module", "-", sdk, *arguments]
    return subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=120, cwd=node.folder, env={}, check=False
    )


# --- what must work ---


def drawn(*images: str, usage: bool | None = None) -> dict[str, Any]:
    return {"images": list(images), "created": True, "usage": usage}


SMALL = "png 64x64"
PARTIAL = "image_generation.partial_image"
COMPLETED = "image_generation.completed"

WORKS: dict[str, Any] = {
    "generates": drawn(SMALL),
    "generates_in_base64": drawn(SMALL),
    "generates_several": drawn(SMALL, SMALL, usage=True),
    "generates_without_what_is_none": drawn(SMALL),
    "generates_with_an_extra_body": drawn("png 64x128"),
    "edits_a_list_of_one": drawn(SMALL, usage=True),
    "edits_a_list_of_three": drawn(SMALL, usage=True),
    "edits_with_a_mask": drawn(SMALL, usage=True),
    "edits_with_an_extra_body": drawn(SMALL, usage=True),
    "edits_in_json": [SMALL],
    "varies": drawn(SMALL),
    "streams": [[COMPLETED, None, SMALL]],
    "streams_partial_images": [[PARTIAL, 0, SMALL], [PARTIAL, 1, SMALL], [COMPLETED, None, SMALL]],
    "streams_from_a_json_upstream": [[COMPLETED, None, SMALL]],
    "streams_an_edit": [["image_edit.partial_image", 0, SMALL], ["image_edit.completed", None, SMALL]],
    "lists_models": {"slash": True, "object": "model"},
    "retrieves_a_model_with_a_slash": [SCHNELL, "model", "nebula"],
    "gives_a_streaming_response": ["png 1024x1024"],
    "generates_side_by_side": [SMALL] * 8,
}
WORKS_IN_PYTHON: dict[str, Any] = {
    "generates_with_a_negative_prompt": drawn(SMALL),
    "generates_with_an_extra_query": drawn(SMALL),
    "edits_bytes": drawn(SMALL, usage=True),
    "edits_a_bytesio": drawn(SMALL, usage=True),
    "edits_a_path": drawn(SMALL, usage=True),
    "edits_a_tuple": drawn(SMALL, usage=True),
    "edits_an_open_file": drawn("jpeg", usage=True),
    "works_with_an_organisation": {"slash": True, "object": "model"},
    "generates_later": drawn(SMALL),
    "edits_later": drawn(SMALL, usage=True),
    "streams_later": [[PARTIAL, 0, SMALL], [COMPLETED, None, SMALL]],
    "lists_models_later": {"slash": True, "object": "model"},
}
WORKS_IN_NODE: dict[str, Any] = {
    "edits_a_file": drawn(SMALL, usage=True),
    "edits_a_buffer_without_a_name": drawn(SMALL, usage=True),
    "edits_a_read_stream": drawn(SMALL, usage=True),
}
WORKS["gives_a_streaming_response"] = [SMALL]


@pytest.mark.parametrize("call", WORKS)
def test_every_sdk(report: Report, call: str) -> None:
    assert report.calls[call] == {"value": WORKS[call]}


@pytest.mark.parametrize("call", WORKS_IN_PYTHON)
def test_the_python_sdk(python_report: Report, call: str) -> None:
    assert python_report.calls[call] == {"value": WORKS_IN_PYTHON[call]}


@pytest.mark.parametrize("call", WORKS_IN_NODE)
def test_the_node_sdk(node_report: Report, call: str) -> None:
    assert node_report.calls[call] == {"value": WORKS_IN_NODE[call]}


def test_a_raw_response_tells_who_drew(report: Report) -> None:
    assert report.calls["gives_a_raw_response"]["value"] == {
        "provider": "nebula",
        "attempts": "1",
        "id": f"{report.prefix}gives_a_raw_response",
        "processing": True,
        "images": [SMALL],
    }


def test_a_response_knows_the_requests_id(report: Report) -> None:
    assert report.calls["tells_the_request_id"] == {"value": f"{report.prefix}tells_the_request_id"}


def test_an_extra_body_arrives_upstream(report: Report) -> None:
    prompt = f"a fox, {report.prefix}generates_with_an_extra_body"
    bodies = [entry["json"] for entry in report.stage.sandbox.world.journal.last(1000)]
    [body] = [body for body in bodies if isinstance(body, dict) and body["prompt"] == prompt]
    assert {name: body[name] for name in ("seed", "guidance_scale", "num_steps", "width", "height")} == {
        "seed": 7,
        "guidance_scale": 3.5,
        "num_steps": 4,
        "width": 64,
        "height": 128,
    }


# --- what must fail, and how ---


@dataclass(frozen=True, slots=True)
class Failure:
    """As the SDK raises it, and how many requests it made of the call."""

    raised: str
    status: int | None
    code: str | None
    param: str | None = None
    type: str = "invalid_request_error"
    requests: int = 1


USER_ERROR = "image_generation_user_error"
FAILS = {
    "refuses_a_size": Failure("BadRequestError", 400, "invalid_value", "size", USER_ERROR),
    "refuses_an_unknown_model": Failure("BadRequestError", 400, "invalid_value", "model", USER_ERROR),
    "refuses_a_file_that_is_no_picture": Failure("BadRequestError", 400, "invalid_image_file", "image", USER_ERROR),
    "refuses_a_wrong_key": Failure("AuthenticationError", 401, "invalid_api_key"),
    "finds_no_such_model": Failure("NotFoundError", 404, "model_not_found"),
    "finds_no_such_path": Failure("NotFoundError", 404, "not_found"),
    "is_limited_by_the_upstream": Failure(
        "RateLimitError", 429, "rate_limit_exceeded", type="rate_limit_error", requests=3
    ),
    "finds_the_upstream_busy": Failure(
        "InternalServerError", 503, "upstream_unavailable", type="server_error", requests=3
    ),
    "finds_a_streams_upstream_busy": Failure(
        "InternalServerError", 503, "upstream_unavailable", type="server_error", requests=3
    ),
    "finds_the_upstream_silent": Failure("InternalServerError", 504, "upstream_timeout", type="server_error"),
    "finds_the_account_refused": Failure("InternalServerError", 502, "upstream_account_refused", type="server_error"),
    "finds_the_answer_garbled": Failure("InternalServerError", 502, "upstream_broken_answer", type="server_error"),
    "is_moderated": Failure("BadRequestError", 400, "moderation_blocked", type=USER_ERROR),
}
FAILS_IN_PYTHON = {
    "refuses_what_no_deployment_can": Failure("BadRequestError", 400, "unsupported_parameter", "seed"),
}


@pytest.mark.parametrize("call", FAILS)
def test_every_sdk_raises_what_it_should_as_often_as_it_should(report: Report, call: str) -> None:
    assert_failed(report, call, FAILS[call])


@pytest.mark.parametrize("call", FAILS_IN_PYTHON)
def test_the_python_sdk_raises_what_it_should_as_often_as_it_should(python_report: Report, call: str) -> None:
    assert_failed(python_report, call, FAILS_IN_PYTHON[call])


def assert_failed(report: Report, call: str, failure: Failure) -> None:
    told = report.calls[call]
    assert told == {
        "raised": failure.raised,
        "status": failure.status,
        "code": failure.code,
        "param": failure.param,
        "type": failure.type,
        "request_id": report.prefix + call,
        "details": told.get("details"),
    }
    assert report.requests(call) == failure.requests


def test_what_was_perhaps_paid_for_is_asked_for_once(report: Report) -> None:
    """Both SDKs send a failure three times unless they are told not to."""
    for name, call in (("silent", "finds_the_upstream_silent"), ("garbled", "finds_the_answer_garbled")):
        assert report.arrived(name, call) == 1


def test_a_moderated_prompt_keeps_its_details(report: Report) -> None:
    details = {"moderation_stage": "input", "categories": ["violence"]}
    assert report.calls["is_moderated"]["details"] == details


def test_a_failure_in_the_middle_of_a_stream_is_raised(report: Report) -> None:
    for call in ("sees_the_stream_fail", "sees_the_streams_picture_break"):
        told = report.calls[call]
        assert told["raised"] == "APIError", told
        assert told["type"] == "server_error"
        assert told["code"]
        assert report.requests(call) == 1


def test_a_picture_that_breaks_is_never_a_response_and_never_drawn_again(report: Report) -> None:
    """The Python SDK asks again when a body breaks off, and then is told why."""
    told = report.calls["sees_the_picture_break"]
    if report.name in NODE_SDKS:
        assert told["raised"] == "TypeError", told
    else:
        assert (told["raised"], told["code"]) == ("InternalServerError", "upstream_broken_answer"), told
    assert report.arrived("broken", "sees_the_picture_break") == 1


def test_nothing_that_the_sdks_sent_or_got_is_in_the_log(report: Report) -> None:
    printed = report.stage.gateway.printed()
    assert report.prefix in printed
    for secret in ("a fox", KEY, "upstream-secret", "sk-wrong-key-0000", PICTURE[:40], text(encoded())[:40]):
        assert secret not in printed
    for said in printed.splitlines():
        if said.startswith("{"):
            assert "Traceback" not in said, said
