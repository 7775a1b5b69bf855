"""Azure's clients, as the official SDKs have them, against the sandbox: every generation makes the same calls."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.servers import Process, process
from tests.sdks.environments import PYTHON_SDKS, required_node_sdk, required_python_sdk

HERE = Path(__file__).parent
KEY = "team-key-12345678"
MODELS = (
    "black-forest-labs/FLUX.1-schnell",
    "black-forest-labs/FLUX.1-Kontext-dev",
    "black-forest-labs/FLUX.1-Redux-dev",
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    keys = json.dumps([{"name": "team", "key": KEY}])
    with process(None, tmp_path_factory.mktemp("azure"), IMAGE_GATEWAY_KEYS=keys) as running:
        yield running


def seen_by(command: list[str | Path], gateway: Process, **options: Any) -> dict[str, Any]:
    """What the clients of one SDK saw, by the client's name."""
    done = subprocess.run(
        [*command, gateway.url, KEY, *MODELS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={},
        **options,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def check(seen: dict[str, Any]) -> None:
    chats = seen.pop("chats")
    assert "/openai/deployments/" in chats
    assert "draws images and does nothing else" in chats
    assert "POST /v1/images/generations" in chats
    assert seen == {
        "generates": "PNG",
        "edits": "PNG",
        "varies": "PNG",
        "streams": ["image_generation.completed"],
        "lists": True,
        "retrieves": MODELS[0],
        "generates_at_a_deployment": "PNG",
        "generates_whatever_the_body_names": "PNG",
        "refuses": [400, "model"],
        "wrong_key": "invalid_api_key",
    }


@pytest.mark.parametrize("generation", PYTHON_SDKS)
def test_azures_python_clients_draw_edit_vary_stream_and_list(generation: str, gateway: Process) -> None:
    seen = seen_by([required_python_sdk(generation), HERE / "azure_calls.py"], gateway)
    assert list(seen) == ["AzureOpenAI", "AsyncAzureOpenAI"]
    for client in seen.values():
        assert client.pop("generates_at_v1") == "PNG"
        check(client)


@pytest.mark.parametrize("sdk", ["openai", "openai6"])
def test_azures_node_client_draws_edits_varies_streams_and_lists(sdk: str, gateway: Process) -> None:
    node = required_node_sdk()
    script = (HERE / "azure_calls.mjs").read_text()
    seen = seen_by([node.binary, "--input-type=module", "-", sdk], gateway, cwd=node.folder, input=script)
    check(seen["AzureOpenAI"])
