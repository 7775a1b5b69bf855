"""The data directory: one process at a time, and the secret that signs URLs. Knows nothing of its contents."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECRET_BYTES = 32
_LOCK, _SECRET = "lock", "url-secret"
_PRIVATE_DIRECTORY, _PRIVATE_FILE = 0o700, 0o600


class DataDirError(Exception):
    """The directory cannot be used. The message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class DataDir:
    path: Path
    url_secret: bytes = field(repr=False)

    def folder(self, name: str) -> Path:
        """Return a private directory within, made if it is missing. Raises DataDirError."""
        path = self.path / name
        with _usable(path):
            path.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return path


@contextlib.contextmanager
def open_data_dir(path: Path) -> Iterator[DataDir]:
    """Create what is missing, and lock the directory until the block is left. Raises DataDirError.

    The kernel's lock ends with the process, however that ends. Nothing is written before the lock is held, and the lock
    file itself is never changed.
    """
    with _usable(path):
        path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        with _usable(path):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataDirError(
                    f"Another gateway uses the data directory {str(path)!r}. Stop it, or give this one a directory of "
                    "its own: the setting `data_dir`, or IMAGE_GATEWAY_DATA_DIR."
                ) from None
            secret = _secret(path / _SECRET)
        yield DataDir(path, secret)
    finally:
        os.close(lock)


def _secret(path: Path) -> bytes:
    """Return the secret in the file, or a new one. It stays over restarts, so that links stay good."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return _new_secret(path)
    if len(found) != SECRET_BYTES:
        raise DataDirError(
            f"{str(path)!r} holds {len(found)} bytes where a secret of {SECRET_BYTES} is expected. Delete it and start "
            "again: links that were handed out before are then no longer good."
        )
    with contextlib.suppress(OSError):  # a file of another user, or a file system without modes
        path.chmod(_PRIVATE_FILE)
    return found


def _new_secret(path: Path) -> bytes:
    """Write a secret under a temporary name, and rename the file once it is on the disk."""
    secret = secrets.token_bytes(SECRET_BYTES)
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)  # an earlier crash may have left it, with another mode
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(descriptor)
    unfinished.replace(path)
    return secret


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Raise OSError as DataDirError."""
    try:
        yield
    except OSError as error:
        raise DataDirError(
            f"The data directory {str(path)!r} cannot be used ({error.strerror or error}). Make it writable for the "
            "user that the gateway runs as, or name another: the setting `data_dir`, or IMAGE_GATEWAY_DATA_DIR."
        ) from error
