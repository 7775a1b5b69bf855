"""How a drawing's account ends, where its attempts do not say everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.access.keyring import Key
from app.accounting.accounts import Accounts, DrawingAccount
from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted
from app.catalog.profiles import Profile
from app.errors import ApiError, Failure, UpstreamError, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds
from app.gateway.attempt import Attempt
from app.gateway.call import Call
from app.images import ImageRequest, Operation
from app.ledger.values.drawings import AttemptSent, BudgetRefusal, Joined, Outcome, Settlement, Unavailable
from app.storage.spool import Uploads

pytestmark = pytest.mark.anyio

PRICE = 40_000_000  # nano-units for an image
HOST = Deployment(Provider("nebula", "openai", "http://h"), "schnell", Profile(price_per_image=0.04))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Book:
    """Takes everything, and remembers it."""

    def __init__(self) -> None:
        self.reserved, self.begun, self.ends = list[int](), list[AttemptSent](), list[Settlement]()

    async def reserve(self, drawing_id: str, most: int) -> BudgetRefusal | Unavailable | None:
        self.reserved.append(most)
        return None

    async def sent(self, attempt: AttemptSent) -> Unavailable | None:
        self.begun.append(attempt)
        return None

    async def settle(self, settlement: Settlement) -> None:
        self.ends.append(settlement)

    async def record_joined(self, joined: Joined) -> None:
        raise NotImplementedError


class Drawing:
    """A request for `n` images with its account, of which `PRICE` is held for each."""

    def __init__(self, n: int, before: Drawing | None = None) -> None:
        self.book = Book()
        self.request = ImageRequest(Operation.GENERATIONS, "flux", "a fox", n=n)
        self.accounts = Accounts(self.book, lambda: 1_800_000_000.0, bytes)
        self.account: DrawingAccount = self.accounts.open("d" * 32, n * PRICE, self.request)
        if before is not None:
            known = before.account
            self.account = self.accounts.open("d" * 32, known.held, self.request, known.attempts - 1, known.lost)
        self.call = Call(self.request, Key("k", "k"), Uploads(), id="req_1", account=self.account)

    async def attempt(
        self, n: int, drawn: int, error: Exception | None = None, request_id: str | None = None, **facts: Any
    ) -> None:
        """Ask for `n` images, of which so many come."""
        fitted = Fitted(HOST, self.request).part(0, n)
        await self.account.sent(fitted)
        attempt = Attempt(self.call, fitted, 0, 1, lambda: 0.0, [self.accounts], _nowhere)
        try:
            with attempt:
                attempt.exchanges, attempt.provider_request_id = 1, request_id
                async for event in _images(drawn, facts):
                    await attempt.push(event)
                if error is not None:
                    raise error
                await attempt.push(Done())
        except UpstreamError:
            pass

    async def next_attempt(self) -> Attempt:
        """Tell the book of an attempt, which has not begun."""
        fitted = Fitted(HOST, self.request)
        await self.account.sent(fitted)
        return Attempt(self.call, fitted, 0, 1, lambda: 0.0, [self.accounts], _nowhere)

    async def resume(self, drawn: int) -> None:
        fitted = Fitted(HOST, self.request)
        with Attempt(self.call, fitted, 0, 1, lambda: 0.0, [self.accounts], _nowhere) as attempt:
            attempt.exchanges = 1
            async for event in _images(drawn, {}):
                await attempt.push(event)
            await attempt.push(Done())

    async def end(self, error: ApiError | None) -> Settlement:
        await self.account.settle(error)
        [end] = self.book.ends
        return end


async def _images(count: int, facts: dict[str, Any]) -> AsyncIterator[Event]:
    for index in range(count):
        for event in (ImageBegins(index), ImageData(b"aGVsbG8="), ImageEnds(facts=facts)):
            yield event


async def _nowhere(event: Event) -> None:
    pass


async def test_a_part_that_could_not_be_found_again_is_in_doubt_beside_one_that_was_delivered() -> None:
    drawing = Drawing(2)
    await drawing.attempt(1, 1)
    end = await drawing.end(UpstreamFailed("it cannot be found again", code="run_interrupted").paid())
    assert (end.cost, end.in_doubt, end.outcome) == (PRICE, PRICE, Outcome.PERHAPS_PAID)


async def test_an_answer_without_an_image_leaves_the_missing_image_in_doubt() -> None:
    drawing = Drawing(1)
    await drawing.attempt(1, 0)
    end = await drawing.end(UpstreamFailed("no image", code="upstream_broken_answer").paid())
    assert (end.cost, end.in_doubt) == (0, PRICE)


async def test_a_failure_of_the_gateway_behind_whole_images_leaves_nothing_in_doubt() -> None:
    drawing = Drawing(2)
    await drawing.attempt(2, 2)
    end = await drawing.end(ApiError("no room for them").paid())
    assert (end.cost, end.in_doubt, end.outcome) == (2 * PRICE, 0, Outcome.UNDELIVERED)


async def test_parts_that_were_drawn_beside_one_that_failed_did_not_fail_unpaid() -> None:
    drawing = Drawing(2)
    await drawing.attempt(1, 1)
    await drawing.attempt(1, 0, UpstreamError(Failure.UNAVAILABLE, "not now"))
    end = await drawing.end(UpstreamFailed("not now"))
    assert (end.cost, end.in_doubt, end.outcome) == (PRICE, 0, Outcome.UNDELIVERED)


async def test_a_lost_answer_is_in_doubt_for_all_that_it_may_hold() -> None:
    drawing = Drawing(2)
    await drawing.attempt(2, 1, UpstreamError(Failure.UNCERTAIN, "lost"))
    end = await drawing.end(UpstreamFailed("lost").paid())
    assert (end.cost, end.in_doubt) == (0, 2 * PRICE)


async def test_images_that_a_provider_did_not_draw_are_not_held_twice() -> None:
    drawing = Drawing(4)
    await drawing.attempt(4, 2)
    await drawing.attempt(2, 2)
    assert drawing.book.reserved == []
    await drawing.attempt(1, 1)
    assert drawing.book.reserved == [5 * PRICE]
    assert (await drawing.end(None)).cost == 5 * PRICE


async def test_a_foreign_text_is_made_one_that_both_databases_take() -> None:
    drawing = Drawing(1)
    await drawing.attempt(1, 1, UpstreamError(Failure.UNCERTAIN, "lost"), quality="\ud800" * 1000, output_format="a\0b")
    end = await drawing.end(UpstreamFailed("refused", code="a\ud800\0é").paid())
    assert (end.error_code, end.quality, end.format) == ("a??é", "?" * 256, "a?b")


async def test_the_book_learns_the_wait_and_the_providers_id() -> None:
    drawing = Drawing(2)
    drawing.call.queued = 1.25
    await drawing.attempt(1, 1)
    await drawing.attempt(1, 1, request_id="up\0-2")
    end = await drawing.end(None)
    assert end.queue_ms == 1250
    assert [result.provider_request_id for result in end.attempts] == [None, "up?-2"]


async def test_the_book_learns_what_an_attempt_drops_and_maps_before_it_leaves() -> None:
    drawing = Drawing(1)
    await drawing.account.sent(Fitted(HOST, drawing.request, ("style", "quality"), ("size=1024x768",)))
    await drawing.account.sent(Fitted(HOST, drawing.request))
    assert [(sent.dropped, sent.mapped) for sent in drawing.book.begun] == [
        ("style,quality", "size=1024x768"),
        (None, None),
    ]


async def test_what_an_attempt_before_a_job_has_perhaps_cost_outlives_its_process() -> None:
    before = Drawing(1)
    await before.attempt(1, 0, UpstreamError(Failure.UNCERTAIN, "lost"))
    assert before.account.lost == 0, "it is the last one: nothing else is drawn for it"
    with await before.next_attempt():
        assert (before.account.attempts, before.account.lost, before.account.held) == (2, PRICE, 2 * PRICE)
        drawing = Drawing(1, before)  # another process takes the job up
    await drawing.resume(1)
    end = await drawing.end(None)
    assert (end.cost, end.in_doubt, end.images) == (PRICE, PRICE, 1)
    assert [attempt.seq for attempt in end.attempts] == [2]


async def test_a_job_that_cannot_be_found_again_is_in_doubt_once_beside_what_was_lost_before_it() -> None:
    before = Drawing(1)
    await before.attempt(1, 0, UpstreamError(Failure.UNCERTAIN, "lost"))
    with await before.next_attempt():
        drawing = Drawing(1, before)
    end = await drawing.end(UpstreamFailed("it cannot be found again", code="run_interrupted").paid())
    assert (end.cost, end.in_doubt) == (0, 2 * PRICE)
