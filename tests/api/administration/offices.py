"""A gateway with a book and a keyring of the tests' own: served over real connections, with its ledger in the test's
hands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from starlette.types import Scope

from app.access.keyring import ANONYMOUS, Key
from app.api.administration.book import NewKey
from app.api.administration.endpoint import Administration, DeploymentStatus, ProviderCheck
from app.api.connection import header
from app.errors import Unauthenticated
from app.ledger.book.book import Book
from app.ledger.book.registry import Registry
from app.ledger.ledger import Ledger, Policy, open_ledger
from app.ledger.values.directory import ApiKey, Project
from tests.ledger.conftest import Clock
from tests.ledger.samples import REPLICA, a_settlement, an_admission, an_attempt
from tests.live.loops import in_thread
from tests.live.servers import Gateway, provider, served_by, serving

NOW = 1_790_000_000  # a Monday in September 2026
DAY = 86_400
ADMIN, ORDINARY, REPORTER = "iga_admin", "igk_ordinary", "igk_reporter"


KEYS: dict[str, Key] = {
    ADMIN: Key("adminkey", "admin", scopes=("admin",)),
    ORDINARY: Key("ordinary", "ordinary", Project("proj_1", "design", 0), models=("flux/*",)),
    REPORTER: Key("reporter", "reporter", Project("proj_1", "design", 0), ("usage",)),
}


def authenticate(scope: Scope) -> Key:
    secret = (header(scope, b"authorization") or "").removeprefix("Bearer ")
    if not secret:
        return ANONYMOUS
    if secret not in KEYS:
        raise Unauthenticated("Incorrect API key provided.", code="invalid_api_key")
    scope["state"]["log"].key = KEYS[secret].name
    return KEYS[secret]


def authenticate_closed(scope: Scope) -> Key:
    """As a gateway does that has keys: a caller needs one."""
    if header(scope, b"authorization") is None:
        raise Unauthenticated("You didn't provide an API key.")
    return authenticate(scope)


class Mint:
    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, *, is_admin: bool, id: str | None = None) -> NewKey:
        number = next(self._numbers)
        id = id or f"key{number:05d}"
        text = f"{'iga_' if is_admin else 'igk_'}{id}secret{number}"
        return NewKey(id, text, hashlib.sha256(text.encode()).digest())


@dataclass(slots=True)
class Office:
    """The gateway, the ledger behind it, and the clock of both."""

    gateway: Gateway
    ledger: Ledger
    clock: Clock
    loop: asyncio.AbstractEventLoop
    folder: Path

    @property
    def url(self) -> str:
        return self.gateway.url

    async def draw(self, cost: int = 10_000_000, at: float | None = None, **fields: Any) -> str:
        """Draw and settle, as the money path does it. Returns the drawing's id."""
        time = int((self.clock.now if at is None else at) * 1_000_000)
        names = ("in_doubt", "provider", "width", "height", "images", "outcome", "upstream_model", "total_ms")
        settled = {name: fields.pop(name) for name in names if name in fields}
        sent = {name: fields.pop(name) for name in ("dropped", "mapped") if name in fields}
        admission = an_admission(**fields)
        database = self.ledger.database
        await database.admit(admission, (), REPLICA, time)
        await database.sent(an_attempt(admission.id, **sent))
        await database.settle(a_settlement(admission.id, cost, at=time + 1_500_000, **settled))
        return admission.id

    async def registry(self) -> Registry:
        return Registry(self.ledger.database, lambda: self.clock.micros)

    def administration(self, **changes: Any) -> Administration:
        known: Administration = self.gateway.app.state.runtime.administration
        return replace(known, **changes)

    def use(self, administration: Administration) -> None:
        state = self.gateway.app.state
        state.runtime = replace(state.runtime, administration=administration)

    def state_key(self, id: str, name: str, **fields: Any) -> None:
        """Have a key in the configuration."""
        key = ApiKey(id, name, b"", source="file", **fields)
        self.use(self.administration(stated_keys=lambda: [key]))
        self.ledger.name_keys({id: name})

    def client(self, key: str | None = ADMIN) -> httpx.AsyncClient:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60)


def deployments() -> Iterable[DeploymentStatus]:
    known = DeploymentStatus(
        provider="nebula",
        model="schnell",
        is_paused=True,
        pauses={"limited": 12.34},
        failures=2,
        running=1,
        waiting=3,
        max_concurrency=4,
        typical_seconds=2.5,
        is_priced=False,
    )
    return [known]


async def check(name: str) -> ProviderCheck | None:
    found = ProviderCheck(outcome="listed", message="", has_credential=True, models=3, not_listed=["gone"])
    return found if name == "nebula" else None


@asynccontextmanager
async def open_office(folder: Path, url: str | None = None) -> AsyncIterator[Office]:
    (folder / "book").mkdir()
    config = {"providers": {"one": provider("http://127.0.0.1:9")}, "models": {"m": served_by("one")}}
    async with serving(config, folder) as gateway:
        warnings, clock = list[str](), Clock(NOW)
        async with open_ledger(
            url, folder / "book", policy=Policy(), clock=clock, warn=lambda event, **_: warnings.append(event)
        ) as ledger:
            office = Office(gateway, ledger, clock, asyncio.get_running_loop(), folder)
            book = Book(ledger, "USD", clock, lambda event, **_: warnings.append(event))
            office.use(
                Administration(
                    book=book,
                    authenticate=authenticate,
                    mint=Mint(),
                    deployments=lambda: list(deployments()),
                    clock=clock,
                    check=check,
                    configuration=lambda: {"server": {"port": 8000}},
                    stated_keys=tuple,
                )
            )
            yield office
        assert warnings == []


@contextmanager
def office_in_thread(folder: Path) -> Iterator[Office]:
    """For clients that block."""
    with in_thread(lambda: open_office(folder)) as office:
        yield office
