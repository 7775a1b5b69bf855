"""The book of a gateway that is a process of its own: its commands, its rows, and what a provider drew beside them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.ledger.database.opening import open_database
from tests.live.crowds import Outcome, call
from tests.live.painter import Painter
from tests.live.servers import Config, provider

NANO = 40_000_000  # what an image costs
PRICE = 0.04
SECRET = "a-secret-that-all-gateways-of-the-tests-share"
KEY = "the-secret-key-of-the-file"


@dataclass(frozen=True, slots=True)
class Row:
    """A drawing; amounts are in images."""

    state: str
    settled: int
    in_doubt: int
    replica: str = ""


def config(painter: Painter, url: str | None = None, **more: Any) -> Config:
    profile = {"price": PRICE, "results": ["b64_json"], "parameters": ["n", "size"]}
    return {
        "providers": {"painter": provider(painter.url, retries=0)},
        "models": {"flux": {"deployments": [{"provider": "painter", "model": "m"}], "profile": profile}},
        **({"database": {"url": url}, "secret": SECRET} if url else {}),
        **more,
    }


def command(folder: Path, *words: str, status: int = 0) -> str:
    """Run a command of the gateway, and return what it prints."""
    python = [sys.executable, "-m", "app", *words]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*python, "--config", str(folder / "gateway.yaml")], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout.strip()


async def verified(folder: Path) -> None:
    await asyncio.to_thread(command, folder, "ledger", "verify")


async def draw(port: int, name: str, does: str = "", key: str | None = None, **fields: Any) -> Outcome:
    """Ask for an image under a name that the book and the painter know. Machines may be slow, and crowds large."""
    asked = {"model": "flux", "prompt": f"{name} {does}", "size": "64x64", **fields}
    return await call(port, asked, key=key, patience=120, x_request_id=name)


async def rows(folder: Path, url: str | None = None) -> Mapping[str, Row]:
    """The drawings by the names of their requests. Each request has one."""
    database = await open_database(url, folder / "data")
    try:
        sql = "select request_id, state, cost_nano, in_doubt_nano, replica from drawing"
        found = await database.query(sql)
    finally:
        await database.aclose()
    assert len({row[0] for row in found}) == len(found), Counter(row[0] for row in found).most_common(3)
    return {id: Row(state, cost // NANO, doubt // NANO, replica) for id, state, cost, doubt, replica in found}


def assert_right(found: Mapping[str, Row], painter: Painter) -> tuple[int, int, int]:
    """Each drawing lies between what is settled and that with what is in doubt. Returns images that were settled, drawn
    and are in doubt."""
    assert painter.drawn.keys() <= found.keys(), painter.drawn.keys() - found.keys()
    for name, row in found.items():
        drawn = painter.drawn[name]
        assert row.settled <= drawn <= row.settled + row.in_doubt, (name, drawn, row)
        assert row.state not in ("held", "sent"), (name, row)
    return (
        sum(row.settled for row in found.values()),
        painter.drawn.total(),
        sum(row.in_doubt for row in found.values()),
    )
