"""What the documentation says is so: links lead somewhere, what is named exists, examples run against a gateway."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml
from PIL import Image
from pydantic import BaseModel

from app.catalog.profiles import Profile
from app.commands.cli import main
from app.config.loading import PRESETS, Settings, SettingsError, load
from app.config.schema import (
    DeploymentSettings,
    KeySettings,
    ModelSettings,
    ProfileSettings,
    ProviderSettings,
    ServerSettings,
)
from app.config.sources import preset_data
from app.imaging import workers
from tests.config.test_loading import settings_of
from tests.live.servers import Process, process
from tests.sdks.environments import required_node_sdk

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEPLOYMENT = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORDS = {page: page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(WORDS.values())
ADDRESS = "http://127.0.0.1:8000"  # of the examples


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Those that headings get."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- links ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", WORDS[page]):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def test_nothing_links_to_a_file_that_is_not_committed() -> None:
    ignored = {".sdk", ".tools", ".venv"}
    assert [name for name in ignored if f"]({name}" in EVERYTHING] == []


# --- sizes ---


def test_the_memory_for_pixels_is_told_as_it_is_measured() -> None:
    assert f"{workers.MOST_MEMORY / 1e9:.1f} GB at the worst" in EVERYTHING
    assert workers.SECONDS == 120
    assert "given up after two minutes" in EVERYTHING


# --- names ---


def test_every_command_that_is_named_exists() -> None:
    command = typer.main.get_command(main)
    known = command.commands  # type: ignore[attr-defined]
    assert set(re.findall(r"image-gateway\s+([a-z]+)", EVERYTHING)) == {"serve", "check"} == set(known)
    options = {option for each in known.values() for parameter in each.params for option in parameter.opts}
    assert {"--config", "--host", "--port"} <= options
    assert set(re.findall(r"`(--[a-z]+)", README)) <= options


def test_every_target_of_make_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|    )make ([a-z]+)", EVERYTHING)) - targets == set()


def test_every_environment_variable_that_is_named_exists() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    keys = {f"{name.upper()}_API_KEY" for name in PRESETS}
    assert set(re.findall(r"\b(N[A-Z]+_API_KEY)\b", README)) == keys
    for name in set(re.findall(r"\bIMAGE_GATEWAY_[A-Z_]*[A-Z]\b", EVERYTHING)) - {"IMAGE_GATEWAY_CONFIG"}:
        if f"${{{name}" not in compose:
            assert unknown(name) == [], name


def unknown(variable: str) -> list[str]:
    """What the settings say of the names in a variable; its value is of no interest."""
    try:
        load(None, {variable: "1"})
    except SettingsError as error:
        return [str(fault) for fault in error.faults if " is called " in fault.problem]
    return []


def test_every_setting_that_is_named_with_its_section_exists() -> None:
    sections = "server|queue|runs|files|logging"
    for section, name in re.findall(rf"`({sections})\.([a-z_]+)", EVERYTHING):
        model = Settings.model_fields[section].annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        assert name in model.model_fields, f"{section}.{name}"


def rows(heading: str) -> Iterator[tuple[list[str], str]]:
    """Of the table behind a line that begins so: the names in the first column, and the second one."""
    text = README[README.index(heading) :].partition("\n\n|")[2].partition("\n\n")[0]
    for line in text.splitlines()[2:]:
        first, second = [cell.strip() for cell in line.strip("|").split(" | ")][:2]
        yield re.findall(r"`([a-z0-9_.]+)`", first), second


TABLES: dict[str, Any] = {
    "### server": ServerSettings,
    "### providers": ProviderSettings,
    "### models": ModelSettings,
    "Each of the `deployments`": DeploymentSettings,
    "A `profile`; the defaults": ProfileSettings,
    "## Keys": KeySettings,
}


@pytest.mark.parametrize("heading", TABLES)
def test_the_tables_hold_the_settings_of_their_section_and_no_others(heading: str) -> None:
    named = [name for names, _ in rows(heading) for name in names]
    assert sorted(named) == sorted(TABLES[heading].model_fields)


def plain(value: Any) -> Any:
    """A default as the table writes it."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, tuple | frozenset | list):
        return [str(item) for item in value]
    return f"./{value}" if isinstance(value, Path) else value


def stated(cell: str) -> Any:
    """The value of a cell that is one; else Ellipsis."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    return yaml.safe_load(match[1]) if match else ...


@pytest.mark.parametrize("heading", [name for name in TABLES if TABLES[name] is not ProfileSettings])
def test_the_tables_state_the_defaults(heading: str) -> None:
    for names, cell in rows(heading):
        for name in names:
            if (default := stated(cell)) is not ...:
                field = TABLES[heading].model_fields[name]
                assert default == plain(field.get_default(call_default_factory=True)), name


def test_the_table_of_the_profile_states_what_is_assumed_of_an_openai_shaped_host() -> None:
    assumed = Profile(extra="pass")
    for [name], cell in rows("A `profile`; the defaults"):
        if (default := stated(cell)) is not ... and name != "timeout":
            assert default == plain(getattr(assumed, name)), name


def test_the_table_of_the_small_sections_holds_and_states_all() -> None:
    found = {name: stated(cell) for [name], cell in rows("### queue, runs")}
    expected: dict[str, Any] = {"data_dir": plain(Settings.model_fields["data_dir"].default)}
    for section in ("queue", "runs", "files", "logging"):
        values = Settings.model_fields[section].default
        expected |= {f"{section}.{name}": getattr(values, name) for name in type(values).model_fields}
    assert found == expected
    assert {"server", "providers", "models", "keys"} | {name.partition(".")[0] for name in found} == set(
        Settings.model_fields
    )
    assert ("TimeoutSettings", "first_byte") in settings_of(Settings)


def test_every_model_of_the_presets_is_in_the_table_of_providers() -> None:
    table = README[README.index("## Providers") : README.index("## Parameters")]
    for name in PRESETS:
        assert f"(`{name}`)" in table
        for model in preset_data(name)["models"]:
            assert model.rpartition("/")[2].removeprefix("FLUX.1-") in table, model


def test_every_code_of_an_error_that_is_named_is_one_of_the_gateways() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    named = set(re.findall(r"[0-9]{3} `([a-z_]+)`", EVERYTHING))
    assert "upstream_timeout" in named
    assert {code for code in named if f'"{code}"' not in source} == set()


def test_every_header_that_is_named_is_one_of_the_gateways() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    named = set(re.findall(r"`(x-[a-z-]+)[`:]", EVERYTHING))
    assert "x-gateway-dropped" in named
    assert {header for header in named if header not in source} == set()


# --- examples ---


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


def ran(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def drawn(folder: Path, *names: str) -> None:
    for name in names:
        with Image.open(folder / name) as picture:
            picture.load()
            assert picture.size == (1024, 1024), name


def test_the_examples_in_python_run_one_after_the_other(gateway: Process, tmp_path: Path) -> None:
    examples = blocks(README, "python")
    assert len(examples) == 4
    script = "\n".join(examples).replace(ADDRESS, gateway.url)
    (tmp_path / "examples.py").write_text(script, encoding="utf-8")
    said = ran([sys.executable, "examples.py"], tmp_path).split()
    drawn(tmp_path, "fox.png", "hat.png", "completed.png", "partial_image.png")
    assert said[:2] == ["nebula", "quality"]  # as the comments beside them say


def test_the_examples_in_node_run(gateway: Process, folder: Path) -> None:
    sdk = required_node_sdk()
    (folder / "node_modules").symlink_to(sdk.folder / "node_modules")
    [example] = blocks(README, "js")
    (folder / "example.mjs").write_text(example.replace(ADDRESS, gateway.url), encoding="utf-8")
    ran([str(sdk.binary), "example.mjs"], folder)
    drawn(folder, "hat.png", "image_generation.completed.png", "image_generation.partial_image.png")


CURLS = blocks(README, "sh")


def curl(command: str, folder: Path) -> tuple[httpx.Response, Path | None]:
    """What curl does with the few options that the examples use; curl itself need not be there."""
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
            case "-N":
                pass
            case word:
                assert not url, f"{word} is no option that is known here"
                url = word
    reply = httpx.post(url, headers=headers, content=data, data=form, files=files, timeout=60, trust_env=False)
    if out:
        out.write_bytes(reply.content)
    return reply, out


@pytest.mark.parametrize("command", CURLS, ids=range(len(CURLS)))
def test_the_examples_for_curl_run(gateway: Process, folder: Path, command: str) -> None:
    reply, out = curl(command.replace(ADDRESS, gateway.url), folder)
    assert reply.status_code == 200, reply.text
    if out:
        drawn(folder, out.name)
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


def test_there_are_examples_for_curl() -> None:
    assert len(CURLS) == 4
    assert CURLS[0].startswith(f"curl {ADDRESS}/v1/images/generations")


def test_the_example_of_a_log_line_has_the_fields_of_a_real_one(gateway: Process) -> None:
    [example] = blocks(README, "json")
    body = {"model": "black-forest-labs/FLUX.1-schnell", "prompt": "a red fox", "size": "64x64"}
    address, headers = f"{gateway.url}/v1/images/generations", {"x-request-id": "a-line"}
    assert httpx.post(address, json=body, headers=headers, trust_env=False).status_code == 200
    [line] = gateway.lines("a-line", count=1)
    assert list(json.loads(example)) == list(line)


@pytest.mark.parametrize("text", [text for words in WORDS.values() for text in blocks(words, "yaml")])
def test_the_examples_of_configurations_are_good_ones(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    load(file, dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "secret"))


def test_the_command_for_a_container_states_good_settings() -> None:
    [command] = re.findall(r"^    (NEBULA_API_KEY=.*) docker compose up$", DEPLOYMENT, re.MULTILINE)
    environment = dict(word.split("=", 1) for word in shlex.split(command))
    settings = load(None, environment, {"server": {"host": "0.0.0.0"}})
    assert [key.name for key in settings.keys] == ["team"]


def test_the_command_for_a_container_that_is_called_by_name_states_good_settings() -> None:
    [command] = re.findall(
        r"^    (IMAGE_GATEWAY_SERVER__ALLOWED_HOSTS=.*) docker compose up$", DEPLOYMENT, re.MULTILINE
    )
    settings = load(None, dict([shlex.split(command)[0].split("=", 1)]))
    assert settings.server.allowed_hosts == ("gateway", "sandbox.example.com")


def test_the_limits_of_the_container_are_stated_as_they_are() -> None:
    gateway = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["gateway"]
    stated = re.search(
        r"container (\d+) GB of memory, (\d+) processes and threads, and ([\d,]+) open files", DEPLOYMENT
    )
    assert stated
    assert (f"{stated[1]}g", int(stated[2])) == (gateway["mem_limit"], gateway["pids_limit"])
    assert int(stated[3].replace(",", "")) == gateway["ulimits"]["nofile"]


# --- records ---


def test_the_changelog_tells_of_this_version_or_of_what_comes() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    sections = re.findall(r"^## \[(.+?)\]", WORDS[ROOT / "CHANGELOG.md"], re.MULTILINE)
    assert {"Unreleased", version} & set(sections)
    assert version in WORDS[ROOT / "CHANGELOG.md"]


def test_decisions_are_numbered_in_a_row_and_say_why_what_and_what_follows() -> None:
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for record in records:
        text = WORDS[record]
        assert text.startswith(f"# {record.name[:4]}: "), record.name
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], record.name


def test_nothing_that_is_named_in_code_quotes_as_a_file_is_missing() -> None:
    for page, text in WORDS.items():
        for name in re.findall(r"`((?:app|tests|scripts|docs)/[\w./-]+\.(?:py|md|yaml))`", text):
            if "NAME" not in name:
                assert (ROOT / name).exists(), f"{os.path.relpath(page, ROOT)}: {name}"
