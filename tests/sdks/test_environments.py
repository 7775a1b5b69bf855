"""The SDK environments hold the generations that their names promise."""

import subprocess
from pathlib import Path

import pytest

from tests.sdks import environments
from tests.sdks.environments import PYTHON_SDKS, required_node_sdk, required_python_sdk


def output(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=cwd).stdout.strip()


@pytest.mark.parametrize("generation", PYTHON_SDKS)
def test_each_python_sdk_is_of_the_generation_it_is_asked_for_by(generation: str) -> None:
    python = required_python_sdk(generation)
    version = output(python, "-c", "import importlib.metadata as m; print(m.version('openai'))")
    assert version.startswith(f"{generation}.")


def test_node_is_new_enough_and_imports_both_generations_of_its_sdk() -> None:
    node = required_node_sdk()
    script = """
        import { VERSION as seven } from "openai/version";
        import { VERSION as six } from "openai6/version";
        console.log(process.version, seven, six);
    """
    versions = output(node.binary, "--input-type=module", "-e", script, cwd=node.folder).split()
    assert [version.split(".")[0] for version in versions] == ["v22", "7", "6"]


def test_an_unknown_generation_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'4'.*1\.109, 2\.54, 3"):
        environments.python_sdk("4")


def test_what_is_missing_leaves_the_test_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environments.COMPLETE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Node here"):
        environments.leave_out("no Node here")


def test_what_is_missing_fails_a_complete_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.COMPLETE, "1")
    with pytest.raises(pytest.fail.Exception, match="no Node here"):
        environments.leave_out("no Node here")
