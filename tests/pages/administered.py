"""Gateways for tests of the administration page: the sandbox with a team's ledger, and one that has keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.ledger.values.directory import ApiKey, Project
from tests.ledger.samples import ME
from tests.live.loops import dead_port, in_thread
from tests.live.servers import Config, Gateway, provider, served_by, serving
from tests.pages.ledger_of_a_team import Say, fill

MARKUP = "<img src=x onerror=alert(1)>"
FORMULA = "=HYPERLINK(1)"


@dataclass(slots=True)
class Administered:
    """A gateway, and its keys: one that administrates, and one that draws."""

    gateway: Gateway
    admin: str
    ordinary: str

    @property
    def url(self) -> str:
        return self.gateway.url

    def client(self) -> httpx.Client:
        """A caller with the admin key."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.admin}"}, timeout=30)


@asynccontextmanager
async def _in_its_loop(config: Config, folder: Path) -> AsyncIterator[tuple[Gateway, asyncio.AbstractEventLoop]]:
    async with serving(config, folder) as gateway:
        yield gateway, asyncio.get_running_loop()


async def _furnish(gateway: Gateway, drawings: int, say: Say) -> Administered:
    resources, texts = gateway.app.state.runtime.resources, dict[str, str]()
    registry = await resources.book.registry()
    if drawings:
        await fill(resources.ledger, time.time(), drawings, say)
    await registry.add_project(Project("proj_first", say("first project"), int(time.time() * 1e6)), ME)
    for name, scopes, project in (("operator", ("admin",), None), ("painter", ("draw",), "proj_first")):
        made = resources.mint(is_admin="admin" in scopes)
        await registry.add_key(ApiKey(made.id, say(name), made.digest, project, scopes), ME)
        texts[name] = made.text
    await resources.ledger.refresh()
    return Administered(gateway, texts["operator"], texts["painter"])


@contextmanager
def _administered(config: Config, folder: Path, drawings: int, say: Say) -> Iterator[Administered]:
    with in_thread(lambda: _in_its_loop(config, folder)) as (gateway, loop):
        yield asyncio.run_coroutine_threadsafe(_furnish(gateway, drawings, say), loop).result()


@contextmanager
def sandbox_of_a_team(folder: Path, drawings: int = 600) -> Iterator[Administered]:
    """The sandbox, which is open, with some weeks in its ledger."""
    with _administered({}, folder, drawings, str) as running:
        yield running


@contextmanager
def gateway_with_keys(folder: Path, drawings: int = 0, say: Say = str) -> Iterator[Administered]:
    """A gateway with a provider that cannot be reached, and with keys, of which everybody needs one. Its configuration
    has a key, too: `build`."""
    one = provider(f"http://127.0.0.1:{dead_port()}", headers={"x-team": "header-secret"})
    model = served_by("one")
    model["deployments"][0]["model"] = say("there")
    keys = [{"name": "build", "key": "a-key-of-the-build"}]
    config = {"providers": {"one": one}, "models": {say("model"): model}, "keys": keys}
    with _administered(config, folder, drawings, say) as running:
        yield running
