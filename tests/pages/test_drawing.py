"""Drawing in the playground: by mouse and by keys, and whatever happens meanwhile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Request, expect

from tests.live.house import House
from tests.pages.browser import Visit, barriers, has_focus, press_key, visiting
from tests.pages.studio import cards, choose_model, do, draw, draw_button, drawn, kept, wait_for_pictures, write

pytestmark = pytest.mark.slow


def test_a_prompt_becomes_a_picture_that_stays_in_the_gallery(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "schnell")
    page.get_by_role("radio", name="16:9").check()
    draw(page, "a red fox")
    wait_for_pictures(page, 1)
    [sent] = gateway.seen("a red fox")
    assert (sent["width"], sent["height"]) == (1360, 768)
    [row] = kept(page)
    assert (row["model"], row["width"], row["height"]) == ("schnell", 1360, 768)
    assert row["seed"] == sent["seed"]
    assert row["gateway"]["provider"] == "nebula"
    assert page.get_by_label("Seed", exact=True).input_value() == str(sent["seed"])
    page.reload()
    wait_for_pictures(page, 1)
    expect(page.locator("#prompt")).to_have_value("a red fox")


def test_everything_can_be_done_by_keys_alone(visit: Visit) -> None:
    page = visit.page
    expect(page.locator(".panel")).to_be_visible()
    press_key(page, "/")
    page.keyboard.type("by keys")
    press_key(page, "Tab")
    page.keyboard.type("schnell")
    expect(page.get_by_label("Model", exact=True)).to_have_value("schnell")
    press_key(page, "Tab")  # compare
    press_key(page, "Tab")  # the sizes
    press_key(page, "ArrowRight")
    expect(page.get_by_role("radio", name="1:1")).to_be_checked()
    press_key(page, "Control+Enter")
    wait_for_pictures(page, 1)
    press_key(page, "Escape")
    page.locator("#gallery-title").focus()
    press_key(page, "?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    press_key(page, "Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator(".card-open").focus()
    press_key(page, "Enter")
    expect(page.get_by_role("dialog", name="schnell")).to_be_visible()
    press_key(page, "f")
    expect(page.get_by_role("button", name="No favourite any more")).to_have_count(2)
    press_key(page, "Escape")
    has_focus(page.locator(".card-open"))


def test_a_size_is_snapped_to_what_the_model_draws(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "seedream")
    page.get_by_role("radio", name="Custom").check()
    page.get_by_label("Width").fill("3000")
    page.get_by_label("Height").fill("1500")
    expect(page.get_by_text("Drawn as 2048 × 1024: the nearest that the model allows.")).to_be_visible()
    draw(page, "snapped")
    wait_for_pictures(page, 1)
    [sent] = gateway.seen("snapped")
    assert (sent["width"], sent["height"]) == (2048, 1024)


def test_what_a_model_cannot_do_is_not_shown_and_is_named(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    page.get_by_text("More settings").click()
    expect(page.get_by_label("Steps")).to_be_visible()
    expect(page.get_by_label("Without (negative prompt)")).to_have_count(0)
    expect(
        page.get_by_text("This model does not take: without (negative prompt), quality, background.")
    ).to_be_visible()
    choose_model(page, "sdxl")
    expect(page.get_by_label("Without (negative prompt)")).to_be_visible()
    expect(page.get_by_label("Seed", exact=True)).to_have_count(0)
    choose_model(page, "gpt")
    expect(page.get_by_label("Quality")).to_be_visible()


def test_every_setting_of_the_form_is_sent(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "sdxl")
    page.get_by_text("More settings").click()
    page.get_by_label("Without (negative prompt)").fill("fog")
    page.get_by_label("Steps").fill("30")
    page.get_by_label("Guidance").fill("7.5")
    page.get_by_label("Format").select_option("jpeg")
    draw(page, "all settings")
    wait_for_pictures(page, 1)
    [sent] = gateway.seen("all settings")
    assert (sent["negative_prompt"], sent["num_steps"], sent["guidance_scale"]) == ("fog", 30, 7.5)
    assert kept(page)[0]["type"] == "image/jpeg"


def test_a_locked_seed_stays_and_dice_throw_another(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    seed = page.get_by_label("Seed", exact=True)
    seed.fill("4711")
    draw(page, "locked")
    wait_for_pictures(page, 1)
    draw(page, "locked again")
    wait_for_pictures(page, 2)
    assert [row["seed"] for row in kept(page)] == [4711, 4711]
    page.get_by_role("button", name="Throw the dice").click()
    expect(seed).not_to_have_value("4711")
    page.get_by_role("button", name="Take another seed each time").click()
    before = seed.input_value()
    draw(page, "loose")
    wait_for_pictures(page, 3)
    assert seed.input_value() != before


def test_several_pictures_have_seeds_in_a_row(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    page.get_by_label("Seed", exact=True).fill("100")
    page.get_by_role("button", name="Pictures +").click()
    page.get_by_role("button", name="Pictures +").click()
    expect(draw_button(page)).to_contain_text("Draw 3")
    draw(page, "three")
    wait_for_pictures(page, 3)
    assert sorted(row["seed"] for row in kept(page)) == [100, 101, 102]


def test_models_are_compared_side_by_side_with_one_seed(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    page.get_by_label("Seed", exact=True).fill("5")
    page.get_by_role("radio", name="1:1").check()
    for number, name in enumerate(("netmind-schnell", "sdxl", "gpt"), start=2):
        page.get_by_role("button", name="Compare with another model").click()
        choose_model(page, name, number)
    expect(page.get_by_role("button", name="Compare with another model")).to_have_count(0)
    draw(page, "side by side")
    wait_for_pictures(page, 4)
    assert {row["model"]: row["request"]["fields"].get("seed") for row in kept(page)} == {
        **{"schnell": 5, "netmind-schnell": None, "sdxl": None, "gpt": None},
    }
    page.get_by_role("button", name="Compare", exact=True).click()
    slider = page.get_by_label("Where the right picture begins")
    slider.focus()
    has_focus(slider)
    press_key(page, "ArrowRight")
    expect(slider).to_have_value("51")
    page.get_by_role("radio", name="Difference").check()
    expect(page.get_by_text("of the pixels differ")).to_be_visible()
    page.get_by_role("radio", name="Side by side").check()
    expect(page.locator(".sides img")).to_have_count(2)
    assert barriers(page) == []
    page.get_by_label("Left").select_option(index=2)
    expect(page.get_by_role("dialog").get_by_role("row")).to_have_count(5)


def test_an_error_stands_beside_the_field_that_it_names(visit: Visit) -> None:
    page = visit.page
    draw(page, "  ")
    expect(page.get_by_text("Say what to draw.")).to_be_visible()
    has_focus(page.locator("#prompt"))
    expect(page.locator("#prompt")).to_have_attribute("aria-invalid", "true")
    choose_model(page, "schnell")
    page.get_by_text("More settings").click()
    page.get_by_label("Steps").fill("many")
    draw(page, "a fox")
    error = page.locator(".field", has=page.get_by_label("Steps")).locator(".error")
    expect(error).to_contain_text("steps")
    page.get_by_label("Steps").fill("4")
    expect(error).to_have_count(0)


def test_a_refusal_of_the_provider_is_told_in_the_gateways_words(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    draw(page, "refused [[fault:moderation]]")
    expect(page.locator(".run .error")).not_to_be_empty()
    expect(page.locator(".run code")).to_contain_text("play-")
    expect(page.get_by_role("button", name="Draw this one again")).to_be_visible()


def test_one_failed_picture_of_several_is_drawn_again_alone(visit: Visit) -> None:
    page = visit.page
    asked: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/images/generations"):
            asked.append(request.post_data_json or {})

    page.on("request", note)
    choose_model(page, "schnell")
    page.get_by_label("Seed", exact=True).fill("40")
    page.get_by_role("button", name="Pictures +").click()
    draw(page, "one of two [[fault*1:moderation]]")
    again = page.get_by_role("button", name="Draw this one again")
    expect(again.first).to_be_visible()
    missing = again.count()
    with page.expect_request("**/images/generations"):
        again.last.click()
    expect(again).to_have_count(missing - 1)
    expect(drawn(page).last).to_be_visible()
    first, second = asked
    assert (first["n"], first["seed"]) == (2, 40)
    assert ("n" in second, second["seed"]) == (False, 41 if missing == 2 else second["seed"])


def test_a_drawing_is_cancelled_and_it_is_said_whether_it_is_paid(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    draw(page, "too slow [[fault:slow:60]]")
    expect(page.get_by_text("The provider draws already, so it may be charged.")).to_be_visible()
    expect(page.locator(".run-foot")).to_contain_text(re.compile(r"Drawing · [\d.]+ s"))
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".run").get_by_text("Cancelled. The provider may charge for it.")).to_be_visible()


def test_partial_pictures_are_shown_while_it_draws(visit: Visit) -> None:
    page = visit.page
    page.evaluate(
        """() => new MutationObserver((_, observer) => {
          if (document.querySelector(".tile.partial img")) { window.sawPartial = true; observer.disconnect(); }
        }).observe(document.body, {subtree: true, childList: true})"""
    )
    choose_model(page, "gpt")
    draw(page, "in parts [[fault:dribble:400000]]")
    wait_for_pictures(page, 1)
    assert page.evaluate("window.sawPartial") is True


def test_a_reload_in_the_middle_fetches_the_picture_and_draws_nothing_twice(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "schnell")
    prompt = "reloaded [[fault:slow:3]]"
    draw(page, prompt)
    expect(page.get_by_text("it may be charged")).to_be_visible()
    page.reload()
    expect(page.locator(".sheet")).to_be_visible()
    wait_for_pictures(page, 1)
    assert len(gateway.seen(prompt)) == 1
    assert kept(page, "runs") == []


def test_a_tab_that_was_closed_is_taken_over_by_the_next(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "schnell")
    prompt = "crashed [[fault:slow:3]]"
    draw(page, prompt)
    expect(page.get_by_text("it may be charged")).to_be_visible()
    page.evaluate("clearTimeout")  # the page still answers
    next_tab = visit.another_tab()
    page.close()
    next_tab.wait_for_timeout(7000)  # the heartbeat of the closed tab is old by then
    next_tab.goto(visit.url + "/playground")
    wait_for_pictures(next_tab, 1)
    assert len(gateway.seen(prompt)) == 1


def test_two_tabs_share_the_gallery_and_none_draws_for_the_other(visit: Visit, gateway: House) -> None:
    first, second = visit.page, visit.another_tab()
    second.goto(visit.url + "/playground")
    choose_model(first, "schnell")
    draw(first, "shared [[fault:slow:1]]")
    wait_for_pictures(first, 1)
    wait_for_pictures(second, 1)
    assert len(gateway.seen("shared [[fault:slow:1]]")) == 1
    second.locator(".card-star").first.click(force=True)
    expect(first.locator(".card-star").first).to_have_attribute("aria-pressed", "true")


def test_offline_and_back_the_picture_is_fetched_again(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "schnell")
    prompt = "under a bridge [[fault:slow:3]]"
    draw(page, prompt)
    expect(page.get_by_text("it may be charged")).to_be_visible()
    visit.context.set_offline(True)
    expect(page.get_by_text("The drawing goes on; it is fetched when the gateway is back.")).to_be_visible()
    visit.context.set_offline(False)
    wait_for_pictures(page, 1)
    assert len(gateway.seen(prompt)) == 1


def test_a_variation_and_an_edit_of_several_pictures(visit: Visit, gateway: House) -> None:
    from tests.live.house import file_of, plain
    from tests.pages.studio import add_file

    page = visit.page
    do(page, "Edit")
    choose_model(page, "kontext")
    for colour, name in (("red", "red.png"), ("green", "green.png"), ("blue", "blue.png")):
        add_file(page, file_of(plain((96, 64), colour)), name)
    page.locator(".input").nth(2).focus()
    press_key(page, "ArrowLeft", "ArrowLeft")
    has_focus(page.locator(".input").first)
    expect(page.locator(".input").first).to_have_attribute("aria-label", re.compile(r"Picture 1 of 3: blue\.png"))
    page.locator(".input").nth(0).drag_to(page.locator(".input").nth(1))
    expect(page.locator(".input").first).to_have_attribute("aria-label", re.compile(r"red\.png"))
    page.locator(".input").nth(2).focus()
    press_key(page, "Delete")
    draw(page, "in order")
    wait_for_pictures(page, 1)
    assert [each["name"] for each in kept(page)[0]["request"]["inputs"]] == ["red.png", "blue.png"]
    do(page, "Vary")
    draw(page)
    wait_for_pictures(page, 2)


def test_the_page_works_at_320_pixels(browser: Browser, gateway: House) -> None:
    with visiting(browser, gateway.gateway.url, viewport={"width": 320, "height": 640}) as visit:
        page = visit.page
        choose_model(page, "schnell")
        draw(page, "narrow")
        wait_for_pictures(page, 1)
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        assert barriers(page) == []
        cards(page).locator(".card-open").click()
        assert barriers(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_screen_has_a_barrier(browser: Browser, gateway: House, scheme: str) -> None:
    with visiting(browser, gateway.gateway.url, color_scheme=scheme) as visit:
        page = visit.page
        expect(page.locator(".panel")).to_be_visible()
        assert barriers(page) == []
        page.get_by_text("More settings").click()
        choose_model(page, "schnell")
        draw(page, "refused [[fault:moderation]]")
        expect(page.locator(".run .error")).to_be_visible()
        assert barriers(page) == []
        draw(page, "slow [[fault:slow:2]]")
        expect(page.locator(".tile.pending")).to_be_visible()
        assert barriers(page) == []
        wait_for_pictures(page, 1)
        page.get_by_role("button", name="Select").click()
        page.locator(".card-open").click()
        assert barriers(page) == []
        page.get_by_role("button", name="Select", exact=True).click()
        page.locator(".card-open").click()
        page.get_by_role("button", name="Copy as code").click()
        assert barriers(page) == []


def test_the_theme_is_remembered(visit: Visit) -> None:
    page = visit.page
    toggle = page.get_by_role("button", name="Theme")
    toggle.click()
    toggle.click()
    expect(toggle).to_have_accessible_name("Theme: Dark")
    page.reload()
    expect(toggle).to_have_accessible_name("Theme: Dark")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_without_the_gateway_the_page_says_so_and_goes_on_later(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    expect(page.locator(".panel")).to_be_visible()
    visit.context.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.get_by_text("The gateway cannot be reached.")).to_be_visible()
    visit.context.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".panel")).to_be_visible()


def test_a_prompt_can_be_written_while_it_draws(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    draw(page, "first [[fault:slow:1]]")
    write(page, "second")
    draw(page)
    wait_for_pictures(page, 2)
    assert {row["prompt"] for row in kept(page)} == {"first [[fault:slow:1]]", "second"}


ESTIMATE = {
    "object": "image.estimate",
    "cost": {"least": 0.08, "most": 0.12, "currency": "USD"},
    "deployments": [{"provider": "nebula", "eligible": True, "waiting": 2, "typical_seconds": 8.0}],
    "budget": {"scope": "project", "amount": 50.0, "used": 12.3, "held": 0.04, "left": 37.66, "hard": True},
}


def test_the_price_and_what_is_left_of_the_budget_stand_on_the_button(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    page.route("**/v1/images/generations/estimate", lambda route: route.fulfill(json=ESTIMATE))
    write(page, "how much is it?")
    expect(draw_button(page)).to_contain_text("$0.08 to $0.12")
    expect(page.get_by_text("Project budget: $37.66 of $50.00 left · 2 waiting")).to_be_visible()
    refusal = {"message": "That is too many.", "param": "n", "code": "invalid_value", "type": "invalid_request_error"}
    page.unroute("**/v1/images/generations/estimate")
    page.route("**/v1/images/generations/estimate", lambda route: route.fulfill(status=400, json={"error": refusal}))
    write(page, "and now?")
    expect(page.locator(".field", has=page.get_by_label("Pictures", exact=True)).locator(".error")).to_have_text(
        "That is too many."
    )


def test_without_estimates_the_button_tells_the_price_of_the_model(visit: Visit) -> None:
    page = visit.page
    unknown = {"message": "There is nothing here.", "code": "not_found", "type": "invalid_request_error"}
    page.route("**/estimate", lambda route: route.fulfill(status=404, json={"error": unknown}))
    choose_model(page, "schnell")
    page.get_by_role("button", name="Pictures +").click()
    write(page, "two of them")
    expect(draw_button(page)).to_contain_text("from $0.038")
    expect(page.locator(".error")).to_have_count(0)


def test_the_place_in_the_queue_is_told(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "schnell")
    told = {"state": "waiting", "paid": "no", "place": 3, "typical_seconds": 8.0}
    page.route("**/v1/images/runs/*/status", lambda route: route.fulfill(json=told))
    draw(page, "in the queue [[fault:slow:2]]")
    expect(page.locator(".run-foot")).to_contain_text("Place 3 in the queue")
    expect(page.locator(".run-foot")).to_contain_text("of about 8.0 s")
    expect(page.get_by_text("Nothing was sent yet, so it costs nothing.")).to_be_visible()
    wait_for_pictures(page, 1)


def test_a_link_fills_the_form_once(browser: Browser, gateway: House) -> None:
    path = "/playground?model=gpt&operation=generations&n=3&size=1536x1024&seed=7&prompt=from%20a%20link"
    with visiting(browser, gateway.gateway.url, path) as visit:
        page = visit.page
        expect(page.locator("#prompt")).to_have_value("from a link")
        expect(page.get_by_label("Model", exact=True)).to_have_value("gpt")
        expect(page.get_by_label("Pictures", exact=True)).to_have_value("3")
        expect(page.get_by_label("Width")).to_have_value("1536")
        assert page.url == f"{visit.url}/playground"
        choose_model(page, "schnell")
        page.reload()
        expect(page.get_by_label("Model", exact=True)).to_have_value("schnell")
        expect(page.get_by_label("Seed", exact=True)).to_have_value("7")
