"""Names, users, tags, codes and notes that are markup or formulas, on every screen of the administration."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.pages.administered import FORMULA, MARKUP, Administered, gateway_with_keys
from tests.pages.browser import PATIENCE, open_browser, visiting

pytestmark = pytest.mark.slow
expect.set_options(timeout=PATIENCE)
SCREENS = ("overview", "usage", "drawings", "doubts", "access", "prices", "providers", "audit", "configuration")
GROUPS = ("project_id", "api_key_id", "model", "provider")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    with gateway_with_keys(tmp_path_factory.mktemp("hostile"), 250, lambda name: f"{FORMULA}{MARKUP}{name}") as running:
        yield running


def enter(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Open").click()


def test_markup_in_any_text_is_text_on_every_screen(browser: Browser, hostile: Administered) -> None:
    with visiting(browser, hostile.url, "/admin") as visit:
        page, alerts = visit.page, list[str]()

        def dismiss(dialog: Dialog) -> None:
            alerts.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", dismiss)
        enter(page, hostile.admin)
        with hostile.client() as client:
            rows = client.get("/v1/gateway/drawings", params={"limit": 1000}).json()["data"]
        opened = [next(each for each in rows if each[field]) for field in ("tags", "user", "error_code")]
        doubt = next(each for each in rows if each["state"] == "in_doubt")
        queries = [f"screen={name}" for name in SCREENS]
        queries += [
            f"screen=usage&group={group}&by=time" for group in ("project_id", "api_key_id", "model", "provider")
        ]
        queries += [f"screen=drawings&id={row['id']}" for row in opened]
        queries += [f"screen=doubts&id={doubt['id']}"]
        queries += [
            f"screen=usage&model={MARKUP}&provider={MARKUP}",
            f"screen=access&find={MARKUP}&project_id={MARKUP}",
        ]
        for query in queries:
            page.goto(f"{hostile.url}/admin?{query}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            expect(page.locator(".loading")).to_have_count(0)
            assert page.locator("img[src=x]").count() == 0, query
        for name in ("overview", "drawings", "access", "prices", "audit"):
            page.goto(f"{hostile.url}/admin?screen={name}")
            expect(page.get_by_role("main")).to_contain_text(MARKUP)
        assert alerts == []


def test_formulas_in_exports_are_text(browser: Browser, hostile: Administered) -> None:
    with visiting(browser, hostile.url, "/admin") as visit:
        enter(visit.page, hostile.admin)
        for query in ("screen=usage&group=model&days=90", "screen=drawings"):
            visit.page.goto(f"{hostile.url}/admin?{query}")
            with visit.page.expect_download() as download:
                visit.page.get_by_role("button", name="CSV").click()
            text = Path(download.value.path()).read_text()
            cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
            assert any(cell.startswith(f"'{FORMULA}") for cell in cells)
            assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
