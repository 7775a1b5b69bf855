"""A configuration that changes while the gateway serves: applied as a whole, or refused as a whole."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.crowds import (
    asking,
    assert_said_nothing_odd,
    call,
    drawn_by,
    fault,
    get,
    logged,
    simulated,
    tally,
    together,
)
from tests.live.loops import in_thread
from tests.live.scripted import Scripted, answer
from tests.live.servers import Config, Process, process, provider, served_by, written
from tests.live.wire import ask, request
from tests.waiting import until

pytestmark = pytest.mark.anyio

APPLIED, REFUSED = "configuration applied", "configuration refused, the old one stays"


def configured(sandbox: Sandbox, *models: str, keys: Any = ()) -> Config:
    return {
        "providers": {"openai": simulated(sandbox.base_url)},
        "models": {name: drawn_by("openai") for name in models or ("flux",)},
        "keys": list(keys),
    }


def key(name: str, **more: Any) -> Config:
    return {"name": name, "key": f"the-secret-key-of-{name}", **more}


@asynccontextmanager
async def serving(config: Config, folder: Path) -> AsyncIterator[Process]:
    """Killed at the end: how a gateway ends is another test's concern."""
    with process(config, folder) as gateway:
        try:
            yield gateway
            assert_said_nothing_odd(gateway)
        finally:
            gateway.process.kill()


async def reloaded(gateway: Process, config: Config, folder: Path, told: str = APPLIED) -> dict[str, Any]:
    """The log line about it. The file is told apart by its time, which on some systems has few digits."""
    before = len(logged(gateway, told))
    written(config, folder)
    gateway.process.send_signal(signal.SIGHUP)
    await until(lambda: len(logged(gateway, told)) > before, gateway.printed)
    return logged(gateway, told)[-1]


async def models(gateway: Process, key: str | None = None) -> set[str]:
    reply = await get(gateway.port, "/v1/models", key)
    return {model["id"] for model in reply.json()["data"]} if reply.status == 200 else set()


async def test_a_new_model_appears_and_a_key_that_is_gone_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    design, guest = "the-secret-key-of-design", "the-secret-key-of-guest"
    before = configured(sandbox, "flux", keys=[key("design"), key("guest")])
    after = configured(sandbox, "flux", "flux-2", keys=[key("design", models=["flux*"])])
    async with serving(before, tmp_path) as gateway:
        assert (await call(gateway.port, asking(), key=guest)).kind == "images"
        assert (await call(gateway.port, asking(model="flux-2"), key=design)).status == 400
        assert (await reloaded(gateway, after, tmp_path))["models"] == 2
        assert (await call(gateway.port, asking(model="flux-2"), key=design)).kind == "images"
        assert (await call(gateway.port, asking(), key=guest)).status == 401
        assert await models(gateway, design) == {"flux", "flux-2"}


async def test_a_key_that_is_put_right_is_used_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    wrong, right = configured(sandbox), configured(sandbox)
    wrong["providers"]["openai"]["api_key"] = ""
    async with serving(wrong, tmp_path) as gateway:
        assert (await call(gateway.port, asking())).error == "upstream_account_refused"
        assert (await call(gateway.port, asking())).error == "upstream_account_refused"
        await reloaded(gateway, right, tmp_path)
        assert (await call(gateway.port, asking())).kind == "images"


async def test_what_providers_quote_of_prompts_is_not_logged_any_more_once_that_is_said(tmp_path: Path) -> None:
    quoting = answer({"error": {"message": "no memory for 'an unmistakable prompt'"}}, status=503)
    with in_thread(Scripted) as upstream:
        base_url = upstream.at("a", quoting, quoting, quoting)
        config: Config = {"providers": {"a": provider(base_url)}, "models": {"flux": served_by("a")}}
        async with serving({**config, "logging": {"prompts": True}}, tmp_path) as gateway:
            await call(gateway.port, asking("an unmistakable prompt"))
            assert "memory for 'an unmistakable prompt'" in gateway.printed()
            before = len(gateway.printed())
            await reloaded(gateway, config, tmp_path)
            await call(gateway.port, asking("an unmistakable prompt"))
            assert "attempt failed" in gateway.printed()[before:]
            assert "unmistakable" not in gateway.printed()[before:]


async def test_what_is_under_way_ends_as_it_began(sandbox: Sandbox, tmp_path: Path) -> None:
    """Even with a key, a model and a provider that are there no more."""
    guest = "the-secret-key-of-guest"
    async with serving(configured(sandbox, "old", keys=[key("guest")]), tmp_path) as gateway:
        bodies = [asking(fault("slow:1.5"), "old", stream=number % 2 == 0, n=1) for number in range(6)]
        callers = [asyncio.create_task(call(gateway.port, body, key=guest)) for body in bodies]
        await until(lambda: sandbox.world.journal.drawings["openai"] == 6, gateway.printed)
        after = {
            "providers": {"other": simulated(sandbox.base_url, "nebula")},
            "models": {"new": {"deployments": [{"provider": "other", "model": "black-forest-labs/FLUX.1-schnell"}]}},
            "keys": [key("design")],
        }
        await reloaded(gateway, after, tmp_path)
        assert not any(each.done() for each in callers)
        assert (await call(gateway.port, asking(model="new"), key=guest)).status == 401
        assert (await call(gateway.port, asking(model="new"), key="the-secret-key-of-design")).kind == "images"
        assert tally(await together(callers)) == {"200 images": 6}


async def test_limits_that_change_hold_from_then_on_and_what_was_used_goes_on_counting(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    ci = "the-secret-key-of-ci"
    async with serving(configured(sandbox, keys=[key("ci", requests_per_minute=4)]), tmp_path) as gateway:
        first = [await call(gateway.port, asking(), key=ci) for _ in range(5)]
        assert [each.status for each in first] == [200] * 4 + [429]
        await reloaded(gateway, configured(sandbox, keys=[key("ci", requests_per_minute=4)]), tmp_path)
        assert (await call(gateway.port, asking(), key=ci)).status == 429  # to reload is no way around a limit
        await reloaded(gateway, configured(sandbox, keys=[key("ci", max_concurrency=1)]), tmp_path)
        assert (await call(gateway.port, asking(), key=ci)).status == 200
        pair = await together(call(gateway.port, asking(fault("slow:0.5")), key=ci) for _ in range(2))
        assert tally(pair) == {"200 images": 1, "429 rate_limit_exceeded": 1}


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("server: [", "gateway.yaml"),
        ("models: {flux: {deployments: [{provider: nobody}]}}", "nobody"),
        ("providers: {openai: {base_url: 'http://127.0.0.1', api_key: '${NOT_SET_ANYWHERE}'}}", "NOT_SET_ANYWHERE"),
        ("server: {prot: 8000}", "server.prot"),
        ("", "restart the gateway"),  # as a file that is being written is for a moment
    ],
)
async def test_a_broken_file_is_refused_by_its_fault_and_the_old_one_stays(
    sandbox: Sandbox, tmp_path: Path, broken: str, named: str
) -> None:
    config = configured(sandbox)
    async with serving(config, tmp_path) as gateway:
        (tmp_path / "gateway.yaml").write_text(broken)
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: logged(gateway, REFUSED), gateway.printed)
        assert named in logged(gateway, REFUSED)[-1]["faults"]
        assert (await call(gateway.port, asking())).kind == "images"
        assert await models(gateway) == {"flux"}
        await reloaded(gateway, configured(sandbox, "flux", "more"), tmp_path)
        assert await models(gateway) == {"flux", "more"}


async def test_half_a_file_does_not_do_away_with_the_keys(sandbox: Sandbox, tmp_path: Path) -> None:
    guarded = configured(sandbox, keys=[key("team")])
    async with serving(guarded, tmp_path) as gateway:
        said = await reloaded(gateway, configured(sandbox), tmp_path, REFUSED)
        assert said["faults"].startswith("keys: are gone; restart the gateway")
        assert (await call(gateway.port, asking())).status == 401
        await reloaded(gateway, {**configured(sandbox), "server": {"allow_anonymous": True}}, tmp_path)
        assert (await call(gateway.port, asking())).kind == "images"


async def test_pages_of_other_sites_are_refused_as_long_as_there_are_no_keys(sandbox: Sandbox, tmp_path: Path) -> None:
    async def status(**headers: str) -> int:
        whole = request("GET", "/v1/models", None, origin="https://evil.example", **headers)
        return (await ask(gateway.port, whole)).status

    guarded = configured(sandbox, keys=[key("design")])
    async with serving(configured(sandbox), tmp_path) as gateway:
        assert await status() == 403
        await reloaded(gateway, guarded, tmp_path)
        assert await status() == 401
        assert await status(authorization="Bearer the-secret-key-of-design") == 200
        await reloaded(gateway, {**configured(sandbox), "server": {"allow_anonymous": True}}, tmp_path)
        assert await status() == 403


@pytest.mark.slow
async def test_a_file_that_is_gone_for_a_while_changes_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    async with serving(configured(sandbox), tmp_path) as gateway:
        (tmp_path / "gateway.yaml").unlink()
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: logged(gateway, REFUSED), gateway.printed)
        assert (await call(gateway.port, asking())).kind == "images"
        written(configured(sandbox, "flux", "more"), tmp_path)
        await until(lambda: logged(gateway, APPLIED), gateway.printed)  # noticed without a signal
        assert await models(gateway) == {"flux", "more"}


@pytest.mark.slow
async def test_a_file_that_is_put_in_its_place_by_renaming_is_noticed(sandbox: Sandbox, tmp_path: Path) -> None:
    async with serving(configured(sandbox), tmp_path) as gateway:
        (tmp_path / "new").mkdir()
        file = written({"data_dir": str(tmp_path / "data"), **configured(sandbox, "flux", "more")}, tmp_path / "new")
        file.replace(tmp_path / "gateway.yaml")
        await until(lambda: logged(gateway, APPLIED), gateway.printed)
        assert await models(gateway) == {"flux", "more"}


@pytest.mark.slow
async def test_a_file_that_is_still_being_written_is_not_applied(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its beginning is a valid configuration without the keys, with which everybody would be let in."""
    async with serving(configured(sandbox, keys=[key("design")]), tmp_path) as gateway:
        without_keys = configured(sandbox)
        for number in range(40):  # three seconds, so that the file is looked at meanwhile
            (tmp_path / "gateway.yaml").write_text(json.dumps({**without_keys, "data_dir": str(number)}))
            await asyncio.sleep(0.075)
            assert (await call(gateway.port, asking())).status == 401
        written(configured(sandbox, "flux", "more", keys=[key("design")]), tmp_path)
        await until(lambda: logged(gateway, APPLIED), gateway.printed)
        assert [line["models"] for line in logged(gateway, APPLIED)] == [2]


@pytest.mark.slow
async def test_a_mounted_configuration_is_noticed_when_its_links_are_changed(sandbox: Sandbox, tmp_path: Path) -> None:
    """As Kubernetes does: gateway.yaml → ..data/gateway.yaml, ..data → ..1, and then, at once, ..data → ..2."""
    for name, served in (("..1", ["flux"]), ("..2", ["flux", "more"])):
        (tmp_path / name).mkdir()
        file = written({"data_dir": str(tmp_path / "data"), **configured(sandbox, *served)}, tmp_path / name)
        os.utime(file, ns=(1_700_000_000_000_000_000,) * 2)  # the same time: they may be of the same second
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "gateway.yaml").symlink_to("..data/gateway.yaml")
    with process(None, tmp_path, IMAGE_GATEWAY_CONFIG=str(tmp_path / "gateway.yaml")) as gateway:
        try:
            assert await models(gateway) == {"flux"}
            (tmp_path / "..new").symlink_to("..2")
            (tmp_path / "..new").replace(tmp_path / "..data")
            await until(lambda: logged(gateway, APPLIED), gateway.printed)
            assert await models(gateway) == {"flux", "more"}
        finally:
            gateway.process.kill()
