"""The composition root: settings → the objects that serve, opened and closed together. Alone in knowing them all."""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app import dialects
from app.access.keys import Key, Keys
from app.api.files import Files
from app.api.following import Service
from app.api.requests.body import Limits
from app.api.requests.json_body import Fetch
from app.api.requests.remote_images import upload
from app.api.web_pages import PageRules
from app.catalog.models import Catalog
from app.config import inventory
from app.config.loading import Settings
from app.config.schema import KeySettings
from app.config.simulated import with_sandbox
from app.events import ImageLink
from app.gateway.delivery import Delivery
from app.gateway.exchanges import Exchanges
from app.gateway.gateway import Gateway, Policy
from app.imaging.workers import Workers
from app.routing.failover import RetryBudget
from app.routing.health import Health
from app.routing.queues import Slots
from app.runs.entry import RunEntry
from app.runs.persistence import Resume, RunFiles
from app.runs.retention import Retention, Room
from app.runs.run import RunObserver
from app.storage.data_dir import open_data_dir
from app.storage.disk import DiskStore
from app.storage.full_disk import LEAST_FREE, DiskAlarm, free_bytes, is_full, no_space
from app.storage.recording import Meter, Recording
from app.storage.signed_urls import Signer, named
from app.storage.spool import KEPT_FILES, Budget, Spool, Uploads
from app.storage.spool import Files as SpoolFiles
from app.telemetry.logs import AttemptLog, Log, RunLog
from app.upstream.client import Upstream
from app.upstream.downloads import Fetcher
from app.upstream.transport import AiohttpTransport

CLEANING_SECONDS = 30.0
TEXT_IN_MEMORY = 128 * 1_048_576  # bytes of all requests under way, and of small pictures up to half of it
RECORDED_IN_MEMORY = 32 * 1_048_576  # bytes of one run; beyond, its images lie on disk


@dataclass(frozen=True, slots=True)
class Ground:
    """What lives as long as the process, whatever the configuration becomes."""

    log: Log
    run_observers: tuple[RunObserver, ...]
    sandbox_url: str | None
    spools: SpoolFiles
    upload_budget: Budget
    transport: AiohttpTransport
    fetcher: Fetcher
    store: DiskStore
    signer: Signer
    clock: Callable[[], float]
    meter: Meter
    retention: Retention
    policy: Policy
    workers: Workers

    def recording(self) -> Recording:
        return Recording(lambda: Spool(0, self.spools), self.meter, RECORDED_IN_MEMORY)

    def uploads(self) -> Uploads:
        return Uploads(self.spools, self.upload_budget)


@dataclass(frozen=True, slots=True)
class Parts:
    """What serves. Replaced as a whole when the configuration changes; what is under way keeps the old ones."""

    settings: Settings
    catalog: Catalog
    keys: Keys
    service: Service
    files: Files
    page_rules: PageRules | None
    ground: Ground


def new_log(settings: Settings) -> Log:
    return Log(settings.logging.format, requests=settings.logging.requests)


@asynccontextmanager
async def opened(settings: Settings, log: Log, resume: Resume) -> AsyncIterator[Ground]:
    """`resume` takes up the jobs that an earlier process submitted. Raises DataDirError."""
    async with AsyncExitStack() as stack:
        sandbox_url = await _sandbox(stack) if settings.sandbox else None
        path = (
            Path(stack.enter_context(TemporaryDirectory(prefix="image-gateway-"))) if sandbox_url else settings.data_dir
        )
        data = stack.enter_context(open_data_dir(path))
        tls = ssl.create_default_context()  # reading the certificates takes a while: once for all
        files, runs, meter = settings.files, settings.runs, Meter(settings.runs.memory_bytes)
        clock = steady(time.time, time.monotonic)
        alarm = DiskAlarm(log.warning, time.monotonic)
        not_kept = partial(_not_kept, log, alarm)
        persistence = RunFiles(data.folder("runs"), meter, report=not_kept)
        observers: tuple[RunObserver, ...] = (RunLog(log, partial(_crashed, log, not_kept)),)
        spools = SpoolFiles(str(data.folder("spool")), KEPT_FILES, partial(alarm.failed, "spool"))
        stack.callback(spools.close)
        left = list(
            persistence.load(
                runs.retain_seconds,
                time.monotonic,
                resume=resume,
                recording=lambda: Recording(lambda: Spool(0, spools), meter, RECORDED_IN_MEMORY),
                observers=observers,
            )
        )
        owed = [kept for kept in left if not kept.run.state.is_delivered]
        store = DiskStore(
            data.folder("files"),
            lifetime=files.lifetime_seconds,
            max_bytes=files.max_bytes,
            clock=clock,
            held={name for kept in owed for name in _files_of(kept)},
            report=partial(alarm.failed, "files"),
        )
        for kept in owed:
            for file in filter(None, map(store.holds, _files_of(kept))):
                kept.run.call.files.callback(store.release, file)
        await stack.enter_async_context(running(store.keep_clean(CLEANING_SECONDS)))
        ground = Ground(
            log,
            observers,
            sandbox_url,
            spools,
            Budget(settings.server.max_uploads_bytes, TEXT_IN_MEMORY),
            await stack.enter_async_context(AiohttpTransport(tls)),
            await stack.enter_async_context(Fetcher(tls=tls)),
            store,
            Signer(data.url_secret, clock),
            clock,
            meter,
            Retention(
                Room(runs.memory_bytes, runs.disk_bytes, runs.retain_seconds),
                meter,
                persistence,
                time.monotonic,
                left,
                partial(_free, data.path, alarm),
            ),
            Policy(
                Health(time.monotonic),
                Slots(time.monotonic, settings.queue.max_length, settings.queue.max_seconds),
                RetryBudget(time.monotonic),
                random.random,
            ),
            stack.enter_context(Workers(lambda: Spool(0, spools))),
        )
        stack.push_async_callback(ground.retention.close)
        yield ground


def parts(ground: Ground, settings: Settings, before: Parts | None = None) -> Parts:
    """What `settings` say, on the same ground; `before` is what they replace."""
    if ground.sandbox_url:
        settings = with_sandbox(settings, ground.sandbox_url)
    for name in _changed_providers(settings, before.settings) if before else ():
        ground.policy.health.forget(name)
    dialect = cache(dialects.load)
    catalog = Catalog(inventory.models(settings, lambda name: dialect(name).profile))
    keys = Keys(map(_key, settings.keys), time.monotonic, before.keys if before else None)
    gateway = Gateway(
        catalog,
        Exchanges(Upstream(ground.transport), ground.fetcher, time.monotonic, asyncio.sleep),
        dialect,
        ground.policy,
        Delivery(ground.store, settings.server.default_response_format),
        ground.workers,
        recording=ground.recording,
        nonce=lambda: secrets.token_hex(16),
        clock=time.monotonic,
        sleep=asyncio.sleep,
        observers=[AttemptLog(ground.log, prompts=settings.logging.prompts)],
    )
    server = settings.server
    ground.upload_budget.disk_bytes = server.max_uploads_bytes
    limits = Limits(server.max_upload_bytes, server.max_request_bytes, rate=server.min_upload_rate)
    service = Service(
        gateway=gateway,
        keys=keys,
        retention=ground.retention,
        recording=ground.recording,
        limits=limits,
        uploads=ground.uploads,
        workers=ground.workers,
        keepalive_seconds=server.keepalive_seconds,
        json_keepalive_after=server.json_keepalive_after,
        signer=ground.signer,
        run_observers=ground.run_observers,
        public_url=settings.files.public_url,
        fetch=partial(_remote, ground.fetcher, limits) if server.remote_images else None,
        finish_on_disconnect=settings.runs.on_disconnect == "finish",
        log_prompts=settings.logging.prompts,
    )
    files = Files(ground.store, ground.signer, ground.clock)
    rules = None if settings.keys else PageRules(frozenset(server.allowed_hosts), frozenset(server.cors_origins))
    return Parts(settings, catalog, keys, service, files, rules, ground)


def _changed_providers(settings: Settings, before: Settings) -> list[str]:
    return [name for name, entry in before.providers.items() if settings.providers.get(name) != entry]


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _remote(fetcher: Fetcher, limits: Limits, uploads: Uploads) -> Fetch:
    """Gets images that callers name by their address."""
    most = {"max_bytes": limits.upload_bytes, "memory_bytes": limits.memory_bytes}
    return lambda url, place: upload(fetcher, url, uploads, param=place, rate=limits.rate, **most)


def _files_of(kept: RunEntry) -> list[str]:
    """The files that the links of a run lead to."""
    return [named(event.url) for event in kept.run.recording.log() if isinstance(event, ImageLink)]


def steady(wall: Callable[[], float], elapsed: Callable[[], float]) -> Callable[[], float]:
    """Unix time, as `wall` tells it now, that then goes on evenly: links do not end because a clock was set."""
    since = wall() - elapsed()
    return lambda: since + elapsed()


def _free(path: Path, alarm: DiskAlarm) -> int:
    """Bytes that the disk has left; too few are told."""
    free = free_bytes(path)
    if free < LEAST_FREE:
        alarm.failed(path.name, no_space())
    return free


def _not_kept(log: Log, alarm: DiskAlarm, run_id: str, error: Exception) -> None:
    """A run that was perhaps paid for may be lost with the process, or is lost already."""
    if isinstance(error, OSError):
        alarm.failed("runs", error)
    log.warning("run could not be kept", request_id=run_id, reason=getattr(error, "strerror", None) or str(error))


def _key(key: KeySettings) -> Key:
    return Key(
        key.name,
        key.sha256,
        tuple(key.models),
        key.requests_per_minute,
        key.max_concurrency,
        key.default_response_format,
    )


def _crashed(log: Log, not_kept: Callable[[str, Exception], None], run_id: str, error: Exception) -> None:
    (not_kept if is_full(error) else log.crash)(run_id, error)


async def _sandbox(stack: AsyncExitStack) -> str:
    """Imported here, since with a real configuration it is never loaded."""
    from app.sandbox.server import Sandbox

    sandbox = await stack.enter_async_context(Sandbox())
    return sandbox.base_url
