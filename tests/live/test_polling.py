"""A provider that draws in jobs, in the sandbox: submit, poll, fetch. However the status calls fail, the image is drawn
once, delivered or told to be perhaps paid for, and never drawn again."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.dialects import bfl as dialect
from app.gateway import exchanges
from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import assert_repainted, bytes_of, decoded, fields_of, file_of, marked, picture, plain
from tests.live.loops import write
from tests.live.scripted import Scripted, answer
from tests.live.servers import Config, Gateway, process, sandbox_providers, served_by
from tests.live.wire import Reply, ask, edit, events, generate, line, post, request

pytestmark = pytest.mark.anyio

EDGE = (256, 256)  # the least that the provider takes
PRO, FILL, KONTEXT, ULTRA = "flux-2-pro", "flux-pro-1.0-fill", "flux-kontext-pro", "flux-pro-1.1-ultra"
NEXT = "black-forest-labs/FLUX.1-schnell"
STATUS_FAULTS = [
    "503",
    "500:shape=html",
    "502:shape=empty",
    "429:retry_after=0.01",
    "cut_headers",
    "cut",
    "reset",
    "short",
    "html200",
    "408",
    "504",
]


@pytest.fixture(autouse=True)
def _without_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(dialect, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(exchanges, "PAUSES", (0.01, 0.02))


def jobs(sandbox: Sandbox, **of_bfl: Any) -> Config:
    """The models of BFL, and `flux`: at BFL, then at nebula."""
    providers = sandbox_providers(sandbox.base_url)
    providers["bfl"] |= of_bfl
    flux = {"deployments": [{"provider": "bfl", "model": PRO}, {"provider": "nebula", "model": NEXT}]}
    return {
        "providers": providers,
        "models": {"flux": flux} | {name: served_by("bfl") for name in (PRO, FILL, KONTEXT, ULTRA)},
    }


async def draw(gateway: Gateway, fault: str = "", **fields: Any) -> Reply:
    return await generate(gateway.port, **{"prompt": f"a fox {fault}", "size": "64x64", **fields})


def drawings(sandbox: Sandbox) -> tuple[int, int]:
    """At BFL, and at the next deployment."""
    drawn = sandbox.world.journal.drawings
    return drawn["bfl"], drawn["nebula"]


def calls(sandbox: Sandbox) -> list[str]:
    return [str(entry["provider"]) for entry in sandbox.world.journal.last(200)]


def assert_drawn_here(reply: Reply, sandbox: Sandbox) -> None:
    assert picture(reply).size == (64, 64)
    assert reply.header("x-gateway-provider") == "bfl"
    assert reply.header("x-gateway-attempts") == "1"
    assert drawings(sandbox) == (1, 0)
    assert calls(sandbox).count("bfl") == 1


def assert_perhaps_paid(reply: Reply, sandbox: Sandbox, status: int, drawn: int = 1) -> None:
    assert reply.status == status, reply
    assert reply.error()["type"] == "server_error"
    assert reply.header("x-should-retry") == "false"
    assert reply.header("x-gateway-attempts") == "1"
    assert drawings(sandbox) == (drawn, 0)
    assert calls(sandbox).count("bfl") == 1


# --- what is drawn ---


async def test_a_job_is_submitted_polled_and_fetched(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(jobs(sandbox))
    reply = await draw(gateway, seed=7)
    assert_drawn_here(reply, sandbox)
    assert (reply.header("x-gateway-model"), reply.header("x-gateway-dropped")) == (PRO, None)
    assert calls(sandbox) == ["bfl", "bfl_status", "bfl_status", "bfl_sample"]
    requests = sandbox.world.journal.last(9)
    assert requests[0]["json"] == {"prompt": "a fox ", "width": 64, "height": 64, "seed": 7}
    for number, entry in enumerate(requests):
        headers: Any = entry["headers"]
        assert headers.get("x-key") == ("upstream-secret" if number < 3 else None)
        assert "authorization" not in headers
    [logged] = await gateway.request_lines()
    assert logged["attempts"] == 1
    assert "upstream-secret" not in gateway.log.getvalue()


async def test_the_providers_pauses_are_kept(start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "FIRST_PAUSE", 0.3)
    monkeypatch.setattr(dialect, "LONGEST_PAUSE", 0.3)
    gateway = await start(jobs(sandbox))
    began = time.monotonic()
    assert_drawn_here(await draw(gateway, "[[fault@bfl:pending:2]]"), sandbox)
    assert time.monotonic() - began > 0.9
    assert calls(sandbox).count("bfl_status") == 3


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_every_format_is_given(start: Start, sandbox: Sandbox, format: str) -> None:
    reply = await draw(await start(jobs(sandbox)), output_format=format)
    assert picture(reply).format == format.upper()
    sent: Any = sandbox.world.journal.last(9)[0]["json"]
    assert sent.get("output_format") == (None if format == "webp" else format)


async def test_several_images_are_several_jobs_with_seeds_in_a_row(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(jobs(sandbox))
    reply = await draw(gateway, n=3, seed=5)
    images = [bytes_of(reply, index) for index in range(3)]
    assert len(set(images)) == 3
    assert reply.header("x-gateway-attempts") == "3"
    assert drawings(sandbox) == (3, 0)
    submits = [fields_of(entry) for entry in sandbox.world.journal.last(50) if entry["provider"] == "bfl"]
    assert sorted(fields["seed"] for fields in submits) == [5, 6, 7]
    for index in range(3):
        assert images[index] == bytes_of(await draw(gateway, seed=5 + index))


@pytest.mark.parametrize("n", [1, 3])
async def test_a_stream_has_the_same_images(start: Start, sandbox: Sandbox, n: int) -> None:
    reply = await draw(await start(jobs(sandbox)), n=n, stream=True)
    assert (reply.status, reply.complete) == (200, True)
    told = events(reply.body)
    assert [name for name, _ in told] == ["image_generation.completed"] * n
    for _, completed in told:
        assert decoded(base64.b64decode(completed["b64_json"])).size == (64, 64)
        assert (completed["gateway"]["provider"], completed["gateway"]["model"]) == ("bfl", PRO)
    assert drawings(sandbox) == (n, 0)


async def test_a_link_is_the_gateways_own(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(jobs(sandbox))
    reply = await draw(gateway, response_format="url")
    [image] = reply.json()["data"]
    assert image["url"].startswith("http://gateway.localhost/files/")
    path = image["url"].removeprefix("http://gateway.localhost")
    fetched = await ask(gateway.port, request("GET", path))
    assert (fetched.status, decoded(fetched.body).size) == (200, (64, 64))


async def test_a_link_is_the_providers_where_it_is_to_be_passed(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(jobs(sandbox, urls="pass")), response_format="url")
    [image] = reply.json()["data"]
    assert image["url"].startswith(f"{sandbox.base_url}/bfl/samples/")
    assert "bfl_sample" not in calls(sandbox)


async def test_an_edit_sends_its_images_under_numbered_names(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(jobs(sandbox))
    files = [(f"{colour}.png", file_of(plain(EDGE, colour))) for colour in ("red", "green", "blue")]
    reply = await edit(
        gateway.port,
        ("model", PRO),
        ("prompt", "merge"),
        ("output_format", "png"),
        *(("image[]", file) for file in files),
    )
    image = picture(reply).convert("RGB")
    assert image.size == EDGE
    assert [image.getpixel((x, 5)) for x in (20, 60)] == [(0, 128, 0), (0, 0, 255)]
    sent: Any = sandbox.world.journal.last(9)[0]["json"]
    assert list(sent) == ["prompt", "output_format", "input_image", "input_image_2", "input_image_3"]


async def test_a_model_without_sizes_edits_without_one_and_refuses_one(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(jobs(sandbox))
    parts = ("model", KONTEXT), ("prompt", "a hat"), ("image", ("a.png", file_of(plain(EDGE))))
    assert picture(await edit(gateway.port, *parts)).size == EDGE
    refused = await edit(gateway.port, *parts, ("size", "256x256"))
    assert (refused.status, refused.error()["param"]) == (400, "size")
    refused = await generate(gateway.port, model=ULTRA, size="1024x1024")
    assert (refused.status, refused.error()["param"]) == (400, "size")
    refused = await generate(gateway.port, model=PRO, size="1000x1000")
    assert (refused.status, refused.error()["param"]) == (400, "size")
    assert "1008x1008" in refused.error()["message"] or "992x992" in refused.error()["message"]


@pytest.mark.parametrize("said", ["alpha", "white", "black"])
async def test_what_the_mask_marks_is_repainted_and_nothing_else(start: Start, sandbox: Sandbox, said: str) -> None:
    gateway = await start(jobs(sandbox))
    reply = await edit(
        gateway.port,
        ("model", FILL),
        ("prompt", "a hat"),
        ("output_format", "png"),
        ("mask_convention", said),
        ("image", ("a.png", file_of(plain(EDGE)))),
        ("mask", ("m.png", marked(EDGE, said))),
    )
    assert_repainted(picture(reply), (EDGE[0] // 8, EDGE[1] // 8, EDGE[0] // 2, EDGE[1] // 2), margin=0)
    assert drawings(sandbox) == (1, 0)


async def test_fill_without_a_mask_is_refused_before_anything_is_sent(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(jobs(sandbox))
    picture = file_of(plain(EDGE))
    reply = await edit(gateway.port, ("model", FILL), ("prompt", "a hat"), ("image", ("a.png", picture)))
    assert (reply.status, reply.error()["param"]) == (400, "mask")
    assert calls(sandbox) == []


async def test_a_refused_submit_is_told_as_it_is(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(jobs(sandbox))
    small = file_of(plain((64, 64)))
    reply = await edit(gateway.port, ("model", PRO), ("prompt", "a hat"), ("image", ("a.png", small)))
    assert reply.status == 422
    assert "input_image: Image dimensions must be at least 256x256" in reply.error()["message"]
    assert drawings(sandbox) == (0, 0)


# --- status calls that fail ---


@pytest.mark.parametrize("fault", STATUS_FAULTS)
async def test_a_lost_status_answer_loses_no_image(start: Start, sandbox: Sandbox, fault: str) -> None:
    reply = await draw(await start(jobs(sandbox)), f"[[fault@bfl_status*3:{fault}]]")
    assert_drawn_here(reply, sandbox)
    assert calls(sandbox).count("bfl_status") >= 4


async def test_a_status_call_that_is_killed_after_the_job_was_pending_loses_no_image(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(jobs(sandbox))
    drawing = asyncio.create_task(draw(gateway, "[[fault@bfl:pending:9]]"))
    while calls(sandbox).count("bfl_status") < 3:
        await asyncio.sleep(0.005)
    for fault in ("reset", "cut", "cut_headers"):
        sandbox.world.book.stand(fault, provider="bfl_status", times=1)
    assert_drawn_here(await drawing, sandbox)


async def test_a_silent_status_call_loses_no_image(
    start: Start, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "SHORT_READ", 0.2)
    reply = await draw(await start(jobs(sandbox)), "[[fault@bfl_status*1:slow:30]]")
    assert_drawn_here(reply, sandbox)


async def test_a_slow_status_call_is_waited_for(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(jobs(sandbox)), "[[fault@bfl_status*1:slow:0.3]]")
    assert_drawn_here(reply, sandbox)
    assert calls(sandbox).count("bfl_status") == 2


@asynccontextmanager
async def vanishing(sandbox: Sandbox, away: float) -> AsyncIterator[str]:
    """The address of a host that refuses connections for `away` seconds, from its first answer on."""
    port = int(sandbox.base_url.rpartition(":")[2])
    server: asyncio.Server | None = None
    tasks: set[asyncio.Task[None]] = set()
    has_vanished = False

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        far, near = await asyncio.open_connection("127.0.0.1", port)
        upwards = asyncio.create_task(_pass_on(reader, near))
        try:
            while data := await far.read(65_536):
                await write(writer, data)
                if not has_vanished:
                    vanish()
                    return
        finally:
            upwards.cancel()
            near.close()
            writer.close()
            tasks.discard(task)

    def vanish() -> None:
        nonlocal has_vanished
        has_vanished = True
        assert server is not None
        server.close()
        returning = asyncio.create_task(come_back())
        tasks.add(returning)

    async def come_back() -> None:
        nonlocal server
        await asyncio.sleep(away)
        server = await asyncio.start_server(relay, "127.0.0.1", own_port)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    own_port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{own_port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        await write(writer, data)


async def test_refused_status_calls_lose_no_image(start: Start, sandbox: Sandbox) -> None:
    async with vanishing(sandbox, away=0.3) as base_url:
        config = jobs(sandbox, base_url=f"{base_url}/bfl/v1")
        assert_drawn_here(await draw(await start(config)), sandbox)


async def test_a_host_that_does_not_come_back_is_a_504_and_nothing_is_drawn_elsewhere(
    start: Start, sandbox: Sandbox
) -> None:
    async with vanishing(sandbox, away=60) as base_url:
        config = jobs(sandbox, base_url=f"{base_url}/bfl/v1", timeout={"total": 1})
        assert_perhaps_paid(await draw(await start(config)), sandbox, 504)


@pytest.mark.parametrize("fault", ["503", "429", "cut_headers", "reset", "html200"])
@pytest.mark.parametrize("stream", [False, True])
async def test_status_calls_that_fail_until_the_deadline_are_a_504_and_nothing_is_drawn_again(
    start: Start, sandbox: Sandbox, fault: str, stream: bool
) -> None:
    config = jobs(sandbox, timeout={"total": 1})
    reply = await draw(await start(config), f"[[fault@bfl_status:{fault}]]", stream=stream)
    assert_perhaps_paid(reply, sandbox, 504)
    assert calls(sandbox).count("bfl_status") >= 2


@pytest.mark.parametrize("fault", ["401", "403", "404", "422"])
async def test_a_status_call_that_is_refused_is_perhaps_paid(start: Start, sandbox: Sandbox, fault: str) -> None:
    reply = await draw(await start(jobs(sandbox)), f"[[fault@bfl_status:{fault}]]")
    assert_perhaps_paid(reply, sandbox, 502)
    assert calls(sandbox).count("bfl_status") == 1


async def test_a_job_that_is_pending_for_ever_is_a_504_at_the_deadline(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(jobs(sandbox, timeout={"total": 1})), "[[fault@bfl:pending]]")
    assert_perhaps_paid(reply, sandbox, 504)


# --- the job's bad ends ---


@pytest.mark.parametrize(("fault", "drawn"), [("request_moderated", 0), ("content_moderated", 1)])
@pytest.mark.parametrize("stream", [False, True])
async def test_moderation_is_a_refusal_and_nothing_is_drawn_elsewhere(
    start: Start, sandbox: Sandbox, fault: str, drawn: int, stream: bool
) -> None:
    reply = await draw(await start(jobs(sandbox)), f"[[fault@bfl:{fault}]]", stream=stream)
    assert (reply.status, reply.error()["code"]) == (400, "content_policy_violation")
    assert "Violence, Derivative Works Filter" in reply.error()["message"]
    assert reply.header("x-should-retry") == "false"
    assert drawings(sandbox) == (drawn, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_job_that_failed_is_drawn_by_the_next_deployment(start: Start, sandbox: Sandbox, stream: bool) -> None:
    reply = await draw(await start(jobs(sandbox)), "[[fault@bfl:job_failed]]", stream=stream)
    assert (reply.status, reply.header("x-gateway-provider")) == (200, "nebula")
    assert reply.header("x-gateway-attempts") == "2"
    assert drawings(sandbox) == (0, 1)


async def test_a_job_that_expired_is_perhaps_paid(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(jobs(sandbox)), "[[fault@bfl:expired]]")
    assert_perhaps_paid(reply, sandbox, 502)
    assert "task not found" in reply.error()["message"]


@pytest.mark.parametrize("fault", ["403", "404"])
async def test_a_picture_that_is_gone_is_perhaps_paid(start: Start, sandbox: Sandbox, fault: str) -> None:
    reply = await draw(await start(jobs(sandbox)), f"[[fault@bfl_sample:{fault}]]")
    assert_perhaps_paid(reply, sandbox, 502)


async def test_a_picture_that_is_not_there_yet_is_asked_for_again(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(jobs(sandbox)), "[[fault@bfl_sample*1:503]]")
    assert_drawn_here(reply, sandbox)


@pytest.mark.parametrize("fault", ["truncated_image", "notimage"])
async def test_a_broken_picture_is_never_whole(start: Start, sandbox: Sandbox, fault: str) -> None:
    reply = await draw(await start(jobs(sandbox)), f"[[fault@bfl:{fault}]]")
    assert not reply.complete or reply.status == 502
    assert drawings(sandbox) == (1, 0)


# --- submits that fail ---


@pytest.mark.parametrize("fault", ["503", "429:retry_after=7", "402", "403", "500:shape=html"])
async def test_a_submit_that_was_refused_is_drawn_by_the_next_deployment(
    start: Start, sandbox: Sandbox, fault: str
) -> None:
    reply = await draw(await start(jobs(sandbox)), f"[[fault@bfl:{fault}]]")
    assert (reply.status, reply.header("x-gateway-provider")) == (200, "nebula")
    assert reply.header("x-gateway-attempts") == "2"
    assert drawings(sandbox) == (0, 1)
    assert "bfl_status" not in calls(sandbox)


@pytest.mark.parametrize(("fault", "drawn"), [("cut_headers", 1), ("cut", 1), ("reset", 1), ("html200", 0)])
async def test_a_lost_submit_is_perhaps_paid_and_not_made_again(
    start: Start, sandbox: Sandbox, fault: str, drawn: int
) -> None:
    reply = await draw(await start(jobs(sandbox)), f"[[fault@bfl:{fault}]]")
    assert_perhaps_paid(reply, sandbox, 502, drawn)
    assert "bfl_status" not in calls(sandbox)


@pytest.mark.parametrize("host", ["another port", "https://api.bfl.ai.example.com", "http://localhost"])
async def test_an_address_at_a_foreign_host_is_not_asked_and_gets_no_credential(
    start: Start, sandbox: Sandbox, upstream: Scripted, host: str
) -> None:
    async with Scripted() as foreign:
        foreign.at("job", answer({"status": "Pending"}))
        address = f"{foreign.base_url if host == 'another port' else host}/job/v1/get_result?id=7"
        base_url = upstream.at("home", answer({"id": "7", "polling_url": address}))
        reply = await draw(await start(jobs(sandbox, base_url=base_url)))
        assert_foreign(reply)
        assert foreign.received("job") == []
        assert len(upstream.received("home")) == 1
        assert drawings(sandbox) == (0, 0)


def assert_foreign(reply: Reply) -> None:
    assert reply.status == 502
    assert "not the provider's own" in reply.error()["message"]
    assert reply.header("x-should-retry") == "false"


# --- callers that leave ---


async def test_a_caller_that_leaves_while_the_job_is_polled_finds_the_image_later(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(jobs(sandbox))
    asked = {"model": "flux", "prompt": "a fox [[fault@bfl:pending:5]]", "size": "64x64"}
    body = str(asked).replace("'", '"').encode()
    async with line(gateway.port) as opened:
        headers = {"content_type": "application/json", "x_request_id": "left-early"}
        await opened.send(request("POST", "/v1/images/generations", body, **headers))
        while "bfl_status" not in calls(sandbox):
            await asyncio.sleep(0.005)
    reply = await ask(gateway.port, request("GET", "/v1/images/runs/left-early"))
    assert picture(reply).size == (64, 64)
    assert drawings(sandbox) == (1, 0)


async def test_without_a_configuration_its_models_are_simulated(tmp_path: Path) -> None:
    with process(None, tmp_path) as gateway:
        body = {"model": PRO, "prompt": "a fox", "size": "64x64"}
        reply = await post(gateway.port, "/v1/images/generations", body)
    assert picture(reply).size == (64, 64)
    assert reply.header("x-gateway-provider") == "bfl"
