"""Attempts of several exchanges: submit, poll, fetch. What was submitted is neither drawn twice nor lost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ApiError, Failure, Unavailable, UpstreamError
from app.events import Done, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.attempt import Outcome
from app.gateway.call import SubmittedJob
from app.gateway.exchanges import LONGEST_PAUSE, PAUSES, SHORT_READ, join_url
from tests.gateway.upstreams import (
    IMAGE,
    PENDING,
    PNG,
    READY,
    SUBMITTED,
    TOTAL,
    Said,
    Scene,
    Step,
    image_of,
    jobs,
    no,
)

pytestmark = pytest.mark.anyio

DROPPED = no(Failure.UNCERTAIN, timed_out=True)
PASSING: list[Step] = [
    no(Failure.NOT_SENT),
    DROPPED,
    Said(status=429),
    Said(status=500),
    Said(status=503),
    Said(status=504),
    Said(b"<html>"),
    Said({"status": "pending"}, cut=DROPPED, step=4),
    Unavailable("no descriptor is left"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def failed(scene: Scene) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await scene.draw()
    return caught.value


# --- all goes well ---


async def test_a_job_is_submitted_polled_and_its_image_fetched() -> None:
    scene = Scene([SUBMITTED, PENDING, PENDING, READY], dialect=jobs())
    events = await scene.draw()
    assert image_of(events) == PNG.encode()
    assert [type(event) for event in events if not isinstance(event, ImageData)] == [
        Served, ImageBegins, ImageEnds, Done,
    ]  # fmt: skip
    assert scene.sent() == ["/submit", "/jobs/1", "/jobs/1", "/jobs/1"]
    assert scene.links.asked == [("https://cdn.test/1.png", "https://a.test/v1")]
    assert scene.time.pauses == [0.5, 0.5, 0.5]
    assert scene.call.sent == 1
    [attempt] = scene.watching.attempts
    assert (attempt.outcome, attempt.exchanges, attempt.images) == (Outcome.DELIVERED, 4, 1)
    assert attempt.usage == {"total_tokens": 1}


async def test_the_providers_id_of_an_attempt_is_that_of_its_job_or_of_its_first_answer() -> None:
    named = replace(SUBMITTED, body={"poll": "/jobs/1", "id": "job-1"}, headers={"x-request-id": "up-1"})
    later = [replace(said, headers={"x-request-id": "up-2"}) for said in (PENDING, READY)]
    for first, known in ((named, "job-1"), (replace(SUBMITTED, headers={"x-request-id": "up-1"}), "up-1")):
        scene = Scene([first, *later], dialect=jobs())
        await scene.draw()
        [attempt] = scene.watching.attempts
        assert attempt.provider_request_id == known


async def test_a_refused_request_has_the_providers_id_too() -> None:
    scene = Scene([Said({"error": {"message": "no"}}, status=400, headers={"x-request-id": "up-1"})])
    await failed(scene)
    assert [attempt.provider_request_id for attempt in scene.watching.attempts] == ["up-1"]


async def test_a_providers_id_holds_no_credential() -> None:
    scene = Scene([Said({"error": {"message": "no"}}, status=400, headers={"x-request-id": "of the-secret"})])
    await failed(scene)
    [attempt] = scene.watching.attempts
    assert "the-secret" not in (attempt.provider_request_id or "")


async def test_a_job_counts_as_one_attempt() -> None:
    events = await Scene([SUBMITTED, PENDING, READY], dialect=jobs()).draw()
    assert events[0] == Served("a", "flux", 1)


async def test_a_job_is_remembered_after_the_submit_and_before_the_first_status_call() -> None:
    scene = Scene([SUBMITTED, PENDING, READY], dialect=jobs())
    await scene.draw()
    [(job, sent_before)] = scene.remembered
    assert job == SubmittedJob("a/flux", 0, {"poll": "/jobs/1"}, 1)
    assert SubmittedJob(**json.loads(json.dumps(asdict(job)))) == job
    assert sent_before == ["/submit"]


async def test_each_of_several_jobs_is_remembered_with_the_index_of_its_image() -> None:
    scene = Scene([SUBMITTED, SUBMITTED, READY], dialect=jobs(), n=2)
    await scene.draw()
    assert sorted(job.first for job, _ in scene.remembered) == [0, 1]


async def test_a_single_exchange_waits_for_nothing() -> None:
    scene = Scene([Said(IMAGE)])
    assert image_of(await scene.draw()) == PNG.encode()
    assert scene.time.pauses == []
    assert scene.upstreams["a"].timeouts == [None]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("/v1/images/1/content?sig=a%2Fb", "https://h.example/v1/images/1/content?sig=a%2Fb"),
        ("images/1", "https://h.example/images/1"),
        ("//cdn.example/1", "https://cdn.example/1"),
        ("https://cdn.example/a/../1?#", "https://cdn.example/a/../1?#"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("http://[bad", "http://[bad"),
    ],
)
def test_a_link_that_is_passed_on_is_a_full_address(url: str, address: str) -> None:
    assert join_url(url, "https://h.example/v1") == address


# --- failures ---


@pytest.mark.parametrize("failure", PASSING, ids=str)
async def test_a_lost_status_answer_is_asked_for_again(failure: Step) -> None:
    scene = Scene([SUBMITTED, failure, failure, PENDING, failure, READY], [Said(IMAGE)], dialect=jobs())
    assert image_of(await scene.draw()) == PNG.encode()
    assert scene.sent() == ["/submit", *["/jobs/1"] * 5]
    assert scene.sent("b") == []
    assert scene.time.pauses == [0.5, PAUSES[0], PAUSES[1], 0.5, PAUSES[0]]
    assert scene.outcomes == [Outcome.DELIVERED]


@pytest.mark.parametrize("failure", PASSING, ids=str)
async def test_until_the_deadline_and_then_nothing_is_drawn_elsewhere(failure: Step) -> None:
    scene = Scene([SUBMITTED, failure], [Said(IMAGE)], dialect=jobs())
    error = await failed(scene)
    assert (error.status, error.code) == (504, "upstream_timeout")
    assert (error.perhaps_paid, error.should_retry, error.attempts) == (True, False, 1)
    assert "the last status call failed" in error.message
    assert scene.sent("b") == []
    assert scene.outcomes == [Outcome.UNCERTAIN]
    assert sum(scene.time.pauses) <= TOTAL
    assert scene.time.pauses[-1] == PAUSES[-1]
    assert scene.call.sent == 1


async def test_a_job_that_does_not_end_is_given_up_at_the_deadline() -> None:
    scene = Scene([SUBMITTED, PENDING], [Said(IMAGE)], dialect=jobs())
    error = await failed(scene)
    assert (error.status, error.perhaps_paid) == (504, True)
    assert "the job had not ended after 600 s" in error.message
    assert TOTAL - 1 <= sum(scene.time.pauses) < TOTAL
    assert scene.sent("b") == []


async def test_all_exchanges_have_one_deadline() -> None:
    scene = Scene([SUBMITTED, PENDING, no(Failure.UNCERTAIN), READY], dialect=jobs())
    await scene.draw()
    submit, *later = scene.upstreams["a"].timeouts
    assert submit is None
    assert [timeouts and timeouts.total for timeouts in later] == [TOTAL - 0.5, TOTAL - 1.0, TOTAL - 1.5]
    assert {timeouts.read for timeouts in later if timeouts} == {SHORT_READ}


async def test_a_retry_after_is_honoured_and_bounded() -> None:
    def limited(seconds: float) -> UpstreamError:
        return no(Failure.RATE_LIMITED, retry_after=seconds)

    scene = Scene([SUBMITTED, limited(7), limited(0.1), limited(3600), READY], dialect=jobs())
    await scene.draw()
    assert scene.time.pauses == [0.5, 7, PAUSES[1], LONGEST_PAUSE]


@pytest.mark.parametrize("failure", [Said(status=401), Said(status=403), Said(status=404), Said(status=422)], ids=str)
async def test_a_status_call_that_is_refused_says_nothing_of_the_drawing(failure: Step) -> None:
    scene = Scene([SUBMITTED, failure], [Said(IMAGE)], dialect=jobs())
    error = await failed(scene)
    assert (error.status, error.code, error.perhaps_paid) == (502, "upstream_broken_answer", True)
    assert scene.sent() == ["/submit", "/jobs/1"]
    assert scene.sent("b") == []
    assert scene.health.cooling(scene.deployments[0]) is None


@pytest.mark.parametrize("failure", PASSING, ids=str)
async def test_what_may_not_be_repeated_is_not(failure: Step) -> None:
    scene = Scene([SUBMITTED, failure], [Said(IMAGE)], dialect=jobs(repeatable=False))
    error = await failed(scene)
    assert error.perhaps_paid
    assert scene.sent() == ["/submit", "/jobs/1"]
    assert scene.sent("b") == []
    assert scene.outcomes == [Outcome.UNCERTAIN]


async def test_moderation_is_told_as_it_is_and_nothing_else_is_tried() -> None:
    scene = Scene([SUBMITTED, PENDING, Said({"status": "moderated"})], [Said(IMAGE)], dialect=jobs())
    error = await failed(scene)
    assert (error.status, error.message, error.perhaps_paid) == (400, "it is moderated", False)
    assert scene.sent("b") == []
    assert scene.outcomes == [Outcome.REFUSED]


async def test_a_job_that_failed_is_drawn_by_the_next_deployment() -> None:
    scene = Scene([SUBMITTED, Said({"status": "failed"})], [SUBMITTED, READY], dialect=jobs())
    assert image_of(await scene.draw()) == PNG.encode()
    assert scene.outcomes == [Outcome.FAILED, Outcome.DELIVERED]


@pytest.mark.parametrize("failure", [no(Failure.NOT_SENT), Said(status=429), Said(status=503)], ids=str)
async def test_a_submit_that_failed_unpaid_goes_to_the_next_deployment(failure: Step) -> None:
    scene = Scene([failure], [SUBMITTED, READY], dialect=jobs())
    assert image_of(await scene.draw()) == PNG.encode()
    assert scene.sent("b") == ["/submit", "/jobs/1"]
    assert scene.remembered[0][0].deployment == "b/flux"


@pytest.mark.parametrize("failure", [DROPPED, Said(b"{"), Said({"poll": "/x"}, cut=DROPPED, step=1)], ids=str)
async def test_a_submit_that_was_perhaps_accepted_is_made_once(failure: Step) -> None:
    scene = Scene([failure], [SUBMITTED, READY], dialect=jobs())
    assert (await failed(scene)).perhaps_paid
    assert (scene.sent(), scene.sent("b"), scene.remembered) == (["/submit"], [], [])


async def test_an_image_that_cannot_be_fetched_was_drawn() -> None:
    scene = Scene([SUBMITTED, READY], [SUBMITTED, READY], dialect=jobs())
    scene.links.found = no(Failure.UNCERTAIN)
    error = await failed(scene)
    assert (error.status, error.perhaps_paid) == (502, True)
    assert scene.sent() == ["/submit", "/jobs/1"]
    assert scene.sent("b") == []


async def test_an_error_quotes_no_credential() -> None:
    scene = Scene([SUBMITTED, Said({"detail": "the key the-secret is wrong"}, 401)], dialect=jobs())
    assert "the-secret" not in (await failed(scene)).message


@given(st.lists(st.sampled_from([*PASSING, PENDING]), max_size=12))
def test_whatever_status_calls_go_wrong_the_job_is_submitted_once_and_its_image_arrives(trouble: list[Step]) -> None:
    scene = Scene([SUBMITTED, *trouble, READY], [Said(IMAGE)], dialect=jobs())
    assert image_of(asyncio.run(scene.draw())) == PNG.encode()
    assert scene.sent() == ["/submit", *["/jobs/1"] * (len(trouble) + 1)]
    assert scene.sent("b") == []
    assert scene.upstreams["a"].open == 0


# --- after a crash ---


async def test_a_job_of_an_earlier_process_is_taken_up_where_it_is() -> None:
    scene = Scene([PENDING, no(Failure.NOT_SENT), READY], dialect=jobs())
    scene.call.sent = 1
    events = await scene.resume(SubmittedJob("a/flux", 0, {"poll": "/jobs/7"}))
    assert image_of(events) == PNG.encode()
    assert scene.sent() == ["/jobs/7"] * 3
    [attempt] = scene.watching.attempts
    assert (attempt.is_resumed, attempt.outcome, attempt.number) == (True, Outcome.DELIVERED, 1)


async def test_several_jobs_are_taken_up_side_by_side() -> None:
    scene = Scene([READY], dialect=jobs(), n=2)
    events = await scene.resume(*(SubmittedJob("a/flux", index, {"poll": f"/jobs/{index}"}) for index in (1, 0)))
    assert [event.index for event in events if isinstance(event, ImageBegins)] == [0, 1]
    assert sorted(scene.sent()) == ["/jobs/0", "/jobs/1"]


async def test_an_image_without_a_job_is_not_drawn_and_the_others_are_kept() -> None:
    scene = Scene([READY], dialect=jobs(), n=2)
    with pytest.raises(ApiError) as caught:
        await scene.resume(SubmittedJob("a/flux", 1, {"poll": "/jobs/1"}))
    assert (caught.value.code, caught.value.perhaps_paid) == ("run_interrupted", True)
    assert set(scene.call.drawn.recordings) == {1}
    assert scene.sent() == ["/jobs/1"]
    scene.call.drawn.close()


@pytest.mark.parametrize("trouble", [Said({"status": "failed"}), Said({"status": "moderated"}), Said(status=404)])
async def test_a_resumed_job_that_failed_is_drawn_by_no_other(trouble: Step) -> None:
    scene = Scene([trouble], [SUBMITTED, READY], dialect=jobs())
    with pytest.raises(ApiError):
        await scene.resume(SubmittedJob("a/flux", 0, {"poll": "/jobs/7"}))
    assert (scene.sent(), scene.sent("b")) == (["/jobs/7"], [])


async def test_a_resumed_job_that_failed_leaves_the_others_to_their_end() -> None:
    scene = Scene([Said({"status": "failed"}), PENDING, PENDING, READY], dialect=jobs(), n=3)
    with pytest.raises(ApiError):
        await scene.resume(*(SubmittedJob("a/flux", index, {"poll": f"/jobs/{index}"}) for index in range(3)))
    assert set(scene.call.drawn.recordings) == {1, 2}
    scene.call.drawn.close()


@pytest.mark.parametrize("name", ["a/gone", "gone/flux"])
async def test_a_job_at_a_deployment_that_is_gone_cannot_be_found(name: str) -> None:
    scene = Scene([READY], dialect=jobs())
    with pytest.raises(ApiError) as caught:
        await scene.resume(SubmittedJob(name, 0, {"poll": "/jobs/7"}))
    assert (caught.value.code, caught.value.perhaps_paid) == ("run_interrupted", True)


async def test_a_link_is_passed_on_if_the_provider_s_own_are_handed_out() -> None:
    scene = Scene([Said({"data": [{"url": "/files/1.png"}]})])
    provider = scene.deployments[0].provider
    object.__setattr__(provider, "urls", "pass")
    scene.call.request = scene.request = type(scene.request)(
        scene.request.operation, "flux", "a fox", response_format="url"
    )
    events = await scene.draw()
    assert [event for event in events if isinstance(event, ImageLink)] == [ImageLink("https://a.test/files/1.png")]
    assert scene.links.asked == []
