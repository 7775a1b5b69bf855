from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pybase64
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from app.errors import FetchError, Reason, UpstreamError
from app.upstream.addresses import Address, is_public
from app.upstream.downloads import Caps, Fetcher
from tests.upstream.test_addresses import PRIVATE, spellings
from tests.waiting import until

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1200
CERTIFICATE = Path(__file__).parent / "loopback.pem"
HOST = "images.test"
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the gateway itself runs


class Names(AbstractResolver):
    """Gives the answers it has, the last one again and again, and counts."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.answers.get(host)
        if not answers:
            raise OSError(f"{host} is not known")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0) for one in found]

    async def close(self) -> None:
        pass


class Net:
    """A host on loopback that passes for a public one, over https and http, and a fetcher that has to do with it."""

    def __init__(self) -> None:
        self.names = Names()
        self.names.answers[HOST] = [["127.0.0.1"]]
        self.requests: list[web.Request] = []
        self.answers: list[Answering] = []
        self.pauses: list[float] = []
        self.https = self.http = ""
        self.port = 0

    def fetcher(self, *, public: Callable[[Address], bool] | None = None, **caps: Any) -> Fetcher:
        trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
        return Fetcher(
            Caps(**caps),
            public=public or (lambda address: address == ip_address("127.0.0.1")),
            resolver=self.names,
            tls=trusting,
            proxies={},
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Net]:
        server = web.Server(self._answer)  # type: ignore[arg-type]
        runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await runner.setup()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(CERTIFICATE)
        sites = [web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context) for context in (tls, None)]
        for site in sites:
            await site.start()
        self.port, plain = (address[1] for address in runner.addresses)
        self.https, self.http = f"https://{HOST}:{self.port}", f"http://127.0.0.1:{plain}"
        try:
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with Net().serving() as running:
        yield running


def says(data: bytes = PNG, status: int = 200, media_type: str | None = "image/png", **headers: str) -> Answering:
    async def answer(request: web.Request) -> web.StreamResponse:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.Response(body=data, status=status, headers=told)
        if media_type:
            response.content_type = media_type
        return response

    return answer


def leads_to(url: str, status: int = 302) -> Answering:
    return says(b"", status, None, Location=url)


def trickles(pieces: AsyncGenerator[bytes, None] | None, length: int | None = None, cut: bool = False) -> Answering:
    """The pieces as they come; `cut`: then the connection breaks."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        if length is not None:
            response.content_length = length
        await response.prepare(request)
        if pieces is not None:
            try:
                async for piece in pieces:
                    await response.write(piece)
            except ConnectionError:
                pass
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return answer


def breaks() -> Answering:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return answer


async def slowly(count: int, seconds: float, piece: bytes = PNG[:100]) -> AsyncGenerator[bytes, None]:
    yield PNG[:100]
    for _ in range(count):
        await asyncio.sleep(seconds)
        yield piece


async def fetched(fetcher: Fetcher, url: str, origin: str | None = None) -> bytes:
    async with aclosing(fetcher.fetch(url, origin=origin)) as pieces:
        return b"".join([piece async for piece in pieces])


async def refused(fetcher: Fetcher, url: str, origin: str | None = None) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetched(fetcher, url, origin)
    assert "signature" not in str(caught.value)
    return caught.value


async def test_a_picture_is_fetched_in_pieces_from_a_public_host(net: Net) -> None:
    net.answers = [says()]
    async with net.fetcher() as fetcher:
        assert await fetched(fetcher, f"{net.https}/a%2Fb?signature=%41+b") == PNG
    assert net.requests[0].raw_path == "/a%2Fb?signature=%41+b"
    assert net.requests[0].host == f"{HOST}:{net.port}"


async def test_as_base64_the_pieces_are_one_text(net: Net) -> None:
    for data in (PNG, PNG[:-1], PNG[:-2], PNG[:9]):
        net.answers = [says(data)]
        async with net.fetcher() as fetcher:
            text = b"".join([piece async for piece in fetcher.as_base64(f"{net.https}/x")])
        assert text == pybase64.b64encode(data)


async def test_nothing_that_is_sent_reveals_the_asker(
    net: Net, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    net.answers = [leads_to("/next"), says(Set_Cookie="a=b"), says()]
    net.answers[0] = says(b"", 302, None, Location="/next", Set_Cookie="a=b")
    async with net.fetcher() as fetcher:
        await fetched(fetcher, f"{net.https}/x")
        await fetched(fetcher, f"{net.http}/x", net.http)
    assert len(net.requests) == 3
    for request in net.requests:
        assert dict(request.headers) == {
            "Host": request.host,
            "User-Agent": "image-gateway",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }


# --- where it may go ---


@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_that_is_not_public_is_refused_written_out_or_behind_a_name(address: str) -> None:
    names = Names()
    names.answers["evil.test"] = [[address]]
    names.answers["mixed.test"] = [["8.8.8.8", address]]
    literal = f"[{address.replace('%', '%25')}]" if ":" in address else address
    async with Fetcher(resolver=names, proxies={}) as fetcher:
        for host in (literal, "evil.test", "mixed.test"):
            error = await refused(fetcher, f"https://{host}/x?signature=1")
            assert error.reason is Reason.PRIVATE, host
            assert not error.may_pass
    assert names.asked == ["evil.test", "mixed.test"]


@pytest.mark.parametrize(
    "host", ["2130706433", "127.1", "0177.0.0.1", "0x7f000001", "0x7f.1", "127.0.0.1.", "①②⑦.0.0.1"]
)
async def test_an_address_in_disguise_is_refused(net: Net, host: str) -> None:
    async with Fetcher(resolver=net.names, proxies={}) as fetcher:
        assert (await refused(fetcher, f"https://{host}:{net.port}/x")).reason is Reason.PRIVATE
    assert net.requests == []


async def test_no_odd_host_gets_round_the_resolver(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: Any, **__: Any) -> Any:
        raise AssertionError("a name was looked up without the check")

    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", look_up, raising=False)
    net.names.answers["evil.test"] = [["127.0.0.1"]]
    async with Fetcher(resolver=net.names, proxies={}, sleep=net.sleep) as fetcher:
        for host in ("[v1.a:.host]", "[v1.evil.test:]", "[:]", "[::1%25lo]", "evil.test", "evil.test.", "EVIL.test"):
            error = await refused(fetcher, f"https://{host}:{net.port}/x?signature=1")
            assert error.reason in (Reason.PRIVATE, Reason.URL, Reason.LOST), host
    assert net.requests == []


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0"])
async def test_an_address_that_is_not_public_is_refused_in_each_spelling(net: Net, address: str) -> None:
    async with net.fetcher(public=is_public) as fetcher:
        for host in spellings(address):
            net.answers = [leads_to(f"https://{host}/x")]
            for url in (f"https://{host}/x", f"https://{HOST}:{net.port}/x"):
                assert (await refused(fetcher, url)).reason in (Reason.PRIVATE, Reason.URL), host
    assert net.requests == []


async def test_a_name_that_changes_its_address_after_the_check_is_checked_again(net: Net) -> None:
    net.answers = [says(Connection="close")]
    net.names.answers[HOST] = [["127.0.0.1"], ["127.0.0.2"]]
    async with net.fetcher() as fetcher:
        assert await fetched(fetcher, f"{net.https}/x") == PNG
        assert net.names.asked == [HOST]  # once for the check and the connection together
        assert net.requests[0].transport is None or len(net.requests) == 1
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.PRIVATE
    assert len(net.requests) == 1


async def test_each_redirect_is_checked_anew(net: Net) -> None:
    net.names.answers["evil.test"] = [["10.0.0.1"]]
    async with net.fetcher() as fetcher:
        for target, reason in (
            ("https://evil.test/", Reason.PRIVATE),
            ("https://10.0.0.1/", Reason.PRIVATE),
            ("https://[::1]/", Reason.PRIVATE),
            (f"http://{HOST}/", Reason.URL),
            (net.http, Reason.URL),
            ("//evil.test/x", Reason.PRIVATE),
            ("file:///etc/passwd", Reason.URL),
            ("https://u:p@images.test/", Reason.URL),
            ("https://[", Reason.URL),
            ("", Reason.REDIRECTS),
        ):
            net.requests.clear()
            net.answers = [leads_to(target)]
            assert (await refused(fetcher, f"{net.https}/x")).reason is reason, target
            assert len(net.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_three_redirects_are_followed_and_a_fourth_is_not(net: Net, status: int) -> None:
    async with net.fetcher() as fetcher:
        net.answers = [*[leads_to(f"../{n}", status) for n in range(3)], says()]
        assert await fetched(fetcher, f"{net.https}/a/b/c") == PNG
        net.answers = [leads_to("/again", status)]
        net.requests.clear()
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.REDIRECTS
        assert len(net.requests) == 4


async def test_without_tls_only_the_providers_own_host_is_asked(net: Net) -> None:
    net.answers = [says()]
    own = f"{net.http}/v1"
    async with net.fetcher(public=lambda address: False) as fetcher:
        assert await fetched(fetcher, f"{net.http}/images/1", own) == PNG
        assert await fetched(fetcher, "/images/1", own) == PNG
        assert net.requests[-1].path == "/images/1"
        for origin in (None, net.http.replace("127.0.0.1", "127.0.0.2"), net.http + "1", "https" + net.http[4:]):
            assert (await refused(fetcher, f"{net.http}/images/1", origin)).reason is Reason.URL
        assert (await refused(fetcher, f"https://127.0.0.1:{net.port}/", own)).reason is Reason.PRIVATE
    assert len(net.requests) == 2


async def test_a_connection_to_one_providers_host_is_not_lent_to_another(net: Net) -> None:
    net.answers = [says()]
    home = f"https://127.0.0.1:{net.port}"
    async with net.fetcher(public=lambda address: False) as fetcher:
        assert await fetched(fetcher, f"{home}/x", home) == PNG
        assert (await refused(fetcher, f"{home}/x", "https://other.test/v1")).reason is Reason.PRIVATE
    assert len(net.requests) == 1


async def test_a_certificate_that_is_not_good_is_refused(net: Net) -> None:
    net.answers = [says()]
    net.names.answers["other.test"] = [["127.0.0.1"]]
    async with net.fetcher() as fetcher:
        assert (await refused(fetcher, f"https://other.test:{net.port}/x")).reason is Reason.LOST
    assert net.requests == []


async def test_behind_a_proxy_visibly_private_hosts_are_refused_and_the_proxy_checks_the_others(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    asked = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().split()[:2])
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Fetcher(resolver=net.names, proxies={"https": address}, sleep=net.sleep) as fetcher:
        for host in ("10.0.0.1", "[::1]", "0x7f.1", "localhost", "a.localhost", "metadata.google.internal", "db"):
            assert (await refused(fetcher, f"https://{host}/x")).reason is Reason.PRIVATE
        assert asked == []
        assert (await refused(fetcher, "https://cdn.test/x")).reason is Reason.LOST
    assert asked[0] == ["CONNECT", "cdn.test:443"]
    assert net.names.asked == []


# --- what it takes ---


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "text/plain"),
        (PNG, "image/jpeg"),
        (PNG, None),
        (b"unknown" * 20, "image/x-new"),
        (b"unknown" * 20, "application/octet-stream"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text/xml"),
    ],
)
async def test_an_image_is_recognised_by_its_bytes_and_else_by_its_type(
    net: Net, data: bytes, media_type: str | None
) -> None:
    net.answers = [says(data, media_type=media_type)]
    async with net.fetcher() as fetcher:
        assert await fetched(fetcher, f"{net.https}/x") == data


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"<!doctype html><p>Log in</p>", "text/html"),
        (b"<html>", "image/png"),
        (b'{"error": 1}', "application/json"),
        (b"%PDF-1.7", "image/png"),
        (b"unknown" * 20, "text/plain"),
        (b"", "image/png"),
    ],
)
async def test_a_file_that_is_no_image_is_refused(net: Net, data: bytes, media_type: str) -> None:
    net.answers = [says(data, media_type=media_type)]
    async with net.fetcher() as fetcher:
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.NO_IMAGE
    assert net.pauses == []


async def test_a_compressed_answer_is_refused(net: Net) -> None:
    net.answers = [says(Content_Encoding="gzip")]
    async with net.fetcher() as fetcher:
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.NO_IMAGE


async def test_a_file_that_is_announced_as_too_large_is_not_begun(net: Net) -> None:
    net.answers = [says()]
    async with net.fetcher(max_bytes=len(PNG) - 1) as fetcher:
        with pytest.raises(FetchError) as caught:
            await anext(fetcher.fetch(f"{net.https}/x"))
        assert caught.value.reason is Reason.TOO_LARGE
    async with net.fetcher(max_bytes=len(PNG)) as fetcher:
        assert await fetched(fetcher, f"{net.https}/x") == PNG


async def test_a_file_that_does_not_end_is_cut_off(net: Net) -> None:
    net.answers = [trickles(slowly(10**9, 0, bytes(50_000)))]
    taken = 0
    async with net.fetcher(max_bytes=1_000_000) as fetcher:
        with pytest.raises(FetchError) as caught:
            async with aclosing(fetcher.fetch(f"{net.https}/x")) as pieces:
                async for piece in pieces:
                    taken += len(piece)
    assert caught.value.reason is Reason.TOO_LARGE
    assert taken <= 1_000_000


async def test_silence_is_cut_off_before_and_in_the_middle(net: Net) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(20)
        return web.Response()

    async with net.fetcher(idle=0.1) as fetcher:
        net.answers = [never]
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.TIMED_OUT
        assert len(net.requests) == 3
        net.requests.clear()
        net.answers = [trickles(slowly(1, 20))]
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.TIMED_OUT
        assert len(net.requests) == 1


async def test_a_drip_is_cut_off_in_all(net: Net) -> None:
    net.answers = [trickles(slowly(1000, 0.05))]
    async with net.fetcher(idle=600, total=0.3) as fetcher:
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.TIMED_OUT


async def test_a_host_that_is_slower_than_the_least_rate_is_cut_off(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.patience.GRACE_SECONDS", 0.1)
    net.answers = [trickles(slowly(1000, 0.02))]
    async with net.fetcher() as fetcher:
        with pytest.raises(FetchError) as caught:
            async with aclosing(fetcher.fetch(f"{net.https}/x", rate=1_000_000)) as pieces:
                assert [piece async for piece in pieces]
    assert caught.value.reason is Reason.TIMED_OUT


async def test_a_reader_may_take_longer_than_the_host(net: Net) -> None:
    net.answers = [says(PNG * 4)]
    async with net.fetcher(idle=0.2, total=0.5) as fetcher:
        read = 0
        async with aclosing(fetcher.fetch(f"{net.https}/x")) as pieces:
            async for piece in pieces:
                if read < 300_000:
                    await asyncio.sleep(0.3)
                read += len(piece)
    assert read == len(PNG) * 4


async def test_a_name_that_takes_too_long_to_look_up_is_given_up(net: Net) -> None:
    class Silent(Names):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
            await asyncio.sleep(20)
            return []

    async with Fetcher(Caps(connect=0.05), resolver=Silent(), proxies={}, sleep=net.sleep) as fetcher:
        assert (await refused(fetcher, "https://slow.test/")).reason is Reason.TIMED_OUT


# --- what is tried again ---


@pytest.mark.parametrize("failing", [says(b"", 503), says(b"", 429), says(b"", 500)], ids=["503", "429", "500"])
async def test_a_download_that_failed_is_tried_twice_more(net: Net, failing: Answering) -> None:
    net.answers = [failing, failing, says()]
    async with net.fetcher() as fetcher:
        assert await fetched(fetcher, f"{net.https}/x") == PNG
        net.answers = [failing]
        net.requests.clear()
        assert (await refused(fetcher, f"{net.https}/x")).may_pass
    assert len(net.requests) == 3
    assert net.pauses == [0.25, 1.0] * 2


async def test_a_connection_that_broke_is_tried_again(net: Net) -> None:
    net.answers = [breaks(), breaks(), breaks(), says()]
    async with net.fetcher() as fetcher:
        assert await fetched(fetcher, f"{net.https}/x") == PNG
        net.answers = [breaks()]
        net.requests.clear()
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.LOST
    assert len(net.requests) == 6  # aiohttp itself asks twice each time


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 206, 304])
async def test_a_refusal_is_final(net: Net, status: int) -> None:
    net.answers = [says(b"", status)]
    async with net.fetcher() as fetcher:
        error = await refused(fetcher, f"{net.https}/x")
    assert (error.reason, error.status) == (Reason.STATUS, status)
    assert len(net.requests) == 1


async def test_a_host_that_is_not_known_is_tried_again(net: Net) -> None:
    async with net.fetcher() as fetcher:
        error = await refused(fetcher, "https://unknown.test/")
    assert error.reason is Reason.LOST
    assert "not known" in str(error)
    assert net.names.asked == ["unknown.test"] * 3


async def test_once_a_piece_was_passed_on_nothing_is_tried_again(net: Net) -> None:
    net.answers = [trickles(slowly(3, 0.01), length=5000, cut=True)]
    async with net.fetcher() as fetcher:
        assert (await refused(fetcher, f"{net.https}/x")).reason is Reason.LOST
    assert len(net.requests) == 1


async def test_a_body_shorter_than_announced_is_an_error_not_an_image(net: Net) -> None:
    net.answers = [trickles(slowly(3, 0), length=5000, cut=True)]
    async with net.fetcher() as fetcher:
        text = b""
        with pytest.raises(UpstreamError, match=r"the image behind its link could not be had: at .* broke off"):
            async for piece in fetcher.as_base64(f"{net.https}/x"):
                text += piece
        assert len(pybase64.b64decode(text)) < 5000


async def test_leaving_in_the_middle_closes_the_connection(net: Net) -> None:
    net.answers = [trickles(slowly(10**9, 0, bytes(50_000)))]
    async with net.fetcher() as fetcher:
        pieces = fetcher.as_base64(f"{net.https}/x")
        assert await anext(pieces)
        await pieces.aclose()
        await until(lambda: net.requests[0].transport is None)
