"""The composition root: settings → the objects that serve, opened and closed together. Alone in knowing them all."""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app import dialects, inventory
from app.api.body import Limits
from app.api.files import Files
from app.api.images import Service
from app.catalog import Catalog
from app.data_dir import DataDir, open_data_dir
from app.delivery import Delivery
from app.failover import RetryBudget
from app.fetching import Fetcher
from app.gateway import Gateway, Policy
from app.health import Health
from app.images import Upload
from app.keys import Key, Keys
from app.logs import Log
from app.recording import Meter, Recording
from app.remote import upload
from app.retention import Retention, Room
from app.sections import KeySettings
from app.settings import Settings, with_sandbox
from app.slots import Slots
from app.spool import Spool, Uploads
from app.stores.disk import DiskStore
from app.stores.links import Signer
from app.stores.runs import RunShelf
from app.transport import AiohttpTransport
from app.upstream import Upstream

CLEANING_SECONDS = 30.0
RECORDED_IN_MEMORY = 32 * 1_048_576  # bytes of one run; beyond, its images lie on disk


@dataclass(frozen=True, slots=True)
class Parts:
    """What serves while the application runs."""

    settings: Settings
    catalog: Catalog
    keys: Keys
    service: Service
    files: Files
    sandbox: bool = False


def new_log(settings: Settings) -> Log:
    return Log(settings.logging.format, requests=settings.logging.requests)


@asynccontextmanager
async def opened(settings: Settings, log: Log) -> AsyncIterator[Parts]:
    async with AsyncExitStack() as stack:
        sandbox = settings.sandbox
        if sandbox:
            settings = with_sandbox(settings, await _sandbox(stack))
        path = Path(stack.enter_context(TemporaryDirectory(prefix="image-gateway-"))) if sandbox else settings.data_dir
        data = stack.enter_context(open_data_dir(path))
        dialect = cache(dialects.load)
        catalog = Catalog(inventory.models(settings, lambda name: dialect(name).profile))
        keys = Keys(map(_key, settings.keys), time.monotonic)
        tls = ssl.create_default_context()  # reading the certificates takes a while: once for all
        fetcher = await stack.enter_async_context(Fetcher(tls=tls))
        transport = await stack.enter_async_context(AiohttpTransport(tls))
        files, signer = settings.files, Signer(data.url_secret, time.time)
        store = DiskStore(data.files, lifetime=files.lifetime_seconds, max_bytes=files.max_bytes, clock=time.time)
        await stack.enter_async_context(running(store.keep_clean(CLEANING_SECONDS)))
        spools, meter = folder(data, "spool"), Meter(settings.runs.memory_bytes)

        def recording() -> Recording:
            return Recording(lambda: Spool(0, str(spools)), meter, RECORDED_IN_MEMORY)

        gateway = Gateway(
            catalog,
            Upstream(transport),
            dialect,
            _policy(settings),
            Delivery(store, settings.server.default_response_format),
            fetcher,
            recording=recording,
            nonce=lambda: secrets.token_hex(16),
            sleep=asyncio.sleep,
            report=log.attempt_failed,
        )
        limits = Limits(settings.server.max_upload_bytes, settings.server.max_request_bytes)
        service = Service(
            gateway=gateway,
            keys=keys,
            retention=_retention(settings, RunShelf(folder(data, "runs"), meter), meter),
            recording=recording,
            limits=limits,
            uploads=lambda: Uploads(str(spools)),
            keepalive_seconds=settings.server.keepalive_seconds,
            signer=signer,
            public_url=files.public_url,
            fetch=partial(_remote, fetcher, limits) if settings.server.remote_images else None,
            finish_on_disconnect=settings.runs.on_disconnect == "finish",
            log_prompts=settings.logging.prompts,
        )
        yield Parts(settings, catalog, keys, service, Files(store, signer, time.time), sandbox)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _remote(fetcher: Fetcher, limits: Limits, uploads: Uploads) -> Callable[[str], Awaitable[Upload]]:
    """Gets images that callers name by their address."""

    def fetch(url: str) -> Awaitable[Upload]:
        return upload(fetcher, url, uploads, max_bytes=limits.upload_bytes, memory_bytes=limits.memory_bytes)

    return fetch


def _policy(settings: Settings) -> Policy:
    queue = Slots(time.monotonic, settings.queue.max_length, settings.queue.max_seconds)
    return Policy(Health(time.monotonic), queue, RetryBudget(time.monotonic), random.random)


def folder(data: DataDir, name: str) -> Path:
    path = data.path / name
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def _retention(settings: Settings, shelf: RunShelf, meter: Meter) -> Retention:
    runs = settings.runs
    room = Room(runs.memory_bytes, runs.disk_bytes, runs.retain_seconds)
    return Retention(room, meter, shelf, time.monotonic, shelf.load(runs.retain_seconds, time.monotonic))


def _key(key: KeySettings) -> Key:
    return Key(
        key.name,
        key.sha256,
        tuple(key.models),
        key.requests_per_minute,
        key.max_concurrency,
        key.default_response_format,
    )


async def _sandbox(stack: AsyncExitStack) -> str:
    """Imported here, since with a real configuration it is never loaded."""
    from app.sandbox.server import Sandbox

    sandbox = await stack.enter_async_context(Sandbox())
    return sandbox.base_url
