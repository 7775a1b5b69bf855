"""The composition root: settings → the objects that serve, opened and closed together. Alone in knowing them all."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache

from app import dialects, inventory
from app.api.body import Limits
from app.api.images import Service
from app.catalog import Catalog
from app.gateway import Gateway
from app.keys import Key, Keys
from app.logs import Log
from app.sections import KeySettings
from app.settings import Settings, with_sandbox
from app.spool import Uploads
from app.transport import AiohttpTransport
from app.upstream import Upstream


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
        dialect = cache(dialects.load)
        catalog = Catalog(inventory.models(settings, lambda name: dialect(name).profile))
        keys = Keys(map(_key, settings.keys), time.monotonic)
        transport = await stack.enter_async_context(AiohttpTransport())
        gateway = Gateway(
            catalog,
            Upstream(transport),
            dialect,
            nonce=lambda: secrets.token_hex(16),
            sleep=asyncio.sleep,
            report=log.attempt_failed,
        )
        yield Parts(settings, catalog, keys, _service(settings, gateway, keys), sandbox)


def _service(settings: Settings, gateway: Gateway, keys: Keys) -> Service:
    return Service(
        gateway=gateway,
        keys=keys,
        limits=Limits(settings.server.max_upload_bytes, settings.server.max_request_bytes),
        uploads=Uploads,
        keepalive_seconds=settings.server.keepalive_seconds,
        default_response_format=settings.server.default_response_format,
        log_prompts=settings.logging.prompts,
    )


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
