"""The process: allocator, listening, signals, the configuration's file, the first lines on the terminal. Knows no
request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import gc
import json
import logging
import math
import os
import resource
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.catalog.deployments import Model
from app.config.cross_checks import is_loopback
from app.config.errors import Fault, SettingsError
from app.config.loading import Settings
from app.errors import Unavailable
from app.images import Operation
from app.main import create_app, replace_settings
from app.server.protocol import Protocol
from app.wiring import Runtime, adopt, new_log

# From glibc's malloc.h. uvloop reads in blocks of 256 KiB, above the usual threshold for blocks that are mapped and
# unmapped one by one: thousands of page faults for each upload. Blocks up to this size are taken from the heap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK = 4 * 1_048_576
_KEPT_FREE = 64 * 1_048_576

NOTICE_SECONDS = 1.0  # between /readyz turning 503 and the end of accepting, for load balancers to notice
LAST_SECONDS = 1.0  # in which the last answers leave, once the time for drawings is up
GRACE_SECONDS = 5  # beyond the time for drawings, until uvicorn gives up
# A thread that works on pixels holds the interpreter for so many seconds at a time; the event loop needs it several
# times for each request. Python's own value is 5 ms.
SWITCH_SECONDS = 0.0005
WATCH_SECONDS = 2.0
REPORT_TICKS = 100  # of uvicorn's, ten a second, between two log lines about connections that were turned away
SETTLED_SECONDS = 0.2  # without a change, since half a file may be valid and lack some of its models


def run(settings: Settings, reload: Callable[[], Settings], file: Path | None) -> None:
    """Serve until a signal stops the process. `reload` reads the configuration again, on SIGHUP or when `file` has
    changed; it may raise SettingsError."""
    _open_closed_streams()
    _tune_allocator()
    sys.setswitchinterval(SWITCH_SECONDS)
    _raise_limit_on_files()
    address = _authority(settings.server.host, settings.server.port)
    logging.getLogger("uvicorn.error").addFilter(partial(_simplify, address))
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # the answer says what is wrong with the form
    log = new_log(settings)
    app = create_app(settings, log)
    config = uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        http=Protocol,
        access_log=False,
        log_level="warning",
        server_header=False,
        backlog=4096,
        timeout_keep_alive=75,  # seconds; longer than load balancers keep theirs, so that they close first
        timeout_graceful_shutdown=math.ceil(settings.server.drain_seconds) + GRACE_SECONDS,
        forwarded_allow_ips=settings.server.forwarded_allow_ips,
    )
    Server(config, app, reload, file, settings.server.drain_seconds).run()


class Server(uvicorn.Server):
    """uvicorn, with a greeting when it listens, an orderly end, and a configuration that may change."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        reload: Callable[[], Settings],
        file: Path | None,
        drain_seconds: float,
    ) -> None:
        """`drain_seconds` are those of the start, since uvicorn cannot change its own copy."""
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._reload = reload
        self._file = file
        self._known = _version(file)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._adopting: asyncio.Future[None] | None = None  # the projects and budgets of a new configuration

    @property
    def _runtime(self) -> Runtime:
        runtime: Runtime = self._app.state.runtime
        return runtime

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGHUP, self.reconfigure)
        await super().startup(sockets)
        _tune_collector()
        if self.started:
            self._watcher = asyncio.create_task(self._watch())
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            with contextlib.suppress(OSError):  # as on a full disk: it serves all the same
                print(welcome(self._runtime, host, port), file=sys.stderr, flush=True)  # noqa: T201

    async def on_tick(self, counter: int) -> bool:
        if Protocol.turned_away and counter % REPORT_TICKS == 0:
            turned_away, Protocol.turned_away = Protocol.turned_away, 0
            self._runtime.resources.log.warning("hardly any descriptor is left", turned_away=turned_away)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM, report that the gateway is not ready and serve on for a moment. Load balancers then send it
        nothing more when it stops listening."""
        if sig == signal.SIGTERM and self.started and self._loop and not self._app.state.draining:
            self._app.state.draining = True
            self._captured_signals.append(sig)
            self._loop.call_soon_threadsafe(self._loop.call_later, NOTICE_SECONDS, self._stop)
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give runs `drain_seconds` to finish, and end the rest with an error."""
        self._app.state.draining = True
        if self._watcher:
            self._watcher.cancel()
        if hasattr(self._app.state, "runtime"):
            runtime, loop = self._runtime, asyncio.get_running_loop()
            seconds = self._drain_seconds
            loop.call_later(seconds, runtime.resources.retention.give_up, _shutting_down)
            loop.call_later(seconds + LAST_SECONDS, self._break_off)
        await super().shutdown(sockets)

    def reconfigure(self) -> None:
        """Apply the configuration as it is now. Refuse a bad one, and keep the old one."""
        if not hasattr(self._app.state, "runtime"):
            return  # the start is not complete; `_watch` will see the change
        log = self._runtime.resources.log
        self._known = _version(self._file)
        try:
            settings = self._reload()
            self._check(settings)
            replace_settings(self._app, settings)
            self._adopting = asyncio.ensure_future(adopt(self._runtime.resources, settings))
            self._runtime.resources.metrics_state.config_reloaded(is_valid=True)
        except SettingsError as error:
            self._runtime.resources.metrics_state.config_reloaded(is_valid=False)
            log.warning("configuration refused, the old one stays", faults=str(error))
        except Exception as error:
            log.crash("configuration", error)
        else:
            log.event("configuration applied", models=len(self._runtime.catalog.models))

    def _check(self, settings: Settings) -> None:
        """Refuse settings that would let callers in without a key, as half a file might, or change the kind of the
        providers. Raises SettingsError."""
        if settings.sandbox != bool(self._runtime.resources.sandbox_url):
            raise SettingsError([Fault("providers", "change between the sandbox and real ones", "restart the gateway")])
        closed = self._runtime.keyring.is_closed or not is_loopback(self.config.host)
        has_keys = settings.keys or self._runtime.resources.issued_keys.has_had_keys
        if closed and not has_keys and not settings.server.allow_anonymous:
            remedy = "restart the gateway to serve without, or set `server.allow_anonymous: true`"
            raise SettingsError([Fault("keys", "are gone", remedy)])

    def _break_off(self) -> None:
        """Abort the remaining connections, as if their clients had left. uvicorn would cancel each request at some
        point of its work, and print a traceback."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.abort()

    def _stop(self) -> None:
        self.should_exit = True

    async def _watch(self) -> None:
        """Apply a new file without a signal, since some platforms cannot send one into a container."""
        while self._file is not None:
            await asyncio.sleep(WATCH_SECONDS)
            now = _version(self._file)
            if now is not None and now != self._known:
                await asyncio.sleep(SETTLED_SECONDS)
                if _version(self._file) == now:
                    self.reconfigure()


def _version(file: Path | None) -> tuple[int, int] | None:
    """Return a value that changes when the file does. It follows links, since mounted configurations are links."""
    try:
        stat = file.stat() if file else None
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_ino) if stat else None


def _shutting_down() -> Unavailable:
    return Unavailable("The gateway is going down, and the images were not finished in time.", code="shutting_down")


def welcome(runtime: Runtime, host: str, port: int) -> str:
    """Return the first lines on the terminal: the address, the models, and a command that draws a picture into a
    file."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (stands for all addresses)
    base = f"http://{_authority(shown, port)}"
    models = runtime.catalog.models
    sandbox = "the sandbox (simulated providers, since no `providers` are configured)"
    served = sandbox if runtime.resources.sandbox_url else "its providers"
    names = ", ".join(model.name for model in models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
    lines = [
        f"Image Gateway listens at {base}/v1 and serves {served}: {names or 'no models, see `image-gateway check`'}."
    ]
    if drawing := _first_that_draws(models):
        key = " -H 'Authorization: Bearer YOUR_KEY'" if runtime.keyring.is_closed else ""
        body = shlex.quote(json.dumps({"model": drawing.name, "prompt": "a red fox"}))
        lines.append(
            f"Try: curl -f {shlex.quote(f'{base}/v1/images/generations')}{key} -H 'Content-Type: application/json' "
            f"-H 'Accept: image/png' -d {body} -o fox.png"
        )
    return "\n".join(lines)


def _first_that_draws(models: Sequence[Model]) -> Model | None:
    """Return the first model that needs no picture to begin with."""
    for model in models:
        if any(Operation.GENERATIONS in deployment.profile.operations for deployment in model.deployments):
            return model
    return None


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _simplify(address: str, record: logging.LogRecord) -> bool:
    """Filter uvicorn's log. A failed start keeps one line, which names the fault and its remedy. Answers that the
    gateway left unfinished are dropped, since the request's own log line says why."""
    message = record.getMessage()
    if isinstance(record.msg, OSError):
        record.msg, record.args = _explain_listening(address, record.msg), ()
    elif message.startswith("Traceback"):
        for error in ("DataDirError: ", "SchemaError: ", "ForeignSecret: ", "ListenError: "):  # they name the remedy
            if error in message:
                record.msg, record.args = message.strip().splitlines()[-1].partition(error)[2], ()
    return "returned without completing response" not in message


def _explain_listening(address: str, error: OSError) -> str:
    """Say why the gateway cannot listen at `address`, and what to do."""
    host, port = "--host or `server.host`", "--port, IMAGE_GATEWAY_PORT or `server.port`"
    if error.errno == errno.EADDRINUSE:
        reason = f"another program listens there. Stop that one, or choose another port with {port}"
    elif error.errno == errno.EACCES:
        reason = f"the system forbids it. Choose a port above 1023 with {port}"
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = f"this machine has no such address. Choose one that it has, or 0.0.0.0 for all, with {host}"
    elif isinstance(error, socket.gaierror):
        reason = f"its name is not known here. Write an address of this machine with {host}"
    else:
        reason = f"{error.strerror or error}. Choose another address with {host}, or another port with {port}"
    return f"Cannot listen at {address}: {reason}."


def _tune_collector() -> None:
    """Start garbage collection, and often enough: connections and the libraries' errors are cycles. Present objects are
    exempt, since they stay for good. Looking through them would take a tenth of the start, and free 0.3 MB."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 2)
    gc.enable()


def _open_closed_streams() -> None:
    """Let a process that was started without stdout or stderr write into nothing. uvicorn and the log need both."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))  # noqa: SIM115 (for good)


def _raise_limit_on_files() -> None:
    """Allow as many files as the system does. Each connection is one, and so is each picture and recording on disk."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tune_allocator() -> None:
    """Keep large blocks on the heap. Does nothing where the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)
