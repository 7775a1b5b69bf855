"""The command line in this process: what it prints, and its exit status."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.commands.cli import main
from app.config.loading import PRESETS
from tests.live.loops import dead_port, in_thread
from tests.live.scripted import Scripted, answer, refusal

KEY = "a-key-of-no-known-shape"


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    with in_thread(Scripted) as running:
        yield running


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `check`; its exit status and what it printed."""
    for name in ("IMAGE_GATEWAY_CONFIG", "HTTP_PROXY", "http_proxy", *(f"{name.upper()}_API_KEY" for name in PRESETS)):
        monkeypatch.delenv(name, raising=False)

    def check(providers: dict[str, str] | None, *options: str) -> tuple[int, str]:
        """Check a configuration of providers, by name and address, each with a model of its name. None: no file."""
        if providers is not None:
            config = {
                "providers": {
                    name: {"base_url": url, "api_key": KEY, "headers": {"x-key": KEY}}
                    for name, url in providers.items()
                },
                "models": {name: {"deployments": [{"provider": name}]} for name in providers},
            }
            (tmp_path / "config.yaml").write_text(json.dumps(config))
            options = (*options, "--config", str(tmp_path / "config.yaml"))
        done = CliRunner().invoke(main, ["check", *options])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert KEY not in done.output
        return done.exit_code, done.output

    return check


def test_without_a_configuration_the_sandboxs_models_are_shown(check: Any) -> None:
    status, told = check(None)
    assert status == 0
    assert "none: the sandbox is served" in told
    assert "openai/gpt-image-2" in told
    assert "netmind/black-forest-labs/FLUX.1-schnell" in told
    assert "set a key (NETMIND_API_KEY, NEBULA_API_KEY, NEBUL_API_KEY, BFL_API_KEY)" in told
    assert "127.0.0.1/" not in told
    assert "\ndata " not in told  # for nothing of it is kept


def test_the_version_is_that_of_the_package() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert (done.exit_code, done.output) == (0, f"image-gateway {version('image-gateway')}\n")


def test_a_variable_that_states_no_setting_is_named_and_the_rest_goes_on(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGE_GATEWAY_HOST", "0.0.0.0")
    monkeypatch.setenv("IMAGE_GATEWAY_PORT", "9000")
    status, told = check(None)
    assert status == 0
    assert "warning: IMAGE_GATEWAY_HOST: is ignored" in told
    assert "did you mean IMAGE_GATEWAY_SERVER__HOST?" in told
    assert "listening  http://127.0.0.1:9000" in told


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_dialect_that_does_not_exist_is_a_fault(command: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("providers: {mine: {base_url: 'http://10.0.0.7', dialect: opemai}}")
    done = CliRunner().invoke(main, [command, "--config", str(config)])
    assert done.exit_code == 1
    assert done.output == "providers.mine.dialect: no dialect is called 'opemai'; did you mean 'openai'?\n"


def test_without_a_configuration_there_is_no_provider_to_ask(check: Any) -> None:
    status, told = check(None, "--online")
    assert status == 0
    assert told.endswith("online\n  no provider is configured: there is nobody to ask\n\n")


def test_no_provider_is_asked_without_the_option(check: Any, upstream: Scripted) -> None:
    status, told = check({"a": upstream.at("a", answer({"data": []}))})
    assert status == 0
    assert "online\n" not in told
    assert upstream.received("a") == []


def test_providers_that_answer_are_no_fault_with_any_list(check: Any, upstream: Scripted) -> None:
    listed, other = {"data": [{"id": "listed"}]}, {"data": [{"id": "another"}]}
    status, told = check(
        {
            "listed": upstream.at("listed", answer(listed)),
            "other": upstream.at("other", answer(other)),
            "none": upstream.at("none", answer(b"<html>", 404, "text/html")),
        },
        "--online",
    )
    assert status == 0
    assert told.split("online\n")[1].splitlines()[:4] == [
        "  listed  reachable; credential not refused; 1 model listed",
        "  other   reachable; credential not refused; 1 model listed",
        "          warning: 'other' is not listed",
        "  none    reachable; models not known: status 404 at '/models'; correct `models_path`, or set it to null",
    ]
    assert [received.method for name in ("listed", "other", "none") for received in upstream.received(name)] == [
        "GET"
    ] * 3


def test_a_provider_that_refuses_the_credential_is_a_fault(check: Any, upstream: Scripted) -> None:
    good = upstream.at("good", answer({"data": [{"id": "good"}]}))
    bad = upstream.at("bad", answer(refusal(f"Incorrect API key provided: {KEY}."), 401))
    status, told = check({"bad": bad, "good": good}, "--online")
    assert status == 1
    assert "bad   CREDENTIAL REFUSED  status 401: Incorrect API key provided: […]." in told
    assert "good  reachable" in told


def test_a_provider_that_cannot_be_reached_is_a_fault(check: Any) -> None:
    status, told = check({"gone": f"http://127.0.0.1:{dead_port()}/v1"}, "--online")
    assert status == 1
    assert "gone  NOT REACHABLE  connect: nobody listens there" in told


def test_a_configuration_with_a_fault_is_not_asked_about(check: Any) -> None:
    status, told = check({"gone": "gone"}, "--online")
    assert status == 1
    assert "providers.gone.base_url" in told
    assert "online" not in told


def test_a_configuration_that_may_not_be_read_is_told_like_any_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: {}")

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)  # root may read everything
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    done = CliRunner().invoke(main, ["check", "--config", str(path)])
    assert done.exit_code == 1
    assert done.stderr == f"{path}: cannot be read: Permission denied; let the gateway's user read it\n"
