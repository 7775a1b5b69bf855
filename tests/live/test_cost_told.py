"""What callers are told of a cost, in headers, events and the log, and the bound that they may set."""

import asyncio
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from app.config.loading import load
from app.main import replace_settings
from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import SCHNELL, file_of, plain
from tests.live.scripted import Scripted, answer
from tests.live.servers import Config, Gateway, provider, sandbox_providers, served_by, written
from tests.live.test_runs import asked, asking, run_of
from tests.live.wire import Reply, edit, events, line, post, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"
KONTEXT, REDUX = "black-forest-labs/FLUX.1-Kontext-dev", "black-forest-labs/FLUX.1-Redux-dev"
BY_QUALITY = [{"quality": "high", "per_image": 0.167}, {"per_megapixel": 0.025}]
TOKENS = {"per_million_tokens": {"input": 5, "output": 40}, "at_most": 0.3}


def model(provider: str, name: str, price: Any, **profile: Any) -> Config:
    return {"deployments": [{"provider": provider, "model": name}], "profile": {"price": price, **profile}}


def config(sandbox: Sandbox, **more: Any) -> Config:
    return {
        "providers": sandbox_providers(sandbox.base_url),
        "models": {
            "flux": model("nebula", SCHNELL, 0.038),
            "flux-area": model("nebula", SCHNELL, [{"per_megapixel": 0.025}]),
            "gpt": model("openai", "gpt-image-2", 0.04, streaming=True),
            "gpt-tokens": model("openai", "gpt-image-2", [TOKENS], streaming=True),
            "gpt-json": model("openai", "gpt-image-2", [TOKENS], streaming=False),
            "kontext": model("nebul", KONTEXT, 0.05),
            "redux": model("netmind", REDUX, 0.01),
            "unpriced": model("netmind", SCHNELL, None),
        },
        **more,
    }


async def draw(gateway: Gateway, model: str = "flux", **more: Any) -> Reply:
    headers = more.pop("headers", {})
    return await post(gateway.port, GENERATIONS, {"model": model, "prompt": "a fox", **more}, **headers)


def told(reply: Reply) -> tuple[str | None, str | None]:
    assert reply.status == 200, reply.body[:500]
    return reply.header("x-gateway-cost"), reply.header("x-gateway-currency")


def completed(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200, reply.body[:500]
    return [event["gateway"] for name, event in events(reply.body) if name.endswith(".completed")]


async def recorded(gateway: Gateway, least: int = 1) -> list[tuple[Any, ...]]:
    """The drawings, the oldest first, once all have ended: their costs in nano-units."""
    ledger = gateway.app.state.runtime.resources.ledger
    async with asyncio.timeout(10):
        while (
            ledger.snapshot().open_drawings
            or (await ledger.database.query("select count(*) from drawing"))[0][0] < least
        ):
            await asyncio.sleep(0.005)
    return [
        tuple(row) for row in await ledger.database.query("select cost_nano, saved_nano, tags from drawing order by id")
    ]


# --- told ---


async def test_an_answer_tells_its_cost_when_its_status_line_leaves(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    assert told(await draw(gateway, size="64x64")) == ("0.038000", "USD")
    assert told(await draw(gateway, size="64x64", n=3)) == ("0.114000", "USD")
    assert told(await draw(gateway, size="64x64", response_format="url")) == ("0.038000", "USD")
    assert told(await draw(gateway, size="64x64", headers={"accept": "image/png"})) == ("0.038000", "USD")
    assert told(await draw(gateway, "gpt", size="1024x1024", n=2)) == ("0.080000", "USD")
    picture = file_of(plain((64, 64)))
    edited = await edit(gateway.port, ("model", "kontext"), ("prompt", "a fox"), ("image", ("a.png", picture)))
    assert told(edited) == ("0.050000", "USD")
    varied = await edit(gateway.port, ("model", "redux"), ("image", ("a.png", picture)), path="/v1/images/variations")
    assert told(varied) == ("0.010000", "USD")
    assert [row[0] for row in await recorded(gateway, 7)] == [
        nano * 1_000_000 for nano in (38, 114, 38, 38, 80, 50, 10)
    ]


async def test_an_unpriced_drawing_tells_no_cost(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    reply = await draw(gateway, "unpriced", headers={"x_request_id": "free"})
    assert told(reply) == (None, None)
    [line] = await gateway.request_lines()
    assert "cost" not in line
    assert completed(await draw(gateway, "unpriced", stream=True))[0]["cost"] is None


@pytest.mark.parametrize("asked", [{"size": "512x256"}, {}])
async def test_a_price_by_megapixel_is_told_by_the_picture_that_arrives(
    start: Start, sandbox: Sandbox, asked: dict[str, str]
) -> None:
    gateway = await start(config(sandbox))
    replies = [await draw(gateway, "flux-area", **asked), await draw(gateway, "flux-area", n=2, **asked)]
    streamed = await draw(gateway, "flux-area", stream=True, **asked)
    one, two, again = [row[0] for row in await recorded(gateway, 3)]
    assert [float(told(reply)[0] or 0) * 1e9 for reply in replies] == pytest.approx([one, two])
    assert float(told(streamed)[0] or 0) * 1e9 == pytest.approx(again)
    assert completed(streamed)[0]["cost"] * 1e9 == pytest.approx(again)
    assert one > 0


async def test_each_completed_event_tells_the_cost_of_its_image(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    for name, price in (("flux", 0.038), ("gpt", 0.04)):
        size = {"size": "1024x1024" if name == "gpt" else "64x64"}
        reply = await draw(gateway, name, stream=True, n=2, **size)
        assert told(reply) == (f"{2 * price:.6f}", "USD")
        assert [(gateway["cost"], gateway["currency"]) for gateway in completed(reply)] == [(price, "USD")] * 2


@pytest.mark.parametrize("name", ["gpt-tokens", "gpt-json"])
async def test_a_price_by_token_is_told_by_the_event(start: Start, sandbox: Sandbox, name: str) -> None:
    gateway = await start(config(sandbox))
    reply = await draw(gateway, name, stream=True, size="1024x1024")
    [[cost, _, _]] = await recorded(gateway)
    if (early := reply.header("x-gateway-cost")) is not None:  # the whole answer was there before its head left
        assert float(early) * 1e9 == pytest.approx(cost)
    assert completed(reply)[0]["cost"] * 1e9 == pytest.approx(cost)
    assert cost > 0


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_quality_that_a_whole_answer_states_sets_the_cost(
    start: Start, upstream: Scripted, stream: bool, is_first: bool, n: int
) -> None:
    data, said = [{"b64_json": b64encode(file_of(plain((64, 64)))).decode()}] * n, {"quality": "medium"}
    upstream.at("a", answer({**said, "data": data} if is_first else {"data": data, **said}))
    priced = {"streaming": False, "max_n": 2, "price": BY_QUALITY}
    providers = {"a": provider(f"{upstream.base_url}/a/v1")}
    gateway = await start({"providers": providers, "models": {"flux": served_by("a", profile=priced)}})
    reply = await draw(gateway, n=n, stream=stream)
    [[nano, _, _]] = await recorded(gateway)
    assert nano == n * 102_400
    early = reply.header("x-gateway-cost")
    assert early is None or float(early) * 1e9 == pytest.approx(nano, abs=1000)
    [line] = await gateway.request_lines()
    assert line["cost"] * 1e9 == pytest.approx(nano)
    ledger = gateway.app.state.runtime.resources.ledger
    [row] = await ledger.database.query("select quality, width, format from drawing")
    assert tuple(row) == ("medium", 64, "png")
    if stream:
        ends = [event for name, event in events(reply.body) if name.endswith(".completed")]
        assert sum(event["gateway"]["cost"] or 0 for event in ends) * 1e9 == pytest.approx(nano)
        assert {event["quality"] for event in ends} == {"medium" if is_first or n == 1 else "auto"}
    else:
        assert reply.json()["quality"] == "medium"


async def test_the_quality_and_the_size_that_events_and_links_come_with_set_the_cost(
    start: Start, sandbox: Sandbox, upstream: Scripted
) -> None:
    size = [{"size": "64x64", "per_image": 0.001}, {"per_image": 0.5}]
    upstream.at("a", answer({"data": [{"url": "https://a.test/1"}], "size": "64x64"}))
    passing = provider(f"{upstream.base_url}/a/v1", urls="pass")
    settings = config(sandbox)
    settings["providers"]["a"] = passing
    settings["models"]["links"] = served_by("a", profile={"price": size})
    settings["models"]["gpt-quality"] = model("openai", "gpt-image-2", BY_QUALITY, streaming=True)
    settings["models"]["gpt-whole"] = model("openai", "gpt-image-2", BY_QUALITY, streaming=False)
    gateway = await start(settings)
    assert (await draw(gateway, "links", response_format="url")).json()["data"][0]["url"] == "https://a.test/1"
    for name in ("gpt-quality", "gpt-whole"):
        for stream in (True, False):
            reply = await draw(gateway, name, size="1024x1024", stream=stream)
            assert not stream or completed(reply)[0]["cost"] == 0.0262144
    assert [row[0] for row in await recorded(gateway, 5)] == [1_000_000, *[26_214_400] * 4]


async def test_an_image_that_is_drawn_alone_tells_its_cost_before_the_next_is_drawn(
    start: Start, upstream: Scripted
) -> None:
    """Its price depends on a quality that the provider does not state: nothing more comes that could tell it."""
    image, drawn = answer({"data": [{"b64_json": b64encode(file_of(plain((64, 64)))).decode()}]}), asyncio.Event()
    upstream.at("a", image)
    upstream.at("a", drawn, image)
    priced = {"streaming": False, "max_n": 1, "price": BY_QUALITY}
    models = {"flux": served_by("a", profile=priced)}
    gateway = await start({"providers": {"a": provider(f"{upstream.base_url}/a/v1")}, "models": models})
    async with line(gateway.port) as opened:
        body = json.dumps({"model": "flux", "prompt": "a fox", "n": 2, "stream": True}).encode()
        await opened.send(request("POST", GENERATIONS, body, content_type="application/json"))
        assert (await opened.head()).status == 200
        text = b""
        while b'"currency"' not in text:
            text += await opened.piece()
        assert b'"cost":0.167' in text
        drawn.set()
        while piece := await opened.piece():
            text += piece
        assert text.count(b'"cost":0.167') == 2


async def test_images_of_several_sizes_are_settled_by_what_each_costs(start: Start, upstream: Scripted) -> None:
    sizes = [(640, 640), (64, 64)]
    upstream.at("a", answer({"data": [{"b64_json": b64encode(file_of(plain(size))).decode()} for size in sizes]}))
    priced = {"streaming": False, "price": [{"per_megapixel": 0.025}]}
    models = {"flux": served_by("a", profile=priced)}
    gateway = await start({"providers": {"a": provider(f"{upstream.base_url}/a/v1")}, "models": models})
    assert [each["cost"] for each in completed(await draw(gateway, n=2, stream=True))] == [0.01024, 0.0001024]
    assert [cost for cost, *_ in await recorded(gateway)] == [10_240_000 + 102_400]


async def test_an_answer_from_an_existing_run_costs_nothing(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    head = {"idempotency_key": "once", "x_request_id": "fox"}
    assert told(await draw(gateway, size="64x64", headers=head)) == ("0.038000", "USD")
    again = await draw(gateway, size="64x64", headers={"idempotency_key": "once", "x_request_id": "again"})
    assert told(again) == ("0.000000", "USD")
    assert told(await run_of(gateway.port, "fox")) == ("0.000000", "USD")
    lines = {line["request_id"]: line for line in await gateway.request_lines(3)}
    assert (lines["fox"]["cost"], lines["again"]["cost"]) == (0.038, 0.0)


async def test_joined_answers_are_counted_when_they_have_arrived(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    gone = {"idempotency_key": "gone", "x_request_id": "gone"}
    for _ in range(2):  # the second one gets the error of the first
        assert (await draw(gateway, prompt="a hen [[fault:504]]", headers=gone)).status == 504
    head = {"idempotency_key": "once", "x_request_id": "fox"}
    assert (await draw(gateway, size="64x64", headers=head)).status == 200
    assert (await draw(gateway, size="64x64", headers={"idempotency_key": "once"})).status == 200
    assert (await run_of(gateway.port, "fox")).status == 200
    assert (await run_of(gateway.port, "gone")).status == 504
    rows = await recorded(gateway, 4)
    assert [row[:2] for row in rows] == [(0, 0), (38_000_000, 0), (0, 38_000_000), (0, 38_000_000)]


async def test_a_joined_answer_has_its_own_user_and_tags(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox) | {"ledger": {"end_users": True}})
    for tags in ("job=1", "job=2"):
        head = {"idempotency_key": "once", "x_gateway_tags": tags}
        assert (await draw(gateway, size="64x64", user="anna", headers=head)).status == 200
    await recorded(gateway, 2)
    ledger = gateway.app.state.runtime.resources.ledger
    found = await ledger.database.query("select outcome, end_user, tags from drawing order by id")
    assert [tuple(row) for row in found] == [
        ("delivered", "anna", '{"job": "1"}'),
        ("joined", "anna", '{"job": "2"}'),
    ]


async def test_the_first_caller_that_fetches_an_answer_saves_nothing(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    body = {"model": "flux", "prompt": "a fox [[fault:slow:1]]", "size": "64x64"}
    async with asking(gateway.port, body, x_request_id="fox"):
        await until(lambda: asked(sandbox) == 1)
    await gateway.request_lines(1)  # it has left
    for _ in range(2):
        assert (await run_of(gateway.port, "fox")).status == 200
    rows = await recorded(gateway, 2)
    assert [row[:2] for row in rows] == [(38_000_000, 0), (0, 38_000_000)]


async def test_a_joined_answer_names_the_model_and_not_its_alias(start: Start, sandbox: Sandbox) -> None:
    aliased = config(sandbox) | {"aliases": {"dall-e-3": "flux"}}
    gateway = await start(aliased)
    for _ in range(2):
        assert (await draw(gateway, "dall-e-3", headers={"idempotency_key": "once"})).status == 200
    await recorded(gateway, 2)
    ledger = gateway.app.state.runtime.resources.ledger
    found = await ledger.database.query("select asked_model, model, outcome from drawing order by id")
    assert [tuple(row) for row in found] == [("dall-e-3", "flux", "delivered"), ("dall-e-3", "flux", "joined")]


async def test_a_drawing_without_a_price_that_was_perhaps_paid_says_so(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    assert (await draw(gateway, "unpriced", prompt="a fox [[fault:504]]")).status == 504
    await recorded(gateway)
    ledger = gateway.app.state.runtime.resources.ledger
    [row] = await ledger.database.query("select outcome, cost_nano, in_doubt_nano from drawing")
    assert tuple(row) == ("perhaps_paid", 0, 0)
    [line] = await gateway.request_lines()
    assert "cost" not in line


async def test_an_answer_whose_head_left_early_tells_its_cost_at_its_end(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox, server={"json_keepalive_after": 0.05}))
    reply = await draw(gateway, "flux", size="64x64", prompt="a fox [[fault:slow:1]]", n=2)
    assert reply.header("x-gateway-cost") is None
    assert (reply.json()["gateway"]["cost"], reply.json()["gateway"]["currency"]) == (0.076, "USD")


async def test_an_error_tells_what_the_images_before_it_have_cost(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    reply = await draw(gateway, size="64x64", prompt="a fox [[fault*1:503]]", n=3)
    assert reply.status >= 500
    [[cost, _, _]] = await recorded(gateway)
    assert (reply.header("x-gateway-cost") is not None) == (cost > 0)
    if cost:
        assert float(reply.header("x-gateway-cost") or 0) * 1e9 == pytest.approx(cost)
    clean = await draw(gateway, size="64x64", prompt="a hen [[fault:400]]")
    assert (clean.status, clean.header("x-gateway-cost")) == (400, None)


# --- bounded ---


@pytest.mark.parametrize("way", ["field", "header"])
async def test_a_request_that_could_cost_more_than_it_may_draws_nothing(
    start: Start, sandbox: Sandbox, way: str
) -> None:
    gateway = await start(config(sandbox))

    async def bounded(amount: str, **more: Any) -> Reply:
        if way == "field":
            return await draw(gateway, size="64x64", max_cost=float(amount), **more)
        return await draw(gateway, size="64x64", headers={"x_gateway_max_cost": amount}, **more)

    assert (await bounded("0.038")).status == 200
    assert (await bounded("0.076", n=2)).status == 200
    refused = await bounded("0.075", n=2)
    error = refused.error()
    assert (refused.status, error["code"], error["param"]) == (400, "max_cost_exceeded", "max_cost")
    assert "0.076000 USD" in error["message"]
    assert "Raise it," in error["message"]
    assert refused.header("x-should-retry") == "false"
    error = (await bounded("1", model="unpriced")).error()
    assert error["code"] == "max_cost_exceeded"
    assert error["message"].endswith("Leave it out, or ask for a model that has a price.")
    assert sum(sandbox.world.journal.drawings.values()) == 3
    assert not any("max_cost" in str(entry["json"]) for entry in sandbox.world.journal.last(50))


async def test_a_deployment_that_is_too_dear_leaves_the_drawing_to_the_others(start: Start, sandbox: Sandbox) -> None:
    deployments = [
        {"provider": "netmind", "model": SCHNELL, "profile": {"price": 0.1}},
        {"provider": "nebula", "model": SCHNELL, "profile": {"price": 0.04}},
    ]
    gateway = await start(config(sandbox) | {"models": {"flux": {"deployments": deployments}}})
    assert (await draw(gateway)).header("x-gateway-provider") == "netmind"
    cheap = await draw(gateway, max_cost=0.05)
    assert (cheap.header("x-gateway-provider"), cheap.header("x-gateway-cost")) == ("nebula", "0.040000")
    assert (await draw(gateway, max_cost=0.03)).status == 400


async def test_a_form_bounds_its_cost_too(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    parts = (("model", "kontext"), ("prompt", "a fox"), ("image", ("a.png", file_of(plain((64, 64))))))
    assert (await edit(gateway.port, *parts, ("max_cost", "0.05"))).status == 200
    refused = await edit(gateway.port, *parts, ("max_cost", "0.049"))
    assert (refused.status, refused.error()["code"]) == (400, "max_cost_exceeded")
    wrong = await edit(gateway.port, *parts, ("max_cost", "cheap"))
    assert (wrong.status, wrong.error()["param"]) == (400, "max_cost")


async def test_a_bound_that_is_no_amount_is_refused(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    for bound in (-1, "0.05", True, 1e30):
        refused = await draw(gateway, max_cost=bound)
        assert (refused.status, refused.error()["param"]) == (400, "max_cost")
    for text in ("cheap", "-1", "nan", "1e300"):
        refused = await draw(gateway, headers={"x_gateway_max_cost": text})
        assert (refused.status, refused.error()["param"]) == (400, "x-gateway-max-cost")


async def test_a_bound_holds_over_repeats_that_may_pay_again(start: Start, sandbox: Sandbox) -> None:
    again = config(sandbox)
    again["providers"]["nebula"] |= {"retry_timeouts": True, "retries": 1}
    gateway = await start(again)
    reply = await draw(gateway, prompt="a fox [[fault*1:504]]", max_cost=0.05)
    assert (reply.status, reply.error()["code"], reply.error()["param"]) == (400, "max_cost_exceeded", "max_cost")
    assert reply.header("x-should-retry") == "false"
    assert (await draw(gateway, prompt="a hen [[fault*1:504]]", max_cost=0.1)).status == 200


# --- tags ---


async def test_tags_go_into_the_drawings_row(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    reply = await draw(gateway, headers={"x_gateway_tags": "team=blue, job=7"})
    assert reply.status == 200
    [[_, _, tags]] = await recorded(gateway)
    assert json.loads(tags) == {"team": "blue", "job": "7"}


@pytest.mark.parametrize(
    "tags", ["team", "=blue", "team=", "team=blue,team=red", "t m=1", ",".join(f"t{n}=1" for n in range(9)), "a=b=c"]
)
async def test_tags_that_cannot_be_read_are_refused(start: Start, sandbox: Sandbox, tags: str) -> None:
    gateway = await start(config(sandbox))
    refused = await draw(gateway, headers={"x_gateway_tags": tags})
    assert (refused.status, refused.error()["param"]) == (400, "x-gateway-tags")
    assert not sum(sandbox.world.journal.drawings.values())


# --- recorded prices ---


async def test_a_drawing_keeps_the_price_that_it_was_settled_at(start: Start, sandbox: Sandbox, tmp_path: Path) -> None:
    gateway = await start(config(sandbox))
    runtime = gateway.app.state.runtime
    await runtime.resources.price_list.recorded()
    assert (await draw(gateway, size="64x64")).status == 200
    dearer = config(sandbox)
    dearer["models"]["flux"]["profile"]["price"] = 0.05
    folder = tmp_path / "changed"
    folder.mkdir()
    replace_settings(gateway.app, load(written(dearer, folder), {}))
    await runtime.resources.price_list.recorded()
    assert (await draw(gateway, size="64x64")).header("x-gateway-cost") == "0.050000"
    await recorded(gateway, 2)
    sql = """select p.price, d.cost_nano, p.valid_to, p.source from drawing d join price p on p.id = d.price_id
        order by d.id"""
    first, second = await runtime.resources.ledger.database.query(sql)
    found = runtime.administration.deployments()
    assert {each.model for each in found if not each.is_priced} == {SCHNELL}
    assert [json.loads(row[0])["tiers"][0]["per_image"] for row in (first, second)] == [38_000_000, 50_000_000]
    assert [row[1] for row in (first, second)] == [38_000_000, 50_000_000]
    assert first[2] is not None and second[2] is None
    assert {first[3], second[3]} == {"configuration"}
