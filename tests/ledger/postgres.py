"""A Postgres for tests: found on the machine, started on loopback in a temporary directory, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS = 60  # to start on a busy machine


def find_binaries() -> Path | None:
    """Return the directory that holds `initdb` and `postgres`, of the newest version."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    places = [*reversed(debian), *([Path(on_path).resolve().parent] if on_path else [])]
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


class Server:
    """One that can be stopped and started again, at the same port."""

    def __init__(self, binaries: Path, folder: Path, options: tuple[str, ...] = ()) -> None:
        self._binaries, self._folder, self._options = binaries, folder, options
        self._server: subprocess.Popen[bytes] | None = None
        self._port, user = free_port(), _user()
        if user is not None:
            os.chown(folder, *user[1:])
        self._run_as = {"user": user[0], "group": user[2]} if user else {}
        initdb = [binaries / "initdb", "-D", folder / "data", "-U", "gateway", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, cwd=folder, check=True, capture_output=True, **self._run_as)  # type: ignore[call-overload]

    @property
    def address(self) -> str:
        """The URL of a database, without its name: `…/`."""
        return f"postgresql://gateway@127.0.0.1:{self._port}/"

    def start(self) -> None:
        own = f"unix_socket_directories={self._folder}"
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", own, "-c", "fsync=off", *self._options]
        command = [self._binaries / "postgres", "-D", self._folder / "data", "-p", str(self._port), *settings]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(  # type: ignore[call-overload]
                command, cwd=self._folder, stdout=log, stderr=log, **self._run_as
            )
        assert self._server is not None
        _wait_until_ready(self._binaries, self._port, self._server)

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(2)  # fast shutdown
            self._server.wait(SECONDS)
            self._server = None


@contextlib.contextmanager
def postgres_of_its_own(binaries: Path, *, options: tuple[str, ...] = ()) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="gateway-postgres-") as folder:
        server = Server(binaries, Path(folder), options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_postgres(binaries: Path, *, options: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the URL of its database `postgres`, without the name: `…/`."""
    with postgres_of_its_own(binaries, options=options) as server:
        yield server.address


def free_port() -> int:
    """A port below those that systems give to connections and servers of their own accord, which stays free while the
    server is down."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _user() -> tuple[str, int, int] | None:
    """Return the user to run as, its id and its group's: Postgres refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return name, found.pw_uid, found.pw_gid
    raise RuntimeError("Postgres does not run as root, and there is no user postgres or nobody")


def _wait_until_ready(binaries: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    asking = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(asking, check=False).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("Postgres did not start")
        time.sleep(0.05)
