"""Gateways that are really there: in the test's own loop, where it can look inside, or as a process of their own."""

import asyncio
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.config.loading import load
from app.main import create_app
from app.server.protocol import Protocol
from app.telemetry.logs import Log
from tests.live.loops import bound
from tests.waiting import PATIENCE

Config = dict[str, Any]


def provider(base_url: str, **more: Any) -> Config:
    return {"dialect": "openai", "base_url": base_url, "api_key": "upstream-secret", "preset": "none", **more}


def served_by(*providers: str, **more: Any) -> Config:
    """A model with these providers' deployments, in this order."""
    return {"deployments": [{"provider": name} for name in providers], **more}


def sandbox_providers(base_url: str) -> Config:
    """The simulated providers, under their presets where there are such."""
    paths = {name: f"/{name}/v1" for name in ("netmind", "nebul", "openai", "bfl")} | {"nebula": "/nebula/api/v1"}
    return {name: {"base_url": base_url + path, "api_key": "upstream-secret"} for name, path in paths.items()}


def written(config: Config, folder: Path) -> Path:
    """The configuration as a file (JSON is YAML), its data beside it."""
    file = folder / "gateway.yaml"
    file.write_text(json.dumps({"data_dir": str(folder / "data"), **config}))
    return file


# --- within the loop ---


@dataclass(slots=True)
class Gateway:
    """`connections` are those that callers have open."""

    app: FastAPI
    port: int
    state: ServerState
    log: io.StringIO = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self.state.connections)

    @property
    def spare_files(self) -> int:
        """The open files that are kept for the next uploads."""
        spare: int = self.app.state.runtime.resources.spools.snapshot().spare
        return spare

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def request_lines(self, count: int = 1) -> list[dict[str, Any]]:
        """The log lines of finished requests, once there are `count`: they are written after the last byte has left."""
        async with asyncio.timeout(PATIENCE):
            while len(found := [line for line in self.lines() if line["event"] == "request"]) < count:
                await asyncio.sleep(0.005)
        return found


@asynccontextmanager
async def serving(config: Config, folder: Path) -> AsyncIterator[Gateway]:
    """As `image-gateway serve` does, without its signals and its slow ending."""
    log, state, listener = io.StringIO(), ServerState(), bound()
    settings = load(written(config, folder), {})
    app = create_app(settings, Log("json", requests=True, stream=log))
    uvicorn_config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        server_header=False,
        forwarded_allow_ips=settings.server.forwarded_allow_ips,
    )
    uvicorn_config.load()
    loop = asyncio.get_running_loop()
    async with app.router.lifespan_context(app):
        server = await loop.create_server(
            lambda: Protocol(uvicorn_config, state, {}, loop), sock=listener, backlog=1024
        )
        try:
            yield Gateway(app, listener.getsockname()[1], state, log)
        finally:
            server.close()
            for connection in list(state.connections):
                connection.shutdown()
                if isinstance(connection, HttpToolsProtocol):
                    connection.transport.abort()
            await asyncio.gather(*state.tasks, return_exceptions=True)


# --- as a process ---


class Process:
    """A gateway of its own: what it prints is kept."""

    def __init__(self, process: "subprocess.Popen[str]", out: Path) -> None:
        self._out = out
        self.process = process
        self.said: list[str] = []  # on stderr
        self._listens = threading.Event()
        assert process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._reader.start()
        if not self._listens.wait(PATIENCE) or not self.said or "http://" not in self.said[0]:
            self.stop()
            raise AssertionError(f"the gateway does not listen: {''.join(self.said)}")
        self.url = self.said[0].partition(" at ")[2].partition("/v1")[0]
        self.port = int(self.url.rpartition(":")[2])

    def _read(self, stderr: IO[str]) -> None:
        for line in stderr:
            self.said.append(line)
            self._listens.set()
        self._listens.set()

    def lines(self, request_id: str, count: int = 0) -> list[dict[str, Any]]:
        """The log lines of the requests with this id; waits until there are `count`."""
        until = time.monotonic() + PATIENCE
        while True:
            found = [json.loads(line) for line in self._out.read_text().splitlines()]
            found = [line for line in found if line.get("request_id") == request_id and line["event"] == "request"]
            if len(found) >= count or time.monotonic() > until:
                return found
            time.sleep(0.01)

    def printed(self) -> str:
        return self._out.read_text() + "".join(self.said)

    def command(self) -> str:
        """The command that the first lines on stderr tell to try."""
        until = time.monotonic() + PATIENCE
        while not (found := [said for said in self.said if said.startswith("Try: ")]) and time.monotonic() < until:
            time.sleep(0.01)
        return found[0].removeprefix("Try: ")

    def memory(self, name: str = "VmHWM") -> int:
        """Bytes, from /proc: `VmHWM` is the most that was resident at any time."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} in /proc")

    def forget_memory(self) -> None:
        """From now on `VmHWM` counts anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)
        finally:
            self._reader.join(5)
            if self.process.stderr:
                self.process.stderr.close()


@contextmanager
def process(
    config: Config | None, folder: Path, *, first: str = "", notice: float = 0.01, **environment: str
) -> Iterator[Process]:
    """`image-gateway serve`; without a configuration it serves its sandbox. `first` is a statement that its Python runs
    before. `notice`: seconds for load balancers, which only some tests play."""
    code = f"{first}\nimport app.process\napp.process.NOTICE_SECONDS = {notice}\nfrom app.__main__ import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, "serve", "--port", "0"]
    if config is not None:
        command += ["--config", str(written(config, folder))]
    out = folder / "stdout"
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    with out.open("w") as stdout:
        started = subprocess.Popen(
            command, cwd=folder, env={**variables, **environment}, stdout=stdout, stderr=subprocess.PIPE, text=True
        )
    gateway = Process(started, out)
    try:
        yield gateway
    finally:
        gateway.stop()
