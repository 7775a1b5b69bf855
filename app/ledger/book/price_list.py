"""The prices that hold now, in the book: recorded when they change, so that each drawing can name the one that it was
settled at. Knows no SQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.catalog.prices import Price
from app.ledger.database.price_rows import Which, record_prices
from app.ledger.database.protocol import Database, DatabaseUnavailable

RETRY_SECONDS = 1.0  # while the database is away


@dataclass(frozen=True, slots=True)
class StatedPrice:
    """The price of a model at a provider. `source` says where it is stated."""

    provider: str
    model: str
    price: Price
    source: str


class PriceList:
    """`database` raises DatabaseUnavailable while it has not been reached; `clock` gives microseconds since the epoch;
    `warn` gets an event and its facts."""

    def __init__(self, database: Callable[[], Database], clock: Callable[[], int], warn: Callable[..., None]) -> None:
        self._database = database
        self._clock = clock
        self._warn = warn
        self._ids = dict[tuple[str, str, Price], int]()
        self._recording: asyncio.Task[None] | None = None

    def state(self, prices: Sequence[StatedPrice]) -> None:
        """Make these the only prices from now on. They are recorded in the background, when the database is there. If
        two are for the same model at the same provider, the first is recorded. Needs a running loop."""
        self.stop()
        self._recording = asyncio.create_task(self._record(prices, self._clock()))

    def find(self, provider: str, model: str, price: Price) -> int | None:
        """Return the id of a price that this process has recorded, also of one that holds no more."""
        return self._ids.get((provider, model, price))

    def stop(self) -> None:
        if self._recording is not None:
            self._recording.cancel()

    async def recorded(self) -> None:
        """Wait until the prices are recorded."""
        if self._recording is not None:
            await self._recording

    async def _record(self, prices: Sequence[StatedPrice], since: int) -> None:
        first = dict[Which, StatedPrice]()
        for each in prices:
            first.setdefault((each.provider, each.model), each)
        wanted = {which: (each.price, each.source) for which, each in first.items()}
        has_warned = False
        while True:
            try:
                ids = await record_prices(self._database(), wanted, since, only_these=True)
            except DatabaseUnavailable as error:
                if not has_warned:
                    self._warn("prices wait for the database", reason=str(error))
                has_warned = True
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception as error:
                self._warn("prices could not be recorded", reason=repr(error))
                return
            self._ids |= {(*which, wanted[which][0]): id for which, id in ids.items()}
            return
