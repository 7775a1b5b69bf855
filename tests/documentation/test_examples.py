"""The examples of the README, `docs/clients.md` and `docs/runs.md` run as they stand, against a live gateway."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.documentation.pages import blocks, page, section
from tests.live.servers import Process, process
from tests.sdks.environments import required_node_sdk

ADDRESS = "http://127.0.0.1:8000"  # of the examples
README = page("README.md")
CLIENTS = page("docs/clients.md")  # tests/clients/ runs its recipes


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(None, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files that examples made before."""
    Image.new("RGB", (1024, 1024), "red").save(tmp_path / "fox.png")
    mask = Image.new("RGBA", (1024, 1024), "black")
    mask.paste((0, 0, 0, 0), (256, 256, 768, 768))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_pictures(folder: Path, *names: str) -> None:
    for name in names:
        with Image.open(folder / name) as picture:
            picture.load()
            assert picture.size == (1024, 1024), name


# --- the SDKs ---


def run_python(examples: list[str], gateway: Process, folder: Path) -> str:
    script = "\n".join(examples).replace(ADDRESS, gateway.url)
    (folder / "examples.py").write_text(script, encoding="utf-8")
    return run([sys.executable, "examples.py"], folder)


def test_the_example_in_python_of_the_readme_runs(gateway: Process, tmp_path: Path) -> None:
    examples = blocks(README, "python")
    assert len(examples) == 1
    run_python(examples, gateway, tmp_path)
    check_pictures(tmp_path, "fox.png", "hat.png")


def test_the_examples_in_python_run_one_after_the_other(gateway: Process, tmp_path: Path) -> None:
    examples = blocks(section(CLIENTS, "## Python"), "python")
    assert len(examples) == 4
    said = run_python(examples, gateway, tmp_path).split()
    check_pictures(tmp_path, "fox.png", "hat.png", "completed.png", "partial_image.png")
    assert said[:2] == ["nebula", "quality"]  # as the comments beside them say


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (README, ["hat.png"]),
        (
            section(CLIENTS, "## Node"),
            ["hat.png", "image_generation.completed.png", "image_generation.partial_image.png"],
        ),
    ],
    ids=["README.md", "clients.md"],
)
def test_the_examples_in_node_run(gateway: Process, folder: Path, text: str, files: list[str]) -> None:
    sdk = required_node_sdk()
    (folder / "node_modules").symlink_to(sdk.folder / "node_modules")
    [example] = blocks(text, "js")
    (folder / "example.mjs").write_text(example.replace(ADDRESS, gateway.url), encoding="utf-8")
    run([str(sdk.binary), "example.mjs"], folder)
    check_pictures(folder, *files)


# --- curl ---

CURLS = blocks(README, "sh") + blocks(section(CLIENTS, "## curl"), "sh")


def curl(command: str, folder: Path) -> tuple[httpx.Response, Path | None]:
    """Does what curl does with the few options that the examples use; curl itself need not be there."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words.pop(0) == "curl"
    headers: dict[str, str] = {}
    form: dict[str, str] = {}
    files: dict[str, Any] = {}
    url, data, out = "", None, None
    while words:
        match words.pop(0):
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                data = words.pop(0)
            case "-F":
                name, _, value = words.pop(0).partition("=")
                if value.startswith("@"):
                    files[name] = (value[1:], (folder / value[1:]).read_bytes())
                else:
                    form[name] = value
            case "-o":
                out = folder / words.pop(0)
            case "-N" | "-f":
                pass
            case word:
                assert not url, f"{word} is no option that is known here"
                url = word
    method = "POST" if data or form or files else "GET"
    reply = httpx.request(
        method, url, headers=headers, content=data, data=form, files=files, timeout=60, trust_env=False
    )
    if out:
        out.write_bytes(reply.content)
    return reply, out


@pytest.mark.parametrize("command", CURLS, ids=range(len(CURLS)))
def test_the_examples_for_curl_run(gateway: Process, folder: Path, command: str) -> None:
    reply, out = curl(command.replace(ADDRESS, gateway.url), folder)
    assert reply.status_code == 200, reply.text
    if out:
        check_pictures(folder, out.name)
        with Image.open(out) as picture:
            assert (
                reply.headers["content-type"] == f"image/{(picture.format or '').lower()}" == f"image/{out.suffix[1:]}"
            )
    elif '"stream": true' in command:
        assert "event: image_generation.completed\n" in reply.text
    else:
        links = [item["url"] for item in reply.json()["data"]]
        assert len(links) == 2
        for link in links:
            assert httpx.get(link, trust_env=False).headers["content-type"] == "image/png"


def test_the_command_of_the_first_lines_writes_a_picture_into_a_file(gateway: Process, tmp_path: Path) -> None:
    reply, out = curl(gateway.command(), tmp_path)
    assert reply.status_code == 200, reply.text
    assert out
    check_pictures(tmp_path, out.name)


def test_there_are_examples_for_curl() -> None:
    assert len(CURLS) == 4
    assert CURLS[0].startswith(f"curl -f {ADDRESS}/v1/images/generations")


def test_an_answer_is_there_again_under_its_id(gateway: Process, folder: Path) -> None:
    first, again = blocks(page("docs/runs.md"), "sh")
    for command in (first, again):
        reply, _ = curl(command.replace(ADDRESS, gateway.url), folder)
        assert reply.status_code == 200, reply.text
    answers = [json.loads((folder / name).read_bytes()) for name in ("fox.json", "fox-again.json")]
    assert answers[0]["data"] == answers[1]["data"]
