"""One browser for the tests of a module, and one gateway before the simulated providers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.live.house import House, house
from tests.pages.browser import PATIENCE, Visit, open_browser, visiting


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(Path(tmp_path_factory.mktemp("gateway"))) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, gateway: House) -> Iterator[Visit]:
    """Somebody who opens the playground for the first time."""
    with visiting(browser, gateway.gateway.url) as opened:
        yield opened
