"""Where the official SDKs and other clients stand that the tests run, and what becomes of a test without them.

`make sdks` puts them into .sdk/ (tests/sdks/install.py); the newest Python SDK is the project's own.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
SDKS = ROOT / ".sdk"
COMPLETE = "GATEWAY_TESTS_COMPLETE"

# The generations of the Python SDK that are out there; "3" is the one in the project's own environment.
PYTHON_SDKS = ("1.109", "2.54", "3")


@dataclass(frozen=True, slots=True)
class NodeSDK:
    """A Node and the folder whose node_modules holds `openai` (7.x) and `openai6` (6.x).

    Run scripts with `cwd=folder`: an ES module from standard input or `--input-type=module -e` then finds them.
    """

    binary: Path
    folder: Path


def python_sdk(generation: str) -> Path | None:
    """The Python that has this generation of the SDK, or None when `make sdks` has not put it there."""
    if generation not in PYTHON_SDKS:
        raise ValueError(f"no Python SDK {generation!r} is known: one of {', '.join(PYTHON_SDKS)}")
    if generation == "3":
        return Path(sys.executable)
    folder = SDKS / f"openai-{generation}"
    return folder / "bin" / "python" if is_ready(folder) else None


def node_sdk() -> NodeSDK | None:
    """Node 22 and its SDKs, or None when `make sdks` has not put them there."""
    folder = SDKS / "node"
    return NodeSDK(folder / "node", folder) if is_ready(folder) else None


def required_python_sdk(generation: str) -> Path:
    """As python_sdk, for use within a test, which is left out (in a complete run: fails) without it."""
    return python_sdk(generation) or leave_out(f"no Python SDK {generation} here: run `make sdks` with a network")


def required_node_sdk() -> NodeSDK:
    """As node_sdk, for use within a test, which is left out (in a complete run: fails) without it."""
    return node_sdk() or leave_out("no Node with its SDKs here: run `make sdks` with a network")


def required_environment(name: str) -> Path:
    """The folder .sdk/NAME, for use within a test, which is left out (in a complete run: fails) without it."""
    folder = SDKS / name
    return folder if is_ready(folder) else leave_out(f"no {name} here: run `make sdks` with a network")


def is_ready(folder: Path) -> bool:
    """Whether the environment was set up to its end."""
    return (folder / "ready").exists()


def leave_out(reason: str) -> NoReturn:
    """Ends the running test: skipped, or failed when the environment asks for a complete run."""
    if os.environ.get(COMPLETE):
        pytest.fail(reason)
    pytest.skip(reason)
