"""Servers for the live tests, started and stopped around each."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.sandbox.server import Sandbox
from tests.live.house import House, house
from tests.live.scripted import Scripted
from tests.live.servers import Config, Gateway, serving

Start = Callable[[Config], Awaitable[Gateway]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the gateway itself runs


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a gateway within the loop of the test."""
    async with AsyncExitStack() as stack:

        async def started(config: Config) -> Gateway:
            return await stack.enter_async_context(serving(config, tmp_path))

        yield started


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway before the simulated providers, one for all tests that leave nothing behind there."""
    with house(tmp_path_factory.mktemp("house")) as running:
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    async with Scripted() as running:
        yield running
