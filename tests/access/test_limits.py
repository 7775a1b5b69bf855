from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.access import limits as module
from app.access.keyring import ANONYMOUS, Key
from app.access.limits import MOST_BODIES, SMALL_BODY, KeyUsage, Limits
from app.errors import RateLimited
from app.ledger.limits import Limits as KeyLimits

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def key(name: str = "team", max_concurrency: int | None = None) -> Key:
    return Key(name, name, limits=KeyLimits(max_concurrency=max_concurrency))


@pytest.fixture
def used() -> Limits:
    return Limits()


@asynccontextmanager
async def reading(used: Limits, key: Key, count: int, announced: int | None = None) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(used.reading(key, announced))
        yield


@pytest.mark.parametrize("announced", [None, 10, SMALL_BODY + 1])
async def test_a_key_sends_as_many_bodies_at_a_time_as_it_has_places(used: Limits, announced: int | None) -> None:
    limited = key(max_concurrency=2)
    async with reading(used, limited, 2, announced):
        with pytest.raises(RateLimited, match="may have 2 requests running at a time") as caught:
            await used.reading(limited, announced).__aenter__()
        assert (caught.value.code, caught.value.retry_after) == ("rate_limit_exceeded", 1.0)
        assert used.snapshot()["team"] == KeyUsage(reading=2)
    async with reading(used, limited, 2, announced):
        pass
    assert used.snapshot()["team"] == KeyUsage(reading=0)


@pytest.mark.parametrize("announced", [None, SMALL_BODY + 1])
async def test_large_bodies_of_a_key_without_places_wait_for_their_turn(used: Limits, announced: int | None) -> None:
    async with reading(used, key(), MOST_BODIES, announced):
        gate = used.reading(key(), announced)
        waiting = asyncio.ensure_future(gate.__aenter__())
        async with reading(used, key("other"), MOST_BODIES, announced), reading(used, key(), 100, SMALL_BODY):
            pass
        assert not waiting.done()
    await asyncio.wait_for(waiting, 60)
    assert used.snapshot()["team"] == KeyUsage(reading=1)


async def test_a_body_whose_turn_does_not_come_is_refused(used: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    async with reading(used, key(), MOST_BODIES):
        with pytest.raises(RateLimited, match=f"{MOST_BODIES} are read at a time") as caught:
            await used.reading(key()).__aenter__()
    assert caught.value.code == "rate_limit_exceeded"
    async with reading(used, key(), MOST_BODIES):
        pass


async def test_callers_without_a_key_are_not_counted(used: Limits) -> None:
    async with reading(used, ANONYMOUS, 100):
        pass


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
async def test_the_gate_opens_again_however_the_reading_ends(used: Limits, error: BaseException) -> None:
    with pytest.raises(type(error)):
        async with used.reading(key(max_concurrency=1)):
            raise error
    async with reading(used, key(max_concurrency=1), 1):
        pass
