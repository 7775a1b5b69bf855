from __future__ import annotations

import pytest

from app.access.admission import Admission, Ticket
from app.access.keyring import Key
from app.access.limits import Limits
from app.errors import RateLimited

pytestmark = pytest.mark.anyio

KEY = Key("team", b"", requests_per_minute=2, max_concurrency=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Desk:
    """An admission whose clock is set by hand."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = 1000.0
        self.limits = limits or Limits()
        self.admission = Admission(self.limits, lambda: self.now)

    async def admit(self, key: Key = KEY) -> Ticket:
        return await self.admission.admit(key, [], 1)

    @property
    def running(self) -> int:
        return self.limits.snapshot()["team"].running


async def test_a_ticket_holds_its_keys_place_until_it_is_released() -> None:
    desk = Desk()
    ticket = await desk.admit()
    assert (ticket.is_held, desk.running) == (True, 1)
    with pytest.raises(RateLimited, match="running at a time"):
        await desk.admit()
    ticket.release()
    assert (ticket.is_held, desk.running) == (False, 0)
    await desk.admit()


async def test_a_ticket_that_is_released_twice_gives_back_one_place() -> None:
    desk = Desk()
    first = await desk.admit()
    first.release()
    await desk.admit()
    first.release()
    assert desk.running == 1


async def test_the_rate_counts_admitted_requests_alone_and_flows_back_with_time() -> None:
    desk = Desk()
    ticket = await desk.admit()
    for _ in range(5):
        with pytest.raises(RateLimited, match="running at a time"):
            await desk.admit()
    ticket.release()
    (await desk.admit()).release()
    with pytest.raises(RateLimited, match="requests a minute"):
        await desk.admit()
    desk.now += 30
    await desk.admit()


async def test_a_ticket_of_before_a_reload_gives_its_place_back_to_the_admission_of_after_it() -> None:
    before = Desk()
    ticket = await before.admit()
    after = Desk(before.limits)
    with pytest.raises(RateLimited):
        await after.admit()
    ticket.release()
    await after.admit()
