from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from app.api.files import FileEndpoint, base_url, parse_range
from app.api.layers import Envelope, Frame
from app.storage.disk import DiskStore
from app.storage.files import StoredFile
from app.storage.signed_urls import Signer
from tests.waiting import until

pytestmark = pytest.mark.anyio
DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4000  # about 1 MB: more than one piece


class Journal:
    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def request(self, line: dict[str, object]) -> None:
        self.lines.append(line)

    def crash(self, request_id: str, error: BaseException) -> None:
        raise AssertionError(request_id) from error


class Site:
    """A server with a store, on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = 1000.0
        self.journal = Journal()
        self.store = DiskStore(directory, lifetime=100, max_bytes=100_000_000, clock=lambda: self.now)
        self.signer = Signer(b"s" * 32, lambda: self.now)
        self.port = 0

    async def put(self, data: bytes = DATA, media_type: str = "image/png") -> StoredFile:
        writer = await self.store.begin()
        await writer.write(data)
        return await writer.commit(media_type)

    def link(self, file: StoredFile) -> str:
        return self.signer.url("", "ci", file)

    async def ask(self, target: str, method: str = "GET", **headers: str) -> Reply:
        return await asyncio.to_thread(self._ask, target, method, headers)

    def _ask(self, target: str, method: str, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, target, headers={name.replace("_", "-"): v for name, v in headers.items()})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Site]:
        resources = SimpleNamespace(store=self.store, signer=self.signer, clock=lambda: self.now)
        runtime: Any = SimpleNamespace(resources=resources)
        app = Starlette(routes=[Route("/files/{name}", FileEndpoint(lambda: runtime), methods=["GET"])])
        app.add_middleware(Envelope, journal=self.journal)
        app.add_middleware(Frame, journal=self.journal, new_id=lambda: "req_1")
        config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        self.port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await server.shutdown()


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path).serving() as running:
        yield running


async def test_a_link_gives_the_image_to_anybody_who_has_it(site: Site) -> None:
    file = await site.put()
    reply = await site.ask(site.link(file))
    assert reply.status == 200
    assert reply.body == DATA
    wanted = {
        "content-type": "image/png",
        "content-length": str(len(DATA)),
        "cache-control": "private, max-age=100, immutable",
        "content-disposition": f'inline; filename="{file.name}"',
        "x-content-type-options": "nosniff",
        "access-control-allow-origin": "*",
        "accept-ranges": "bytes",
        "etag": f'"{file.id}"',
    }
    assert {name: reply.headers[name] for name in wanted} == wanted
    await until(lambda: site.journal.lines)  # it is written when the answer has left
    assert site.journal.lines[0]["bytes"] == len(DATA)
    assert "signature" not in json.dumps(site.journal.lines)


async def test_an_svg_can_neither_run_nor_load_anything(site: Site) -> None:
    reply = await site.ask(site.link(await site.put(b"<svg/>", "image/svg+xml")))
    assert reply.headers["content-type"] == "image/svg+xml"
    policy = [part.strip() for part in reply.headers["content-security-policy"].split(";")]
    assert {"default-src 'none'", "sandbox"} <= set(policy)
    assert not any(part.startswith(("script-src", "sandbox ", "connect-src", "img-src")) for part in policy)


async def test_how_long_it_may_be_kept_is_what_is_left_of_its_time(site: Site) -> None:
    file = await site.put()
    site.now += 99.5
    assert (await site.ask(site.link(file))).headers["cache-control"] == "private, max-age=0, immutable"


async def test_head_tells_the_same_without_the_image(site: Site) -> None:
    link = site.link(await site.put())
    told, whole = await site.ask(link, "HEAD"), await site.ask(link)
    assert (told.status, told.body) == (200, b"")
    assert set(told.headers) == set(whole.headers)
    assert told.headers["content-length"] == str(len(DATA))


async def test_an_expired_link_a_changed_one_and_a_vanished_file_are_told_apart(site: Site) -> None:
    file, gone = await site.put(), await site.put()
    link, other = site.link(file), site.link(gone)
    next(path for path in site.directory.iterdir() if path.name == gone.name).unlink()
    for target, status, code in (
        (other, 404, "file_not_found"),
        (link[:-1] + ("0" if link[-1] != "0" else "1"), 403, "url_invalid"),
        (link.partition("?")[0], 403, "url_invalid"),
    ):
        reply = await site.ask(target)
        assert (reply.status, reply.code) == (status, code)
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-request-id"] == "req_1"
        assert reply.headers["x-should-retry"] == "false" if status == 403 else True
    site.now += 200
    reply = await site.ask(link)
    assert (reply.status, reply.code) == (403, "url_expired")


def tricks(file: StoredFile, query: str) -> Iterator[str]:
    for path in (
        f"/files/../files/{file.name}",
        f"/files/./{file.name}",
        f"/files//{file.name}",
        f"/files/..%2f{file.name}",
        f"/files/x%2f..%2f{file.name}",
        "/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        f"/files/{file.name}%00",
        f"/files/{file.name}%0a",
        f"/files/{file.name}.png",
        f"/files/{file.name}/",
        f"/files/{file.name.upper()}",
        f"/files/{file.id}.svg",
        f"/files/{file.id}",
        f"/files/{file.id}.PNG",
        f"/FILES/{file.name}",
        "/files/",
        "/files",
    ):
        yield f"{path}?{query}"
    yield f"/files/{file.name}?{query}&{query}"
    yield f"/files/{file.name}?{query}&expires=99999999999"
    yield f"/files/{file.name}?{query}&"


async def test_tricks_with_the_path_and_the_query_are_refused(site: Site) -> None:
    file = await site.put()
    query = urlsplit(site.link(file)).query
    for target in tricks(file, query):
        reply = await site.ask(target)
        assert reply.status in (307, 403, 404), target
        assert DATA[:8] not in reply.body, target
        assert reply.status != 307 or "location" in reply.headers


@pytest.mark.parametrize(
    ("said", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=300000-", 300_000, len(DATA)),
        ("bytes=-5", len(DATA) - 5, len(DATA)),
        ("bytes=5-99999999999", 5, len(DATA)),
        ("bytes=-99999999999", 0, len(DATA)),
        ("Bytes = 1 - 2", 1, 3),
    ],
)
async def test_a_range_is_answered_with_that_part(site: Site, said: str, first: int, end: int) -> None:
    reply = await site.ask(site.link(await site.put()), range=said)
    assert reply.status == 206
    assert reply.body == DATA[first:end]
    assert reply.headers["content-range"] == f"bytes {first}-{end - 1}/{len(DATA)}"
    assert reply.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("said", [f"bytes={len(DATA)}-", "bytes=-0", "bytes=9999999999-99999999999"])
async def test_a_range_outside_of_the_image_is_refused_with_its_size(site: Site, said: str) -> None:
    reply = await site.ask(site.link(await site.put()), range=said)
    assert (reply.status, reply.code) == (416, "range_not_satisfiable")
    assert reply.headers["content-range"] == f"bytes */{len(DATA)}"
    assert reply.headers["content-type"] == "application/json"
    assert "content-security-policy" not in reply.headers


@pytest.mark.parametrize("said", ["bytes=0-1,5-6", "bytes=", "bytes=-", "lines=1-2", "bytes=5-2", "bytes=x-1", "5-6"])
async def test_what_is_no_single_range_is_answered_whole(site: Site, said: str) -> None:
    reply = await site.ask(site.link(await site.put()), range=said)
    assert (reply.status, reply.body) == (200, DATA)


@pytest.mark.parametrize(
    "said",
    [
        "bytes=1-{}",
        "bytes=1-{}x",
        "bytes={}x",
        "bytes=-{}5",
        "bytes={}-5",
        "bytes{}=0-1",
        "{}bytes=0-1",
        "bytes=0-1{}",
        "bytes=0-1{}x",
    ],
)
def test_a_long_range_is_answered_whole_and_at_once(said: str) -> None:
    began = time.process_time()
    assert parse_range(said.format(" " * 100_000), 1000) is None
    assert time.process_time() - began < 5  # 40 s if white space were tried in every way
    assert parse_range(said.format(" " * 9), 1000) is not None or said.endswith("x")


async def test_head_has_no_ranges(site: Site) -> None:
    link = site.link(await site.put())
    for said in ("bytes=0-1", f"bytes={len(DATA)}-"):
        reply = await site.ask(link, "HEAD", range=said)
        assert (reply.status, reply.headers["content-length"]) == (200, str(len(DATA)))
        assert "content-range" not in reply.headers


async def test_a_range_of_another_version_is_answered_whole(site: Site) -> None:
    file = await site.put()
    assert (await site.ask(site.link(file), range="bytes=0-1", if_range='"other"')).status == 200
    assert (await site.ask(site.link(file), range="bytes=0-1", if_range=f'"{file.id}"')).status == 206


async def test_who_has_it_already_is_not_sent_it_again(site: Site) -> None:
    file = await site.put()
    for said in (f'"{file.id}"', f'W/"{file.id}"', f'"x", "{file.id}"', "*"):
        reply = await site.ask(site.link(file), if_none_match=said, range="bytes=0-1")
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["etag"] == f'"{file.id}"'
    assert (await site.ask(site.link(file), if_none_match='"other"')).status == 200


async def test_a_file_that_vanishes_while_it_is_sent_is_sent_to_its_end(site: Site) -> None:
    data = bytes(20_000_000)
    link = site.link(await site.put(data))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=65_536)
    writer.write(f"GET {link} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    site.now += 1000
    site.store.sweep()
    assert list(site.directory.iterdir()) == []
    assert len(await reader.read(-1)) == len(data)
    writer.close()
    await writer.wait_closed()


async def test_a_reader_who_leaves_stops_the_sending(site: Site) -> None:
    link = site.link(await site.put(bytes(50_000_000)))
    _, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=65_536)
    writer.write(f"GET {link} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    await asyncio.sleep(0.1)
    writer.transport.abort()
    await until(lambda: site.journal.lines)
    assert site.journal.lines[0]["error"] == "client_gone"
    assert int(str(site.journal.lines[0]["bytes"])) < 50_000_000


async def test_other_methods_are_not_allowed(site: Site) -> None:
    assert (await site.ask(site.link(await site.put()), "DELETE")).status == 405


@pytest.mark.parametrize(
    ("host", "root", "public", "wanted"),
    [
        (b"gateway:8000", "", None, "https://gateway:8000"),
        (b"[::1]:8000", "/images/", None, "https://[::1]:8000/images"),
        (b'a b"><script>', "", None, "https://10.0.0.1:80"),
        (b"evil.test/path?", "", None, "https://10.0.0.1:80"),
        (b"gateway", "/x", "https://public.test/gw", "https://public.test/gw"),
    ],
)
def test_links_begin_with_the_public_address_or_the_one_that_was_called(
    host: bytes, root: str, public: str | None, wanted: str
) -> None:
    scope = {"scheme": "https", "headers": [(b"host", host)], "server": ("10.0.0.1", 80), "root_path": root}
    assert base_url(scope, public) == wanted


def test_links_have_a_beginning_even_without_a_host_header() -> None:
    assert base_url({"scheme": "http", "headers": [], "server": ("::1", 8000)}, None) == "http://[::1]:8000"
    assert base_url({"scheme": "http", "headers": [], "server": None}, None) == "http://localhost"
