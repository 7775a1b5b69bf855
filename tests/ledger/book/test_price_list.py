"""The recorded prices, over both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from app.catalog.prices import Price, Tier
from app.ledger.book.price_list import PriceList, StatedPrice
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database, DatabaseUnavailable
from tests.ledger.samples import NOW

Test = Callable[[Database], Coroutine[Any, Any, None]]
CHEAP, DEAR = Price((Tier(per_image=1),)), Price((Tier(per_image=2),))


@pytest.fixture
def over(url: str | None, tmp_path: Path) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def with_database() -> None:
            database = await open_database(url, tmp_path)
            try:
                await test(database)
            finally:
                await database.aclose()

        asyncio.run(with_database())

    return run


def stated(model: str, price: Price, source: str = "preset") -> StatedPrice:
    return StatedPrice("nebula", model, price, source)


async def history(database: Database) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in await database.query("select model, source, valid_from, valid_to from price order by model, id")
    ]


def test_prices_are_recorded_when_they_change_and_end_when_they_are_stated_no_more(
    over: Callable[[Test], None],
) -> None:
    async def test(database: Database) -> None:
        now = NOW
        prices = PriceList(lambda: database, lambda: now, lambda *_, **__: None)
        prices.state([stated("a", CHEAP), stated("a", DEAR), stated("b", CHEAP)])
        await prices.recorded()
        first = prices.find("nebula", "a", CHEAP)
        assert first is not None
        assert prices.find("nebula", "a", DEAR) is None
        now += 5
        prices.state([stated("a", DEAR, "configuration"), stated("b", CHEAP)])
        await prices.recorded()
        now += 5
        prices.state([stated("a", DEAR, "configuration")])
        await prices.recorded()
        assert await history(database) == [
            ("a", "preset", NOW, NOW + 5),
            ("a", "configuration", NOW + 5, None),
            ("b", "preset", NOW, NOW + 10),
        ]
        assert prices.find("nebula", "a", CHEAP) == first  # for the drawings that began with it
        assert prices.find("nebula", "a", DEAR) not in (None, first)

    over(test)


def test_processes_that_begin_at_once_record_a_price_once(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        lists = [PriceList(lambda: database, lambda: NOW, lambda *_, **__: None) for _ in range(8)]
        for prices in lists:
            prices.state([stated("a", CHEAP), stated("b", DEAR)])
        await asyncio.gather(*(prices.recorded() for prices in lists))
        assert len(await history(database)) == 2
        assert len({prices.find("nebula", "a", CHEAP) for prices in lists}) == 1

    over(test)


def test_prices_wait_for_the_database(over: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ledger.book.price_list.RETRY_SECONDS", 0.01)

    async def test(database: Database) -> None:
        is_away, warnings = True, list[str]()

        def reach() -> Database:
            if is_away:
                raise DatabaseUnavailable("it is away")
            return database

        prices = PriceList(reach, lambda: NOW, lambda event, **_: warnings.append(event))
        prices.state([stated("a", CHEAP)])
        await asyncio.sleep(0.05)
        assert prices.find("nebula", "a", CHEAP) is None
        assert warnings == ["prices wait for the database"]
        is_away = False
        await prices.recorded()
        assert prices.find("nebula", "a", CHEAP) is not None

    over(test)
