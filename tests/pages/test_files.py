"""The pages as files: what is sent, under which rules, and how large it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.config.loading import load
from app.main import create_app, replace_settings
from app.pages.files import PAGES, STATIC, StaticFiles
from app.pages.joining import lean_style
from app.pages.routes import POLICY

pytestmark = pytest.mark.anyio
BUDGET = 80_000  # bytes, gzipped, of both pages
FILES = StaticFiles()
MODULES = sorted(
    path.relative_to(STATIC).as_posix() for folder in ("base", *PAGES) for path in (STATIC / folder).rglob("*.js")
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(load(None, {}, {"data_dir": str(tmp_path)}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as opened:
            opened.app = app  # type: ignore[attr-defined]
            yield opened


def loaded() -> set[str]:
    """The files that the pages load: what their documents name, and what those import."""
    found: set[str] = set()
    for page in PAGES:
        named = re.findall(rf'="pages/{FILES.version}/([^"]+)"', FILES.page(page).content.decode())
        waiting = [f"{page}.html", *named]
        while waiting:
            name = waiting.pop()
            if name not in found and name.endswith(".js"):
                waiting += imported_by(name)
            found.add(name)
    return found


def imported_by(name: str) -> list[str]:
    folder = Path(name).parent
    text = FILES[name].content.decode()
    return [(folder / path).as_posix() for path in re.findall(r"""(?:from|import)\s*\(?\s*["']\./([^"']+)["']""", text)]


def test_both_pages_together_are_small() -> None:
    sizes = {name: len(FILES[name].packed) for name in loaded()}
    assert {"base/base.css", "vendor/preact.js", "base.js", "playground.js", "admin.js"} <= set(sizes)
    assert sum(sizes.values()) <= BUDGET, sorted(sizes.items(), key=lambda each: -each[1])


def test_every_file_that_a_page_loads_is_there() -> None:
    assert loaded() - set(FILES.names) == set()


def test_vendored_files_are_those_of_the_manifest_and_each_has_its_licence() -> None:
    folder = STATIC / "vendor"
    packages = json.loads((folder / "manifest.json").read_text())
    stated = {name: digest for package in packages for name, digest in package["files"].items()}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del found["manifest.json"]
    assert found == stated
    assert all(f"{package['name']}.LICENSE.txt" in package["files"] for package in packages)
    assert all(package["version"] and package["licence"] for package in packages)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_inline_script_or_style_and_no_absolute_address(page: str) -> None:
    text = FILES.page(page).content.decode()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text) == []
    addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert addresses
    assert [each for each in addresses if not each.startswith(f"pages/{FILES.version}/")] == []
    assert [each for each in addresses if each.removeprefix(f"pages/{FILES.version}/") not in FILES] == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_files_that_are_there_and_names_no_other_host(name: str) -> None:
    text = (STATIC / name).read_text()
    for address in re.findall(r"""(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""", text):
        assert (STATIC / name).parent.joinpath(address).resolve().is_file(), address
    assert re.findall(r"(?<!xmlns=\")https?://(?!www\.w3\.org)[a-z]", text) == []
    assert re.findall(r"\bdangerouslySetInnerHTML|\.innerHTML|\beval\(|new Function", text) == []


async def test_a_page_is_asked_for_again_and_its_files_are_kept_for_ever(client: httpx.AsyncClient) -> None:
    page = await client.get("/playground")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    again = await client.get("/playground", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    script = re.findall(r'src="(pages/[^"]+playground\.js)"', page.text)[0]
    file = await client.get(f"/{script}")
    assert file.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in file.headers["cache-control"]
    old = await client.get(f"/pages/0123/{script.split('/', 2)[2]}")
    assert old.content == file.content
    assert old.headers["cache-control"] == "no-cache"


async def test_every_file_wears_the_strict_headers(client: httpx.AsyncClient) -> None:
    for path in ("/playground", "/admin", f"/pages/{FILES.version}/base/base.css"):
        headers = (await client.get(path)).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "unsafe" not in POLICY


async def test_a_file_is_compressed_for_those_who_take_it(client: httpx.AsyncClient) -> None:
    path = f"/pages/{FILES.version}/base/base.css"
    async with client.stream("GET", path, headers={"accept-encoding": "gzip"}) as packed:
        raw = b"".join([piece async for piece in packed.aiter_raw()])
    plain = await client.get(path, headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(raw) == plain.content == lean_style((STATIC / "base/base.css").read_text()).encode()
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "name", ["nothing.js", "../routes.py", "..%2froutes.py", "%2e%2e/files.py", "playground.html/", ""]
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/pages/{FILES.version}/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_the_root_leads_browsers_to_the_playground_and_tells_others_what_is_here(
    client: httpx.AsyncClient,
) -> None:
    browser = await client.get("/", headers={"accept": "text/html,*/*"})
    assert (browser.status_code, browser.headers["location"]) == (307, "playground")
    assert (await client.get("/")).status_code == 404
    slash = await client.get("/playground/")
    assert (slash.status_code, slash.headers["location"]) == (307, "../playground")


async def test_pages_that_are_switched_off_are_not_there(client: httpx.AsyncClient, tmp_path: Path) -> None:
    settings = load(None, {}, {"data_dir": str(tmp_path), "pages": {"enabled": False}})
    replace_settings(client.app, settings)  # type: ignore[attr-defined]
    for path in ("/playground", "/playground/", "/admin", f"/pages/{FILES.version}/base/base.css"):
        assert (await client.get(path)).status_code == 404
    assert (await client.get("/", headers={"accept": "text/html"})).headers["location"] == "docs"


async def test_a_link_on_another_site_leads_to_a_page_without_keys_too(client: httpx.AsyncClient) -> None:
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "host": "gateway.example.com"}
    assert (await client.get("/playground", headers=foreign)).status_code == 200
    assert (await client.get("/v1/models", headers=foreign)).status_code == 403
