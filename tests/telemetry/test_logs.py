from __future__ import annotations

import asyncio
import errno
import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from app.access.keyring import Key
from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted
from app.catalog.profiles import Profile
from app.errors import ApiError, Failure, Unavailable, UpstreamError
from app.events import Done
from app.gateway.attempt import Attempt
from app.gateway.call import Call
from app.images import ImageRequest, Operation
from app.runs.run import Run
from app.storage.recording import Meter, Recording
from app.storage.spool import Spool, Uploads
from app.telemetry.logs import AttemptLog, Log, RunLog
from tests.drawings import finish, into, play

DEPLOYMENT = Deployment(
    Provider("netmind", "openai", "https://host.test", api_key="our-secret", headers={"x-key": "our-header"}),
    "flux",
    Profile(),
)
REQUEST = ImageRequest(Operation.GENERATIONS, "flux", prompt="a golden cat", parameters={"negative_prompt": "no dogs"})


def fail(log: Log, error: UpstreamError, *, prompts: bool = False, is_resumed: bool = False) -> None:
    """Make an attempt that ends with `error`."""
    call = Call(REQUEST, Key("a", "a"), Uploads(), id="r-1")
    observers = [AttemptLog(log, prompts=prompts)]
    attempt = Attempt(call, Fitted(DEPLOYMENT, REQUEST), 0, 1, lambda: 1.0, observers, into([]), is_resumed=is_resumed)
    with pytest.raises(UpstreamError), attempt:
        attempt.exchanges += 1
        raise error


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(out: io.StringIO) -> list[dict[str, Any]]:
    """The lines, each without its time."""
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    for line in lines:
        assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    return lines


def new() -> tuple[Log, io.StringIO]:
    out = io.StringIO()
    return Log("json", requests=True, stream=out), out


def test_a_request_is_one_line_of_json() -> None:
    log, out = new()
    log.request({"request_id": "r-1", "status": 200, "ms": 1.5, "prompt": 'a\n"cat" \u00e9'})
    [line] = logged(out)
    assert line == {"event": "request", "level": "info", "request_id": "r-1", "status": 200, "ms": 1.5,
                    "prompt": 'a\n"cat" \u00e9'}  # fmt: skip


def test_requests_can_be_left_out_and_nothing_else() -> None:
    out = io.StringIO()
    log = Log("json", requests=False, stream=out)
    log.request({"request_id": "r-1"})
    assert out.getvalue() == ""
    log.event("the configuration was read", path="a.yaml")
    assert logged(out) == [{"event": "the configuration was read", "level": "info", "path": "a.yaml"}]


@pytest.mark.parametrize("fault", [lambda: OSError(errno.ENOSPC, "full"), BrokenPipeError, ValueError])
def test_no_request_and_no_account_fails_for_a_line_that_cannot_be_written(fault: Callable[[], Exception]) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise fault()

    log = Log("json", requests=True, stream=Full())
    log.request({"status": 200})
    log.event("what happened")
    fail(log, UpstreamError(Failure.UNAVAILABLE, "no"))


@pytest.mark.parametrize("failure", [each for each in Failure if each not in (Failure.CREDENTIAL, Failure.REFUSED)])
def test_a_failed_attempt_is_a_warning_with_its_reason(failure: Failure) -> None:
    log, out = new()
    fail(log, UpstreamError(failure, "it fell silent", 503))
    [line] = logged(out)
    assert (line["event"], line["level"], line["reason"]) == ("attempt failed", "warning", "it fell silent")
    assert (line["provider"], line["model"], line["status"]) == ("netmind", "flux", 503)
    assert line["request_id"] == "r-1"
    assert line["failure"] == failure.name.lower()


def test_a_refused_account_stands_out() -> None:
    log, out = new()
    fail(log, UpstreamError(Failure.CREDENTIAL, "Authentication failed", 401))
    [line] = logged(out)
    assert (line["level"], line["provider"]) == ("error", "netmind")
    assert line["event"] == "provider refused the gateway's account"
    assert "`providers.netmind.api_key`" in line["remedy"]


def test_the_words_of_a_refusal_may_hold_the_prompt_and_are_not_logged() -> None:
    log, out = new()
    refusal = UpstreamError(Failure.REFUSED, "the prompt 'a secret cat' is not allowed", 400)
    fail(log, refusal)
    assert "cat" not in out.getvalue()
    assert logged(out)[0].get("reason") is None
    fail(log, refusal, prompts=True)
    assert logged(out)[1]["reason"] == refusal.message


def test_what_a_failure_quotes_of_the_prompt_is_logged_only_if_prompts_are() -> None:
    log, out = new()
    error = UpstreamError(Failure.FAILED, "out of memory at 'A golden cat' without no dogs")
    fail(log, error)
    assert logged(out)[0]["reason"] == "out of memory at '[…]' without […]"
    log, out = new()
    fail(log, error, prompts=True)
    assert logged(out)[0]["reason"] == error.message


def test_what_a_resumed_attempt_quotes_cannot_be_known_so_its_reason_is_logged_only_if_prompts_are() -> None:
    log, out = new()
    error = UpstreamError(Failure.FAILED, "out of memory at 'a golden cat'")
    fail(log, error, is_resumed=True)
    assert "golden" not in out.getvalue()
    fail(log, error, is_resumed=True, prompts=True)
    assert "golden" in out.getvalue()


@pytest.mark.parametrize("error", [None, Unavailable("no descriptor is left"), KeyError("a bug")])
def test_an_attempt_that_its_provider_did_not_fail_is_not_logged(error: Exception | None) -> None:
    log, out = new()
    call = Call(REQUEST, Key("a", "a"), Uploads(), id="r-1")
    attempt = Attempt(call, Fitted(DEPLOYMENT, REQUEST), 0, 1, lambda: 1.0, [AttemptLog(log, prompts=False)], into([]))
    with suppress(Unavailable, KeyError), attempt:
        if error:
            raise error
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (ConnectionRefusedError(111, "at alice:s3cret@proxy"), "connect: nobody listens there"),
        (OSError(101, "at alice:s3cret@proxy"), "Network is unreachable"),
        (ValueError("http://alice:s3cret@proxy"), None),
    ],
)
def test_a_cause_is_told_in_words_of_our_own_for_those_of_libraries_quote_passwords(
    cause: Exception, told: str | None
) -> None:
    log, out = new()
    try:
        raise UpstreamError(Failure.NOT_SENT, "it could not be reached") from cause
    except UpstreamError as error:
        fail(log, error)
    assert logged(out)[0].get("cause") == told
    assert "s3cret" not in out.getvalue()


def test_a_reason_is_short() -> None:
    log, out = new()
    fail(log, UpstreamError(Failure.FAILED, "word " * 500))
    assert len(logged(out)[0]["reason"]) == 301
    assert logged(out)[0]["reason"].endswith("…")


def test_no_line_about_a_deployment_holds_a_credential() -> None:
    log, out = new()
    for failure in Failure:
        fail(log, UpstreamError(failure, "no"))
    log.event("checked", deployment=repr(DEPLOYMENT))
    try:
        raise ValueError(f"about {DEPLOYMENT!r}")
    except ValueError as error:
        log.crash("r-1", error)
    assert "our-secret" not in out.getvalue()
    assert "our-header" not in out.getvalue()


def test_an_unexpected_error_is_one_line_with_its_traceback() -> None:
    log, out = new()
    try:
        raise KeyError("missing")
    except KeyError as error:
        log.crash("r-1", error)
    [line] = logged(out)
    assert (line["level"], line["event"], line["request_id"]) == ("error", "unexpected error", "r-1")
    assert "Traceback" in line["exception"] and "KeyError: 'missing'" in line["exception"]


@pytest.mark.parametrize(
    ("format", "out", "text"),
    [
        ("auto", Terminal(), True), ("auto", io.StringIO(), False), ("json", Terminal(), False),
        ("text", io.StringIO(), True), ("text", Terminal(), True),
    ],
)  # fmt: skip
def test_a_terminal_gets_text_and_everything_else_json(format: Any, out: io.StringIO, text: bool) -> None:
    Log(format, requests=True, stream=out).request({"status": 200})
    assert out.getvalue().startswith("{") is not text
    assert "request" in out.getvalue() and "200" in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_text_that_is_no_terminals_has_no_colours() -> None:
    out = io.StringIO()
    Log("text", requests=True, stream=out).request({"status": 200})
    assert "\x1b" not in out.getvalue()


def ended_run(log: Log, *, error: ApiError | None = None, present: int = 0, crash: Exception | None = None) -> None:
    call = Call(REQUEST, Key("a", "a"), Uploads(), id="r-1", sent=1)
    crashed = list[tuple[str, Exception]]()

    async def end() -> None:
        recording = Recording(lambda: Spool(0), Meter(1 << 20), 1 << 20)
        observers = [RunLog(log, lambda *one: crashed.append(one))]
        draw = partial(play, [error or crash or Done()])
        run = Run(call, draw, recording, 0, time.monotonic, observers=observers)
        run.present = present
        await finish(run)

    asyncio.run(end())
    assert crashed == ([("r-1", crash)] if crash else [])


def test_a_run_that_ends_after_its_caller_left_has_a_line_of_its_own() -> None:
    log, out = new()
    ended_run(log)
    ended_run(log, error=ApiError("cut", code="upstream_broken_answer").paid())
    facts = {"event": "run ended", "level": "info", "request_id": "r-1", "key": "a", "model": "flux"}
    assert logged(out) == [
        {**facts, "outcome": "finished"},
        {**facts, "outcome": "uncertain", "error": "upstream_broken_answer"},
    ]


def test_a_run_with_a_connected_caller_is_told_by_the_line_of_the_request() -> None:
    log, out = new()
    ended_run(log, present=1)
    assert logged(out) == []


def test_a_run_that_the_gateway_failed_is_reported_with_its_error() -> None:
    log, _ = new()
    ended_run(log, crash=KeyError("a fault of ours"))
