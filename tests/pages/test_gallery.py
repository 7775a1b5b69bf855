"""The gallery, and what can be done with a picture."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.live.house import House
from tests.pages.browser import Visit, barriers, press_key
from tests.pages.studio import cards, choose_model, draw, kept, wait_for_pictures

pytestmark = pytest.mark.slow

FILL_GALLERY = """async (count) => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
  const request = indexedDB.open("image-gateway.playground");
  await new Promise((resolve) => (request.onsuccess = resolve));
  for (let index = 0; index < count; index += 1) {
    const context = canvas.getContext("2d");
    context.fillStyle = `hsl(${index * 7} 60% 50%)`;
    context.fillRect(0, 0, 64, 64);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    const step = request.result.transaction("pictures", "readwrite");
    step.objectStore("pictures").put({
      id: `old-${index}:0`, run: `old-${index}`, index: 0, createdAt: 1000 + index, operation: "generations",
      model: "schnell", prompt: `picture number ${index}`, seed: index, type: "image/png", bytes: blob.size, blob,
      request: {operation: "generations", fields: {model: "schnell", prompt: "p"}, inputs: [], mask: null},
      thumb: blob, favourite: index % 50 === 0, seconds: 1, width: 64, height: 64,
      gateway: {provider: "nebula", attempts: 1, dropped: [], mapped: []},
    });
    await new Promise((resolve) => (step.oncomplete = resolve));
  }
  request.result.close();
}"""


def open_first(page: Page) -> None:
    cards(page).first.locator(".card-open").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_two_hundred_pictures_are_searched_marked_downloaded_and_deleted(visit: Visit) -> None:
    page = visit.page
    expect(page.locator(".panel")).to_be_visible()
    page.evaluate(FILL_GALLERY, 200)
    page.reload()
    expect(page.get_by_role("heading", name="Gallery 200")).to_be_visible()
    expect(cards(page)).to_have_count(48)
    page.get_by_role("button", name="Show 48 more").click()
    expect(cards(page)).to_have_count(96)
    assert barriers(page) == []
    page.get_by_label("Search prompts and models").fill("number 19")
    expect(cards(page)).to_have_count(12)
    page.get_by_label("Search prompts and models").fill("nothing like it")
    expect(page.get_by_text("No picture matches")).to_be_visible()
    page.get_by_label("Search prompts and models").fill("")
    page.get_by_role("button", name="Favourites").click()
    expect(cards(page)).to_have_count(4)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download ZIP").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 4
        assert all(archive.read(name).startswith(b"\x89PNG") for name in archive.namelist())
        assert archive.infolist()[0].filename.startswith("picture-number-150")
    page.get_by_role("button", name="Select").click()
    page.get_by_role("button", name="Select picture number 150").click()
    page.get_by_role("button", name="Select picture number 100").click()
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.locator(".chosen-bar").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Gallery 198")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Gallery 198")).to_be_visible()


def test_a_picture_is_drawn_again_with_its_seed_and_with_another(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "schnell")
    draw(page, "the same again")
    wait_for_pictures(page, 1)
    open_first(page)
    page.get_by_role("button", name="Run again").click()
    wait_for_pictures(page, 2)
    open_first(page)
    page.get_by_role("button", name="Vary the seed").click()
    wait_for_pictures(page, 3)
    seeds = [row["seed"] for row in sorted(kept(page), key=lambda row: row["createdAt"])]
    assert seeds[0] == seeds[1] != seeds[2]
    blobs = [row["blob"] for row in sorted(kept(page), key=lambda row: row["createdAt"])]
    assert blobs[0] == blobs[1] != blobs[2]


def test_a_picture_is_edited_and_used_as_a_reference(visit: Visit, gateway: House) -> None:
    page = visit.page
    choose_model(page, "kontext")
    draw(page, "to be edited")
    wait_for_pictures(page, 1)
    open_first(page)
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.get_by_role("radio", name="Edit")).to_be_checked()
    expect(page.get_by_label("Model", exact=True)).to_have_value("kontext")
    expect(page.locator(".input")).to_have_count(1)
    open_first(page)
    page.get_by_role("button", name="Use as reference").click()
    expect(page.locator(".input")).to_have_count(2)
    draw(page, "edited")
    wait_for_pictures(page, 2)
    assert len(gateway.seen("edited")) == 1


def test_pictures_are_pasted_and_dropped(visit: Visit) -> None:
    page = visit.page
    expect(page.locator(".panel")).to_be_visible()
    choose_model(page, "kontext")
    give = """async (kind) => {
      const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
      const blob = await new Promise((resolve) => canvas.toBlob(resolve));
      const data = new DataTransfer();
      data.items.add(new File([blob], `${kind}.png`, {type: "image/png"}));
      const options = {bubbles: true, cancelable: true};
      document.body.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", {...options, clipboardData: data})
        : new DragEvent("drop", {...options, dataTransfer: data}));
    }"""
    page.evaluate(give, "paste")
    expect(page.get_by_role("radio", name="Edit")).to_be_checked()
    expect(page.locator(".input")).to_have_count(1)
    page.evaluate(give, "drop")
    expect(page.locator(".input")).to_have_count(2)


def test_the_request_is_copied_as_code_without_the_key(visit: Visit, gateway: House) -> None:
    page = visit.page
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose_model(page, "schnell")
    prompt = 'it\'s "quoted" $HOME `date` \\ and more'
    draw(page, prompt)
    wait_for_pictures(page, 1)
    open_first(page)
    page.get_by_role("button", name="Copy as code").click()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    assert "$IMAGE_GATEWAY_KEY" in command
    words = shlex.split(command.replace("\\\n", ""))
    assert words[2] == f"{visit.url}/v1/images/generations"
    body: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    assert (body["prompt"], body["model"], body["seed"]) == (prompt, "schnell", kept(page)[0]["seed"])
    page.get_by_role("radio", name="Python").check()
    code = page.locator("pre code").inner_text()
    compile(code, "copied", "exec")
    assert 'os.environ.get("IMAGE_GATEWAY_KEY"' in code
    page.get_by_role("radio", name="Node").check()
    expect(page.locator("pre code")).to_contain_text("process.env.IMAGE_GATEWAY_KEY")
    page.get_by_role("button", name="Copy picture").click()
    expect(page.get_by_text("Copied", exact=True).first).to_be_visible()
    page.wait_for_function("navigator.clipboard.read().then(([item]) => item.types.join() === 'image/png')")


def test_a_prompt_is_copied_where_the_clipboards_interface_is_missing(visit: Visit) -> None:
    page = visit.page
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.context.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.reload()
    choose_model(page, "schnell")
    draw(page, "copied the old way")
    wait_for_pictures(page, 1)
    open_first(page)
    page.get_by_role("button", name="Copy prompt").click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    press_key(page, "Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("#prompt").fill("")
    page.locator("#prompt").focus()
    press_key(page, "Control+v")
    expect(page.locator("#prompt")).to_have_value("copied the old way")
    open_first(page)
    page.get_by_role("button", name="Copy picture").click()
    expect(page.get_by_text("The browser does not let this page copy pictures.")).to_be_visible()


def test_what_was_dropped_and_chosen_is_told_in_words(visit: Visit) -> None:
    page = visit.page
    page.get_by_text("More settings").click()
    choose_model(page, "gpt")
    page.get_by_role("button", name="Compare with another model").click()
    choose_model(page, "sdxl", 2)
    draw(page, "told in words")
    wait_for_pictures(page, 2)
    row = next(row for row in kept(page) if row["model"] == "sdxl")
    page.evaluate(
        """async (id) => {
          const request = indexedDB.open("image-gateway.playground");
          await new Promise((resolve) => (request.onsuccess = resolve));
          const rows = request.result.transaction("pictures", "readwrite").objectStore("pictures");
          const got = rows.get(id);
          await new Promise((resolve) => (got.onsuccess = resolve));
          const told = {dropped: ["style"], mapped: ["size=1024x768"], attempts: 2, cost: 0.009, currency: "USD"};
          rows.put({...got.result, gateway: {...got.result.gateway, ...told}});
          request.result.close();
        }""",
        row["id"],
    )
    page.reload()
    cards(page).filter(has_text="sdxl").locator(".card-open").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("“style” was not honoured: the provider does not know it.")).to_be_visible()
    expect(dialog.get_by_text("The gateway chose size 1024x768.")).to_be_visible()
    expect(dialog.get_by_text("$0.009")).to_be_visible()
    expect(dialog.locator(".facts", has_text="Attempts")).to_contain_text("2")
    expect(dialog.get_by_text(row["run"])).to_be_visible()
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog).to_have_count(2)  # the second one asks back
    dialog.last.get_by_role("button", name="Delete").click()
    wait_for_pictures(page, 1)
