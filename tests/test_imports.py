"""Who may import whom, and that importing does nothing else."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IO = (
    *("asyncio", "httpx", "aiohttp", "socket", "logging", "time", "threading", "selectors", "ssl", "subprocess"),
    *("os", "random", "tempfile"),
)

# The composition root and the ends of the tree may import anything.
TOPS = ("app", "__main__", "adoption", "administration", "commands", "process", "main", "wiring")
# Everybody may import these values, the bound on waiting and the unit of time.
VALUES = ("images", "events", "errors", "patience", "microseconds")
# A package on the left may import the packages on its right, and no others.
MAY_IMPORT = {
    "access": "catalog ledger",
    "accounting": "ledger gateway access catalog",
    "api": "runs gateway access ledger catalog storage imaging codecs",
    "runs": "gateway storage access ledger",
    "gateway": "routing dialects catalog codecs imaging storage access",
    "routing": "catalog codecs",
    "dialects": "catalog codecs",
    "upstream": "dialects imaging catalog",
    "config": "catalog access ledger",
    "ledger": "catalog",
    "telemetry": "catalog access gateway ledger routing runs storage",
}
# These know values and the standard library: no event loop, no clock, no file, no randomness.
PURE = (
    "app.gateway.attempt",
    *("app.images", "app.events", "app.errors", "app.dialects", "app.catalog", "app.codecs", "app.access.keyring"),
    *("app.routing.failover", "app.routing.verdict", "app.routing.health", "app.routing.selection"),
    *("app.imaging.formats", "app.imaging.headers", "app.imaging.parts", "app.gateway.inspection"),
    *("app.api.responses.encoders", "app.api.requests.validation"),
)


@dataclass(frozen=True)
class Import:
    """One import, wherever it stands; `lazy`: inside a function."""

    by: str
    of: str
    lazy: bool
    line: int

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.of}"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "app").rglob("*.py"))}


def imports_of(name: str) -> Iterator[Import]:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            base = node.module or ""
            # `from app import dialects` is an import of `app.dialects`.
            inner = [f"{base}.{alias.name}" for alias in node.names]
            found = [module if module in MODULES else base for module in inner]
        else:
            continue
        yield from (Import(name, module, id(node) in lazy, node.lineno) for module in dict.fromkeys(found))


@cache
def imports() -> list[Import]:
    return [found for name in MODULES for found in imports_of(name)]


def within(name: str, *places: str) -> bool:
    """Whether `name` is one of the modules or packages, or inside of one; `*` stands for anything."""
    return any(name == place or name.startswith(f"{place}.") or fnmatchcase(name, place) for place in places)


def package_of(name: str) -> str:
    """`routing` for `app.routing.health`; `app` for the root itself."""
    return [*name.split("."), "app"][1] if name != "app" else "app"


def test_the_modules_are_found() -> None:
    assert {"app", "app.main", "app.dialects", "app.dialects.openai", "app.api.images"} <= set(MODULES)
    assert Import("app.upstream.transport", "httpx", False, 0).of in {
        found.of for found in imports() if found.by == "app.upstream.transport"
    }
    assert any(found.lazy and found.of == "app.sandbox.server" for found in imports())


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("httpx", ["app.upstream", "app.sandbox"]),
        ("aiohttp", ["app.upstream"]),
        ("tldextract", ["app.upstream.own_addresses"]),
        ("yaml", ["app.config.sources", "app.api.docs.openapi"]),
        ("PIL", ["app.imaging.pillow", "app.sandbox"]),
        ("fastapi", ["app.main", "app.process", "app.api"]),
        ("starlette", ["app.main", "app.api", "app.pages", "app.sandbox"]),
        ("uvicorn", ["app.process", "app.server", "app.sandbox"]),
        ("structlog", ["app.telemetry.logs"]),
        ("opentelemetry", ["app.telemetry.traces"]),
        ("prometheus_client", ["app.telemetry.metrics.exposition"]),
        ("typer", ["app.commands"]),
        ("pydantic_settings", ["app.config.loading", "app.config.sources"]),
        ("sqlalchemy", ["app.ledger.database", "app.ledger.book.registry", "app.ledger.book.reports"]),
        ("alembic", ["app.ledger.database.upgrades", "app.ledger.database.migrations"]),
        ("asyncpg", ["app.ledger.database.postgres", "app.ledger.database.schema"]),
        ("python_multipart", ["app.api.requests.multipart", "app.sandbox"]),
    ],
)
def test_an_outside_library_is_known_to_few(library: str, places: list[str]) -> None:
    users = [found for found in imports() if within(found.of, library)]
    assert users, f"nobody imports {library}: leave it out of the table"
    assert [str(found) for found in users if not within(found.by, *places)] == []


@pytest.mark.parametrize("package", sorted({package_of(name) for name in MODULES} - set(TOPS)))
def test_a_package_imports_only_what_the_table_allows(package: str) -> None:
    allowed = {package, *VALUES, *MAY_IMPORT.get(package, "").split()}
    crossing = [f for f in imports() if package_of(f.by) == package and within(f.of, "app")]
    assert [str(found) for found in crossing if package_of(found.of) not in allowed] == []


def test_the_table_names_only_packages_that_exist() -> None:
    packages = {package_of(name) for name in MODULES}
    named = {*MAY_IMPORT, *(other for others in MAY_IMPORT.values() for other in others.split()), *TOPS, *VALUES}
    assert named - packages == set()


@pytest.mark.parametrize("package", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_a_package_says_what_it_holds_and_where_to_begin(package: str) -> None:
    text = ast.get_docstring(ast.parse(MODULES[package].read_text(encoding="utf-8"))) or ""
    assert 3 <= len(text.splitlines()) <= 10, f"{package} needs a docstring of three to ten lines"
    if any(MODULES[name].parent == MODULES[package].parent for name in MODULES if name != package):
        beginning = re.search(r"Begin with\s`(\w+)`", text)
        assert beginning, f"{package} does not say where to begin"
        assert f"{package}.{beginning[1]}" in MODULES


@pytest.mark.parametrize("place", PURE)
def test_a_pure_module_does_no_input_or_output(place: str) -> None:
    assert any(within(module, place) for module in MODULES)
    assert [str(found) for found in imports() if within(found.by, place) and within(found.of, *IO)] == []


def test_the_api_knows_of_the_ledger_its_values_alone() -> None:
    used = {found.of for found in imports() if within(found.by, "app.api") and within(found.of, "app.ledger")}
    assert {name for name in used if not within(name, "app.ledger.values", "app.ledger.database.protocol")} == set()


def test_the_sandbox_is_loaded_by_the_wiring_alone_and_only_when_it_is_needed() -> None:
    users = [found for found in imports() if within(found.of, "app.sandbox") and not within(found.by, "app.sandbox")]
    assert [str(found) for found in users if found.by != "app.wiring" or not found.lazy] == []


def test_the_sandbox_knows_nothing_of_the_gateway() -> None:
    knows = [found for found in imports() if within(found.by, "app.sandbox") and within(found.of, "app")]
    assert [str(found) for found in knows if not within(found.of, "app.sandbox")] == []


def test_nobody_imports_the_ends_of_the_tree() -> None:
    ends = {
        "app.main": ["app.commands.cli", "app.process"],
        "app.commands.cli": ["app.__main__"],
        "app.wiring": ["app.main", "app.process"],
        "app.process": ["app.commands.cli"],
        "app.upstream.client": ["app.wiring", "app.commands.probe"],
        "app.commands.probe": ["app.commands.cli", "app.commands.report", "app.administration"],
    }
    for end, allowed in ends.items():
        users = [found for found in imports() if found.of == end]
        assert [str(found) for found in users if found.by not in allowed] == []


def test_no_two_modules_import_each_other() -> None:
    direct = {name: {f.of for f in imports() if f.by == name and not f.lazy and f.of in MODULES} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for inner in sorted(direct[name]):
                visit(inner, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


WATCH = """
import importlib, json, os, sys, threading

EVENTS = ("open", "socket", "subprocess", "os.", "glob", "shutil", "tempfile", "urllib", "ctypes.dlopen", "sqlite3")
names, root, seen = json.loads(sys.argv[1]), sys.argv[2], []


def culprit(*others):
    # Whose code asks: ours, unless the import system stands between, which has its own reasons to open files.
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib") or any(other in file for other in others):
            return None
        if file.startswith(root + "app/"):
            return f"{os.path.relpath(file, root)}:{frame.f_lineno}"
        frame = frame.f_back


def hook(event, args):
    if event.startswith(EVENTS) and (place := culprit()):
        seen.append(f"{place} does {event}")


def noted(read):
    def reading(self, key):
        if place := culprit("site-packages"):  # pydantic looks for its plugins
            seen.append(f"{place} reads {key}")
        return read(self, key)
    return reading


for name in names[:1]:
    importlib.import_module(name)
type(os.environ).__getitem__ = noted(type(os.environ).__getitem__)
sys.addaudithook(hook)
for name in names:
    importlib.import_module(name)
if threading.active_count() > 1:
    seen.append(f"{threading.enumerate()} run")
print(json.dumps(seen))
"""


def imported(names: list[str], root: Path) -> list[str]:
    command = [sys.executable, "-c", WATCH, json.dumps(names), f"{root}/"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, list)
    assert len(done.stdout.splitlines()) == 1, "importing prints nothing"
    return found


def test_importing_opens_reads_starts_and_prints_nothing() -> None:
    assert imported([name for name in MODULES if not name.endswith("__main__")], ROOT) == []


def test_who_does_something_when_imported_is_seen(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__init__.py").touch()
    lines = ["import os, socket, pathlib", "os.environ.get('HOME')", "socket.socket().close()",
             "pathlib.Path(__file__).read_text()"]  # fmt: skip
    (tmp_path / "app/busy.py").write_text("\n".join(lines))
    seen = " ".join(imported(["app", "app.busy"], tmp_path))
    assert "app/busy.py:2 reads HOME" in seen
    assert "app/busy.py:3 does socket" in seen
    assert "app/busy.py:4 does open" in seen
