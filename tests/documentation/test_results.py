"""`docs/results.md` has every header of the gateway's own, `docs/clients.md` every address."""

import re

from app.api.responses.sending import HEADERS_FOR_BROWSERS
from app.config.loading import load
from app.main import create_app
from tests.documentation.pages import page, quoted, rows


def test_the_table_of_headers_has_every_header_and_no_other() -> None:
    named = [name for first, *_ in rows(page("docs/results.md"), "## Headers") for name in quoted(first)]
    assert sorted(named) == sorted(HEADERS_FOR_BROWSERS)


def test_the_table_of_addresses_has_every_address_of_the_api() -> None:
    tables = ("docs/clients.md", "## Addresses"), ("docs/administration.md", "## The gateway's own")
    named = {name for text, begin in tables for first, *_ in rows(page(text), begin) for name in quoted(first)}
    paths = create_app(load(None, {})).openapi()["paths"]
    for path, methods in paths.items():
        short = re.sub(r"\{\w+\}", "{id}", path)
        for method in methods.keys() - {"head"}:
            wanted = f"{method.upper()} {'/files/…' if short.startswith('/files/') else short}"
            assert wanted in named, wanted
