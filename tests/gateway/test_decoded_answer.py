"""Answers of upstreams that take long to read: other work goes on beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import pytest

from app.catalog.deployments import Provider
from app.dialects import Exchange, UpstreamRequest, load
from app.errors import UpstreamError
from app.events import Event, ImageData, ImageEnds
from app.gateway.exchanges import DecodedAnswer
from tests.dialects.asking import GOOD, asked, pictures, together

pytestmark = pytest.mark.anyio
PICTURE = b"A" * 300_000


class Answer:
    """An upstream's answer that comes in one piece."""

    head = GOOD

    def __init__(self, piece: bytes) -> None:
        self._piece = piece

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        yield self._piece

    async def text(self) -> bytes:
        return self._piece


async def decoded(body: bytes, turn: asyncio.Lock, n: int = 1) -> AsyncGenerator[list[Event | Exchange], None]:
    """Yield the events of each step."""
    dialect = load("openai")
    request = UpstreamRequest("/", "application/json", (b"{}",))
    exchange = Exchange(request, partial(dialect.decoder, asked(n=n)), dialect.error)
    async with aclosing(
        DecodedAnswer(Answer(body), exchange, Provider("p", "openai", "https://host.test"), turn)
    ) as answer:
        while (events := await answer.read()) is not None:
            yield list(events)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[' + b",".join([b'{"b64_json":"AAAA"}'] * 10_000) + b"]}",
        b'{"x":[' + b"1," * 100_000 + b'1],"data":[{"b64_json":"AAAA"}]}',
        b'data: {"x":[' + b"{}," * 16_000 + b'1],"b64_json":"AAAA"}\n\n',
    ],
    ids=["strings", "numbers", "an event"],
)
async def test_other_tasks_have_their_turn_while_answers_of_much_json_are_read(body: bytes) -> None:
    """Ten of them take no longer at a time than one."""
    turns, turn = 0, asyncio.Lock()

    async def read() -> None:
        with contextlib.suppress(UpstreamError):
            async for _ in decoded(body, turn):
                pass

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    await asyncio.gather(*(read() for _ in range(10)))
    task.cancel()
    assert turns >= 10 * 8


async def test_cutting_an_answer_into_steps_changes_none_of_it() -> None:
    body = b'{"x":[' + b"1," * 9000 + b'1],"data":[{"b64_json":"' + PICTURE + b'"}],"y":"' + b"y" * 9000 + b'"}'
    events = together([event async for step in decoded(body, asyncio.Lock()) for event in step])
    assert pictures(events) == [PICTURE]


async def test_the_events_before_a_fault_are_whole() -> None:
    event = b'data: {"x":"' + b"x" * 5000 + b'","b64_json":"AAAA","type":"image_generation.completed"}\n\n'
    found = list[Event | Exchange]()
    with pytest.raises(UpstreamError):
        async for events in decoded(event + b"data: {]" + b"," * 5000, asyncio.Lock(), n=2):
            found += events
    assert isinstance(found[-1], ImageEnds)


async def test_the_text_of_an_image_is_passed_on_in_one_piece() -> None:
    body = b'{"data":[{"b64_json":"' + PICTURE + b'"}]}'
    steps = [step async for step in decoded(body, asyncio.Lock())]
    assert max(len(event.base64) for step in steps for event in step if isinstance(event, ImageData)) > 290_000
