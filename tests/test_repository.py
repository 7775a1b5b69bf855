"""What holds for the repository as a whole: nothing in it belongs to one machine; locks, image and commands agree.

It reads the committed files, and knows nothing of what the gateway does but how it reads a setting.
"""

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config.loading import load
from tests.sdks.environments import leave_out

ROOT = Path(__file__).resolve().parent.parent

# Addresses and paths that must not be in any committed file; in pieces, because this is one.
MACHINE_BOUND = re.compile(
    "|".join(
        [
            r"pypi\." + "org",
            "python" + r"hosted\.org",
            r"registry\.npm" + r"js\.org",
            r"(deb|security)\.deb" + r"ian\.org",
            r"(?<!\w)/(" + "work|farm" + r")/",
            r"(?<!\w)/(home|Users)/[a-z]",
            r"/opt/(wheels|" + "pypi)",
        ]
    )
)

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-tools.lock")
TEST_LOCKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*/*.lock"))
NPM_LOCKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("*/*/package-lock.json"))
VAGUE = {"common", "handler", "handlers", "helper", "helpers", "manager", "misc", "service", "util", "utils"}


def committed() -> list[Path]:
    """The files that git knows; outside a checkout of it the test is left out."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        leave_out("there is no git here, or no checkout of it: what is committed cannot be told")
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def entries(lock: str) -> dict[str, list[str]]:
    """`package==version ; marker` of every entry of a lock file, with its hashes."""
    found: dict[str, list[str]] = {}
    pin = ""
    for line in (ROOT / lock).read_text().splitlines():
        text = line.removesuffix("\\").strip()
        if text.startswith("--hash="):
            found[pin].append(text.removeprefix("--hash="))
        else:
            pin = text
            assert pin not in found, f"{lock}: {pin!r} stands there twice"
            found[pin] = []
    return found


def names(pins: list[str] | dict[str, list[str]]) -> set[str]:
    return {name(pin) for pin in pins}


def name(requirement: str) -> str:
    """The normalised name of the package that a requirement or a pin is about."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[=<>!~;]", requirement)[0]).lower()


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def compose() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(content, dict)
    return content


def dockerfile() -> list[str]:
    """The instructions, one line each."""
    joined = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line) for line in joined.splitlines() if line and not line.startswith("#")]


def test_no_committed_file_names_a_package_registry_or_a_path_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}"
        for path in committed()
        for match in MACHINE_BOUND.finditer(path.read_text(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize("lock", [*LOCKS, *TEST_LOCKS])
def test_every_entry_of_a_lock_file_is_one_exact_version_with_hashes(lock: str) -> None:
    content = entries(lock)
    assert content
    for pin, hashes in content.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.+!]+( ; .+)?", pin), f"{lock}: {pin!r}"
        assert hashes, f"{lock}: {pin!r} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), f"{lock}: {pin!r}"


@pytest.mark.parametrize("lock", [*LOCKS, *TEST_LOCKS, *NPM_LOCKS])
def test_no_lock_file_holds_an_address(lock: str) -> None:
    assert re.findall(r"\w+://\S+|--(?:find-links|index-url|extra-index-url)", (ROOT / lock).read_text()) == []


@pytest.mark.parametrize("file", NPM_LOCKS)
def test_every_npm_package_is_locked_by_its_digest(file: str) -> None:
    lock = yaml.safe_load((ROOT / file).read_text())
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert packages
    assert [path for path, package in packages.items() if not package.get("integrity")] == []


def test_plain_uv_run_is_held_to_the_versions_of_the_lock_files() -> None:
    uv = pyproject()["tool"]["uv"]
    remedy = "run `make lock`"
    locked = {**entries("requirements-dev.lock"), **entries("requirements-tools.lock")}
    assert uv["constraint-dependencies"] == sorted(locked), remedy
    assert uv["build-constraint-dependencies"] == sorted(entries("requirements-tools.lock")), remedy


def test_what_runs_in_the_container_is_what_was_tested() -> None:
    assert set(entries("requirements.lock")) <= set(entries("requirements-dev.lock")), "run `make lock`"


def test_every_declared_dependency_is_locked() -> None:
    metadata = pyproject()
    groups = metadata["dependency-groups"]
    for lock, declared in {
        "requirements.lock": metadata["project"]["dependencies"],
        "requirements-dev.lock": metadata["project"]["dependencies"] + groups["dev"],
        "requirements-tools.lock": groups["tools"] + metadata["build-system"]["requires"],
    }.items():
        assert names(declared) - names(entries(lock)) == set(), f"{lock}: run `make lock`"


def test_nothing_of_development_is_in_the_container() -> None:
    assert names(pyproject()["dependency-groups"]["dev"]) & names(entries("requirements.lock")) == set()


def test_the_makefile_has_the_commands_that_people_and_ci_rely_on() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test", "slow", "lint", "types", "format", "check", "sdks", "lock", "clean"} <= targets


def test_ci_leaves_nothing_out_and_ends_with_the_tests() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "export GATEWAY_TESTS_COMPLETE=1" in script
    made = [
        word for line in re.findall(r"^make (.*)$", script, re.MULTILINE) for word in line.split() if word[0] != "-"
    ]
    assert made == ["lint", "types", "slow", "test"]


def test_every_module_has_a_name_that_says_what_is_in_it() -> None:
    assert [str(path.relative_to(ROOT)) for path in (ROOT / "app").rglob("*") if path.stem in VAGUE] == []


def test_the_image_runs_as_a_user_given_by_number() -> None:
    users = [line.split()[1] for line in dockerfile() if line.startswith("USER ")]
    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)


def test_the_base_of_the_image_can_be_chosen_by_whoever_builds_it() -> None:
    first, *rest = dockerfile()
    assert first == "ARG PYTHON_IMAGE=python:3.13-slim"
    assert {line.split()[1] for line in rest if line.startswith("FROM ")} == {"${PYTHON_IMAGE}"}
    build = compose()["services"]["gateway"]["build"]
    assert build == {"context": ".", "args": {"PYTHON_IMAGE": "${PYTHON_IMAGE:-python:3.13-slim}"}}


def test_the_image_finds_python_by_its_name_and_takes_nothing_from_other_images() -> None:
    for line in dockerfile():
        assert not re.search(r"/bin/python", line), line
        assert "<<" not in line, line
    stages = {line.split()[-1] for line in dockerfile() if re.match(r"FROM .* AS ", line)}
    assert {source for line in dockerfile() for source in re.findall(r"--from=(\S+)", line)} <= stages


def test_the_image_installs_by_hash_and_runs_the_command_itself() -> None:
    lines = dockerfile()
    installs = [part for line in lines for part in line.split("&&") if re.search(r"pip (install|sync)", part)]
    assert installs
    assert all("--require-hashes" in part or "--no-deps" in part for part in installs)
    assert lines[-1] == 'ENTRYPOINT ["image-gateway", "serve"]'


def test_the_health_check_of_the_image_asks_the_port_that_the_gateway_was_given() -> None:
    [check] = [line for line in dockerfile() if line.startswith("HEALTHCHECK ")]
    assert "/healthz" in check
    assert "IMAGE_GATEWAY_SERVER__PORT" in check
    assert any("IMAGE_GATEWAY_SERVER__PORT=8000" in line for line in dockerfile() if line.startswith("ENV "))


def test_compose_takes_every_right_away_that_the_gateway_does_not_need() -> None:
    gateway = compose()["services"]["gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in gateway["security_opt"]
    assert "privileged" not in gateway
    assert gateway["tmpfs"] == ["/tmp:size=1g"]
    assert gateway["volumes"] == ["data:/data"]


def test_compose_hands_on_the_keys_and_holds_none() -> None:
    environment = compose()["services"]["gateway"]["environment"]
    assert {"NETMIND_API_KEY", "NEBULA_API_KEY", "NEBUL_API_KEY", "BFL_API_KEY", "IMAGE_GATEWAY_KEYS"} <= set(
        environment
    )
    assert [entry for entry in environment if "KEY" in entry and "=" in entry] == []


def test_compose_bounds_memory_processes_and_files() -> None:
    gateway = compose()["services"]["gateway"]
    assert gateway["mem_limit"] == "4g"  # pixels, recordings and the whole of /tmp at once
    assert 64 <= gateway["pids_limit"] <= 1024
    assert gateway["ulimits"] == {"nofile": 65536}


def test_compose_serves_its_own_service_by_name_without_keys() -> None:
    [entry] = [entry for entry in compose()["services"]["gateway"]["environment"] if "ALLOWED_HOSTS" in entry]
    name, _, value = entry.partition("=")
    found = re.fullmatch(r"\$\{" + name + r":-(.+)\}", value)
    assert found
    settings = load(None, {name: found[1]})
    assert set(settings.server.allowed_hosts) == set(compose()["services"])


def test_compose_waits_longer_for_the_gateway_to_stop_than_the_gateway_drains() -> None:
    grace = compose()["services"]["gateway"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > 30  # the default of server.drain_seconds


# Other projects' own: the OpenAI SDK documents `_request_id`, and Hypothesis offers no other way.
OUTSIDE = {"_request_id", "_hypothesis_internal_use_settings"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OUTSIDE


def private_names(tree: ast.AST) -> list[str]:
    """Return each use of a private attribute of anything but `self` and `cls`, and each import of a private name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.ImportFrom):
            found += [f"line {node.lineno}: {alias.name}" for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Call):  # getattr, setattr
            names = [name.value for name in node.args[1:2] if isinstance(name, ast.Constant)]
            found += [f"line {node.lineno}: {name}" for name in names if isinstance(name, str) and is_private(name)]
    return found


def test_no_test_reaches_into_a_private_attribute_of_another_object() -> None:
    """Tests ask for public behaviour or for `snapshot()`, so the inside may change under them."""
    found = {path: private_names(ast.parse(path.read_text())) for path in (ROOT / "tests").rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text", ["thing._inside", "thing.other()._inside = 1", "from app.x import _y", 'patch(thing, "_inside", None)']
)
def test_a_private_name_is_found_however_it_is_reached(text: str) -> None:
    assert private_names(ast.parse(text))
