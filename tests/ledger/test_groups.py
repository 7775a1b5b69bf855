"""Groups of drawings that count in nothing: who waits for what, and what becomes of a group that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.groups import PACE, Groups
from app.ledger.values.drawings import Beginning, Settlement
from tests.ledger.samples import NOW, a_settlement, an_admission, an_attempt

pytestmark = pytest.mark.anyio


def a_beginning() -> Beginning:
    admission = an_admission()
    return Beginning(admission, NOW, an_attempt(admission.id))


class Book:
    """Takes groups, while `is_open` is set; `fault` is what it answers to those that hold one of `hated`, or to all."""

    def __init__(self) -> None:
        self.groups = Groups(self.record, self.keep, lambda end, _: self.lost.append(end))
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.written = list[tuple[Sequence[Beginning], Sequence[Settlement]]]()
        self.left = list[float]()  # the times at which groups came
        self.kept = list[Settlement]()
        self.lost = list[Settlement]()
        self.fault: Exception | None = None
        self.hated: tuple[Beginning | Settlement, ...] = ()

    async def record(self, begun: Sequence[Beginning], ended: Sequence[Settlement]) -> None:
        self.left.append(asyncio.get_running_loop().time())
        await self.is_open.wait()
        if self.fault and (not self.hated or any(each in self.hated for each in (*begun, *ended))):
            raise self.fault
        self.written.append((begun, ended))

    async def keep(self, ended: Sequence[Settlement]) -> None:
        self.kept += ended


async def test_what_comes_while_a_group_is_under_way_is_one_group_in_its_order() -> None:
    book = Book()
    book.is_open.clear()
    first, second, third = a_beginning(), a_beginning(), a_beginning()
    waiting = [book.groups.begin(first)]
    while not book.left:
        await asyncio.sleep(0)
    waiting += [book.groups.begin(second), book.groups.begin(third)]
    end = a_settlement(first.admission.id)
    book.groups.end(end)
    book.is_open.set()
    await asyncio.gather(*waiting)
    assert book.written == [([first], []), ([second, third], [end])]


async def test_an_idle_gateway_waits_for_nothing_and_a_busy_one_for_a_moment() -> None:
    book = Book()
    await book.groups.begin(a_beginning())
    await book.groups.begin(a_beginning())
    assert book.left[1] - book.left[0] > PACE / 2  # the loop's clock counts milliseconds
    await asyncio.sleep(2 * PACE)
    waiting = book.groups.begin(a_beginning())
    for _ in range(5):
        await asyncio.sleep(0)
    assert waiting.done()


async def test_a_caller_who_leaves_does_not_take_the_beginning_along() -> None:
    book = Book()
    beginning = a_beginning()
    waiting = book.groups.begin(beginning)
    waiting.cancel()
    end = a_settlement(beginning.admission.id)
    book.groups.end(end)
    await book.groups.drain()
    assert book.written == [([beginning], [end])]


async def test_closing_waits_for_what_was_told() -> None:
    book = Book()
    ends = [a_settlement(f"{number:032x}") for number in range(3)]
    for end in ends:
        book.groups.end(end)
    await book.groups.drain()
    assert [end for _, ended in book.written for end in ended] == ends
    await book.groups.drain()


async def test_without_the_database_beginnings_fail_and_ends_are_kept() -> None:
    book = Book()
    book.fault = DatabaseUnavailable("it is away")
    waiting = [book.groups.begin(a_beginning()) for _ in range(2)]
    end = a_settlement("0" * 32)
    book.groups.end(end)
    for each in waiting:
        with pytest.raises(DatabaseUnavailable, match="it is away"):
            await each
    await book.groups.drain()
    assert (book.kept, book.written) == ([end], [])


async def test_one_that_cannot_be_written_down_takes_no_other_with_it() -> None:
    book = Book()
    bad, good = a_beginning(), a_beginning()
    bad_end, good_end = a_settlement("1" * 32), a_settlement("2" * 32)
    book.fault, book.hated = ValueError("no such number"), (bad, bad_end)
    waiting = [book.groups.begin(bad), book.groups.begin(good)]
    for end in (bad_end, good_end):
        book.groups.end(end)
    with pytest.raises(ValueError, match="no such number"):
        await waiting[0]
    await waiting[1]
    await book.groups.drain()
    assert book.written == [([good], []), ([], [good_end])]
    assert book.lost == [bad_end]
