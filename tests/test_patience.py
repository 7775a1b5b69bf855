from __future__ import annotations

import asyncio

import pytest

from app.patience import GRACE_SECONDS, Patience

pytestmark = pytest.mark.anyio


class Sender:
    """Takes the given seconds, by a clock of its own."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def after(self, seconds: float) -> None:
        self.now += seconds


async def late(patience: Patience, count: int | None = None) -> bool:
    """True if the patience is at its end."""
    try:
        async with asyncio.timeout(0.05):
            await patience.wait(asyncio.Event().wait(), count)
    except TimeoutError:
        return patience.left <= 0 or patience.lap <= 0
    raise AssertionError


async def test_bytes_at_the_least_rate_are_waited_for_until_all_seconds_are_used_up() -> None:
    sender = Sender()
    patience = Patience(1000, 10, sender)
    for second in range(999):
        await patience.wait(sender.after(1), second * 10)
    assert not await late(patience, 9990)
    await patience.wait(sender.after(1), 9990)
    assert await late(patience, 10_000)


async def test_fewer_bytes_than_the_least_rate_are_waited_for_no_longer_than_the_grace() -> None:
    sender = Sender()
    patience = Patience(1000, 10, sender)
    for second in range(int(GRACE_SECONDS)):
        await patience.wait(sender.after(1), second * 9)
    assert await late(patience, int(GRACE_SECONDS) * 9)


async def test_a_stall_that_is_shorter_than_the_grace_is_forgiven() -> None:
    sender = Sender()
    patience = Patience(1000, 10, sender)
    for lap in range(20):
        await patience.wait(sender.after(GRACE_SECONDS - 1), lap * 300)
    assert not await late(patience, 20 * 300)


async def test_fast_bytes_are_no_credit_for_slow_ones_later() -> None:
    sender = Sender()
    patience = Patience(1000, 10, sender)
    await patience.wait(sender.after(0.1), 0)
    await patience.wait(sender.after(GRACE_SECONDS + 1), 250_000_000)
    assert await late(patience, 250_000_001)


async def test_without_a_least_rate_a_byte_in_the_grace_will_do() -> None:
    sender = Sender()
    patience = Patience(1000, 0, sender)
    for count in range(20):
        await patience.wait(sender.after(GRACE_SECONDS - 1), count)
    await patience.wait(sender.after(1), 20)
    await patience.wait(sender.after(GRACE_SECONDS), 20)
    assert await late(patience, 20)


async def test_the_receivers_own_time_is_not_counted() -> None:
    sender = Sender()
    patience = Patience(50, 10, sender)
    await patience.wait(sender.after(1), 0)
    sender.now += 10_000
    assert not await late(patience, 1)


async def test_without_a_count_there_is_no_rate() -> None:
    sender = Sender()
    patience = Patience(1000, 10, sender)
    await patience.wait(sender.after(900))
    assert not await late(patience)
