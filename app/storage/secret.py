"""The gateway's one secret: stated by the configuration, or made in the data directory at the first start. Everything
that signs or hashes takes a key that is derived from it by a label. Knows no use of these keys."""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECRET_BYTES = 32
FILE = "secret"
RUNS: Final = "runs"
LINKS: Final = "links"
API_KEYS: Final = "api keys"
REPLICAS: Final = "replicas"

_PRIVATE_FILE = 0o600


class SecretFileError(Exception):
    """The file holds no secret. The message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Secret:
    value: bytes = field(repr=False)

    def derive(self, label: str) -> bytes:
        """Return the key for one purpose. It reveals nothing of the secret, nor of the key for another purpose."""
        return hmac.digest(self.value, f"image-gateway {label} 1".encode(), "sha256")


def read_secret(folder: Path, stated: str | None = None) -> Secret:
    """Return the stated secret; else the one in the folder, made if it is missing. It stays over restarts, so that keys
    and links stay good. Several processes may ask at once. Raises SecretFileError, and OSError."""
    if stated is not None:
        return Secret(stated.encode())
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / FILE
        try:
            found = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            found = _new_secret(path)
        except UnicodeDecodeError:
            found = ""
    finally:
        os.close(lock)
    if len(found) < SECRET_BYTES:
        raise SecretFileError(
            f"{str(path)!r} holds no secret. Restore it from a backup; or delete it and start again: keys that were "
            "issued and links that were handed out before are then no longer good."
        )
    with contextlib.suppress(OSError):  # a file of another user, or a file system without modes
        path.chmod(_PRIVATE_FILE)
    return Secret(found.encode())


def _new_secret(path: Path) -> str:
    """Write a secret under a temporary name, and rename the file once it is on the disk."""
    secret = secrets.token_hex(SECRET_BYTES)  # text, so that it can be stated elsewhere
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)  # an earlier crash may have left it, with another mode
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(descriptor)
    unfinished.replace(path)
    return secret
