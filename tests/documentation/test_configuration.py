"""`docs/configuration.md` names every setting with its default, and its examples are configurations that load."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from app.catalog.profiles import Profile
from app.config.budgets import BudgetSettings
from app.config.loading import Settings, load
from app.config.schema import (
    AliasSettings,
    DefaultModels,
    DeploymentSettings,
    KeySettings,
    ModelSettings,
    ProfileSettings,
    ProjectSettings,
    ProviderSettings,
    ServerSettings,
    TimeoutSettings,
)
from tests.config.test_loading import settings_of
from tests.documentation.commands import every_command, options_of
from tests.documentation.pages import EVERYTHING, TEXTS, blocks, page, prose, quoted, rows

PAGE = page("docs/configuration.md")
PROFILE = "A `profile`; the defaults"
TIMEOUT = "A `timeout`:"
TABLES: dict[str, Any] = {
    "## server": ServerSettings,
    "## providers": ProviderSettings,
    TIMEOUT: TimeoutSettings,
    "## models": ModelSettings,
    "Each of the `deployments`": DeploymentSettings,
    PROFILE: ProfileSettings,
    "Each entry is the name of a model": AliasSettings,
    "## default_model": DefaultModels,
    "## projects": ProjectSettings,
    "## keys": KeySettings,
    "## budgets": BudgetSettings,
}


@pytest.mark.parametrize("begin", TABLES)
def test_the_tables_hold_the_settings_of_their_section_and_no_others(begin: str) -> None:
    named = [name for first, *_ in rows(PAGE, begin) for name in quoted(first)]
    assert sorted(named) == sorted(TABLES[begin].model_fields)


def test_the_page_names_every_setting() -> None:
    words = {word for name in quoted(prose(PAGE)) for word in re.findall(r"[a-z0-9_]+", name)}
    assert {name for _, name in settings_of(Settings)} - words == set()


def simplify(value: Any) -> Any:
    """A default as the table writes it."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, tuple | frozenset | list):
        return [item if isinstance(item, int) else str(item) for item in value]
    return f"./{value}" if isinstance(value, Path) else value


def read_value(cell: str) -> Any:
    """The value of a cell that is one; else Ellipsis."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    return yaml.safe_load(match[1]) if match else ...


@pytest.mark.parametrize("begin", [each for each in TABLES if each not in (PROFILE, TIMEOUT)])
def test_the_tables_state_the_defaults(begin: str) -> None:
    for first, cell, *_ in rows(PAGE, begin):
        for name in quoted(first):
            if (default := read_value(cell)) is not ...:
                field = TABLES[begin].model_fields[name]
                assert default == simplify(field.get_default(call_default_factory=True)), name


def test_the_table_of_the_profile_states_what_is_assumed_of_an_openai_shaped_host() -> None:
    assumed = Profile(extra="pass")
    for first, cell, *_ in rows(PAGE, PROFILE):
        [name] = quoted(first)
        if (default := read_value(cell)) is not ... and name != "timeout":
            assert default == simplify(getattr(assumed, name)), name
    for first, cell, *_ in rows(PAGE, TIMEOUT):
        [name] = quoted(first)
        assert read_value(cell) == getattr(assumed.timeout, name), name


def test_the_table_of_the_small_sections_holds_and_states_all() -> None:
    cells = [*rows(PAGE, "## queue, runs"), *rows(PAGE, "## database, ledger")]
    found = {name: read_value(cell) for first, cell, *_ in cells for name in quoted(first)}
    expected: dict[str, Any] = {"data_dir": simplify(Settings.model_fields["data_dir"].default), "secret": None}
    for section in ("queue", "runs", "files", "logging", "pages", "metrics", "database", "ledger", "webhook"):
        values = Settings.model_fields[section].default
        expected |= {f"{section}.{name}": getattr(values, name) for name in type(values).model_fields}
    assert found == expected
    tables = {"server", "providers", "models", "aliases", "default_model", "projects", "keys", "budgets"}
    assert tables | {name.partition(".")[0] for name in found} == set(Settings.model_fields)


@pytest.mark.parametrize("text", [text for page in TEXTS.values() for text in blocks(page, "yaml")])
def test_the_examples_of_configurations_are_good_ones(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    load(file, dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "secret"))


def test_the_table_of_commands_has_every_command_with_its_options() -> None:
    found = {
        quoted(first)[0].removeprefix("image-gateway "): set(re.findall(r"`(--[a-z-]+)", cell))
        for first, cell in rows(PAGE, "## Commands")
    }
    assert found == {name: options_of(command) for name, command in every_command().items()}


STATED = re.findall(r"`(server|queue|runs|files)\.(\w+)`\s+\((\d+)\)", EVERYTHING)


def test_some_pages_state_defaults_in_their_sentences() -> None:
    assert ("runs", "retain_seconds", "600") in STATED


@pytest.mark.parametrize(("section", "name", "default"), STATED)
def test_a_default_in_a_sentence_is_the_one_of_the_setting(section: str, name: str, default: str) -> None:
    assert int(default) == getattr(Settings.model_fields[section].default, name)
