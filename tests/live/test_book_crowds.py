"""Many requests at once against a budget and against each limit: exactly what fits is drawn, by one gateway over SQLite
and by two over one Postgres."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.ledger.database.opening import open_database
from app.microseconds import MINUTE
from tests.live.books import PRICE, assert_right, config, draw, rows, verified
from tests.live.crowds import Outcome, tally, together
from tests.live.painter import Painter, painting
from tests.live.servers import Process, process
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CROWD = int(os.environ.get("GATEWAY_CROWD", "300"))
FIT = CROWD // 3
LIMITS = {
    "requests_per_minute": "64x64",
    "images_per_minute": "64x64",
    "megapixels_per_minute": "1000x1000",
}


def keys() -> list[dict[str, Any]]:
    """A key for each limit, and one for the budget."""
    names = [*LIMITS, "max_concurrency"]
    limited = [{"name": name, "key": f"the-secret-key-of-{name}", name: FIT} for name in names]
    return [*limited, {"name": "budget", "key": "the-secret-key-of-budget"}]


def crowd(gateways: Sequence[Process], what: str, does: str = "", **fields: Any) -> list[asyncio.Task[Outcome]]:
    """Ask all gateways by turns, all at once."""
    ports, key = [gateway.port for gateway in gateways], f"the-secret-key-of-{what}"
    return [asyncio.create_task(draw(ports[n % len(ports)], f"{what}-{n}", does, key, **fields)) for n in range(CROWD)]


def drawn_for(painter: Painter, what: str) -> int:
    return sum(images for name, images in painter.drawn.items() if name.startswith(what))


async def admitted_at(folder: Path, url: str | None, what: str) -> list[int]:
    """When the drawings were admitted, by the clock that counts: microseconds."""
    database = await open_database(url, folder / "data")
    try:
        found = await database.query(f"select at from drawing where request_id like '{what}-%' order by at")
    finally:
        await database.aclose()
    return [row[0] for row in found]


async def test_exactly_what_fits_is_drawn(url: str | None, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in (["one"] if url is None else ["one", "two"])]
    async with painting() as painter:
        budgets = [{"key": "budget", "amount": round(PRICE * FIT, 2), "window": "total"}]
        settings = config(painter, url, keys=keys(), budgets=budgets)
        with ExitStack() as stack:
            for folder in folders:
                folder.mkdir()
            gateways = [stack.enter_context(process(settings, folder)) for folder in folders]

            outcomes = await together(crowd(gateways, "budget"))
            assert set(tally(outcomes)) <= {"200 images", "429 budget_reserved", "429 insufficient_quota"}
            assert drawn_for(painter, "budget") == FIT == sum(each.images for each in outcomes)

            for what, size in LIMITS.items():
                outcomes = await together(crowd(gateways, what, size=size))
                assert set(tally(outcomes)) <= {"200 images", "429 rate_limit_exceeded"}, what
                times = await admitted_at(folders[0], url, what)
                fits = (MINUTE + times[-1] - times[0]) // (MINUTE // FIT)  # a part is there again after a while
                assert FIT <= drawn_for(painter, what) == len(times) <= fits, what

            tasks = crowd(gateways, "max_concurrency", "hold")
            await until(
                lambda: sum(task.done() for task in tasks) >= CROWD - FIT and painter.at_once >= FIT,
                lambda: (sum(task.done() for task in tasks), painter.at_once),
            )
            assert painter.at_once == FIT
            painter.released.set()
            outcomes = await together(tasks)
            assert tally(outcomes) == {"200 images": FIT, "429 rate_limit_exceeded": CROWD - FIT}
            assert drawn_for(painter, "max_concurrency") == FIT
        assert_right(await rows(folders[0], url), painter)
        await verified(folders[0])
