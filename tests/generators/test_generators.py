"""Generators of clients over `/openapi.json`: what they make of it draws, edits and varies, without repair by hand."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.pictures import encoded
from tests.live.servers import process
from tests.sdks.environments import required_environment, required_node_sdk

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
KEY = "team-key-12345678"
SCHNELL = "black-forest-labs/FLUX.1-schnell"


@dataclass(frozen=True, slots=True)
class Described:
    """A gateway with its sandbox, and its document in a file."""

    url: str
    document: Path


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    folder = tmp_path_factory.mktemp("generators")
    with process(None, folder, IMAGE_GATEWAY_KEYS=json.dumps([{"name": "team", "key": KEY}])) as running:
        document = folder / "openapi.json"
        document.write_text(httpx.get(f"{running.url}/openapi.json").text)
        yield Described(running.url, document)


def run(folder: Path, *command: str | Path, **variables: str) -> str:
    """What a command prints that ends well."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-10_000:]
    return done.stdout


def run_node(folder: Path, *command: str | Path) -> str:
    """As `run`, with the packages of the generators."""
    packages = folder / "node_modules"
    if not packages.exists():
        packages.symlink_to(required_environment("node-generators") / "node_modules")
    return run(folder, required_node_sdk().binary, *command)


def test_the_document_names_its_server(gateway: Described) -> None:
    assert json.loads(gateway.document.read_text())["servers"] == [{"url": gateway.url}]


def test_a_client_of_openapi_python_client_draws_edits_and_varies(gateway: Described, tmp_path: Path) -> None:
    binaries = required_environment("openapi-python-client") / "bin"
    made = run(
        tmp_path,
        binaries / "openapi-python-client",
        *("generate", "--meta", "none", "--output-path", "client", "--path", gateway.document),
        PATH=f"{binaries}:{os.environ['PATH']}",
    )
    warned = [line for line in made.splitlines() if line.startswith(("WARNING", "ERROR"))]
    # It knows no type of pictures, so it leaves out what a link leads to.
    assert [line for line in warned if not line.startswith("WARNING parsing GET /files/{name}")] == []
    seen = json.loads(run(tmp_path, binaries / "python", HERE / "python_calls.py", gateway.url, KEY, PYTHONPATH="."))
    assert seen == {
        "draws": "PNG",
        "edits": "PNG",
        "edits_in_json": "PNG",
        "varies": "PNG",
        "refuses": "model",
        "gets_it_again": True,
        "lists": True,
        "retrieves": SCHNELL,
    }


def test_openapi_fetch_is_typed_without_casts(gateway: Described, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "typed_calls.ts").write_text((HERE / "typed_calls.ts").read_text())
    run_node(tmp_path, "node_modules/openapi-typescript/bin/cli.js", gateway.document, "-o", "api.ts")
    run_node(
        tmp_path,
        *("node_modules/typescript/bin/tsc", "--strict", "--noUncheckedIndexedAccess", "--skipLibCheck"),
        *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "typed_calls.ts"),
    )
    seen = json.loads(run_node(tmp_path, "typed_calls.js", gateway.url, KEY))
    assert seen == {
        "draws": "PNG",
        "draws_with_the_least": "PNG",
        "seed": 7,
        "request_id": "typed-1",
        "edits": "PNG",
        "refuses": "model",
        "lists": True,
        "retrieves": SCHNELL,
        "edits_with_it": False,
    }


def requests(collection: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every request of a Postman collection."""
    for item in collection["item"]:
        yield from requests(item) if "item" in item else [item["request"]]


def collection(folder: Path, document: Path, resolution: str) -> dict[str, Any]:
    """What openapi-to-postmanv2 makes, with values from examples or from schemas."""
    converter = "node_modules/openapi-to-postmanv2/bin/openapi2postmanv2.js"
    run_node(folder, converter, "-s", document, "-o", "made.json", "-O", f"parametersResolution={resolution}")
    made: dict[str, Any] = json.loads((folder / "made.json").read_text())
    return made


@pytest.mark.parametrize("resolution", ["Example", "Schema"])
def test_postman_fills_no_optional_header_in(gateway: Described, tmp_path: Path, resolution: str) -> None:
    made = list(requests(collection(tmp_path, gateway.document, resolution)))
    headers = {header["key"]: header["value"] for request in made for header in request["header"]}
    optional = {"Idempotency-Key", "X-Request-Id", "X-Gateway-Max-Cost", "X-Gateway-Tags", "Range", "If-None-Match"}
    assert headers.keys() == {"Accept", "Content-Type"} | optional
    assert {name for name, value in headers.items() if value} == {"Accept", "Content-Type"}


def test_the_requests_of_a_postman_collection_pass(gateway: Described, tmp_path: Path) -> None:
    made = collection(tmp_path, gateway.document, "Example")
    (tmp_path / "fox.png").write_bytes(encoded())
    for request in requests(made):
        for field in request.get("body", {}).get("formdata", []):
            if field["type"] == "file":
                field["src"] = "fox.png"  # the file that its user chooses
    (tmp_path / "collection.json").write_text(json.dumps(made))
    run_node(
        tmp_path,
        *("node_modules/newman/bin/newman.js", "run", "collection.json", "--env-var", f"bearerToken={KEY}"),
        *("--reporters", "json", "--reporter-json-export", "report.json", "--suppress-exit-code"),
    )
    report = json.loads((tmp_path / "report.json").read_text())
    found = {each["item"]["name"]: each["response"]["code"] for each in report["run"]["executions"]}
    drawing = {
        "Draw images from a prompt": 200,
        "Edit images": 200,
        "Vary an image": 200,
        "The models that your key may use": 200,
        "One model": 200,
        "Is the gateway alive?": 200,
        "Is it able to serve?": 200,
        # What an earlier answer gave is not in the document.
        "The images of an earlier request": 404,
        "An image that was handed out as a URL": 403,
    }
    assert {name: found.pop(name) for name in drawing} == drawing
    # The administration wants another key, but for what is the caller's own; a made-up run and drawing are unknown.
    assert set(found.values()) <= {200, 403, 404}
