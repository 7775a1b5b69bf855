"""The data directory: one process at a time, the gateway's secret and its name. Knows nothing of its other contents."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.storage.full_disk import is_full
from app.storage.secret import Secret, SecretFileError, read_secret

_LOCK, _FORMER, _NAME = "lock", "url-secret", "name"
_FORMER_BYTES = 32
_PRIVATE_DIRECTORY, _PRIVATE_FILE = 0o700, 0o600


class DataDirError(Exception):
    """The directory cannot be used. The message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """`name` distinguishes its gateway from others that use the same database."""

    path: Path
    secret: Secret
    name: str
    former_link_secret: bytes | None = field(default=None, repr=False)

    def folder(self, name: str) -> Path:
        """Return a private directory within, made if it is missing. Raises DataDirError."""
        path = self.path / name
        with _usable(path):
            path.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return path


@contextlib.contextmanager
def open_data_dir(path: Path, stated: str | None = None) -> Iterator[DataDir]:
    """Create what is missing, and lock the directory until the block is left. `stated` is the configuration's secret.
    Raises DataDirError.

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
            secret, former = read_secret(path, stated), _former_secret(path / _FORMER)
            name = _read_name(path / _NAME)
        yield DataDir(path, secret, name, former)
    finally:
        os.close(lock)


def _read_name(path: Path) -> str:
    """Return the name in the file. It is made at random, and anew if the file is a copy of another one, since two
    processes of one name would end each other's drawings."""
    with contextlib.suppress(OSError, ValueError):
        name, place = path.read_text(encoding="ascii").split()
        if place == _place(path.stat()):
            return name
    name, unfinished = f"gw_{secrets.token_hex(6)}", path.with_suffix(".new")
    with unfinished.open("w", encoding="ascii") as file:
        file.write(f"{name} {_place(os.fstat(file.fileno()))}\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return name


def _place(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"


def _former_secret(path: Path) -> bytes | None:
    """Return the secret that signed the links of earlier versions, if there was one."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    return found if len(found) == _FORMER_BYTES else None


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Raise OSError and SecretFileError as DataDirError."""
    try:
        yield
    except SecretFileError as error:
        raise DataDirError(str(error)) from None
    except OSError as error:
        remedy = "Make room on its disk" if is_full(error) else "Make it writable for the user that the gateway runs as"
        raise DataDirError(
            f"The data directory {str(path)!r} cannot be used ({error.strerror or error}). {remedy}, or name another: "
            "the setting `data_dir`, or IMAGE_GATEWAY_DATA_DIR."
        ) from error
