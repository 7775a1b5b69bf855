"""The book after kill -9: at each step of a drawing, and at any moment under load, of one gateway and of one of two."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.books import KEY, assert_right, config, draw, rows, verified
from tests.live.killed import STEPS
from tests.live.painter import painting
from tests.live.servers import Config, Process, process
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS = int(os.environ.get("GATEWAY_KILLS", "8"))
Record = Callable[[str, object], None]
DOES = ("", "slow:0.1", "slow:0.3", "slow:0.02", "cut", "refuse")


def with_key(settings: Config) -> Config:
    """With a budget and limits, so that every drawing is reserved and holds a place."""
    return settings | {
        "keys": [{"name": "file", "key": KEY, "max_concurrency": 500, "images_per_minute": 100_000}],
        "budgets": [{"amount": 1000, "window": "month"}],
    }


@pytest.mark.parametrize("is_counted", [True, False], ids=["in-a-budget", "in-nothing"])
async def test_the_book_is_right_after_a_kill_at_each_step(url: str | None, tmp_path: Path, is_counted: bool) -> None:
    async with painting() as painter:
        settings = config(painter, url)
        settings, key = (with_key(settings), KEY) if is_counted else (settings, None)
        drawn = dict[str, int]()
        for step in STEPS:
            name = step.replace(" ", "-")
            first = f"from tests.live.killed import kill_at; kill_at({step!r})"
            with process(settings, tmp_path, first=first) as gateway:
                assert not (await draw(gateway.port, name, key=key)).images
                await until(lambda: gateway.process.poll() is not None, gateway.printed)
            drawn[step] = painter.drawn[name]
        with process(settings, tmp_path) as gateway:
            drawing = asyncio.create_task(draw(gateway.port, "in-the-answer", "slow:30", key=key))
            await until(lambda: painter.drawn["in-the-answer"], gateway.printed)
            gateway.process.kill()
            assert not (await drawing).images
        with process(settings, tmp_path) as gateway:
            assert (await draw(gateway.port, "after-all", key=key)).status == 200
        found = await rows(tmp_path, url)
        assert [drawn[step] for step in STEPS] == [0, 0, 0, 0, 1, 1]
        assert "before-reserve" not in found
        expected = {
            "after-reserve": "released",
            "before-sent": "released",
            "after-sent": "in_doubt",
            "in-the-answer": "in_doubt",
            "before-settle": "in_doubt",
            "after-settle": "settled",
            "after-all": "settled",
        }
        if not is_counted:  # its row is written by *sent*, and its end within 20 ms
            del expected["after-reserve"], expected["before-sent"]
            expected["after-settle"] = "in_doubt"
        assert {name: row.state for name, row in found.items()} == expected
        assert_right(found, painter)
        await verified(tmp_path)


async def load(gateway: Process, name: str, count: int, chance: random.Random) -> dict[str, int]:
    """Ask for `count` drawings of all kinds at once. Returns the number of images that each caller got."""
    names = [f"{name}-{number}" for number in range(count)]
    drawings = [draw(gateway.port, name, chance.choice(DOES), KEY, n=chance.choice([1, 1, 2])) for name in names]
    return dict(zip(names, [each.images for each in await asyncio.gather(*drawings)], strict=True))


async def test_the_book_is_right_after_many_kills_under_load(
    url: str | None, tmp_path: Path, record_property: Record
) -> None:
    chance = random.Random(12)
    async with painting() as painter:
        settings = with_key(config(painter, url))
        for life in range(KILLS):
            with process(settings, tmp_path) as gateway:
                drawing = asyncio.create_task(load(gateway, f"life-{life}", 40, chance))
                await asyncio.sleep(chance.uniform(0.02, 0.8))
                gateway.process.kill()
                await drawing
        with process(settings, tmp_path):
            pass
        found = await rows(tmp_path, url)
        settled, drawn, in_doubt = assert_right(found, painter)
        record_property("settled, drawn, in doubt", (settled, drawn, in_doubt))
        assert drawn > KILLS
        await verified(tmp_path)


async def test_the_kill_of_one_of_two_gateways_touches_nothing_of_the_other(
    postgres_url: str, tmp_path: Path, record_property: Record
) -> None:
    chance, folders = random.Random(12), [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with painting() as painter:
        settings = with_key(config(painter, postgres_url))
        with process(settings, folders[0]) as lasting:
            received = dict[str, int]()
            for life in range(KILLS):
                with process(settings, folders[1]) as gateway:
                    drawing = asyncio.create_task(load(gateway, f"life-{life}", 20, chance))
                    others = asyncio.create_task(load(lasting, f"lasting-{life}", 20, chance))
                    await asyncio.sleep(chance.uniform(0.02, 0.8))
                    gateway.process.kill()
                    await drawing
                    received |= await others
            with process(settings, folders[1]):
                found = await rows(tmp_path, postgres_url)
        settled, drawn, in_doubt = assert_right(found, painter)
        record_property("settled, drawn, in doubt", (settled, drawn, in_doubt))
        for name, images in received.items():
            if images:
                assert (found[name].state, found[name].settled) == ("settled", images), name
        assert sum(map(bool, received.values())) > KILLS
        assert len({row.replica for row in found.values()}) == 2
        await verified(folders[0])


async def test_what_a_gateway_left_that_never_comes_back_is_ended_by_another(postgres_url: str, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with painting() as painter:
        settings = with_key(config(painter, postgres_url))
        with process(settings, folders[0]) as lasting, process(settings, folders[1]) as gateway:
            drawing = asyncio.create_task(draw(gateway.port, "left", "slow:60", KEY))
            await until(lambda: painter.drawn["left"], gateway.printed)
            gateway.process.kill()
            await drawing
            async with asyncio.timeout(PATIENCE):
                while (row := (await rows(tmp_path, postgres_url))["left"]).state == "sent":
                    await asyncio.sleep(0.5)
            assert (row.state, row.in_doubt) == ("in_doubt", 1)
            assert "another gateway is dead" in lasting.printed()
        await verified(folders[0])


async def test_a_gateway_with_another_secret_does_not_start_beside_a_living_one(
    postgres_url: str, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with painting() as painter:
        settings = config(painter, postgres_url)
        refused = pytest.raises(AssertionError, match="Another gateway with another secret uses this Postgres")
        with process(settings, folders[0]), refused, process(settings | {"secret": None}, folders[1]):
            pass
        with process(settings | {"secret": None}, folders[1]):
            pass
