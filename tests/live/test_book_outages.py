"""The book while its database cannot be used: stopped, locked or full. Requests that count in a hard budget or a limit
are refused meanwhile, all others are served, and afterwards nothing is missing and nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.conftest import new_database, required_binaries
from tests.ledger.postgres import postgres_of_its_own
from tests.live.books import assert_right, command, config, draw, rows, verified
from tests.live.crowds import Outcome, tally, together
from tests.live.painter import Painter, painting
from tests.live.servers import Config, Process, process
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SECONDS = float(os.environ.get("GATEWAY_OUTAGE_SECONDS", "3"))
FULL = 65_536  # bytes: no file may be larger, as if the disk were full
REFUSED = "503 ledger_unavailable"


def keys() -> Config:
    names = ("free", "budgeted", "limited")
    known: list[dict[str, Any]] = [{"name": name, "key": secret(name)} for name in names]
    known[2]["images_per_minute"] = 1000
    return {"keys": known, "budgets": [{"key": "budgeted", "amount": 1000, "window": "month"}]}


def secret(name: str) -> str:
    return f"the-secret-key-of-{name}"


async def asked(gateway: Process, who: str, name: str, does: str = "", **fields: Any) -> Outcome:
    return await draw(gateway.port, f"{who}-{name}", does, secret(who), **fields)


async def everybody(gateway: Process, name: str, count: int = 4) -> dict[str, dict[str, int]]:
    """Let each key ask for some images at once. Returns what came of it."""
    names = ("free", "budgeted", "limited")
    found = await together(
        together([asked(gateway, who, f"{name}-{number}", n=1 + number % 2) for number in range(count)])
        for who in names
    )
    for outcome in (outcome for each in found for outcome in each):
        if outcome.status == 503:
            assert outcome.header("retry-after") == "5"
    return {who: dict(tally(each)) for who, each in zip(names, found, strict=True)}


def all_served(count: int = 4) -> dict[str, dict[str, int]]:
    return {who: {"200 images": count} for who in ("free", "budgeted", "limited")}


def some_refused(count: int = 4) -> dict[str, dict[str, int]]:
    return {"free": {"200 images": count}, "budgeted": {REFUSED: count}, "limited": {REFUSED: count}}


@asynccontextmanager
async def drawing_on(gateway: Process, painter: Painter) -> AsyncIterator[None]:
    """Requests of all keys that are being drawn while the block runs, and end at its end."""
    painter.released.clear()
    whos = ("free", "budgeted", "limited")
    tasks = [asyncio.create_task(asked(gateway, who, "lasting", "hold")) for who in whos]
    await until(lambda: painter.at_once == len(whos), gateway.printed)
    yield
    painter.released.set()
    assert tally(await together(tasks)) == {"200 images": len(whos)}


async def served_again(gateway: Process, when: str = "again") -> None:
    """Wait until the database is in use again. `when` names the requests, each of which is one drawing at the most."""
    async with asyncio.timeout(60):
        number = 0
        while (await asked(gateway, "budgeted", f"{when}-{number}")).status != 200:
            number += 1
            await asyncio.sleep(0.2)


async def assert_nothing_is_missing(folder: Path, url: str | None, painter: Painter, least: int) -> None:
    async with asyncio.timeout(60):  # what counts in nothing is written down a moment later
        found = await rows(folder, url)
        while {"held", "sent"} & {row.state for row in found.values()}:
            await asyncio.sleep(0.1)
            found = await rows(folder, url)
    settled, drawn, in_doubt = assert_right(found, painter)
    assert settled == drawn >= least
    assert in_doubt == 0
    await verified(folder)


Outage = Callable[[Path, Process], Any]


@asynccontextmanager
async def locked(folder: Path, gateway: Process) -> AsyncIterator[None]:
    with closing(sqlite3.connect(folder / "data/gateway.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        yield
        other.execute("rollback")


@asynccontextmanager
async def full(folder: Path, gateway: Process) -> AsyncIterator[None]:
    before = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (FULL, before[1]))
    yield
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("outage", [locked, full])
async def test_a_sqlite_that_cannot_be_written_to(tmp_path: Path, outage: Outage) -> None:
    async with painting() as painter:
        with process(config(painter, **keys()), tmp_path) as gateway:
            assert await everybody(gateway, "before") == all_served()
            async with drawing_on(gateway, painter), outage(tmp_path, gateway):
                until = asyncio.get_running_loop().time() + SECONDS
                assert await everybody(gateway, "during") == some_refused()
                painter.released.set()
                await asyncio.sleep(until - asyncio.get_running_loop().time())
                assert await everybody(gateway, "still") == some_refused()
            await served_again(gateway)
            assert await everybody(gateway, "after") == all_served()
            await assert_nothing_is_missing(tmp_path, None, painter, 6 * 7)
            assert "the database is back" in gateway.printed()


async def test_a_backup_is_made_while_requests_are_served(tmp_path: Path) -> None:
    async with painting() as painter:
        with process(config(painter, **keys()), tmp_path) as gateway:
            assert await everybody(gateway, "before") == all_served()
            copying = asyncio.create_task(asyncio.to_thread(command, tmp_path, "db", "backup", str(tmp_path / "copy")))
            rounds = 0
            while not copying.done():
                assert await everybody(gateway, f"during-{rounds}") == all_served()
                rounds += 1
            await copying
        with closing(sqlite3.connect(tmp_path / "copy")) as copy:
            assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
            assert copy.execute("select count(*) from drawing where state = 'settled'").fetchone()[0] >= 12
        await assert_nothing_is_missing(tmp_path, None, painter, 18)


async def test_a_postgres_that_is_stopped_and_started_again(tmp_path: Path) -> None:
    with postgres_of_its_own(required_binaries()) as server:
        url = await asyncio.to_thread(new_database, server.address)
        async with painting() as painter:
            settings = config(painter, url, **keys())
            with process(settings, tmp_path) as gateway:
                assert await everybody(gateway, "before") == all_served()
                async with drawing_on(gateway, painter):
                    await asyncio.to_thread(server.stop)
                    until = asyncio.get_running_loop().time() + SECONDS
                    assert await everybody(gateway, "during") == some_refused()
                    painter.released.set()
                    await asyncio.sleep(until - asyncio.get_running_loop().time())
                    assert await everybody(gateway, "still") == some_refused()
                await asyncio.to_thread(server.start)
                await served_again(gateway)
                assert await everybody(gateway, "after") == all_served()
                await assert_nothing_is_missing(tmp_path, url, painter, 6 * 7)

                await asyncio.to_thread(server.stop)
                assert await everybody(gateway, "before-the-kill") == some_refused()
                gateway.process.kill()
            with process(settings, tmp_path) as gateway:  # it starts without the database, by what it has kept
                assert await everybody(gateway, "after-the-kill") == some_refused()
                await asyncio.to_thread(server.start)
                await served_again(gateway, "again-after-the-kill")
                assert await everybody(gateway, "at-last") == all_served()
                await assert_nothing_is_missing(tmp_path, url, painter, 6 * 12)
