"""What a person does in the playground, by the names that a screen reader would say."""

from __future__ import annotations

import io
import math
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page, expect


def choose_model(page: Page, name: str, number: int = 1) -> None:
    page.get_by_label("Model" if number == 1 else f"Model {number}", exact=True).select_option(name)


def do(page: Page, operation: str) -> None:
    page.get_by_role("radio", name=operation).check()


def write(page: Page, prompt: str) -> None:
    page.locator("#prompt").fill(prompt)


def draw(page: Page, prompt: str | None = None) -> None:
    if prompt is not None:
        write(page, prompt)
    draw_button(page).click()


def draw_button(page: Page) -> Locator:
    return page.locator("button.draw")


def drawn(page: Page) -> Locator:
    """The pictures on the easel."""
    return page.locator(".tile.done img")


def cards(page: Page) -> Locator:
    """The pictures in the gallery."""
    return page.locator(".card-picture")


def wait_for_pictures(page: Page, count: int) -> None:
    expect(cards(page)).to_have_count(count)


def add_file(page: Page, content: bytes, name: str = "photo.png") -> None:
    before = page.locator(".input").count()
    page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
    expect(page.locator(".input img[src]")).to_have_count(before + 1)


def kept(page: Page, store: str = "pictures") -> list[dict[str, Any]]:
    """What the page keeps in the browser's database, blobs as lists of bytes."""
    found: list[dict[str, Any]] = page.evaluate(
        """async (store) => {
          const request = indexedDB.open("image-gateway.playground");
          await new Promise((resolve) => (request.onsuccess = resolve));
          const all = request.result.transaction(store).objectStore(store).getAll();
          await new Promise((resolve) => (all.onsuccess = resolve));
          request.result.close();
          return Promise.all(all.result.map(async (row) => ({
            ...row, thumb: null, blob: row.blob && [...new Uint8Array(await row.blob.arrayBuffer())],
          })));
        }""",
        store,
    )
    return found


def picture(row: dict[str, Any]) -> Image.Image:
    image = Image.open(io.BytesIO(bytes(row["blob"])))
    image.load()
    return image


def picture_of_a_landscape(size: tuple[int, int]) -> bytes:
    """A sky over hills, as PNG."""
    width, height = size
    image = Image.new("RGB", size)
    pen = ImageDraw.Draw(image)
    for y in range(height):
        part = y / height
        pen.line((0, y, width, y), fill=(round(120 + 110 * part), round(160 + 50 * part), round(205 - 30 * part)))
    pen.ellipse((width * 0.68, height * 0.16, width * 0.78, height * 0.16 + width * 0.1), fill=(255, 232, 180))
    for depth, colour in enumerate(((122, 143, 150), (84, 112, 108), (48, 74, 66))):
        base = height * (0.58 + 0.13 * depth)
        waves = ((0.09, width / (5 + 2 * depth), depth * 2), (0.03, 31.0, depth))  # height, length, shift
        hills = [
            (x, base - height * sum(high * math.sin(x / long + shift) for high, long, shift in waves))
            for x in range(0, width + 8, 8)
        ]
        pen.polygon([(0, height), *hills, (width, height)], fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
