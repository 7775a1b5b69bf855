"""Attempts, and what observers hear of them: of each beginning, first image and end exactly once."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError, Failure, Unavailable
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, Served, Sink
from app.gateway.attempt import Outcome
from tests.drawings import into
from tests.gateway.upstreams import IMAGE, PENDING, READY, SUBMITTED, Said, Scene, Step, jobs, no, plain

pytestmark = pytest.mark.anyio

LOST = no(Failure.UNCERTAIN)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ended(scene: Scene) -> ApiError | None:
    try:
        await scene.draw()
    except ApiError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("step", "outcome", "sent"),
    [
        (Said(IMAGE), Outcome.DELIVERED, 1),
        (no(Failure.NOT_SENT), Outcome.NOT_SENT, 0),
        (Unavailable("no descriptor is left"), Outcome.NOT_SENT, 0),
        (Said(status=429), Outcome.FAILED, 1),
        (Said(status=401), Outcome.FAILED, 1),
        (Said(status=503), Outcome.FAILED, 1),
        (Said({"status": "failed"}), Outcome.FAILED, 1),
        (Said(status=422), Outcome.REFUSED, 1),
        (LOST, Outcome.UNCERTAIN, 1),
        (Said(status=504), Outcome.UNCERTAIN, 1),
        (Said(b"<html>"), Outcome.UNCERTAIN, 1),
        (Said(IMAGE, cut=LOST, step=10), Outcome.UNCERTAIN, 1),
        (Said(IMAGE, cut=no(Failure.FAILED), step=10), Outcome.UNCERTAIN, 1),  # after the commit point
        (KeyError("a bug"), Outcome.CRASHED, 1),
    ],
    ids=str,
)
async def test_each_end_has_its_outcome(step: Step, outcome: Outcome, sent: int) -> None:
    scene = Scene([step])
    object.__setattr__(scene.deployments[0].provider, "retries", 0)
    with suppress(KeyError):
        await ended(scene)
    assert scene.outcomes == [outcome]
    assert scene.call.sent == sent
    [attempt] = scene.watching.attempts
    committed = outcome is Outcome.DELIVERED or (isinstance(step, Said) and step.step == 10)
    assert scene.watching.of(attempt) == ["began", *(["first image"] if committed else []), "ended"]
    assert scene.watching.sent_at_first == [0]


async def test_a_503_for_lack_of_descriptors_leaves_nothing_that_was_perhaps_paid() -> None:
    scene = Scene([Unavailable("no descriptor is left", code="server_is_overloaded")], [Said(IMAGE)])
    error = await ended(scene)
    assert error is not None
    assert (error.status, error.perhaps_paid, scene.call.sent) == (503, False, 0)
    assert scene.sent("b") == []


async def test_an_attempt_tells_what_it_knows() -> None:
    scene = Scene([Said(status=503)], [Said({**IMAGE, "usage": {"total_tokens": 3, "input_tokens": 1}})])
    await scene.draw()
    first, second = scene.watching.attempts
    assert (first.deployment.name, first.number, first.images, first.usage) == ("a/flux", 1, 0, None)
    assert (second.deployment.name, second.number, second.images) == ("b/flux", 2, 1)
    assert first.call.id == second.call.id == "run-1"
    assert second.usage is not None and second.usage["total_tokens"] == 3
    assert first.began <= (first.ended or 0.0) <= second.began <= (second.first_image_at or 0.0)


async def test_what_an_answer_states_of_all_its_images_is_known_of_the_attempt() -> None:
    scene = Scene([Said({**IMAGE, "quality": "medium", "size": "1024x1024"})])
    await scene.draw()
    [attempt] = scene.watching.attempts
    assert attempt.facts == {"quality": "medium", "size": "1x1", "output_format": "png"}


async def test_each_part_of_several_images_has_attempts_of_its_own() -> None:
    scene = Scene([Said(IMAGE)], n=3)
    await scene.draw()
    assert sorted((attempt.first, attempt.number) for attempt in scene.watching.attempts) == [(0, 1), (1, 1), (2, 1)]


def cancelled_at(kind: type[Event]) -> Sink:
    """A sink at which the work is cancelled."""

    async def push(event: Event) -> None:
        if isinstance(event, kind):
            raise asyncio.CancelledError

    return push


async def test_nothing_is_told_before_the_first_image_data() -> None:
    scene = Scene([Said(IMAGE, cut=LOST, step=1)], [Said(IMAGE)])
    events: list[Event] = []
    with pytest.raises(ApiError):
        await scene.draw(into(events))
    assert [type(event) for event in events[:3]] == [Served, ImageBegins, ImageData]


async def test_an_attempt_that_is_cancelled_after_all_its_images_has_delivered() -> None:
    scene = Scene([Said(IMAGE)])
    with pytest.raises(asyncio.CancelledError):
        await scene.draw(cancelled_at(Done))
    assert scene.outcomes == [Outcome.DELIVERED]


async def test_work_that_is_given_up_before_the_end_is_cancelled() -> None:
    scene = Scene([Said(IMAGE)])
    with pytest.raises(asyncio.CancelledError):
        await scene.draw(cancelled_at(ImageEnds))
    assert scene.outcomes == [Outcome.CANCELLED]
    assert scene.upstreams["a"].open == 0


async def test_the_error_that_an_attempt_keeps_holds_no_frames() -> None:
    scene = Scene([Said(status=503)])
    await ended(scene)
    [attempt] = scene.watching.attempts
    assert attempt.error is not None
    assert attempt.error.__traceback__ is None and attempt.error.__cause__ is None


STEPS = st.sampled_from(
    [Said(IMAGE), Said(IMAGE, cut=LOST, step=10), no(Failure.NOT_SENT), LOST, Said(status=503), Said(status=422),
     Unavailable("no descriptor is left"), KeyError("a bug")]
)  # fmt: skip
JOB_STEPS = st.sampled_from(
    [SUBMITTED, PENDING, READY, LOST, Said(status=503), no(Failure.NOT_SENT), KeyError("a bug")]
)


@given(
    st.lists(st.lists(STEPS, min_size=1, max_size=2), min_size=1, max_size=3)
    | st.lists(st.lists(JOB_STEPS, min_size=1, max_size=5), min_size=1, max_size=2),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 60) | st.none(),
)
def test_whatever_ends_an_attempt_each_is_told_once_of_its_beginning_and_its_end(
    upstreams: list[list[Step]], draws_in_jobs: bool, n: int, cancelled_after: int | None
) -> None:
    scene = Scene(*upstreams, dialect=jobs() if draws_in_jobs else plain(), n=n)

    async def play() -> None:
        drawing = asyncio.create_task(scene.draw())
        if cancelled_after is not None:
            for _ in range(cancelled_after):
                await asyncio.sleep(0)
            drawing.cancel()
        with suppress(ApiError, KeyError, asyncio.CancelledError):
            await drawing

    asyncio.run(play())
    for attempt in scene.watching.attempts:
        told = scene.watching.of(attempt)
        assert told[0] == "began" and told[-1] == "ended"
        assert told[1:-1] in ([], ["first image"])
        assert (told[1:-1] == ["first image"]) is attempt.is_committed
        assert attempt.ended is not None
        if attempt.outcome is Outcome.DELIVERED:
            assert attempt.images == 1
        if attempt.outcome is Outcome.NOT_SENT:
            assert attempt.exchanges == 0
    assert len(scene.watching.told) == sum(len(scene.watching.of(attempt)) for attempt in scene.watching.attempts)
    assert scene.call.sent == sum(attempt.exchanges > 0 for attempt in scene.watching.attempts)
    assert all(upstream.open == 0 for upstream in scene.upstreams.values())
    scene.call.drawn.close()
