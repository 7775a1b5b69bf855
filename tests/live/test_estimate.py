"""What would become of a request, over the real server: nothing is drawn, and nothing is used up."""

import json
from typing import Any

import pytest

from app.ledger.book.registry import Registry
from app.ledger.values.changes import Actor
from app.ledger.values.directory import Budget
from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.house import FILL, SCHNELL, file_of, marked, plain
from tests.live.servers import Config, Gateway, sandbox_providers
from tests.live.wire import Reply, edit, post

pytestmark = pytest.mark.anyio

PATH = "/v1/images/generations/estimate"
KONTEXT, REDUX = "black-forest-labs/FLUX.1-Kontext-dev", "black-forest-labs/FLUX.1-Redux-dev"
KEY = "the-secret-key-of-design"


def config(sandbox: Sandbox, **more: Any) -> Config:
    two = [
        {"provider": "nebula", "model": SCHNELL, "profile": {"price": 0.04, "typical_seconds": 7}},
        {"provider": "netmind", "model": SCHNELL, "profile": {"price": 0.1}},
    ]
    return {
        "providers": sandbox_providers(sandbox.base_url),
        "models": {
            "flux": {"aliases": ["fox"], "deployments": two},
            "half": {"deployments": [two[0], {**two[1], "profile": {"price": None}}]},
            "area": {
                "deployments": [{"provider": "nebula", "model": KONTEXT}],
                "profile": {"price": [{"per_megapixel": 1}]},
            },
            "fill": {"deployments": [{"provider": "nebula", "model": FILL}], "profile": {"price": 0.05}},
            "redux": {"deployments": [{"provider": "netmind", "model": REDUX}], "profile": {"price": 0.01}},
        },
        **more,
    }


async def estimate(gateway: Gateway, model: str = "flux", path: str = PATH, **more: Any) -> Reply:
    headers = more.pop("headers", {})
    return await post(gateway.port, path, {"model": model, "prompt": "a fox", **more}, **headers)


def told(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


async def test_an_estimate_tells_everything_and_draws_nothing(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    found = told(await estimate(gateway, n=2, size="64x64", style="vivid"))
    assert found == {
        "object": "image.estimate",
        "model": "flux",
        "operation": "generations",
        "n": 2,
        "size": "64x64",
        "cost": {"least": 0.08, "most": 0.2, "currency": "USD"},
        "deployments": [
            {"provider": "nebula", "model": SCHNELL, "eligible": True, "reason": None, "cost": 0.08,
             "dropped": ["style"], "mapped": [], "typical_seconds": 7.0, "waiting": 0},
            {"provider": "netmind", "model": SCHNELL, "eligible": True, "reason": None, "cost": 0.2,
             "dropped": ["style"], "mapped": [], "typical_seconds": 5.0, "waiting": 0},
        ],
        "limits": [],
        "budget": None,
    }  # fmt: skip
    assert not sum(sandbox.world.journal.drawings.values())
    ledger = gateway.app.state.runtime.resources.ledger
    assert await ledger.database.query("select count(*) from drawing") == [(0,)]


async def test_a_deployment_that_cannot_draw_it_says_why(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    found = told(await estimate(gateway, "fox", seed=7))
    nebula, netmind = found["deployments"]
    assert (nebula["eligible"], netmind["eligible"], netmind["cost"]) == (True, False, None)
    assert netmind["reason"] == "it does not know 'seed'; leave it out"
    assert found["cost"] == {"least": 0.04, "most": 0.04, "currency": "USD"}
    bounded = told(await estimate(gateway, max_cost=0.05))["deployments"]
    assert bounded[1]["reason"] == "it may cost 0.100000 USD, which is more than 'max_cost'"
    assert told(await estimate(gateway, "half"))["cost"] == {"least": None, "most": None, "currency": "USD"}


async def test_an_edit_is_estimated_in_the_size_that_it_will_have(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    picture = file_of(plain((509, 256)))
    reply = await edit(
        gateway.port,
        ("model", "area"),
        ("prompt", "a fox"),
        ("image", ("a.png", picture)),
        path="/v1/images/edits/estimate",
    )
    found = told(reply)
    assert (found["size"], found["operation"]) == ("512x256", "edits")
    assert found["cost"]["least"] == found["cost"]["most"] == 0.131072
    assert found["deployments"][0]["mapped"] == ["size=512x256"]


async def test_every_operation_and_spelling_of_a_path_has_its_estimate(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    picture = ("image", ("a.png", file_of(plain((64, 64)))))
    varied = await edit(gateway.port, ("model", "redux"), picture, path="/v1/images/variations/estimate")
    assert told(varied)["operation"] == "variations"
    for path in ("/images/generations/estimate/", "/openai/deployments/flux/images/generations/estimate"):
        assert told(await estimate(gateway, path=path))["model"] == "flux"
    assert (await post(gateway.port, "/v1/images/nothing/estimate", {})).status == 404


async def test_a_request_that_would_be_refused_gets_its_refusal(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    refusals: dict[str, dict[str, Any]] = {
        "invalid_value": {"n": 11},
        "missing_required_parameter": {"model": "fill"},
        "max_cost_exceeded": {"max_cost": 0.01},
        "unsupported_operation": {"model": "redux"},
    }
    found = {name: await estimate(gateway, **fields) for name, fields in refusals.items()}
    assert found["max_cost_exceeded"].error()["code"] == "max_cost_exceeded"
    assert found["unsupported_operation"].error()["code"] == "unsupported_operation"
    assert [reply.status for reply in found.values()] == [400] * 4
    unknown = await estimate(gateway, "flx")
    assert "Did you mean 'flux'?" in unknown.error()["message"]
    wrong = await edit(
        gateway.port,
        ("model", "fill"),
        ("prompt", "a fox"),
        ("image", ("a.png", file_of(plain((64, 64))))),
        ("mask", ("m.png", marked((32, 32)))),
        path="/v1/images/edits/estimate",
    )
    assert (wrong.status, wrong.error()["param"]) == (400, "mask")
    assert not sum(sandbox.world.journal.drawings.values())


async def test_limits_and_budgets_are_told_and_not_used_up(start: Start, sandbox: Sandbox) -> None:
    limits = {"requests_per_minute": 2, "images_per_minute": 5, "megapixels_per_minute": 3, "max_concurrency": 4}
    keys = [{"name": "design", "key": KEY, **limits}]
    gateway = await start(config(sandbox, keys=keys, budgets=[{"key": "design", "amount": 0.3, "window": "month"}]))
    head: dict[str, Any] = {"headers": {"authorization": f"Bearer {KEY}"}}
    await gateway.app.state.runtime.resources.ledger.refresh()
    for _ in range(3):
        reply = await estimate(gateway, size="512x512", n=2, **head)
    found = told(reply)
    assert [(each["measure"], each["limit"], each["remaining"], each["needed"]) for each in found["limits"]] == [
        ("requests", 2, 2, 1),
        ("images", 5, 5, 2),
        ("megapixels", 3, 3, 0.524288),
        ("concurrency", 4, 4, 1),
    ]
    assert {(each["scope"], each["owner"]) for each in found["limits"]} == {("key", "design")}
    assert reply.header("x-ratelimit-remaining-requests") == "2"
    budget = found["budget"]
    assert (budget["amount"], budget["used"], budget["left"], budget["window"], budget["scope"]) == (
        0.3, 0.0, 0.3, "month", "key",
    )  # fmt: skip
    assert budget["hard"] is True and budget["resets_at"] > 1_700_000_000
    assert (
        await post(
            gateway.port,
            PATH.removesuffix("/estimate"),
            {"model": "flux", "prompt": "x", "size": "64x64"},
            **head["headers"],
        )
    ).status == 200
    found = told(await estimate(gateway, **head))
    assert (found["budget"]["used"], found["limits"][0]["remaining"]) == (0.04, 1)
    assert (await estimate(gateway, n=5, **head)).error()["code"] == "rate_limit_exceeded"
    assert (await estimate(gateway, n=3, size="64x64", **head)).error()["code"] == "insufficient_quota"
    assert (await estimate(gateway)).status == 401


async def test_a_model_without_a_price_is_refused_where_a_hard_budget_counts_it(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    ledger = gateway.app.state.runtime.resources.ledger
    registry = Registry(ledger.database, lambda: 1)
    await registry.add_budget(Budget("bud_1", "all", None, 10**9, "total"), Actor("command", "test"))
    await ledger.refresh()
    assert (await estimate(gateway, "half")).error()["code"] == "model_unpriced"
    assert told(await estimate(gateway))["budget"]["id"] == "bud_1"


async def test_a_deployment_that_rests_says_so(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    await post(gateway.port, PATH.removesuffix("/estimate"), {"model": "flux", "prompt": "x [[fault@nebula:429]]"})
    nebula, netmind = told(await estimate(gateway))["deployments"]
    assert nebula["eligible"] and "passed over for the moment (rate limit" in nebula["reason"]
    assert netmind["reason"] is None
    assert json.dumps(nebula["typical_seconds"]) != "null"
