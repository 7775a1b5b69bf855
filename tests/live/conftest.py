"""Servers for the live tests, started and stopped around each."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from app.sandbox.server import Sandbox
from tests.ledger.conftest import postgres_database, postgres_server, postgres_url, url
from tests.live.house import House, house
from tests.live.loops import in_thread
from tests.live.scripted import Scripted
from tests.live.servers import Config, Gateway, serving

__all__ = ["postgres_database", "postgres_server", "postgres_url", "url"]  # fixtures

Start = Callable[[Config], Awaitable[Gateway]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the gateway itself runs


@pytest.fixture(autouse=True)
def _refusals_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers wait for the end of a connection whose end was announced."""
    monkeypatch.setattr("app.server.protocol.LINGER_SECONDS", 0.1)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a gateway within the loop of the test."""
    async with AsyncExitStack() as stack:

        async def started(config: Config) -> Gateway:
            return await stack.enter_async_context(serving(config, tmp_path))

        yield started


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Config], Gateway]]:
    """Finds the running gateway of a configuration, or starts it in a thread of its own."""
    running: dict[str, Gateway] = {}
    with ExitStack() as stack:

        def find(config: Config) -> Gateway:
            name = json.dumps(config, sort_keys=True)
            if name not in running:
                folder = tmp_path_factory.mktemp("gateway")
                running[name] = stack.enter_context(in_thread(lambda: serving(config, folder)))
            return running[name]

        yield find


@pytest.fixture
def shared(gateways: Callable[[Config], Gateway]) -> Start:
    """Starts a gateway for all tests of the file with this configuration, if they leave nothing behind there and do not
    read its log."""

    async def found(config: Config) -> Gateway:
        return gateways(config)

    return found


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
