"""Fetches what others wrote for the pages, by `npm pack`, into app/pages/static/vendor/, and writes its manifest.

Run by hand with a new version in PACKAGES: `python scripts/vendor.py`. The tests compare the files with the manifest;
`python scripts/vendor.py --check` compares them with the registry.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).resolve().parent.parent / "app" / "pages" / "static" / "vendor"


@dataclass(frozen=True)
class Package:
    """`files`: the name here → the path in the package."""

    name: str
    version: str
    licence: str
    files: dict[str, str]


PACKAGES = (
    Package("preact", "11.2.0", "MIT", {"preact.js": "dist/preact.mjs", "hooks.js": "hooks/dist/hooks.mjs"}),
    Package("htm", "3.1.1", "Apache-2.0", {"htm.js": "dist/htm.mjs"}),
)

# What is changed in a file, and why: an import by a bare name needs an import map, which would be an inline script; an
# address of a source map leads nowhere.
CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "preact.js": (("//# sourceMappingURL=preact.mjs.map", ""),),
    "hooks.js": (('from"preact"', 'from"./preact.js"'), ("//# sourceMappingURL=hooks.mjs.map", "")),
}


def fetch(package: Package) -> dict[str, bytes]:
    """Return the package's files by the names that they have here, with its licence. Raises CalledProcessError."""
    with TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        archive = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
        with tarfile.open(Path(folder) / archive) as opened:

            def read(path: str) -> bytes:
                file = opened.extractfile(f"package/{path}")
                if file is None:
                    raise SystemExit(f"{package.name} has no file {path}")
                return file.read()

            found = {name: changed(name, read(path)) for name, path in package.files.items()}
            return found | {f"{package.name}.LICENSE.txt": read("LICENSE")}


def changed(name: str, content: bytes) -> bytes:
    text = content.decode()
    for old, new in CHANGES.get(name, ()):
        if text.count(old) != 1:
            raise SystemExit(f"{name}: {old!r} is there {text.count(old)} times")
        text = text.replace(old, new)
    return text.rstrip().encode() + b"\n"


def manifest(found: dict[str, dict[str, bytes]]) -> str:
    packages = [
        {
            "name": package.name,
            "version": package.version,
            "licence": package.licence,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in found[package.name].items()},
        }
        for package in PACKAGES
    ]
    return json.dumps(packages, indent=2) + "\n"


def main(arguments: list[str]) -> int:
    found = {package.name: fetch(package) for package in PACKAGES}
    files = {name: data for each in found.values() for name, data in each.items()}
    files["manifest.json"] = manifest(found).encode()
    if "--check" in arguments:
        other = [name for name, data in files.items() if (FOLDER / name).read_bytes() != data]
        sys.stdout.write("".join(f"{name} is not what the registry has\n" for name in other))
        return 1 if other else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
