"""The book: what each row of docs/money.md leaves in the ledger, over the real server and the simulated providers."""

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.errors import Unavailable
from app.ledger.book.registry import Registry
from app.ledger.book.verification import verify
from app.ledger.values.changes import Actor
from app.ledger.values.directory import Budget
from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.servers import Config, Gateway, process, sandbox_providers, serving
from tests.live.wire import Reply, post
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

GENERATIONS = "/v1/images/generations"
SCHNELL = "black-forest-labs/FLUX.1-schnell"
PRICE, NANO = 0.04, 40_000_000


def config(sandbox: Sandbox, **more: Any) -> Config:
    deployments = [{"provider": "nebula", "model": SCHNELL}]
    return {
        "providers": sandbox_providers(sandbox.base_url),
        "models": {
            "flux": {"deployments": deployments, "profile": {"price": PRICE}},
            "gpt": {
                "deployments": [{"provider": "openai", "model": "gpt-image-2"}],
                "profile": {"price": PRICE, "streaming": True},
            },
            "unpriced": {
                "deployments": [{"provider": "netmind", "model": SCHNELL}],
                "profile": {"price_per_image": None},
            },
        },
        **more,
    }


@dataclass(frozen=True)
class Row:
    state: str
    outcome: str
    cost: int
    in_doubt: int
    held: int
    images: int
    attempts: int


async def rows(gateway: Gateway, least: int = 1) -> list[Row]:
    """The drawings, the oldest first, once all have ended and there are `least`; and the book adds up."""
    ledger = gateway.app.state.runtime.resources.ledger
    count = "select count(*) from drawing"
    async with asyncio.timeout(PATIENCE):
        while ledger.snapshot().open_drawings or (await ledger.database.query(count))[0][0] < least:
            await asyncio.sleep(0.005)
    sql = "select state, outcome, cost_nano, in_doubt_nano, held_nano, images, attempts from drawing order by id"
    found = [Row(*row) for row in await ledger.database.query(sql)]
    assert await verify(ledger.database) == []
    entries = await ledger.database.query("select sum(held_nano), sum(spent_nano), sum(in_doubt_nano) from entry")
    assert [amount or 0 for amount in entries[0]] == [
        0,
        sum(row.cost for row in found),
        sum(row.in_doubt for row in found),
    ]
    return found


async def draw(gateway: Gateway, prompt: str = "a fox", model: str = "flux", **more: Any) -> Reply:
    headers = more.pop("headers", {})
    return await post(gateway.port, GENERATIONS, {"model": model, "prompt": prompt, "size": "64x64", **more}, **headers)


async def budgeted(gateway: Gateway, images: float, **fields: Any) -> None:
    ledger = gateway.app.state.runtime.resources.ledger
    registry = Registry(ledger.database, lambda: 1)
    budget = Budget("bud_1", "all", None, round(images * NANO), "total", **fields)
    await registry.add_budget(budget, Actor("command", "test"))
    await ledger.refresh()


async def test_a_refusal_names_the_key_of_the_configuration_that_a_budget_belongs_to(
    start: Start, sandbox: Sandbox
) -> None:
    known = {
        "keys": [{"name": "ci", "key": "a-key-of-the-build"}],
        "budgets": [{"key": "ci", "amount": 0.05, "window": "day"}],
    }
    gateway = await start(config(sandbox, **known))
    replies = [await draw(gateway, headers={"authorization": "Bearer a-key-of-the-build"}) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 429]
    assert "0.05 a day of key 'ci'" in replies[1].error()["message"]


async def test_a_delivered_image_costs_its_price(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    assert (await draw(gateway)).status == 200
    assert await rows(gateway) == [Row("settled", "delivered", NANO, 0, 0, 1, 1)]


@pytest.mark.parametrize("fault", ["400", "422", "moderation", "429", "401", "503", "failed200"])
async def test_what_drew_nothing_is_released(start: Start, sandbox: Sandbox, fault: str) -> None:
    gateway = await start(config(sandbox))
    assert (await draw(gateway, f"a fox [[fault:{fault}]]")).status >= 400
    [row] = await rows(gateway)
    assert (row.state, row.cost, row.in_doubt, row.attempts) == ("released", 0, 0, 1)
    assert row.outcome in ("refused", "failed")


@pytest.mark.parametrize("fault", ["504", "cut", "cut_headers", "reset", "noimage", "truncated_image", "badbase64"])
async def test_what_was_perhaps_paid_is_in_doubt(start: Start, sandbox: Sandbox, fault: str) -> None:
    gateway = await start(config(sandbox))
    try:
        reply = await draw(gateway, f"a fox [[fault:{fault}]]")
        assert reply.status >= 500 or not reply.complete
    except AssertionError:
        pass  # the connection broke
    assert await rows(gateway) == [Row("in_doubt", "perhaps_paid", 0, NANO, 0, 0, 1)]


async def test_nothing_that_was_not_sent_costs_anything(start: Start, sandbox: Sandbox) -> None:
    broken = config(sandbox)
    broken["providers"]["nebula"]["base_url"] = "http://127.0.0.1:9/v1"
    gateway = await start(broken)
    assert (await draw(gateway)).status == 502
    [row] = await rows(gateway)
    assert (row.state, row.outcome, row.cost, row.in_doubt) == ("released", "failed", 0, 0)


async def test_failover_costs_the_deployment_that_drew(start: Start, sandbox: Sandbox) -> None:
    two = config(sandbox)
    two["models"]["flux"] = {
        "deployments": [
            {"provider": "netmind", "model": SCHNELL, "profile": {"price": 1}},
            {"provider": "nebula", "model": SCHNELL, "profile": {"price": PRICE}},
        ]
    }
    gateway = await start(two)
    assert (await draw(gateway, "a fox [[fault@netmind:503]]")).status == 200
    assert await rows(gateway) == [Row("settled", "delivered", NANO, 0, 0, 1, 2)]


async def test_a_repeat_that_may_pay_again_is_reserved_again(start: Start, sandbox: Sandbox) -> None:
    again = config(sandbox)
    again["providers"]["nebula"] |= {"retry_timeouts": True, "retries": 1}
    gateway = await start(again)
    assert (await draw(gateway, "a fox [[fault*1:504]]")).status == 200
    assert await rows(gateway) == [Row("in_doubt", "delivered", NANO, NANO, 0, 1, 2)]
    await budgeted(gateway, 1.5)
    reply = await draw(gateway, "a hen [[fault*1:504]]")
    assert (reply.status, reply.error()["type"]) == (429, "insufficient_quota")
    assert reply.header("x-should-retry") == "false"
    assert (await rows(gateway))[1] == Row("in_doubt", "perhaps_paid", 0, NANO, 0, 0, 1)


@pytest.mark.parametrize("model", ["flux", "gpt"])
async def test_several_images_cost_their_number(start: Start, sandbox: Sandbox, model: str) -> None:
    gateway = await start(config(sandbox))
    assert (await draw(gateway, model=model, n=3, **({"size": "1024x1024"} if model == "gpt" else {}))).status == 200
    [row] = await rows(gateway)
    assert (row.state, row.cost, row.in_doubt, row.images) == ("settled", 3 * NANO, 0, 3)


async def test_of_several_images_those_that_were_drawn_are_paid_and_are_not_paid_again(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox))
    head: dict[str, Any] = {"headers": {"idempotency_key": "once"}}
    assert (await draw(gateway, "a fox [[fault*1:503]]", n=3, **head)).status >= 500
    assert (await draw(gateway, "a fox [[fault*1:503]]", n=3, **head)).status == 200
    first, second = await rows(gateway)
    assert (first.state, first.outcome) == (("settled", "undelivered") if first.images else ("released", "failed"))
    assert (first.images + second.images, first.cost + second.cost) == (3, 3 * NANO)
    assert sum(sandbox.world.journal.drawings.values()) == 3


async def test_a_stream_costs_its_images(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    reply = await draw(gateway, model="gpt", stream=True, partial_images=2, size="1024x1024")
    assert reply.status == 200
    assert await rows(gateway) == [Row("settled", "delivered", NANO, 0, 0, 1, 1)]


async def test_an_answer_from_an_existing_run_costs_nothing_and_is_counted(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    head: dict[str, Any] = {"headers": {"idempotency_key": "once"}}
    assert {(await draw(gateway, **head)).status for _ in range(3)} == {200}
    found = await rows(gateway, 3)
    assert [(row.outcome, row.cost) for row in found] == [("delivered", NANO), ("joined", 0), ("joined", 0)]
    ledger = gateway.app.state.runtime.resources.ledger
    assert [row[0] for row in await ledger.database.query("select saved_nano from drawing order by id")] == [
        0,
        NANO,
        NANO,
    ]


async def test_a_budget_is_never_overshot_by_requests_at_once(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    await budgeted(gateway, 5)
    replies = await asyncio.gather(*(draw(gateway, f"fox {n}") for n in range(20)))
    refused = [reply for reply in replies if reply.status == 429]
    assert len(replies) - len(refused) == 5 == sum(sandbox.world.journal.drawings.values())
    assert {reply.error()["type"] for reply in refused} == {"insufficient_quota"}
    last = await draw(gateway)
    assert (last.status, last.error()["code"], last.header("x-should-retry")) == (429, "insufficient_quota", "false")
    assert len(await rows(gateway)) == 5


async def test_what_has_no_price_is_refused_where_a_hard_budget_is_in_scope(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    assert (await draw(gateway, model="unpriced")).status == 200
    await budgeted(gateway, 5)
    reply = await draw(gateway, model="unpriced")
    assert (reply.status, reply.error()["code"]) == (400, "model_unpriced")
    assert [(row.state, row.cost, row.images) for row in await rows(gateway)] == [("settled", 0, 1)]


async def test_a_caller_who_leaves_pays_for_what_was_sent(start: Start, sandbox: Sandbox, tmp_path: Path) -> None:
    gateway = await start(config(sandbox))
    await leave(gateway, sandbox, "a fox [[fault:slow:0.3]]")
    assert await rows(gateway) == [Row("settled", "delivered", NANO, 0, 0, 1, 1)]
    cancelling = await start_again(start, sandbox, tmp_path / "other")
    await leave(cancelling, sandbox, "a hen [[fault:slow:60]]")
    assert (await rows(cancelling))[-1] == Row("in_doubt", "perhaps_paid", 0, NANO, 0, 0, 1)


async def leave(gateway: Gateway, sandbox: Sandbox, prompt: str) -> None:
    """Ask for a picture, and leave while it is drawn."""
    before = sum(sandbox.world.journal.drawings.values())
    asking = asyncio.create_task(draw(gateway, prompt))
    await until(lambda: sum(sandbox.world.journal.drawings.values()) > before)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def start_again(start: Start, sandbox: Sandbox, folder: Path) -> Gateway:
    return await start(config(sandbox, runs={"on_disconnect": "cancel"}, data_dir=str(folder)))


async def test_a_shutdown_leaves_what_was_sent_in_doubt(tmp_path: Path, sandbox: Sandbox) -> None:
    async with serving(config(sandbox), tmp_path) as gateway:
        drawing = asyncio.create_task(draw(gateway, "a fox [[fault:slow:5]]"))
        await until(lambda: sandbox.world.journal.last(1))
        gateway.app.state.runtime.resources.retention.give_up(lambda: Unavailable("The gateway is going down."))
        assert (await drawing).header("x-should-retry") == "false"
    async with serving(config(sandbox), tmp_path) as after:
        assert await rows(after) == [Row("in_doubt", "perhaps_paid", 0, NANO, 0, 0, 1)]


@pytest.mark.slow
async def test_the_book_is_right_after_a_kill_at_any_moment(tmp_path: Path, sandbox: Sandbox) -> None:
    chance = random.Random(12)
    for life in range(12):
        with process(config(sandbox), tmp_path) as gateway:
            faults = ("slow:0.1", "slow:0.3", "cut", "503", "slow:0.02")
            drawings = [
                asyncio.create_task(
                    post(
                        gateway.port,
                        GENERATIONS,
                        {
                            "model": chance.choice(["flux", "gpt"]),
                            "prompt": f"{life} {number} [[fault:{chance.choice(faults)}]]",
                            "size": "1024x1024",
                            "n": chance.choice([1, 1, 2]),
                        },
                    )
                )
                for number in range(24)
            ]
            await asyncio.sleep(chance.uniform(0.05, 0.8))
            gateway.process.kill()
            await asyncio.gather(*drawings, return_exceptions=True)
            await asyncio.sleep(0.4)  # the providers draw on
    async with serving(config(sandbox), tmp_path) as gateway_after:
        found = await rows(gateway_after)
    settled, in_doubt = sum(row.cost for row in found) // NANO, sum(row.in_doubt for row in found) // NANO
    drawn = sum(sandbox.world.journal.drawings.values())
    assert drawn > 20
    assert settled <= drawn <= settled + in_doubt
