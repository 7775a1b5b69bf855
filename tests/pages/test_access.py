"""Keys, budgets, prefixes, and markup that somebody put where text belongs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from playwright.sync_api import Browser, expect

from app.sandbox.server import Sandbox
from tests.live.house import House, at, file_of, models, plain
from tests.live.loops import bound, in_thread
from tests.live.servers import Gateway, sandbox_providers, serving
from tests.pages.browser import Visit, barriers, press_key, stored, visiting
from tests.pages.studio import add_file, cards, choose_model, do, draw, kept, wait_for_pictures

pytestmark = pytest.mark.slow
KEY, OTHER = "a-key-of-the-design-team", "a-key-of-nobody-at-all"
MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\'"&lt;'


@contextmanager
def gateway_with(folder: Path, **config: Any) -> Iterator[Gateway]:
    @asynccontextmanager
    async def both() -> AsyncIterator[Gateway]:
        async with Sandbox() as sandbox:
            whole = {"providers": sandbox_providers(sandbox.base_url), "models": models(), **config}
            async with serving(whole, folder) as gateway:
                yield gateway

    with in_thread(both) as running:
        yield running


def test_a_key_is_asked_for_and_a_wrong_one_is_told_beside_the_field(browser: Browser, tmp_path: Path) -> None:
    with (
        gateway_with(tmp_path, keys=[{"name": "design", "key": KEY, "models": ["schnell"]}]) as gateway,
        visiting(browser, gateway.url) as visit,
    ):
        page = visit.page
        field = page.get_by_label("Key", exact=True)
        expect(field).to_be_visible()
        expect(page.locator(".error")).to_have_count(0)
        assert barriers(page) == []
        field.press("Enter")
        expect(page.locator(".error")).to_have_text("Enter a key.")
        for wrong in (OTHER, "ключ"):
            field.fill(wrong)
            page.get_by_role("button", name="Open").click()
            expect(page.locator(".field .error")).to_contain_text("key")
            expect(field).to_have_attribute("aria-invalid", "true")
        assert OTHER not in str(stored(page))
        field.fill(KEY)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_label("Model", exact=True)).to_have_value("schnell")
        expect(page.get_by_label("Model", exact=True).locator("option")).to_have_count(1)
        assert page.evaluate("JSON.stringify(localStorage)").count(KEY) == 0
        draw(page, "with a key")
        wait_for_pictures(page, 1)
        cards(page).locator(".card-open").click()
        page.get_by_role("button", name="Copy as code").click()
        assert KEY not in page.content()
        press_key(page, "Escape")
        second = visit.another_tab()
        second.goto(gateway.url + "/playground")
        expect(second.get_by_label("Key", exact=True)).to_be_visible()  # it was for the first tab alone
        second.get_by_label("Key", exact=True).fill(KEY)
        second.get_by_label("Remember it in this browser").check()
        second.get_by_role("button", name="Open").click()
        expect(second.locator(".panel")).to_be_visible()
        third = visit.another_tab()
        third.goto(gateway.url + "/playground")
        expect(third.locator(".panel")).to_be_visible()
        third.get_by_role("button", name="Change the key").click()
        expect(third.get_by_label("Key", exact=True)).to_be_visible()


def test_a_budget_that_ends_is_told_with_its_name(browser: Browser, tmp_path: Path) -> None:
    budgets = [{"amount": 0.03, "window": "total"}]
    with gateway_with(tmp_path, budgets=budgets) as gateway, visiting(browser, gateway.url) as visit:
        page = visit.page
        choose_model(page, "schnell")
        draw(page, "within the budget")
        wait_for_pictures(page, 1)
        draw(page, "beyond the budget")
        expect(page.locator(".error").first).to_contain_text("budget")
        wait_for_pictures(page, 1)


@contextmanager
def behind_a_prefix(url: str) -> Iterator[str]:
    """A proxy that takes `/tools/images` off each path, as many do."""

    async def relay(request: web.Request) -> web.StreamResponse:
        path = request.raw_path.removeprefix("/tools/images") or "/"
        headers = {name: value for name, value in request.headers.items() if name not in ("Host", "Origin")}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, url + path, headers=headers, data=await request.read(), allow_redirects=False
            ) as answer,
        ):
            passed = {name: value for name, value in answer.headers.items() if name.lower() != "transfer-encoding"}
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            return response

    @asynccontextmanager
    async def proxy() -> AsyncIterator[str]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/tools/images{rest:.*}", relay)
        runner, listener = web.AppRunner(app), bound()
        await runner.setup()
        await web.SockSite(runner, listener).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/tools/images"
        finally:
            await runner.cleanup()

    with in_thread(proxy) as address:
        yield address


def test_the_page_works_behind_a_path_prefix(browser: Browser, gateway: House) -> None:
    with behind_a_prefix(gateway.gateway.url) as url, visiting(browser, url, "/") as visit:
        page = visit.page
        expect(page.locator(".panel")).to_be_visible()
        assert page.url == f"{url}/playground"
        choose_model(page, "schnell")
        draw(page, "behind a prefix")
        wait_for_pictures(page, 1)
        page.goto(url + "/playground/")
        wait_for_pictures(page, 1)
        assert page.url == f"{url}/playground"


def test_markup_stays_text_wherever_it_stands(browser: Browser, tmp_path: Path) -> None:
    named = "<b onmouseover=window.pwned=1>model</b>"
    config = {"models": {**models(), named: at("nebula", "black-forest-labs/FLUX.1-schnell")}}
    with gateway_with(tmp_path, **config) as gateway, visiting(browser, gateway.url) as visit:
        page = visit.page
        choose_model(page, named)
        draw(page, MARKUP)
        wait_for_pictures(page, 1)
        cards(page).locator(".card-open").click()
        page.get_by_role("button", name="Copy as code").click()
        for language in ("curl", "Python", "Node"):
            page.get_by_role("radio", name=language).check()
        expect(page.locator(".picture-prompt")).to_have_text(MARKUP)
        press_key(page, "Escape")
        page.get_by_label("Search prompts and models").fill(MARKUP)
        draw(page, f"{MARKUP} [[fault:400:shape=message]]")
        expect(page.locator(".run .error")).to_be_visible()
        do(page, "Edit")
        choose_model(page, "kontext")
        add_file(page, file_of(plain((96, 64))), f"{MARKUP.replace('/', '')}.png")
        page.get_by_role("radio", name="Vary").check()
        error = {"message": MARKUP, "param": "image", "code": "x", "type": "invalid_request_error"}
        page.route("**/v1/images/**", lambda route: route.fulfill(status=400, json={"error": error}))
        draw(page)
        expect(page.locator(".panel .error", has_text="<script>")).to_be_visible()
        assert page.evaluate("window.pwned") is None
        assert page.locator("main script, main b, main img[src=x]").count() == 0
        assert kept(page)[0]["prompt"] == MARKUP


def test_a_strange_answer_of_a_proxy_is_told_as_such(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    page.route("**/v1/images/generations", lambda route: route.fulfill(status=413, body="<h1>Too large</h1>"))
    draw(page, "strange")
    expect(page.locator(".run .error")).to_contain_text("answered 413 without saying why")
