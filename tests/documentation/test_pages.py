"""All pages: links lead somewhere; commands, variables, settings, codes and files that are named exist."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from app.config.errors import SettingsError
from app.config.loading import PRESETS, Settings, load
from app.config.sources import find_ignored
from app.imaging import workers
from tests.documentation.commands import every_command, options_of
from tests.documentation.pages import EVERYTHING, PAGES, ROOT, TEXTS, anchors, page

# --- the front door ---


def test_the_readme_is_a_front_door_that_begins_with_two_commands() -> None:
    text = page("README.md")
    assert len(text.splitlines()) <= 200
    commands = re.findall(r"^    (make \w+)", text, re.MULTILINE)
    assert commands == ["make run", "make test"]
    for command in ("uv run image-gateway serve", "uv run pytest", "docker compose up"):
        assert text.index("make test") < text.index(f"`{command}`") < text.index("```"), command


def test_the_readme_leads_to_every_page() -> None:
    text = page("README.md")
    pages = [str(path.relative_to(ROOT)) for path in PAGES if path.parent in (ROOT, ROOT / "docs")]
    assert [name for name in pages if f"]({name})" not in text and name != "README.md"] == []
    assert "](docs/decisions)" in text


@pytest.mark.parametrize("path", [path for path in PAGES if path.parent.name == "docs"], ids=lambda path: path.name)
def test_a_page_begins_with_what_it_is_about(path: Path) -> None:
    heading, blank, first, *_ = TEXTS[path].splitlines()
    assert re.match(r"# \S", heading)
    assert (blank, bool(first)) == ("", True)


# --- links ---


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[path]):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def test_nothing_links_to_a_file_that_is_not_committed() -> None:
    ignored = {".sdk", ".tools", ".venv"}
    assert [name for name in ignored if f"]({name}" in EVERYTHING] == []


# --- sizes ---


def test_the_memory_for_pixels_is_stated_as_it_is_measured() -> None:
    assert f"{workers.MOST_MEMORY / 1e9:.1f} GB at the worst" in EVERYTHING
    assert workers.SECONDS == 120
    assert "given up after two minutes" in EVERYTHING


# --- names ---


def test_every_command_that_is_named_exists() -> None:
    known = every_command()
    groups = {name.partition(" ")[0] for name in known}
    assert set(re.findall(r"image-gateway\s+([a-z]+)", EVERYTHING)) == groups
    inner = "|".join(sorted({name.partition(" ")[0] for name in known if " " in name}))
    assert set(re.findall(rf"image-gateway ((?:{inner}) [a-z]+)", EVERYTHING)) == {
        name for name in known if " " in name
    }
    options = {option for command in known.values() for option in options_of(command)}
    assert {"--config", "--host", "--port", "--expires"} <= options
    assert set(re.findall(r"`(--[a-z-]+)", page("docs/configuration.md") + page("docs/keys.md"))) <= options
    assert set(re.findall(r"image-gateway \w+ (--[a-z]+)", EVERYTHING)) <= options


def test_every_target_of_make_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|    )make ([a-z]+)", EVERYTHING)) - targets == set()


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md", "docs/providers.md"])
def test_every_variable_that_switches_a_provider_on_is_named(name: str) -> None:
    keys = {f"{preset.upper()}_API_KEY" for preset in PRESETS}
    assert set(re.findall(r"\b((?:N[A-Z]+|BFL)_API_KEY)\b", page(name))) == keys


def test_every_environment_variable_that_is_named_exists() -> None:
    """`IMAGE_GATEWAY_KEY` is a caller's own."""
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    tests = (ROOT / "tests/conftest.py").read_text(encoding="utf-8") + (ROOT / ".ci/run").read_text(encoding="utf-8")
    for name in set(re.findall(r"\bIMAGE_GATEWAY_[A-Z_]*[A-Z]\b", EVERYTHING)) - {
        "IMAGE_GATEWAY_CONFIG",
        "IMAGE_GATEWAY_KEY",
    }:
        if f"${{{name}" not in compose and name not in tests:
            assert find_unknown_names(name) == [], name


def find_unknown_names(variable: str) -> list[str]:
    """The faults that the settings find in the names in a variable; its value is of no interest."""
    if ignored := list(find_ignored(Settings, {variable: "1"})):
        return list(map(str, ignored))
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


def test_every_header_that_is_named_is_one_of_the_gateways() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    named = set(re.findall(r"`(x-[a-z-]+)[`:]", EVERYTHING))
    assert "x-gateway-dropped" in named
    assert {header for header in named if header not in source} == set()


def test_nothing_that_is_named_in_code_quotes_as_a_file_is_missing() -> None:
    for path, text in TEXTS.items():
        for name in re.findall(r"`((?:app|tests|scripts|docs)/(?:[\w./-]+\.(?:py|md|yaml)|(?:[\w-]+/)+))`", text):
            if "NAME" not in name:
                assert (ROOT / name).exists(), f"{os.path.relpath(path, ROOT)}: {name}"


# --- records ---


def test_the_changelog_has_a_section_for_this_version_or_the_next() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    sections = re.findall(r"^## \[(.+?)\]", page("CHANGELOG.md"), re.MULTILINE)
    assert {"Unreleased", version} & set(sections)
    assert version in page("CHANGELOG.md")


def test_decisions_are_numbered_in_a_row_and_have_three_sections() -> None:
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for record in records:
        text = TEXTS[record]
        assert text.startswith(f"# {record.name[:4]}: "), record.name
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], record.name


# --- contributing ---


def test_the_commands_that_ci_is_said_to_run_are_those_that_it_runs() -> None:
    table = re.findall(r"^\| `make (\w+)` \|", page("CONTRIBUTING.md"), re.MULTILINE)
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    made = [word for line in re.findall(r"^make (.*)$", script, re.MULTILINE) for word in line.split()]
    assert table == [word for word in made if not word.startswith("-")]
