"""The mask painter: what is painted is repainted, pixel for pixel, at every provider's convention."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.live.house import GREY, House, assert_repainted, file_of, near, plain
from tests.pages.browser import Visit, press_key, settle
from tests.pages.studio import add_file, choose_model, do, draw, kept, picture, wait_for_pictures, write

pytestmark = pytest.mark.slow
SIZE = (192, 128)


def open_painter(page: Page, model: str = "fill", size: tuple[int, int] = SIZE) -> None:
    do(page, "Edit")
    choose_model(page, model)
    add_file(page, file_of(plain(size)))
    page.get_by_role("button", name="Paint a mask").click()
    expect(page.locator(".painter canvas")).to_be_visible()
    settle(page)


def use_mask(page: Page) -> None:
    """Close the painter. Until it is closed the prompt takes no text."""
    page.get_by_role("button", name="Use this mask").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def add_rectangle(page: Page, left: int, top: int, width: int, height: int, button: str = "Add") -> None:
    for label, value in (("Left", left), ("Top", top), ("Width", width), ("Height", height)):
        page.get_by_role("dialog").get_by_label(label, exact=True).fill(str(value))
    page.get_by_role("button", name=button, exact=True).click()


def exported(page: Page) -> Image.Image:
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    return Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))


def painted(mask: Image.Image) -> set[tuple[int, int]]:
    alpha = mask.getchannel("A").load()
    assert alpha is not None
    return {(x, y) for x in range(mask.width) for y in range(mask.height) if alpha[x, y] == 0}


def box(left: int, top: int, width: int, height: int) -> set[tuple[int, int]]:
    return {(x, y) for x in range(left, left + width) for y in range(top, top + height)}


@pytest.mark.parametrize("model", ["fill", "netmind-fill", "kontext", "gpt"])
def test_a_masked_edit_repaints_exactly_the_painted_pixels(visit: Visit, gateway: House, model: str) -> None:
    page = visit.page
    open_painter(page, model)
    add_rectangle(page, 24, 16, 72, 48)
    use_mask(page)
    expect(page.get_by_text("Mask: 14 % will be repainted")).to_be_visible()
    draw(page, f"masked at {model}")
    wait_for_pictures(page, 1)
    [row] = kept(page)
    assert_repainted(picture(row), (24, 16, 96, 64), margin=0)


def test_a_rectangle_is_painted_erased_inverted_undone_and_redone_by_keys_and_numbers(visit: Visit) -> None:
    page = visit.page
    open_painter(page)
    add_rectangle(page, 10, 10, 40, 30)
    add_rectangle(page, 20, 20, 10, 10, "Erase")
    whole, hole = box(10, 10, 40, 30), box(20, 20, 10, 10)
    assert painted(exported(page)) == whole - hole
    page.locator(".dialog-body").focus()
    press_key(page, "i")
    assert painted(exported(page)) == box(0, 0, *SIZE) - (whole - hole)
    page.locator(".dialog-body").focus()
    press_key(page, "Control+z", "Control+z")
    assert painted(exported(page)) == whole
    page.locator(".dialog-body").focus()
    press_key(page, "Control+Shift+z")
    assert painted(exported(page)) == whole - hole
    page.get_by_role("button", name="Clear").click()
    assert painted(exported(page)) == set()
    for _ in range(3):
        page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_the_brush_paints_what_the_pointer_passes_at_any_zoom_and_the_eraser_takes_it_away(visit: Visit) -> None:
    page = visit.page
    open_painter(page)
    canvas = page.locator(".painter canvas").bounding_box()
    assert canvas is not None
    scale = min(canvas["width"] / SIZE[0], canvas["height"] / SIZE[1]) * 0.94
    left = canvas["x"] + (canvas["width"] - SIZE[0] * scale) / 2
    top = canvas["y"] + (canvas["height"] - SIZE[1] * scale) / 2

    def stroke(*points: tuple[float, float]) -> None:
        for index, (x, y) in enumerate(points):
            page.mouse.move(left + x * scale, top + y * scale, steps=4)
            if not index:
                page.mouse.down()
        page.mouse.up()

    page.get_by_label("Brush size").fill("20")
    stroke((50, 60), (120, 60))
    found = painted(exported(page))
    for x, y in box(0, 0, *SIZE):
        nearest = min(max(x + 0.5, 50), 120)
        distance = math.hypot(x + 0.5 - nearest, y + 0.5 - 60)
        assert ((x, y) in found) == (distance <= 10) or abs(distance - 10) < 1.5, (x, y, distance)
    page.locator(".dialog-body").focus()
    press_key(page, "e")
    expect(page.get_by_role("radio", name="Eraser")).to_be_checked()
    stroke((85, 60), (86, 60))
    assert (85, 60) not in painted(exported(page))
    page.locator(".dialog-body").focus()
    press_key(page, "r")
    stroke((150, 20), (170, 40))
    assert {(151, 21), (169, 39)} <= painted(exported(page))
    before = painted(exported(page))
    page.mouse.move(left + 60 * scale, top + 60 * scale)
    page.mouse.wheel(0, -400)
    page.get_by_role("button", name="Zoom out").click()
    page.set_viewport_size({"width": 1000, "height": 700})  # the mask stays where it is on the picture
    assert painted(exported(page)) == before
    page.get_by_role("button", name="Fit").click()
    page.locator(".dialog-body").focus()
    size = page.get_by_label("Brush size")
    press_key(page, "]")
    expect(size).to_have_value("24")
    press_key(page, "[")
    expect(size).to_have_value("20")


def test_two_fingers_zoom_and_paint_nothing(visit: Visit) -> None:
    page = visit.page
    open_painter(page)
    page.locator(".painter canvas").evaluate(
        """(canvas) => {
          const fire = (type, id, x, y) => canvas.dispatchEvent(Object.assign(
            new PointerEvent(type, {pointerId: id, pointerType: "touch", bubbles: true, clientX: x, clientY: y})));
          canvas.setPointerCapture = () => {};
          const {left, top} = canvas.getBoundingClientRect();
          fire("pointerdown", 1, left + 200, top + 200);
          fire("pointerdown", 2, left + 260, top + 200);
          for (let step = 1; step < 6; step += 1) fire("pointermove", 2, left + 260 + 20 * step, top + 200);
          fire("pointerup", 2, left + 360, top + 200);
          fire("pointerup", 1, left + 200, top + 200);
        }"""
    )
    assert painted(exported(page)) == set()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_the_mask_survives_another_prompt_and_a_reload_with_its_steps(visit: Visit) -> None:
    page = visit.page
    open_painter(page)
    add_rectangle(page, 0, 0, 96, 128)
    add_rectangle(page, 0, 0, 10, 10, "Erase")
    use_mask(page)
    write(page, "another prompt")
    page.reload()
    expect(page.get_by_text("Mask: 50 % will be repainted")).to_be_visible()
    page.get_by_role("button", name="Change the mask").click()
    page.get_by_role("button", name="Undo").click()
    assert painted(exported(page)) == box(0, 0, 96, 128)
    press_key(page, "Escape")
    page.get_by_role("button", name="Remove the mask").click()
    expect(page.get_by_role("button", name="Paint a mask")).to_be_visible()


def test_edges_are_softened_and_a_soft_mask_still_repaints_its_middle_alone(visit: Visit) -> None:
    page = visit.page
    open_painter(page)
    add_rectangle(page, 40, 30, 80, 60)
    page.get_by_label("Feather").fill("3")
    page.get_by_role("button", name="Soften edges").click()
    mask = exported(page)
    row = [mask.getpixel((x, 60)) for x in range(28, 54)]
    alphas = [pixel[3] for pixel in row if isinstance(pixel, tuple)]
    assert alphas == sorted(alphas, reverse=True)
    assert len(set(alphas)) > 6
    use_mask(page)
    draw(page, "soft")
    wait_for_pictures(page, 1)
    image = picture(kept(page)[0]).convert("RGB")
    assert not near(image.getpixel((80, 40)), GREY)
    assert near(image.getpixel((5, 5)), GREY)


def test_a_mask_is_imported_by_transparency_or_by_white_and_one_of_another_size_is_refused(visit: Visit) -> None:
    page = visit.page
    open_painter(page)
    add_rectangle(page, 12, 14, 33, 21)
    out = io.BytesIO()
    exported(page).save(out, "PNG")
    page.get_by_role("button", name="Clear").click()
    chooser = page.get_by_role("dialog").locator("input[type=file]")
    chooser.set_input_files({"name": "mask.png", "mimeType": "image/png", "buffer": out.getvalue()})
    assert painted(exported(page)) == box(12, 14, 33, 21)
    white = Image.new("L", SIZE, 0)
    white.paste(255, (5, 6, 25, 36))
    chooser.set_input_files({"name": "white.png", "mimeType": "image/png", "buffer": file_of(white)})
    assert painted(exported(page)) == box(5, 6, 20, 30)
    chooser.set_input_files({"name": "small.png", "mimeType": "image/png", "buffer": file_of(plain((9, 9)))})
    expect(page.get_by_text("The mask must be a picture of 192 × 128 pixels")).to_be_visible()
    assert painted(exported(page)) == box(5, 6, 20, 30)


def test_a_model_that_needs_a_mask_is_not_asked_without_one(visit: Visit, gateway: House) -> None:
    page = visit.page
    do(page, "Edit")
    choose_model(page, "fill")
    add_file(page, file_of(plain(SIZE)))
    draw(page, "no mask yet")
    expect(page.locator(".error")).to_have_text("This model needs a mask: paint what shall change.")
    assert gateway.seen("no mask yet") == []
    choose_model(page, "reshape")
    expect(page.get_by_text("This model takes no mask.")).to_be_visible()
