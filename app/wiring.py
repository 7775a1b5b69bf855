"""The composition root: settings → the objects that serve, opened and closed together. Alone in knowing them all."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from app import dialects, inventory
from app.api.body import Limits
from app.api.images import Service
from app.catalog import Catalog
from app.data_dir import DataDir, open_data_dir
from app.gateway import Gateway
from app.keys import Key, Keys
from app.logs import Log
from app.recording import Meter, Recording
from app.retention import Retention, Room
from app.sections import KeySettings
from app.settings import Settings, with_sandbox
from app.spool import Spool, Uploads
from app.stores.runs import RunShelf
from app.transport import AiohttpTransport
from app.upstream import Upstream

RECORDED_IN_MEMORY = 32 * 1_048_576  # bytes of one run; beyond, its images lie on disk


@dataclass(frozen=True, slots=True)
class Parts:
    """What serves while the application runs."""

    settings: Settings
    catalog: Catalog
    keys: Keys
    service: Service
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
        transport = await stack.enter_async_context(AiohttpTransport())
        spools, meter = folder(data, "spool"), Meter(settings.runs.memory_bytes)

        def recording() -> Recording:
            return Recording(lambda: Spool(0, str(spools)), meter, RECORDED_IN_MEMORY)

        gateway = Gateway(
            catalog,
            Upstream(transport),
            dialect,
            recording=recording,
            nonce=lambda: secrets.token_hex(16),
            sleep=asyncio.sleep,
            report=log.attempt_failed,
        )
        service = Service(
            gateway=gateway,
            keys=keys,
            retention=_retention(settings, RunShelf(folder(data, "runs"), meter), meter),
            recording=recording,
            limits=Limits(settings.server.max_upload_bytes, settings.server.max_request_bytes),
            uploads=lambda: Uploads(str(spools)),
            keepalive_seconds=settings.server.keepalive_seconds,
            default_response_format=settings.server.default_response_format,
            finish_on_disconnect=settings.runs.on_disconnect == "finish",
            log_prompts=settings.logging.prompts,
        )
        yield Parts(settings, catalog, keys, service, sandbox)


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
