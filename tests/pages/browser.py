"""The machine's Chromium, and visits of pages in it, each of which must end without a complaint of the browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, sync_playwright

from tests.sdks.environments import leave_out, required_environment

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
PATIENCE = 30_000  # milliseconds that anything may take, on a machine that is busy


@contextmanager
def open_browser() -> Iterator[Browser]:
    """For use within a fixture, whose tests are left out (in a complete run: fail) without a Chromium."""
    binary = shutil.which("chromium") or shutil.which("google-chrome") or leave_out("no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Complaints:
    """What a browser complained of: errors in the console (a violated policy is one), uncaught exceptions, requests to
    another host. An answer with a status of an error is told to the page, and is no complaint."""

    own: str
    found: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # texts of those that a test provokes

    def console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.found.append(f"{message.type}: {message.text}")

    def request(self, request: Request) -> None:
        if request.url.startswith(("http:", "https:", "ws:", "wss:")) and urlsplit(request.url).netloc != self.own:
            self.found.append(f"asked {request.url}")

    def watch(self, page: Page) -> None:
        page.on("console", self.console)
        page.on("pageerror", lambda error: self.found.append(f"uncaught: {error}"))

    def unexpected(self) -> list[str]:
        return [each for each in self.found if not any(text in each for text in self.expected)]


@dataclass(slots=True)
class Visit:
    """One person's browser, with an empty memory."""

    context: BrowserContext
    page: Page
    url: str
    complaints: Complaints

    def another_tab(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE)
        self.complaints.watch(page)
        return page


@contextmanager
def visiting(browser: Browser, url: str, path: str = "/playground", **context: Any) -> Iterator[Visit]:
    """Open a page of the gateway at `url`, and hold the visit to its manners. `context`: playwright's options."""
    options = {"reduced_motion": "reduce", "viewport": {"width": 1280, "height": 900}, **context}
    with browser.new_context(**options) as opened:
        complaints = Complaints(urlsplit(url).netloc)
        opened.on("request", complaints.request)
        page = opened.new_page()
        page.set_default_timeout(PATIENCE)
        complaints.watch(page)
        page.goto(url + path)
        yield Visit(opened, page, url, complaints)
        assert complaints.unexpected() == []


def settle(page: Page) -> None:
    """Wait until the page has shown what it knows: what it does after it has shown something is done then, too."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")


def press_key(page: Page, *keys: str) -> None:
    """As a person does, who looks before the next key."""
    for key in keys:
        settle(page)
        page.keyboard.press(key)
    settle(page)


def has_focus(element: Locator) -> None:
    """Wait until keys go to the element. Whether the window is active is another matter, of which a browser without a
    screen is not always sure: playwright's `to_be_focused` wants that too."""
    for _ in range(PATIENCE // 50):
        if element.evaluate("element => element === document.activeElement"):
            return
        element.page.wait_for_timeout(50)
    raise AssertionError(f"{element} does not have the focus")


def barriers(page: Page) -> list[str]:
    """What axe finds that is serious or critical, with the elements that it is about. Axe is put into the page by the
    protocol of the browser's tools, which the page's policy does not bind."""
    script = (required_environment("axe") / "node_modules" / "axe-core" / "axe.min.js").read_text()
    page.evaluate(script)
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def stored(page: Page) -> dict[str, str]:
    """What the page keeps in the browser's small storage."""
    found: dict[str, str] = json.loads(page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})"))
    return found
