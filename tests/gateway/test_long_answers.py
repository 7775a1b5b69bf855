"""Answers of upstreams that take long to read: other work goes on beside them."""

from __future__ import annotations

import asyncio

import pytest

from app.dialects import load
from app.errors import ApiError
from app.events import Event, ImageData, ImageEnds
from tests.dialects.asking import pictures, together
from tests.drawings import into
from tests.gateway.upstreams import Said, Scene

pytestmark = pytest.mark.anyio
PICTURE = b"A" * 300_000


def answered(body: bytes) -> Scene:
    """A gateway whose upstream sends the body in one piece."""
    return Scene([Said(body, step=len(body))], dialect=load("openai"))


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
    turns, scene = 0, answered(body)

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    await asyncio.gather(*(scene.draw() for _ in range(10)), return_exceptions=True)
    task.cancel()
    assert turns >= 10 * 8


async def test_cutting_an_answer_into_steps_changes_none_of_it() -> None:
    body = b'{"x":[' + b"1," * 9000 + b'1],"data":[{"b64_json":"' + PICTURE + b'"}],"y":"' + b"y" * 9000 + b'"}'
    assert pictures(together((await answered(body).draw())[1:])) == [PICTURE]


async def test_the_events_before_a_fault_are_told() -> None:
    partial = b'event: image_generation.partial_image\ndata: {"x":"' + b"x" * 5000 + b'","b64_json":"AAAA"}\n\n'
    told: list[Event] = []
    with pytest.raises(ApiError):
        await answered(partial + b"data: {]" + b"," * 5000).draw(into(told))
    assert isinstance(told[-1], ImageEnds)


async def test_the_text_of_an_image_is_passed_on_in_one_piece() -> None:
    events = await answered(b'{"data":[{"b64_json":"' + PICTURE + b'"}]}').draw()
    assert max(len(event.base64) for event in events if isinstance(event, ImageData)) > 290_000
