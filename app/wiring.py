"""The composition root: settings → the objects that serve, opened and closed together. Alone in knowing them all."""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from app import dialects
from app.access.admission import Admission
from app.access.keyring import Key, Keyring
from app.access.limits import Limits
from app.api import runtime as api
from app.api.requests.body import Limits as BodyLimits
from app.api.requests.remote_images import upload
from app.api.web_pages import PageRules
from app.catalog.models import Catalog
from app.config import inventory
from app.config.loading import Settings
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
from app.storage.signed_urls import Signer, file_name
from app.storage.spool import KEPT_FILES, Budget, Files, Spool, Uploads
from app.telemetry.logs import AttemptLog, Log, RunLog
from app.upstream.client import Upstream
from app.upstream.downloads import Fetcher
from app.upstream.transport import AiohttpTransport

CLEANING_SECONDS = 30.0
TEXT_IN_MEMORY = 128 * 1_048_576  # bytes of all requests under way, and of small pictures up to half of it
RECORDED_IN_MEMORY = 32 * 1_048_576  # bytes of one run; beyond, its images lie on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(api.Resources):
    """All of them: those that only this module knows, too."""

    log: Log
    sandbox_url: str | None
    spools: Files
    upload_budget: Budget
    transport: AiohttpTransport
    fetcher: Fetcher
    meter: Meter
    health: Health
    queues: Slots
    retry_budget: RetryBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime(api.Runtime):
    """A reload replaces it at once."""

    resources: Resources
    settings: Settings
    page_rules: PageRules | None


def new_log(settings: Settings) -> Log:
    return Log(settings.logging.format, requests=settings.logging.requests)


@asynccontextmanager
async def open_resources(settings: Settings, log: Log, resume: Resume) -> AsyncIterator[Resources]:
    """`resume` takes up the jobs that an earlier process submitted. Raises DataDirError."""
    async with AsyncExitStack() as stack:
        sandbox_url, path = None, settings.data_dir
        if settings.sandbox:
            from app.sandbox.server import Sandbox  # with a real configuration it is never loaded

            sandbox_url = (await stack.enter_async_context(Sandbox())).base_url
            path = Path(stack.enter_context(TemporaryDirectory(prefix="image-gateway-")))
        data = stack.enter_context(open_data_dir(path))
        tls = ssl.create_default_context()  # one for all, since reading the certificates takes a while
        files, runs, meter = settings.files, settings.runs, Meter(settings.runs.memory_bytes)
        clock = steady(time.time, time.monotonic)
        alarm = DiskAlarm(log.warning, time.monotonic)
        spools = Files(str(data.folder("spool")), KEPT_FILES, partial(alarm.failed, "spool"))
        stack.callback(spools.close)

        def recording() -> Recording:
            return Recording(lambda: Spool(0, spools), meter, RECORDED_IN_MEMORY)

        persistence = RunFiles(data.folder("runs"), meter, report=partial(_report_unkept, log, alarm))
        observers: tuple[RunObserver, ...] = (RunLog(log, partial(_report_failed_run, log, alarm)),)
        entries = list(
            persistence.load(
                runs.retain_seconds,
                time.monotonic,
                resume=resume,
                recording=recording,
                observers=observers,
            )
        )
        undelivered = [entry for entry in entries if not entry.run.state.is_delivered]
        store = DiskStore(
            data.folder("files"),
            lifetime=files.lifetime_seconds,
            max_bytes=files.max_bytes,
            clock=clock,
            held={name for entry in undelivered for name in _files_of(entry)},
            report=partial(alarm.failed, "files"),
        )
        for entry in undelivered:
            for file in filter(None, map(store.holds, _files_of(entry))):
                entry.run.call.files.callback(store.release, file)
        cleaning = asyncio.create_task(store.keep_clean(CLEANING_SECONDS))
        stack.push_async_callback(lambda: asyncio.gather(cleaning, return_exceptions=True))
        stack.callback(cleaning.cancel)
        retention = Retention(
            Room(runs.memory_bytes, runs.disk_bytes, runs.retain_seconds),
            meter,
            persistence,
            time.monotonic,
            entries,
            partial(_free, data.path, alarm),
        )
        upload_budget = Budget(settings.server.max_uploads_bytes, TEXT_IN_MEMORY)
        resources = Resources(
            log=log,
            run_observers=observers,
            sandbox_url=sandbox_url,
            spools=spools,
            upload_budget=upload_budget,
            uploads=lambda: Uploads(spools, upload_budget),
            recording=recording,
            transport=await stack.enter_async_context(AiohttpTransport(tls)),
            fetcher=await stack.enter_async_context(Fetcher(tls=tls)),
            store=store,
            signer=Signer(data.url_secret, clock),
            clock=clock,
            meter=meter,
            retention=retention,
            health=Health(time.monotonic),
            queues=Slots(time.monotonic, settings.queue.max_length, settings.queue.max_seconds),
            retry_budget=RetryBudget(time.monotonic),
            limits=Limits(),
            workers=stack.enter_context(Workers(lambda: Spool(0, spools))),
        )
        stack.push_async_callback(retention.close)
        yield resources


def make_runtime(resources: Resources, settings: Settings, before: Runtime | None = None) -> Runtime:
    """The runtime of `settings`; `before` is the one that it replaces."""
    if resources.sandbox_url:
        settings = with_sandbox(settings, resources.sandbox_url)
    for name, provider in before.settings.providers.items() if before else ():
        if settings.providers.get(name) != provider:
            resources.health.forget(name)
    server = settings.server
    resources.upload_budget.disk_bytes = server.max_uploads_bytes
    dialect = cache(dialects.load)
    catalog = Catalog(inventory.models(settings, lambda name: dialect(name).profile))
    gateway = Gateway(
        catalog,
        Exchanges(Upstream(resources.transport), resources.fetcher, asyncio.sleep),
        dialect,
        Policy(resources.health, resources.queues, resources.retry_budget, random.random),
        Delivery(resources.store, server.default_response_format, resources.signer.url),
        resources.workers,
        recording=resources.recording,
        nonce=lambda: secrets.token_hex(16),
        clock=time.monotonic,
        sleep=asyncio.sleep,
        observers=[AttemptLog(resources.log, prompts=settings.logging.prompts)],
    )
    limits = BodyLimits(server.max_upload_bytes, server.max_request_bytes, rate=server.min_upload_rate)
    rules = None if settings.keys else PageRules(frozenset(server.allowed_hosts), frozenset(server.cors_origins))
    return Runtime(
        settings=settings,
        resources=resources,
        page_rules=rules,
        keyring=Keyring(
            Key(
                key.name,
                key.sha256,
                tuple(key.models),
                key.requests_per_minute,
                key.max_concurrency,
                key.default_response_format,
            )
            for key in settings.keys
        ),
        admission=Admission(resources.limits, time.monotonic),
        catalog=catalog,
        gateway=gateway,
        fetch=partial(upload, resources.fetcher, limits) if server.remote_images else None,
        body_limits=limits,
        keepalive_seconds=server.keepalive_seconds,
        json_keepalive_after=server.json_keepalive_after,
        finish_on_disconnect=settings.runs.on_disconnect == "finish",
        public_url=settings.files.public_url,
        log_prompts=settings.logging.prompts,
    )


def _files_of(entry: RunEntry) -> list[str]:
    """The names of the files that the links of a run lead to."""
    return [file_name(event.url) for event in entry.run.recording.log() if isinstance(event, ImageLink)]


def steady(wall: Callable[[], float], elapsed: Callable[[], float]) -> Callable[[], float]:
    """A clock that begins at `wall`'s Unix time and then goes on evenly: a link does not end because a clock was
    set."""
    since = wall() - elapsed()
    return lambda: since + elapsed()


def _free(path: Path, alarm: DiskAlarm) -> int:
    """Bytes that the disk has left. Too few of them raise the alarm."""
    free = free_bytes(path)
    if free < LEAST_FREE:
        alarm.failed(path.name, no_space())
    return free


def _report_unkept(log: Log, alarm: DiskAlarm, run_id: str, error: Exception) -> None:
    """Log that a run that was perhaps paid for may be lost with the process, or is lost already."""
    if isinstance(error, OSError):
        alarm.failed("runs", error)
    log.warning("run could not be kept", request_id=run_id, reason=getattr(error, "strerror", None) or str(error))


def _report_failed_run(log: Log, alarm: DiskAlarm, run_id: str, error: Exception) -> None:
    if is_full(error):
        _report_unkept(log, alarm, run_id, error)
    else:
        log.crash(run_id, error)
