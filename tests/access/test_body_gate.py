from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.access import body_gate as module
from app.access.body_gate import MOST_BODIES, SMALL_BODY, BodyGate
from app.access.keyring import ANONYMOUS, Key
from app.errors import RateLimited
from app.ledger.values.limits import Limits

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def key(name: str = "team", max_concurrency: int | None = None) -> Key:
    return Key(name, name, limits=Limits(max_concurrency=max_concurrency))


@pytest.fixture
def gate() -> BodyGate:
    return BodyGate()


@asynccontextmanager
async def reading(gate: BodyGate, key: Key, count: int, announced: int | None = None) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(gate.enter(key, announced))
        yield


@pytest.mark.parametrize("announced", [None, 10, SMALL_BODY + 1])
async def test_a_key_sends_as_many_bodies_at_a_time_as_it_has_places(gate: BodyGate, announced: int | None) -> None:
    limited = key(max_concurrency=2)
    async with reading(gate, limited, 2, announced):
        with pytest.raises(RateLimited, match="may have 2 requests running at a time") as caught:
            await gate.enter(limited, announced).__aenter__()
        assert (caught.value.code, caught.value.retry_after) == ("rate_limit_exceeded", 1.0)
        assert gate.reading("team") == 2
    async with reading(gate, limited, 2, announced):
        pass
    assert gate.reading("team") == 0


@pytest.mark.parametrize("announced", [None, SMALL_BODY + 1])
async def test_large_bodies_of_a_key_without_places_wait_for_their_turn(gate: BodyGate, announced: int | None) -> None:
    async with reading(gate, key(), MOST_BODIES, announced):
        one_more = gate.enter(key(), announced)
        waiting = asyncio.ensure_future(one_more.__aenter__())
        async with reading(gate, key("other"), MOST_BODIES, announced), reading(gate, key(), 100, SMALL_BODY):
            pass
        assert not waiting.done()
    await asyncio.wait_for(waiting, 60)
    assert gate.reading("team") == 1


async def test_a_body_whose_turn_does_not_come_is_refused(gate: BodyGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    async with reading(gate, key(), MOST_BODIES):
        with pytest.raises(RateLimited, match=f"{MOST_BODIES} are read at a time") as caught:
            await gate.enter(key()).__aenter__()
    assert caught.value.code == "rate_limit_exceeded"
    async with reading(gate, key(), MOST_BODIES):
        pass


async def test_callers_without_a_key_are_not_counted(gate: BodyGate) -> None:
    async with reading(gate, ANONYMOUS, 100):
        pass


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
async def test_the_gate_opens_again_however_the_reading_ends(gate: BodyGate, error: BaseException) -> None:
    with pytest.raises(type(error)):
        async with gate.enter(key(max_concurrency=1)):
            raise error
    async with reading(gate, key(max_concurrency=1), 1):
        pass
