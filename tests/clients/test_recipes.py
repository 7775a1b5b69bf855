"""The recipes of `docs/clients.md` run as they stand, by the clients that they are for, and say what was tried."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from tests.documentation.pages import ROOT, blocks, page, prose, section
from tests.live.loops import in_thread
from tests.live.pictures import encoded, text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Process, process
from tests.sdks.environments import required_environment, required_node_sdk

ADDRESS = "http://127.0.0.1:8000"  # of the recipes
PATIENCE = 600  # seconds for a client: some import for half a minute, and machines that test are busy
PAGE = page("docs/clients.md")
RECIPES = section(PAGE, "## Recipes")
CLIENTS = re.findall(r"^### (.+)$", prose(RECIPES), re.MULTILINE)
TRIED = re.compile(r"^(Tried with|Tried by hand with|Untried\.) (.+)", re.MULTILINE)


def recipe(client: str) -> str:
    return section(RECIPES, f"### {client}")


def texts() -> dict[str, str]:
    """The text about each client, those of the page's own sections first."""
    own = {heading: section(PAGE, f"## {heading}") for heading in ("Python", "Node", "curl")}
    return own | {client: recipe(client) for client in CLIENTS}


# --- what they say ---


@pytest.mark.parametrize("client", texts())
def test_each_client_has_one_line_on_whether_it_was_tried(client: str) -> None:
    [(kind, what)] = TRIED.findall(texts()[client])
    if kind == "Untried.":
        assert re.search(r"\]\(https://\S+\)", what), "the source that it rests on"
    else:
        assert re.search(r"[\w@]\S* \d+\.\d+\.\d+", what), "name and version"


def locked_versions() -> dict[str, set[str]]:
    """The versions of each package in the lock files of tests and of the project."""
    found: dict[str, set[str]] = {}
    for lock in (*ROOT.glob("*.lock"), *ROOT.glob("tests/*/*.lock")):
        for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, set()).add(version)
    for lock in ROOT.glob("tests/*/*/package-lock.json"):
        packages: dict[str, Any] = yaml.safe_load(lock.read_text(encoding="utf-8"))["packages"]
        for path, package in packages.items():
            name = package.get("name", path.rpartition("node_modules/")[2])
            found.setdefault(name, set()).add(package.get("version", ""))
    return found


def test_what_was_tried_by_tests_is_what_their_lock_files_hold() -> None:
    locked = locked_versions()
    tried = [
        (name, version)
        for kind, what in TRIED.findall(PAGE)
        if kind == "Tried with"
        for name, version in re.findall(r"([\w@][\w@/-]*) (\d+\.\d+\.\d+)", what)
    ]
    assert len(tried) > 12
    assert [(name, version) for name, version in tried if version not in locked.get(name, ())] == []


def test_the_table_names_every_client() -> None:
    table = RECIPES.partition("\n### ")[0]
    anchors = re.findall(r"\]\(#([\w-]+)\)", table)
    headings = [re.sub(r"[^\w\- ]", "", client.lower()).replace(" ", "-") for client in CLIENTS]
    assert [heading for heading in headings if heading not in anchors] == ["litellm-as-a-provider"]  # not a client


# --- what they do ---


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(None, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the mask that the page has made before."""
    mask = Image.new("RGBA", (1024, 1024), "black")
    mask.paste((0, 0, 0, 0), (256, 256, 768, 768))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def environment(folder: Path, *binaries: Path) -> dict[str, str]:
    """No proxy of this machine, nothing of this user, and no reports to the makers of the clients."""
    path = os.pathsep.join([*map(str, binaries), os.environ["PATH"]])
    quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    return {"PATH": path, "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True", **quiet}


def run(folder: Path, command: list[str | Path], *binaries: Path) -> str:
    """What a command prints that ends well."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, *binaries),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    return done.stdout


def write(client: str, language: str, gateway: Process, file: Path) -> Path:
    """The one block of a recipe, for this gateway, in a file."""
    [block] = blocks(recipe(client), language)
    file.write_text(block.replace(ADDRESS, gateway.url), encoding="utf-8")
    return file


def check(folder: Path, printed: str, gateway: Process, *, pictures: int = 0, links: int = 0) -> None:
    """That so many pictures and links came, and each is a whole picture."""
    found = [path for path in folder.rglob("*.png") if path.name != "mask.png"]
    assert len(found) == pictures
    for path in found:
        with Image.open(path) as picture:
            picture.load()
    addresses = re.findall(rf"{re.escape(gateway.url)}/files/\S+", printed)
    assert len(addresses) == links
    for address in addresses:
        assert httpx.get(address, trust_env=False).raise_for_status().headers["content-type"] == "image/png"


@pytest.mark.slow
def test_the_recipe_for_azures_sdk_draws(gateway: Process, folder: Path) -> None:
    script = write("Azure's SDK", "python", gateway, folder / "recipe.py")
    check(folder, run(folder, [sys.executable, script]), gateway, pictures=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "pictures", "links"),
    [
        ("LangChain in Python", 0, 1),
        ("LlamaIndex", 1, 1),
        ("Haystack", 1, 0),
        ("Semantic Kernel", 2, 0),
        ("LiteLLM", 2, 0),
    ],
)
def test_a_recipe_in_python_draws(gateway: Process, folder: Path, client: str, pictures: int, links: int) -> None:
    python = required_environment("python-clients") / "bin" / "python"
    script = write(client, "python", gateway, folder / "recipe.py")
    check(folder, run(folder, [python, "-W", "ignore", script]), gateway, pictures=pictures, links=links)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "pictures", "links"), [("LangChain in JavaScript", 0, 1), ("Vercel's AI SDK", 2, 0)]
)
def test_a_recipe_in_javascript_draws(gateway: Process, folder: Path, client: str, pictures: int, links: int) -> None:
    (folder / "node_modules").symlink_to(required_environment("node-clients") / "node_modules")
    script = write(client, "js", gateway, folder / "recipe.mjs")
    printed = run(folder, [required_node_sdk().binary, script])
    (folder / "node_modules").unlink()
    check(folder, printed, gateway, pictures=pictures, links=links)


@pytest.mark.slow
def test_the_recipe_for_httpie_draws_and_edits(gateway: Process, folder: Path) -> None:
    binaries = required_environment("python-clients") / "bin"
    script = write("HTTPie", "sh", gateway, folder / "recipe.sh")
    check(folder, run(folder, ["sh", "-e", script], binaries), gateway, pictures=2)


@contextmanager
def serving(folder: Path, python: Path, script: Path) -> Iterator[str]:
    """The address of the page that a script serves, which says it in its first lines."""
    with subprocess.Popen(
        [python, "-u", script], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    ) as page:
        try:
            assert page.stdout
            yield next(found[0] for line in page.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        finally:
            page.kill()


@pytest.mark.slow
def test_the_recipe_for_gradio_serves_a_page_that_draws(gateway: Process, folder: Path) -> None:
    python = required_environment("python-clients") / "bin" / "python"
    script = write("gradio", "python", gateway, folder / "recipe.py")
    visit = """
import sys
import gradio_client
from PIL import Image
drawn = gradio_client.Client(sys.argv[1], verbose=False).predict("a red fox", api_name="/draw")
Image.open(drawn).save("drawn.png")
"""
    with serving(folder, python, script) as address:
        printed = run(folder, [python, "-c", visit, address])
    check(folder, printed, gateway, pictures=1)


def test_the_recipe_for_litellm_as_a_provider_asks_it_for_no_stream_and_no_form_of_answer(tmp_path: Path) -> None:
    [block] = blocks(recipe("LiteLLM as a provider"), "yaml")
    config = yaml.safe_load(block)
    with in_thread(Scripted) as litellm:
        config["providers"]["litellm"]["base_url"] = litellm.at("litellm", answer(image_json(text(encoded()))))
        with process(config, tmp_path, LITELLM_KEY="sk-secret") as gateway:
            for asked in ({"stream": True}, {"response_format": "url"}):
                body = {"model": "flux", "prompt": "a red fox", **asked}
                reply = httpx.post(f"{gateway.url}/v1/images/generations", json=body, trust_env=False, timeout=60)
                assert reply.status_code == 200, reply.text
        received = litellm.received("litellm")
    assert [sorted(each.json) for each in received] == [["model", "prompt"]] * 2
