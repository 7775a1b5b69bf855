"""Draws the pictures of the pages for README and docs/, with the machine's Chromium and a gateway that serves its
sandbox: `python -m scripts.screenshots`. They are small WebP files, so that they may be committed."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.live.servers import process
from tests.pages.administered import sandbox_of_a_team
from tests.pages.browser import open_browser, visiting
from tests.pages.studio import add_file, choose_model, do, draw, picture_of_a_landscape, wait_for_pictures

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "screenshots"
SIZE = {"width": 1280, "height": 800}


def playground(page: Page) -> None:
    choose_model(page, "flux-2-pro")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_role("radio", name="4:3").check()
    for count, prompt in enumerate(("Moss and stone", "Glass greenhouse", "Paper cranes", "Harbour at dusk"), start=1):
        draw(page, prompt)
        wait_for_pictures(page, count)
    page.get_by_role("button", name="Compare with another model").click()
    choose_model(page, "black-forest-labs/FLUX.1-schnell", 2)
    draw(page, "An observatory above the clouds")
    wait_for_pictures(page, 6)


def mask(page: Page) -> None:
    do(page, "Edit")
    choose_model(page, "black-forest-labs/FLUX.1-Fill-dev")
    add_file(page, picture_of_a_landscape((960, 640)))
    page.get_by_role("button", name="Paint a mask").click()
    canvas = page.locator(".painter canvas").bounding_box()
    if canvas is None:
        raise SystemExit("the painter shows no canvas")
    left, top = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(left - 200, top - 60)
    page.mouse.down()
    for x, y in ((-120, -100), (-40, -70), (40, -110), (120, -60)):
        page.mouse.move(left + x, top + y, steps=6)
    page.mouse.up()


def admin(page: Page) -> None:
    page.get_by_role("heading", name="Overview").wait_for()


PLAYGROUND: dict[str, Callable[[Page], None]] = {"playground": playground, "mask": mask}


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, open_browser() as browser:
        with process(None, Path(folder)) as gateway:
            for name, show in PLAYGROUND.items():
                take(browser, gateway.url, "/playground", name, show)
        with sandbox_of_a_team(Path(folder)) as team:
            take(browser, team.url, "/admin", "admin", admin)
    return 0


def take(browser: Browser, url: str, path: str, name: str, show: Callable[[Page], None]) -> None:
    with visiting(browser, url, path, viewport=SIZE, color_scheme="light") as visit:
        show(visit.page)
        visit.page.wait_for_timeout(1500)
        shot = Image.open(io.BytesIO(visit.page.screenshot()))
        shot.save(FOLDER / f"{name}.webp", "WEBP", quality=80, method=6)


if __name__ == "__main__":
    sys.exit(main())
