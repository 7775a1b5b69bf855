"""The administration page: what a person can do there, by mouse and by keyboard."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.pages.administered import Administered, gateway_with_keys, sandbox_of_a_team
from tests.pages.browser import PATIENCE, barriers, has_focus, open_browser, press_key, stored, visiting

pytestmark = pytest.mark.slow
expect.set_options(timeout=PATIENCE)
SCREENS = {
    "overview": "Overview",
    "usage": "Usage",
    "drawings": "Drawings",
    "doubts": "In doubt",
    "access": "Projects and keys",
    "prices": "Prices",
    "providers": "Providers",
    "audit": "Audit",
    "configuration": "Configuration",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    with sandbox_of_a_team(tmp_path_factory.mktemp("team")) as running:
        yield running


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    with gateway_with_keys(tmp_path_factory.mktemp("closed")) as running:
        yield running


def open_screen(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Administration").get_by_role("link", name=SCREENS[name]).click()
    is_there(page, name)


def is_there(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(SCREENS[name])
    expect(page.locator(".loading")).to_have_count(0)


def row(page: Page, table: str, text: str) -> Locator:
    return page.get_by_role("region", name=table, exact=True).get_by_role("row").filter(has_text=text)


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def press(page: Page, name: str) -> None:
    dialog(page).get_by_role("button", name=name, exact=True).click()


def told(team: Administered, path: str, **query: Any) -> Any:
    with team.client() as client:
        return client.get(f"/v1/gateway/{path}", params=query).json()


# --- every screen ---


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1440])
def test_every_screen_fits_and_sets_up_no_barrier(browser: Browser, team: Administered, theme: str, width: int) -> None:
    options: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
    with visiting(browser, team.url, "/admin", **options) as visit:
        for name in SCREENS:
            open_screen(visit.page, name)
            assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            expect(visit.page.locator(".side [aria-current]")).to_be_in_viewport(ratio=0.9)
            assert barriers(visit.page) == [], name


def test_every_screen_says_something_while_there_is_nothing(browser: Browser, closed: Administered) -> None:
    with visiting(browser, closed.url, "/admin") as visit:
        enter(visit.page, closed.admin)
        words = {
            "overview": "Nothing was spent in this time.",
            "usage": "Nothing was drawn in this time",
            "drawings": "No drawing fits",
            "doubts": "Nothing is in doubt",
            "prices": "has no price",
        }
        for name, text in words.items():
            open_screen(visit.page, name)
            expect(visit.page.get_by_role("main")).to_contain_text(text)
            assert barriers(visit.page) == [], name


# --- the door ---


def enter(page: Page, key: str, *, remember: bool = False) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    if remember:
        page.get_by_label("Remember it in this browser").check()
    page.get_by_role("button", name="Open").click()


def test_a_wrong_key_is_told_so_beside_the_field(browser: Browser, closed: Administered) -> None:
    with visiting(browser, closed.url, "/admin") as visit:
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("An admin key, please")
        enter(visit.page, "iga_wrong")
        expect(visit.page.get_by_role("alert")).to_contain_text("Incorrect API key")
        assert barriers(visit.page) == []
        assert stored(visit.page) == {}


def test_an_ordinary_key_is_told_that_it_does_not_administrate(browser: Browser, closed: Administered) -> None:
    with visiting(browser, closed.url, "/admin") as visit:
        enter(visit.page, closed.ordinary)
        expect(visit.page.get_by_role("alert")).to_have_text(
            "The key “painter” draws; it does not administrate. This page wants an admin key."
        )
        enter(visit.page, closed.admin)
        is_there(visit.page, "overview")


def test_a_key_is_kept_for_the_tab_or_remembered_and_forgotten_when_it_is_left(
    browser: Browser, closed: Administered
) -> None:
    with visiting(browser, closed.url, "/admin?screen=audit") as visit:
        enter(visit.page, closed.admin)
        is_there(visit.page, "audit")
        visit.page.reload()
        is_there(visit.page, "audit")
        other = visit.another_tab()
        other.goto(f"{closed.url}/admin")
        enter(other, closed.admin, remember=True)
        is_there(other, "overview")
        third = visit.another_tab()
        third.goto(f"{closed.url}/admin")
        is_there(third, "overview")
        third.get_by_role("button", name="Leave").click()
        expect(third.get_by_role("heading", level=1)).to_have_text("An admin key, please")
        assert closed.admin not in str(stored(third))


def test_a_key_that_is_taken_away_leads_back_to_the_door(browser: Browser, closed: Administered) -> None:
    with closed.client() as client, visiting(browser, closed.url, "/admin") as visit:
        made = client.post("/v1/gateway/keys", json={"name": "short", "admin": True}).json()
        enter(visit.page, made["value"])
        is_there(visit.page, "overview")
        client.delete(f"/v1/gateway/keys/{made['id']}")
        visit.page.get_by_role("link", name="Audit").click()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("An admin key, please")
        expect(visit.page.get_by_role("alert")).to_contain_text("Incorrect API key")


def test_a_network_that_is_away_is_told_and_the_page_goes_on_when_it_is_back(
    browser: Browser, team: Administered
) -> None:
    with visiting(browser, team.url, "/admin") as visit:
        is_there(visit.page, "overview")
        visit.context.set_offline(True)
        visit.page.get_by_role("link", name="Prices").click()
        alert = visit.page.get_by_role("main").get_by_role("alert")
        expect(alert).to_contain_text("The gateway cannot be reached")
        visit.context.set_offline(False)
        alert.get_by_role("button", name="Try again").click()
        expect(row(visit.page, "Prices", "flux-2-pro")).to_contain_text("$0.045 an image")


# --- overview and usage ---


def test_the_overview_tells_what_the_gateway_tells(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin") as visit:
        page = visit.page
        is_there(page, "overview")
        page.get_by_role("radio", name="90 days").check()
        expect(page).to_have_url(re.compile("days=90"))
        expect(page.locator(".stale")).to_have_count(0)
        found = told(team, "overview", since=0 + told(team, "overview")["end_time"] - 60 * 86_400)
        tiles = page.get_by_role("main")
        cost = Decimal(str(found["cost"])).quantize(Decimal("0.01"), ROUND_HALF_UP)  # as browsers round
        expect(tiles).to_contain_text(f"${cost:,}")
        expect(tiles).to_contain_text(f"{found['requests']} requests")
        expect(tiles).to_contain_text(f"{found['joined']} joined requests")
        expect(page.get_by_role("img", name=re.compile("Spending by day, stacked by model"))).to_be_visible()
        expect(page.locator(".budget").filter(has_text="Project design")).to_contain_text("of $12.00 a week")
        expect(page.locator(".lamps")).to_contain_text("netmind")


def test_the_filter_of_usage_is_in_the_address_and_survives_a_reload(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=usage") as visit:
        page = visit.page
        page.get_by_label("By", exact=True).select_option(label="Model")
        page.get_by_label("Measure").select_option(label="Images")
        page.get_by_label("Project", exact=True).select_option(label="design")
        page.get_by_role("radio", name="By day").check()
        table = page.get_by_role("region", name="Sums by time")
        expect(table).to_be_visible()
        address, text = page.url, table.inner_text()
        page.reload()
        is_there(page, "usage")
        expect(table).to_have_text(text, use_inner_text=True)
        assert page.url == address
        expect(page.get_by_label("Measure")).to_have_value("images")
        other = visit.another_tab()  # as of a colleague
        other.goto(address)
        expect(other.get_by_role("region", name="Sums by time")).to_have_text(text, use_inner_text=True)
        page.go_back()
        expect(page.get_by_role("region", name="Sums", exact=True)).to_be_visible()


def test_the_table_of_usage_adds_up_with_the_gateway_and_its_file_has_the_same(
    browser: Browser, team: Administered
) -> None:
    with visiting(browser, team.url, "/admin?screen=usage&group=model&days=90") as visit:
        page = visit.page
        table = page.get_by_role("region", name="Sums", exact=True)
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV").click()
        rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
        images = dict[str, int]()
        for line in rows:
            images[line["model"]] = images.get(line["model"], 0) + int(line["images"])
        assert images
        for model, count in images.items():
            cell = table.get_by_role("row").filter(has_text=model).get_by_role("cell").nth(2)
            expect(cell).to_have_text(f"{count:,}")
        expect(table.get_by_role("row")).to_have_count(len(images) + 1)  # with the head


def test_own_days_take_the_place_of_a_span(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=usage") as visit:
        page = visit.page
        page.get_by_label("From").fill("2020-01-01")
        page.get_by_label("From").blur()
        page.get_by_label("To", exact=True).fill("2020-01-31")
        page.get_by_label("To", exact=True).blur()
        expect(page.get_by_role("main")).to_contain_text("Nothing was drawn in this time")
        page.get_by_role("radio", name="7 days").check()
        expect(page.get_by_role("region", name="Sums", exact=True)).to_be_visible()


# --- drawings ---


def test_drawings_are_filtered_and_older_ones_follow(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=drawings") as visit:
        page = visit.page
        rows = page.get_by_role("region", name="Drawings", exact=True).get_by_role("row")
        expect(rows).to_have_count(51)
        page.get_by_role("button", name="Older ones").click()
        expect(rows).to_have_count(101)
        assert len({each.inner_text() for each in page.locator("tbody a").all()}) > 60
        page.get_by_label("Outcome").select_option(label="Refused")
        expect(rows.nth(1)).to_contain_text("moderation_blocked")
        expected = told(team, "drawings", outcome="refused", limit=1000)["data"]
        expect(rows).to_have_count(len(expected) + 1)
        page.reload()
        expect(rows).to_have_count(len(expected) + 1)
        request = expected[0]["request_id"]
        page.get_by_label("Outcome").select_option(label="All")
        page.get_by_label("Request").fill(request)
        page.get_by_label("Request").press("Enter")
        expect(rows).to_have_count(2)


def test_a_drawing_is_told_in_detail_by_keyboard_alone(browser: Browser, team: Administered) -> None:
    drawings = told(team, "drawings", outcome="delivered", limit=1000)["data"]
    found = next(each for each in drawings if each["attempts"] == 2)
    address = f"/admin?screen=drawings&request_id={found['request_id']}"
    with visiting(browser, team.url, address) as visit:
        page = visit.page
        link = page.locator("tbody a")
        link.focus()
        press_key(page, "Enter")
        expect(dialog(page)).to_contain_text("Attempts")
        expect(dialog(page).locator(".attempts li")).to_have_count(2)
        expect(dialog(page).locator(".attempts li").first).to_contain_text("status 503")
        expect(row(page, "Movements of money", "Settled")).to_contain_text("+$")
        expect(dialog(page)).to_contain_text("quality=high")
        expect(dialog(page)).to_contain_text("Dropped")
        assert barriers(page) == []
        page.reload()
        expect(dialog(page)).to_contain_text(found["request_id"])
        again = dialog(page).get_by_role("link", name="Open in the playground").get_attribute("href") or ""
        assert again.startswith("playground?model=")
        press_key(page, "Escape")
        expect(dialog(page)).to_have_count(0)
        assert "id=" not in page.url.replace("request_id=", "")


def test_drawings_are_exported_with_the_filter(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=drawings&outcome=failed") as visit:
        is_there(visit.page, "drawings")
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name="CSV").click()
        rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert rows
    assert {line["outcome"] for line in rows} == {"failed"}


# --- in doubt ---


def test_what_is_in_doubt_is_resolved_by_the_bill(browser: Browser, team: Administered) -> None:
    doubts = told(team, "drawings", state="in_doubt")["data"]
    assert len(doubts) > 2
    with visiting(browser, team.url, "/admin?screen=doubts") as visit:
        page = visit.page
        badge = page.get_by_role("navigation", name="Administration").get_by_role("link", name="In doubt")
        expect(badge).to_contain_text(str(len(doubts)))
        rows = page.get_by_role("region", name="Drawings in doubt").get_by_role("row")
        expect(rows).to_have_count(len(doubts) + 1)
        for place, choice in enumerate(("Paid", "Not paid"), 1):
            rows.nth(1).get_by_role("button").click()
            press(page, "Resolve")
            expect(dialog(page).get_by_role("alert")).to_contain_text("Say whether")
            assert barriers(page) == []
            dialog(page).get_by_role("radio", name=choice, exact=True).check()
            dialog(page).get_by_label("Note").fill(f"bill {place}")
            press(page, "Resolve")
            expect(dialog(page)).to_have_count(0)
            expect(rows).to_have_count(len(doubts) + 1 - place)
        expect(badge).to_contain_text(str(len(doubts) - 2))
    paid, free = (told(team, f"drawings/{each['id']}") for each in doubts[:2])
    assert (paid["state"], paid["cost"]) == ("settled", doubts[0]["cost_in_doubt"])
    assert (free["state"], free["cost"]) == ("released", 0)
    assert [each["entries"][-1]["note"] for each in (paid, free)] == ["bill 1", "bill 2"]
    events = told(team, "events", object_id=paid["id"])["data"]
    assert [(each["action"], each["after"]) for each in events] == [("resolve", {"paid": True, "note": "bill 1"})]


# --- projects, keys, budgets ---


def test_a_project_is_made_limited_and_archived(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=access") as visit:
        page = visit.page
        page.get_by_role("button", name="New project").click()
        press(page, "Make")
        expect(dialog(page).get_by_role("alert")).to_have_text("Give the project a name.")
        dialog(page).get_by_label("Name").fill("magazine")
        dialog(page).get_by_label("Images a minute").fill("a few")
        press(page, "Make")
        expect(dialog(page).get_by_role("alert")).to_contain_text("whole number")
        dialog(page).get_by_label("Images a minute").fill("60")
        press(page, "Make")
        expect(row(page, "Projects", "magazine")).to_contain_text("60 images a minute")
        page.get_by_role("button", name="Change project magazine").click()
        dialog(page).get_by_label("Images a minute").fill("")
        dialog(page).get_by_label("Requests at once").fill("3")
        press(page, "Save")
        expect(row(page, "Projects", "magazine")).to_contain_text("3 requests at once")
        page.get_by_role("button", name="Archive project magazine").click()
        assert barriers(page) == []
        press(page, "Archive")
        expect(row(page, "Projects", "magazine")).to_have_count(0)


def test_a_project_whose_name_is_taken_is_refused_beside_the_field(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=access") as visit:
        visit.page.get_by_role("button", name="New project").click()
        dialog(visit.page).get_by_label("Name").fill("design")
        press(visit.page, "Make")
        expect(dialog(visit.page).locator(".field .error")).to_contain_text("There is a project 'design'")


def test_a_key_is_issued_shown_once_and_draws(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=access") as visit:
        page = visit.page
        page.get_by_role("button", name="Issue a key for design").click()
        assert barriers(page) == []
        dialog(page).get_by_label("Name").fill("once")
        dialog(page).get_by_label("Models").fill("black-forest-labs/*")
        dialog(page).get_by_label("Images a minute").fill("90")
        press(page, "Issue")
        value = dialog(page).locator("#new-key").inner_text()
        assert value.startswith("igk_")
        assert barriers(page) == []
        press_key(page, "Escape")  # by accident
        expect(dialog(page)).to_contain_text(value)
        press(page, "I have stored it")
        expect(row(page, "Keys", "once")).to_contain_text("black-forest-labs/*")
        expect(row(page, "Keys", "once")).to_contain_text("90 images a minute")
        assert value not in page.content()
        assert value not in str(stored(page))
        page.reload()
        is_there(page, "access")
        assert value not in page.content()
    with team.client() as client:
        assert client.get("/v1/gateway/whoami", headers={"authorization": f"Bearer {value}"}).json()["name"] == "once"


def test_a_key_is_changed_rotated_disabled_enabled_and_deleted(browser: Browser, closed: Administered) -> None:
    with closed.client() as client:
        project = next(each["id"] for each in told(closed, "projects")["data"] if each["name"] == "first project")
        made = client.post("/v1/gateway/keys", json={"name": "changing", "project_id": project}).json()

        def status(value: str) -> int:
            return client.get("/v1/gateway/whoami", headers={"authorization": f"Bearer {value}"}).status_code

        with visiting(browser, closed.url, "/admin?screen=access") as visit:
            enter(visit.page, closed.admin)
            page, own = visit.page, row(visit.page, "Keys", "changing")
            page.get_by_role("button", name="Change key changing").click()
            dialog(page).get_by_label("Edits").uncheck()
            dialog(page).get_by_label("Read its project's usage").check()
            dialog(page).get_by_label("Requests a minute").fill("7")
            dialog(page).get_by_label("Expires").fill("2099-12-31")
            press(page, "Save")
            expect(own).to_contain_text("7 requests a minute")
            expect(own).to_contain_text("draw, usage, generations, variations")
            expect(own).to_contain_text("2099")
            page.get_by_role("button", name="Rotate key changing").click()
            dialog(page).get_by_label("The old text ends").select_option(label="After an hour")
            press(page, "Rotate")
            rotated = dialog(page).locator("#new-key").inner_text()
            press(page, "I have stored it")
            assert (status(made["value"]), status(rotated)) == (200, 200)
            page.get_by_role("button", name="Disable key changing").click()
            dialog(page).get_by_label("Reason").fill("a leak")
            press(page, "Disable")
            expect(own).to_contain_text("Disabled")
            expect(own).to_contain_text("a leak")
            assert status(rotated) == 401
            page.get_by_role("button", name="Enable key changing").click()
            press(page, "Enable")
            expect(own).to_contain_text("Active")
            assert status(rotated) == 200
            page.get_by_role("button", name="Delete key changing").click()
            press(page, "Cancel")
            expect(own).to_have_count(1)
            page.get_by_role("button", name="Delete key changing").click()
            press(page, "Delete")
            expect(own).to_have_count(0)
            assert status(rotated) == 401
    actions = [each["action"] for each in told(closed, "events", object_id=made["id"])["data"]]
    assert actions == ["delete", "update", "update", "rotate", "update", "create"]


def test_a_key_that_administrates_is_issued_by_keyboard_alone(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=access") as visit:
        page = visit.page
        is_there(page, "access")
        page.get_by_role("button", name="Issue a key", exact=True).focus()
        press_key(page, "Enter")
        has_focus(dialog(page).get_by_role("textbox").first)
        page.keyboard.type("second operator")
        press_key(page, "Tab")
        press_key(page, "ArrowDown")  # the next kind of key
        press_key(page, "Shift+Tab")
        press_key(page, "Enter")
        value = dialog(page).locator("#new-key")
        expect(value).to_contain_text("iga_")
        text = value.inner_text()
        press_key(page, "Tab")
        press_key(page, "Tab")
        has_focus(dialog(page).get_by_role("button", name="I have stored it"))
        press_key(page, "Enter")
        expect(row(page, "Keys", "second operator")).to_contain_text("administrate")
    with team.client() as client:
        assert client.get("/v1/gateway/whoami", headers={"authorization": f"Bearer {text}"}).json()["is_admin"] is True


def test_a_key_does_not_take_itself_away(browser: Browser, closed: Administered) -> None:
    with visiting(browser, closed.url, "/admin?screen=access") as visit:
        enter(visit.page, closed.admin)
        own = row(visit.page, "Keys", "operator")
        expect(own).to_contain_text("yours")
        expect(own.get_by_role("button", name=re.compile("^(Disable|Delete)"))).to_have_count(0)


def test_a_key_of_the_configuration_is_told_by_its_name_and_is_not_changed_there(
    browser: Browser, closed: Administered
) -> None:
    with visiting(browser, closed.url, "/admin?screen=access") as visit:
        enter(visit.page, closed.admin)
        own = row(visit.page, "Keys", "build")
        expect(own).to_contain_text("of the configuration")
        expect(own.get_by_role("button")).to_have_count(0)
        visit.page.get_by_role("button", name="Set a budget").click()
        dialog(visit.page).get_by_label("Of", exact=True).select_option(label="Key build")
        dialog(visit.page).get_by_label("Amount").fill("5")
        press(visit.page, "Set")
        budget = visit.page.locator(".budget").filter(has_text="Key build")
        expect(budget).to_contain_text("of $5.00 a month")
        budget.get_by_role("button", name=re.compile("^Remove")).click()
        press(visit.page, "Remove")
        expect(budget).to_have_count(0)


def test_keys_are_found_by_name_and_project(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=access") as visit:
        page = visit.page
        rows = page.get_by_role("region", name="Keys", exact=True).get_by_role("row")
        page.get_by_label("Find").fill("figma")
        expect(rows).to_have_count(2)
        page.reload()
        expect(rows).to_have_count(2)
        page.get_by_label("Project", exact=True).select_option(label="research")
        expect(page.get_by_text("No key fits.")).to_be_visible()


def test_a_budget_is_set_changed_and_removed(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=access") as visit:
        page = visit.page
        page.get_by_role("button", name="Set a budget").click()
        assert barriers(page) == []
        dialog(page).get_by_label("Of", exact=True).select_option(label="Project research")
        dialog(page).get_by_label("Amount").fill("much")
        press(page, "Set")
        expect(dialog(page).get_by_role("alert")).to_contain_text("Write an amount")
        dialog(page).get_by_label("Amount").fill("12.50")
        dialog(page).get_by_label("Time zone").fill("Europe/Atlantis")
        press(page, "Set")
        expect(dialog(page).locator(".field .error")).to_contain_text("There is no time zone")
        dialog(page).get_by_label("Time zone").fill("Europe/Prague")
        dialog(page).get_by_label("For", exact=True).select_option(label="a day")
        press(page, "Set")
        own = page.locator(".budget").filter(has_text="Project research")
        expect(own).to_contain_text("of $12.50 a day")
        own.get_by_role("button", name=re.compile("^Change")).click()
        dialog(page).get_by_label("Amount").fill("20")
        dialog(page).get_by_label("Hard").uncheck()
        press(page, "Save")
        expect(own).to_contain_text("of $20.00 a day")
        expect(own).to_contain_text("soft")
        own.get_by_role("button", name=re.compile("^Remove")).click()
        press(page, "Remove")
        expect(own).to_have_count(0)


# --- prices, providers, audit, configuration ---


def test_prices_tell_each_tier_and_what_is_unpriced(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=prices") as visit:
        page = visit.page
        tokens = row(page, "Prices", "gpt-image-2")
        expect(tokens).to_contain_text("$0.167 an image generations, quality high")
        expect(tokens).to_contain_text("$5.00 input, $40.00 output for a million tokens, at most $0.20")
        expect(page.locator(".unpriced")).to_contain_text("FLUX.1-Fill-dev")


def test_a_provider_is_checked_online(browser: Browser, team: Administered, closed: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=providers") as visit:
        visit.page.get_by_role("button", name="Check online: nebula").click()
        expect(visit.page.get_by_role("main")).to_contain_text("Reachable. The credential is not refused")
    with visiting(browser, closed.url, "/admin?screen=providers") as visit:
        enter(visit.page, closed.admin)
        visit.page.get_by_role("button", name="Check online: one").click()
        expect(visit.page.get_by_role("main")).to_contain_text("It cannot be reached.")
        assert barriers(visit.page) == []


def test_the_audit_tells_who_changed_what(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=audit") as visit:
        page = visit.page
        changed = row(page, "Changes", "60 → 75")
        expect(changed).to_contain_text("Budget updated")
        expect(changed).to_contain_text("mara")
        changed.get_by_role("button").click()
        expect(page).to_have_url(re.compile("object_id=bud_all"))
        expect(page.get_by_role("region", name="Changes").get_by_role("row")).to_have_count(3)
        page.get_by_label("What").fill("")
        page.get_by_label("What").press("Enter")
        expect(row(page, "Changes", "old intern").first).to_be_visible()


def test_the_configuration_is_told_without_secrets(browser: Browser, closed: Administered) -> None:
    with visiting(browser, closed.url, "/admin?screen=configuration") as visit:
        page = visit.page
        enter(page, closed.admin)
        expect(page.get_by_role("main")).to_contain_text('api_key: "(set)"')
        text = page.get_by_role("main").inner_text()
        assert "upstream-secret" not in text
        assert "header-secret" not in text
        providers = page.locator(".settings section").filter(has_text="base_url")
        expect(providers).to_contain_text('headers:\n    x-team: "(set)"', use_inner_text=True)


# --- moving about ---


def test_screens_are_reached_by_keyboard_and_by_the_browsers_way_back(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin") as visit:
        page = visit.page
        is_there(page, "overview")
        press_key(page, "Tab")
        has_focus(page.get_by_text("Skip to the content"))
        page.get_by_role("link", name="Usage").focus()
        press_key(page, "Enter")
        is_there(page, "usage")
        expect(page).to_have_title(re.compile("^Usage"))
        press_key(page, "Tab")
        has_focus(page.get_by_role("link", name="Drawings"))
        page.go_back()
        is_there(page, "overview")
        page.go_forward()
        is_there(page, "usage")


def test_an_unknown_screen_in_the_address_is_the_overview(browser: Browser, team: Administered) -> None:
    with visiting(browser, team.url, "/admin?screen=nothing&days=x") as visit:
        is_there(visit.page, "overview")
