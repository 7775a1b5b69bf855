from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.commands.report import report
from app.config.inventory import models
from app.config.loading import Settings, load
from app.config.simulated import with_sandbox
from app.dialects import load as load_dialect

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def told(settings: Settings) -> str:
    return report(settings, models(settings, lambda name: load_dialect(name).profile))


@pytest.fixture
def check(tmp_path: Path) -> Any:
    def check(text: str, environ: Mapping[str, str] | None = None) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return told(load(path, environ or {}))

    return check


def test_the_report_shows_the_models_and_their_callers(check: Any) -> None:
    text = (
        "server: {host: '::1', port: 9000}\nproviders: {nebula: {api_key: hidden}}\n"
        "models: {fill: {aliases: [f], deployments: [{provider: nebula, model: black-forest-labs/FLUX.1-Fill-dev}]}}\n"
        "keys: [{name: team, key: hidden-hidden-hidden, models: [f*], requests_per_minute: 60, max_concurrency: 4},"
        " {name: ci, key: hidden-hidden-hidden2, default_response_format: url}]"
    )
    assert check(text) == (
        "listening  http://[::1]:9000\n"
        "data       data\n"
        "limits     50 MB a file, 256 MB a request\n"
        "queue      100 waiting, 60 s at most, per deployment\n"
        "\n"
        "keys\n"
        "  team  f*; 60 requests a minute; 4 at once\n"
        "  ci    *; no limits; url unless asked otherwise\n"
        "\n"
        "providers\n"
        "  nebula  https://api.nebulablock.com/api/v1  nebula_block  preset nebula  api_key set\n"
        "\n"
        "models\n"
        "  fill  (also f)\n"
        "    nebula/black-forest-labs/FLUX.1-Fill-dev  priority 1, weight 1\n"
        "      operations  edits\n"
        "      sizes       edges divisible by 16; the input's unless asked otherwise\n"
        "      n           1 a request\n"
        "      mask        white, required\n"
        "      timeouts    connect 5, read 300, total 600 seconds\n"
        "      price       not known\n"
        "\n"
        "missing\n"
        "  prices: 1 of 1 not known; `price` in a `profile` states one\n"
    )


def test_a_missing_setting_is_reported_with_its_remedy(check: Any) -> None:
    text = (
        "providers: {mine: {base_url: 'http://a/v1'}, other: {base_url: 'http://b', api_key: hidden}}\n"
        "models: {m: {deployments: [{provider: mine}]}}\nkeys: [{name: k, key: hidden-hidden-hidden, models: [m, x*]}]"
    )
    missing = check(text).split("missing\n")[1]
    assert missing.splitlines() == [
        "  provider 'mine' has no `api_key`: requests go out without a credential",
        "  provider 'other' serves no model: name it in a model's `deployments`",
        "  mine/m has no profile: what it can do is assumed from dialect 'openai'; state what differs under `profile`",
        "  prices: 1 of 1 not known; `price` in a `profile` states one",
        "  key 'k': 'x*' matches no model",
    ]


def test_aliases_and_the_models_of_requests_without_one_are_told(check: Any) -> None:
    shown = check(
        "providers: {mine: {base_url: 'http://a/v1', api_key: a}}\nmodels: {m: {deployments: [{provider: mine}]}}\n"
        "aliases: {gpt-image-1: m, 'dall-e-*': {model: m, default_response_format: url}}\ndefault_model: {edits: m}\n"
        "keys: [{name: k, key: hidden-hidden-hidden, models: [gpt-*, dall-e-2, dall-x]}]"
    )
    assert (
        "\n\naliases\n"
        "  gpt-image-1      m\n"
        "  dall-e-*         m; url unless asked otherwise\n"
        "  no model, edits  m\n\nmissing\n"
    ) in shown
    assert [line for line in shown.splitlines() if "matches no model" in line] == [
        "  key 'k': 'dall-x' matches no model"
    ]


def test_a_host_without_models_is_told(check: Any) -> None:
    text = check("providers: {mine: {base_url: 'http://a/v1', api_key: a}}")
    assert "there is no model: list what the providers offer under `models`" in text


def test_nothing_missing_is_said_so(check: Any) -> None:
    text = (
        "providers: {mine: {base_url: 'http://a/v1', api_key: a}}\nmodels: {m: {deployments: [{provider: mine}],"
        " profile: {price_per_image: 0.02, size: {list: [8x8]}, default_size: 8x8, timeout: {first_byte: 3}}}}"
    )
    shown = check(text)
    assert shown.endswith("missing\n  nothing\n")
    assert "sizes       8x8; 8x8 unless asked otherwise" in shown
    assert "price       0.02 an image" in shown
    assert "connect 5, read 180, total 600, first byte 3 seconds" in shown


def test_the_sandbox_is_told() -> None:
    assert "none: the sandbox is served" in told(load(None, {}))
    assert "openai/gpt-image-2" in told(with_sandbox(load(None, {}), "http://127.0.0.1:1"))


def test_no_secret_is_told() -> None:
    names = ("NETMIND_API_KEY", "NEBULA_API_KEY", "MY_KEY", "CI_GATEWAY_KEY")
    text = told(load(EXAMPLE, dict.fromkeys(names, "hidden-hidden-hidden")))
    assert "hidden" not in text
    assert "0a2b3f" not in text


def test_a_size_that_cannot_be_asked_for_is_told() -> None:
    text = told(load(None, {"NETMIND_API_KEY": "hidden"}))
    redux = text.split("netmind/black-forest-labs/FLUX.1-Redux-dev")[1]
    assert "sizes       cannot be asked for" in redux
    assert "mask" not in redux.split("timeouts")[0]
