"""What is tried again and what is not: each row of the table in `docs/money.md`, over two providers that draw."""

import asyncio
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.crowds import asking, call
from tests.live.loops import dead_port
from tests.live.pictures import encoded, heavy, opened, text
from tests.live.scripted import End, Scripted, answer, event, head, image_json, refusal
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by
from tests.live.wire import Reply, events, generate
from tests.waiting import until

pytestmark = pytest.mark.anyio

# app.gateway.inspection looks for bytes of no known media type, and HTML has one of its own.
FAULTS_WITHOUT_A_PICTURE = ["badbase64", "notimage", "html200", "noimage", "nullimage"]

FLUX = "black-forest-labs/FLUX.1-schnell"


def two(sandbox: Sandbox, **of_the_first: Any) -> Config:
    """`flux`: at netmind, then at nebula."""
    providers = sandbox_providers(sandbox.base_url)
    providers["netmind"] |= of_the_first
    deployments = [{"provider": "netmind", "model": FLUX}, {"provider": "nebula", "model": FLUX}]
    return {"providers": providers, "models": {"flux": {"deployments": deployments}}}


def drawings(sandbox: Sandbox) -> tuple[int, int]:
    drawn = sandbox.world.journal.drawings
    return drawn["netmind"], drawn["nebula"]


async def draw(gateway: Gateway, fault: str = "", **fields: Any) -> Reply:
    return await generate(gateway.port, prompt=f"a fox {fault}", size="64x64", **fields)


def assert_drawn(reply: Reply, size: tuple[int, int] = (64, 64)) -> None:
    assert (reply.status, reply.complete) == (200, True), reply
    [image] = reply.json()["data"]
    assert opened(image["b64_json"]).size == size


async def test_the_first_deployment_serves_and_the_headers_say_so(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(two(sandbox)))
    assert_drawn(reply)
    assert reply.header("x-gateway-provider") == "netmind"
    assert reply.header("x-gateway-model") == FLUX
    assert reply.header("x-gateway-attempts") == "1"
    assert reply.header("x-gateway-dropped") is None
    assert reply.header("x-gateway-mapped") is None
    assert drawings(sandbox) == (1, 0)


@pytest.mark.parametrize(
    "fault",
    [
        "429:retry_after=7",
        "429",
        "401",
        "402",
        "403",
        "quota",
        "500",
        "502",
        "503",
        "502:shape=html",
        "503:shape=empty",
        "500:shape=detail",
        "failed200",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_not_drawn_is_drawn_by_the_next_deployment(
    start: Start, sandbox: Sandbox, fault: str, stream: bool
) -> None:
    reply = await draw(await start(two(sandbox)), f"[[fault@netmind:{fault}]]", stream=stream)
    assert reply.status == 200, reply
    assert reply.header("x-gateway-provider") == "nebula"
    assert reply.header("x-gateway-attempts") == "2"
    assert drawings(sandbox) == (0, 1)
    if stream:
        [(name, completed)] = events(reply.body)
        assert name == "image_generation.completed"
        assert completed["gateway"] == {
            "provider": "nebula",
            "model": FLUX,
            "attempts": 2,
            "dropped": [],
            "mapped": [],
            "cost": 0.019,
            "currency": "USD",
        }
    else:
        assert_drawn(reply)


async def test_nobody_listening_is_tried_once_more_here_and_then_elsewhere(start: Start, sandbox: Sandbox) -> None:
    config = two(sandbox, base_url=f"http://127.0.0.1:{dead_port()}/v1")
    reply = await draw(await start(config))
    assert_drawn(reply)
    assert reply.header("x-gateway-provider") == "nebula"
    assert reply.header("x-gateway-attempts") == "3"


async def test_nobody_listening_anywhere_is_a_502_that_may_be_tried_again(start: Start) -> None:
    config = {
        "providers": {"dead": provider(f"http://127.0.0.1:{dead_port()}/v1", retries=0)},
        "models": {"flux": served_by("dead")},
    }
    reply = await generate((await start(config)).port)
    assert reply.status == 502
    assert reply.error()["code"] == "upstream_unavailable"
    assert reply.header("x-should-retry") is None


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("400", 400, None),
        ("404", 404, "model_not_found"),
        ("413", 413, None),
        ("422", 422, None),
        ("422:shape=detail_list", 422, None),
        ("moderation", 400, "moderation_blocked"),
        ("moderation200", 400, "moderation_blocked"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_told_as_it_is_and_never_tried_again(
    start: Start, sandbox: Sandbox, fault: str, status: int, code: str | None, stream: bool
) -> None:
    reply = await draw(await start(two(sandbox)), f"[[fault@netmind:{fault}]]", stream=stream)
    assert (reply.status, reply.error()["code"]) == (status, code)
    assert reply.header("x-should-retry") == "false"
    assert drawings(sandbox) == (0, 0)
    assert len(sandbox.world.journal.last(9)) == 1


@pytest.mark.parametrize(
    ("fault", "status"), [("408", 504), ("504", 504), ("520", 502), ("522", 504), ("524", 504), ("cut_headers", 502)]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_perhaps_drawn_is_not_drawn_again(
    start: Start, sandbox: Sandbox, fault: str, status: int, stream: bool
) -> None:
    reply = await draw(await start(two(sandbox)), f"[[fault@netmind:{fault}]]", stream=stream)
    assert reply.status == status
    assert reply.error()["type"] == "server_error"
    assert reply.header("x-should-retry") == "false"
    assert drawings(sandbox)[1] == 0
    assert len(sandbox.world.journal.last(9)) == 1


async def test_a_provider_that_falls_silent_is_a_504_and_not_asked_again(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(two(sandbox, timeout={"read": 0.2})), "[[fault@netmind:slow:5]]")
    assert reply.status == 504
    assert reply.error()["code"] == "upstream_timeout"
    assert reply.header("x-should-retry") == "false"
    assert drawings(sandbox) == (1, 0)


async def test_what_was_perhaps_paid_is_told_and_not_drawn_again_when_the_next_deployment_is_full(
    start: Start, sandbox: Sandbox
) -> None:
    config = two(sandbox, timeout={"read": 0.2}, retry_timeouts=True, retries=0)
    config["providers"]["nebula"]["max_concurrency"] = 1
    config["models"]["busy"] = served_by("nebula")
    config["models"]["busy"]["deployments"][0]["model"] = FLUX
    gateway = await start(config | {"queue": {"max_length": 0}})
    busy = asyncio.create_task(draw(gateway, "[[fault@nebula:slow:60]]", model="busy"))
    await until(lambda: drawings(sandbox)[1])
    for retry in ("0", "1", "2"):
        fields = asking("a fox [[fault@netmind:slow:5]]")
        outcome = await call(gateway.port, fields, x_stainless_retry_count=retry)
        assert (outcome.status, outcome.error) == (503, "server_is_overloaded")
        assert outcome.header("x-should-retry") == "false"
        assert outcome.header("x-gateway-attempts") == "1"
    assert drawings(sandbox)[0] == 1
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)


async def test_a_credential_among_a_providers_headers_is_told_to_nobody(start: Start, upstream: Scripted) -> None:
    said = {"error": {"message": "invalid subscription key tealSecretWord99", "type": "x", "code": "tealSecretWord99"}}
    for status in (400, 401, 500):
        upstream.at("a", answer(said, status))
    config = scripted(upstream, "a", headers={"api-key": "tealSecretWord99"}, retries=0)
    gateway = await start(config)
    for _ in range(3):
        reply = await generate(gateway.port)
        assert reply.status >= 400
        assert b"tealSecret" not in reply.body
    assert "tealSecret" not in gateway.log.getvalue()


async def test_timeouts_are_tried_again_where_the_provider_says_so(start: Start, sandbox: Sandbox) -> None:
    config = two(sandbox, timeout={"read": 0.2}, retry_timeouts=True, retries=0)
    reply = await draw(await start(config), "[[fault@netmind:slow:5]]")
    assert_drawn(reply)
    assert reply.header("x-gateway-attempts") == "2"
    assert drawings(sandbox) == (1, 1)


@pytest.mark.parametrize("fault", FAULTS_WITHOUT_A_PICTURE)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_a_picture_is_a_502_and_not_asked_for_again(
    start: Start, sandbox: Sandbox, fault: str, stream: bool
) -> None:
    reply = await draw(await start(two(sandbox)), f"[[fault@netmind:{fault}]]", stream=stream)
    if stream and reply.status == 200:  # the picture had begun
        assert events(reply.body)[-1][1]["error"]["code"] == "upstream_broken_answer"
    elif reply.status == 200:
        assert not reply.complete
    else:
        assert (reply.status, reply.error()["code"]) == (502, "upstream_broken_answer")
        assert reply.header("x-should-retry") == "false"
    assert drawings(sandbox)[1] == 0


@pytest.mark.parametrize("fault", ["cut", "reset", "short", "truncated_image"])
async def test_a_picture_that_breaks_after_it_has_begun_breaks_the_answer(
    start: Start, sandbox: Sandbox, fault: str
) -> None:
    gateway = await start(two(sandbox))
    reply = await generate(gateway.port, prompt=f"a fox [[fault@netmind:{fault}]]", size="512x512")
    assert reply.status == 200
    assert not reply.complete
    assert b'"b64_json":"iVBOR' in reply.body
    assert drawings(sandbox) == (1, 0)
    assert (await gateway.request_lines())[0]["error"] == "upstream_broken_answer"


@pytest.mark.parametrize("fault", ["cut", "reset", "short", "truncated_image"])
async def test_a_picture_that_breaks_in_a_stream_is_a_nested_error_event(
    start: Start, sandbox: Sandbox, fault: str
) -> None:
    gateway = await start(two(sandbox))
    reply = await generate(gateway.port, prompt=f"a fox [[fault@netmind:{fault}]]", size="512x512", stream=True)
    assert (reply.status, reply.complete) == (200, True)
    [(name, document)] = events(reply.body)
    assert name == "error"
    assert document["error"]["code"] == "upstream_broken_answer"
    assert {"message", "type", "param", "code"} <= set(document["error"])
    assert drawings(sandbox) == (1, 0)


async def test_silence_in_the_middle_of_a_picture_breaks_the_answer(start: Start, sandbox: Sandbox) -> None:
    config = two(sandbox, timeout={"read": 0.3, "first_byte": 10})
    reply = await generate((await start(config)).port, prompt="a fox [[fault@netmind:stall:5]]", size="512x512")
    assert (reply.status, reply.complete) == (200, False)
    assert drawings(sandbox) == (1, 0)


async def test_the_first_byte_may_take_longer_than_any_other_silence(start: Start, upstream: Scripted) -> None:
    body = answer(image_json(text(heavy(100_000))))
    upstream.at("a", 0.5, body)
    upstream.at("a", 0.5, body[:50_000], End.HANG)
    gateway = await start(scripted(upstream, "a", timeout={"read": 0.3, "first_byte": 600}))
    assert (await generate(gateway.port)).complete
    assert not (await generate(gateway.port)).complete


@pytest.mark.parametrize(
    "fault",
    [
        *("json_escaped", "newlines", "unpadded", "dataurl", "gzip", "pretty", "chunked", "wrongtype"),
        *("dribble:400000", "slow:0.05"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_picture_in_an_odd_wrapping_arrives_whole(
    start: Start, sandbox: Sandbox, fault: str, stream: bool
) -> None:
    reply = await draw(await start(two(sandbox)), f"[[fault@netmind:{fault}]]", stream=stream)
    assert reply.header("x-gateway-provider") == "netmind"
    if stream:
        [(_, completed)] = events(reply.body)
        assert opened(completed["b64_json"]).size == (64, 64)
    else:
        assert_drawn(reply)
        assert reply.header("content-encoding") is None
    assert drawings(sandbox) == (1, 0)


async def test_a_picture_is_declared_as_what_it_is(start: Start, sandbox: Sandbox) -> None:
    reply = await draw(await start(two(sandbox)), "[[fault@netmind:lying_jpeg]]")
    assert reply.json()["output_format"] == "jpeg"
    assert reply.json()["size"] == "64x64"


# --- when none is left ---


@pytest.mark.parametrize(
    ("fault", "status", "code", "should_retry"),
    [
        ("429:retry_after=7", 429, "rate_limit_exceeded", None),
        ("401", 502, "upstream_account_refused", "false"),
        ("403", 502, "upstream_account_refused", "false"),
        ("quota", 502, "upstream_account_refused", "false"),
        ("500", 502, "upstream_unavailable", None),
        ("503", 503, "upstream_unavailable", None),
        ("failed200", 502, "upstream_unavailable", None),
    ],
)
async def test_when_none_is_left_the_status_says_why(
    start: Start, sandbox: Sandbox, fault: str, status: int, code: str, should_retry: str | None
) -> None:
    reply = await draw(await start(two(sandbox)), f"[[fault:{fault}]]")
    assert (reply.status, reply.error()["code"]) == (status, code)
    assert reply.header("x-should-retry") == should_retry
    assert reply.header("retry-after") == ("7" if "retry_after" in fault else None)
    assert drawings(sandbox) == (0, 0)
    assert [request["provider"] for request in sandbox.world.journal.last(9)] == ["netmind", "nebula"]


async def test_a_refused_account_is_told_to_the_operator_and_not_to_the_caller(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(two(sandbox))
    reply = await draw(gateway, "[[fault:401]]")
    assert "Incorrect API key" not in reply.error()["message"]
    told = [line for line in gateway.lines() if line["level"] == "error"]
    assert {line["provider"] for line in told} == {"netmind", "nebula"}


async def test_the_next_deployment_must_meet_the_same_requirements(start: Start, sandbox: Sandbox) -> None:
    """netmind knows no seed, so there is nothing to fall back to: the failure is told."""
    gateway = await start(two(sandbox))
    reply = await draw(gateway, "[[fault@nebula:503]]", seed=7)
    assert reply.status == 503
    assert [request["provider"] for request in sandbox.world.journal.last(9)] == ["nebula"]


# --- byte for byte ---


def scripted(upstream: Scripted, *names: str, **more: Any) -> Config:
    """`flux`: at the scripts of these names, in this order."""
    providers = {name: provider(f"{upstream.base_url}/{name}/v1", **more) for name in names}
    return {"providers": providers, "models": {"flux": served_by(*names)}}


PNG = text(encoded())


@pytest.mark.parametrize(
    "steps",
    [
        (End.CLOSE,),
        (End.RESET,),
        (b"HTTP/1.1 200 OK\r\ncontent-ty", End.CLOSE),
        (b"garbage that is no HTTP\r\n\r\n", End.CLOSE),
        (head(200, content_length="500"), End.CLOSE),
        (head(200, content_length="500"), b'{"created":1,"data":[{"b64_', End.RESET),
        (answer(b""),),
        (answer(b"   \n"),),
        (answer(b"[]"),),
        (answer(b"null"),),
        (answer(b'"iVBOR"'),),
        (answer(b"{"),),
        (answer({"data": []}),),
        (answer({"data": [{}]}),),
        (answer({"data": [{"b64_json": None}]}),),
        (answer(image_json("")),),
        (answer(b"\xff\xfe\x00garbage"),),
        (answer(b"not gzip", content_encoding="gzip"),),
        (answer(b"brotli", content_encoding="br"),),
        (head(200, "text/event-stream", connection="close"), b": hello\n\n", End.CLOSE),
        (head(200, "text/event-stream", connection="close"), b"data: [DONE]\n\n", End.CLOSE),
    ],
    ids=lambda steps: repr(steps)[:60],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_none_is_a_502_and_not_asked_for_again(
    start: Start, upstream: Scripted, steps: tuple[Any, ...], stream: bool
) -> None:
    upstream.at("a", *steps)
    upstream.at("b", answer(image_json(PNG)))
    reply = await generate((await start(scripted(upstream, "a", "b"))).port, stream=stream)
    assert reply.status == 502, reply
    assert reply.error()["code"] == "upstream_broken_answer"
    assert reply.header("x-should-retry") == "false"
    assert len(upstream.received("a")) == 1
    assert upstream.received("b") == []


@pytest.mark.parametrize("second", [{}, {"b64_json": ""}, {"b64_json": None, "url": None}])
async def test_an_answer_with_one_of_its_pictures_missing_never_looks_whole(
    start: Start, upstream: Scripted, second: dict[str, Any]
) -> None:
    upstream.at("a", answer({"created": 1, "data": [{"b64_json": PNG}, second]}))
    reply = await generate((await start(scripted(upstream, "a"))).port, n=2)
    if reply.status != 200:
        assert reply.error()["code"] == "upstream_broken_answer"
    else:
        assert not reply.complete


@pytest.mark.parametrize("more", [[{}], [{"b64_json": ""}], [{"b64_json": PNG}], [{"b64_json": "AA=="}] * 5000])
async def test_what_stands_beside_the_picture_that_was_asked_for_breaks_nothing(
    start: Start, upstream: Scripted, more: list[dict[str, Any]]
) -> None:
    upstream.at("a", answer({"created": 1, "data": [{"b64_json": PNG}, *more]}))
    running = await start(scripted(upstream, "a"))
    reply = await generate(running.port)
    assert reply.complete
    assert [image["b64_json"] for image in reply.json()["data"]] == [PNG]
    reply = await generate(running.port, n=2, stream=True)  # such images are asked for one by one
    assert [name for name, _ in events(reply.body)] == ["image_generation.completed"] * 2


async def test_an_empty_text_beside_an_address_is_the_address(start: Start, upstream: Scripted) -> None:
    url = "http://127.0.0.1/picture.png"
    upstream.at("a", answer({"created": 1, "data": [{"b64_json": "", "url": url}]}))
    config = scripted(upstream, "a", urls="pass")
    reply = await generate((await start(config)).port, response_format="url")
    assert reply.json()["data"] == [{"url": url}]


async def test_an_error_whose_words_do_not_come_holds_nobody_up(
    start: Start, upstream: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.upstream.client.ERROR_SECONDS", 0.2)
    upstream.at("a", head(503, "application/json", content_length="100"), b'{"error"', End.HANG)
    upstream.at("b", answer(image_json(PNG)))
    config = scripted(upstream, "a", "b", timeout={"read": 600})
    assert_drawn(await generate((await start(config)).port), size=opened(PNG).size)


async def test_an_upstream_that_refuses_before_it_has_read_the_request_is_heard(
    start: Start, upstream: Scripted
) -> None:
    upstream.at("a", answer(refusal("too large"), 413, connection="close"), End.CLOSE, early=True)
    reply = await generate((await start(scripted(upstream, "a"))).port)
    assert (reply.status, reply.error()["message"]) == (413, "too large")


async def test_a_redirect_is_followed_by_nobody(start: Start, upstream: Scripted) -> None:
    """The credential would go where the provider's configuration never said."""
    upstream.at("elsewhere", answer(image_json(PNG)))
    upstream.at("a", answer(b"", 307, location=f"{upstream.base_url}/elsewhere/v1/images/generations"))
    reply = await generate((await start(scripted(upstream, "a"))).port)
    assert reply.status >= 400
    assert upstream.received("elsewhere") == []


async def test_an_upstreams_words_are_told_without_what_looks_like_a_credential(
    start: Start, upstream: Scripted
) -> None:
    upstream.at("a", answer(refusal("the key sk-abcdefghijklmnop is wrong, and so is Bearer abcdef"), 400))
    reply = await generate((await start(scripted(upstream, "a"))).port)
    assert reply.status == 400
    assert "abcdef" not in reply.error()["message"]


async def test_the_shortest_wait_is_told_when_all_are_at_their_limit(start: Start, upstream: Scripted) -> None:
    upstream.at("a", answer(refusal("slow down"), 429, retry_after="30"))
    upstream.at("b", answer(refusal("slow down"), 429, retry_after_ms="1500"))
    reply = await generate((await start(scripted(upstream, "a", "b"))).port)
    assert reply.status == 429
    assert reply.header("retry-after") == "2"
    assert 1000 < int(reply.header("retry-after-ms") or 0) <= 1500


async def test_a_failure_after_partial_images_is_a_nested_error_event(start: Start, upstream: Scripted) -> None:
    partial = event("image_generation.partial_image", partial_image_index=0, b64_json=PNG)
    error = event("error", error={"message": "kaput", "type": "server_error", "param": None, "code": "server_error"})
    upstream.at("a", head(200, "text/event-stream", connection="close"), partial + error, End.CLOSE)
    upstream.at("b", answer(image_json(PNG)))
    reply = await generate((await start(scripted(upstream, "a", "b"))).port, stream=True, partial_images=1)
    (first, _), (last, failure) = events(reply.body)
    assert (first, last) == ("image_generation.partial_image", "error")
    assert failure["error"]["message"]
    assert upstream.received("b") == []


async def test_an_error_event_before_any_image_is_a_status_of_the_next_deployments(
    start: Start, upstream: Scripted
) -> None:
    error = event("error", error={"message": "kaput", "type": "server_error", "param": None, "code": "server_error"})
    upstream.at("a", head(200, "text/event-stream", connection="close"), error, End.CLOSE)
    upstream.at("b", answer(image_json(PNG)))
    reply = await generate((await start(scripted(upstream, "a", "b"))).port, stream=True)
    assert reply.status == 200
    assert reply.header("x-gateway-provider") == "b"
    [(name, _)] = events(reply.body)
    assert name == "image_generation.completed"
