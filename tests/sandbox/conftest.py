"""A sandbox on a real socket, and a client for it, around each test."""

from collections.abc import AsyncIterator

import httpx
import pytest

from app.sandbox.server import Sandbox


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the gateway itself runs


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": "Bearer sk-test", "accept-encoding": "identity"}
    async with httpx.AsyncClient(base_url=sandbox.base_url, headers=headers, timeout=60, trust_env=False) as running:
        yield running
