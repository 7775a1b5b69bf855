"""Asking providers for their models: simulated ones, and raw servers that refuse, hang up, are silent or talk on."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.catalog.profiles import Timeouts
from app.commands.probe import LONGEST_LIST, TIMEOUTS, Finding, Outcome, ask, names, questions
from app.commands.report import online_report
from app.config import inventory
from app.config.loading import load
from app.config.simulated import with_sandbox
from app.dialects import load as load_dialect
from app.sandbox.server import Sandbox
from tests.live.loops import bound, dead_port
from tests.live.scripted import End, Scripted, Step, answer, head
from tests.waiting import until

KEY = "a-key/of+no_known:shape"
QUICK = Timeouts(connect=1, read=0.2, total=1)
CERTIFICATE = Path(__file__).parents[1] / "upstream" / "loopback.pem"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as running:
        yield running
        seen = running.all_received()
        assert {received.method for received in seen} <= {"GET"}
        assert all(received.body == b"" for received in seen)


@pytest.fixture
def probe(tmp_path: Path) -> Any:
    async def probe(base_url: str, timeouts: Timeouts = TIMEOUTS, **entry: Any) -> Finding:
        """Ask the provider `host`, with the models `one` and `two`, the latter under another name."""
        deployed = {"one": {"provider": "host"}, "2": {"provider": "host", "model": "two"}}
        config = {
            "providers": {"host": {"base_url": base_url, "api_key": KEY, **entry}},
            "models": {name: {"deployments": [deployment]} for name, deployment in deployed.items()},
        }
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps(config))
        settings = load(path, {})
        models = inventory.models(settings, lambda name: load_dialect(name).profile)
        [finding] = await ask(questions(settings, models), timeouts)
        told = online_report([finding])
        assert KEY not in told + repr(finding)
        assert told.startswith("online\n  host  ")
        return finding

    return probe


# --- simulated providers ---


async def test_the_presets_lists_are_read_and_nothing_is_drawn() -> None:
    async with Sandbox() as sandbox:
        settings = with_sandbox(load(None, {}), sandbox.base_url)
        models = inventory.models(settings, lambda name: load_dialect(name).profile)
        findings = {finding.provider: finding for finding in await ask(questions(settings, models))}
        assert (sandbox.world.journal.drawings, sandbox.world.journal.last(9)) == (
            dict.fromkeys(("netmind", "nebula", "nebul", "openai", "bfl"), 0),
            [],
        )
    assert list(findings) == ["netmind", "nebula", "nebul", "bfl", "openai"]
    counts = {name: (finding.outcome, finding.count, finding.not_listed) for name, finding in findings.items()}
    assert counts == {
        "netmind": (Outcome.UNLISTED, 0, ()),  # the simulation has none
        "nebula": (Outcome.LISTED, 5, ()),
        "nebul": (Outcome.LISTED, 1, ()),
        "bfl": (Outcome.CONNECTED, 0, ()),  # the provider has none
        "openai": (Outcome.LISTED, 1, ()),
    }
    assert all(finding.usable for finding in findings.values())


# --- what is asked ---


async def test_the_list_is_asked_for_once_with_the_credential_and_headers(server: Scripted, probe: Any) -> None:
    url = server.at("a", answer({"data": [{"id": "one"}, {"id": "two"}]}))
    assert await probe(url, headers={"x-team": "art"}) == Finding("host", Outcome.LISTED, count=2)
    [received] = server.received("a")
    assert (received.method, received.target, received.body) == ("GET", "/a/v1/models", b"")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert (received.headers["x-team"], received.headers["user-agent"]) == ("art", "image-gateway")


async def test_a_path_of_its_own_is_asked(server: Scripted, probe: Any) -> None:
    await probe(server.at("a", answer({"data": []})), models_path="/list?kind=image")
    assert server.received("a")[0].target == "/a/v1/list?kind=image"


@pytest.mark.parametrize("status", [200, 401, 404, 500])
async def test_without_a_path_any_answer_will_do_and_no_credential_is_sent(
    server: Scripted, probe: Any, status: int
) -> None:
    url = server.at("a", answer(b"<html>", status, "text/html"))
    finding = await probe(url, models_path=None, headers={"x-key": KEY})
    assert (finding.outcome, finding.usable) == (Outcome.CONNECTED, True)
    [received] = server.received("a")
    assert (received.method, received.target) == ("GET", "/a/v1")
    assert KEY not in str(received.headers)


async def test_a_dialect_of_its_own_has_no_list_unless_it_is_told(server: Scripted, probe: Any) -> None:
    assert (await probe(server.at("a", answer(b"")), dialect="nebula_block")).outcome is Outcome.CONNECTED


async def test_all_are_asked_at_once(server: Scripted, tmp_path: Path) -> None:
    going = asyncio.Event()
    urls = {name: server.at(name, going, answer({"data": []})) for name in ("a", "b", "c")}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"providers": {name: {"base_url": url} for name, url in urls.items()}}))
    asking = asyncio.create_task(ask(questions(load(path, {}), ())))
    await until(lambda: all(server.received(name) for name in urls))
    going.set()
    assert [finding.provider for finding in await asking] == ["a", "b", "c"]


# --- what is listed ---


async def test_a_model_that_is_not_listed_is_a_warning(server: Scripted, probe: Any) -> None:
    finding = await probe(server.at("a", answer({"data": [{"id": "one"}, {"id": "2"}]})))
    assert (finding.not_listed, finding.usable) == (("two",), True)
    assert online_report([finding]) == (
        "online\n  host  reachable; credential not refused; 2 models listed\n        warning: 'two' is not listed\n"
    )


async def test_an_open_list_without_a_credential_is_told_as_such(server: Scripted, probe: Any) -> None:
    finding = await probe(server.at("a", answer({"data": [{"id": "one"}]})), api_key=None)
    assert "reachable; no credential sent; 1 model listed" in online_report([finding])


async def test_a_compressed_list_is_read(server: Scripted, probe: Any) -> None:
    body = gzip.compress(json.dumps({"data": [{"id": "one"}]}).encode())
    assert (await probe(server.at("a", answer(body, content_encoding="gzip")))).count == 1


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}, {("a",), ("b",)}),
        ({"data": [{"model_name": "a", "model_info": {}}]}, {("a",)}),
        ({"data": {"models": [{"model_name": "x/a", "model_alias": "a", "price": 1}]}}, {("a", "x/a")}),
        ({"models": [{"name": "a"}]}, {("a",)}),
        (["a", "b"], {("a",), ("b",)}),
        ({"data": []}, set()),
        ({"data": [{"id": 1}, None, 7, ""]}, None),
        ({"data": {"other": []}}, None),
        ({"data": None}, None),
        ({"message": "welcome"}, None),
        ("models", None),
        (None, None),
    ],
)
def test_lists_of_every_known_shape_are_read(document: Any, expected: set[tuple[str, ...]] | None) -> None:
    found = names(document)
    assert (None if found is None else {tuple(sorted(item)) for item in found}) == expected


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([answer(b"<html>Welcome</html>", type="text/html")], "is no list of models; correct `models_path`"),
        ([answer(b"[" * 200_000)], "is no list of models"),
        ([answer(b"")], "is no list of models"),
        ([answer({"detail": "Not Found"}, 404)], "status 404: Not Found at '/models'; correct `models_path`"),
        ([answer(b"", 503)], "status 503 at '/models'"),
        ([answer(b"", 302, location="http://elsewhere/")], "it redirects"),
        ([head(content_length="100"), b"{", End.CLOSE], "did not come whole: the connection was lost"),
        ([head(content_length="100"), b"{", End.HANG], "did not come whole: it fell silent"),
        ([answer(b"x", content_encoding="br")], "did not come whole: the answer's Content-Encoding is 'br'"),
    ],
)
async def test_an_answer_that_is_no_list_leaves_the_provider_reachable(
    server: Scripted, probe: Any, steps: list[Step], why: str
) -> None:
    finding = await probe(server.at("a", *steps), QUICK)
    assert (finding.outcome, finding.usable) == (Outcome.UNLISTED, True)
    assert why in finding.why


async def test_a_huge_list_is_not_read_to_its_end(server: Scripted, probe: Any) -> None:
    piece = b" " * 65_536
    url = server.at("a", head(connection="close"), *[piece] * 1000, End.HANG)
    finding = await probe(url)
    assert finding.why == f"its list is longer than {LONGEST_LIST} bytes, and was not read"
    await until(lambda: not server.connections)


# --- refusals, and providers that are not there ---


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_is_told_without_quoting_it(server: Scripted, probe: Any, status: int) -> None:
    said = {"error": {"message": f"Wrong key {KEY}, and not sk-abcdefghijkl.\x1b[31m\nSee {KEY[:-1]}."}}
    body = json.dumps(said).replace("/", r"\/").encode()
    finding = await probe(server.at("a", answer(body, status)))
    assert (finding.outcome, finding.usable) == (Outcome.REFUSED, False)
    told = online_report([finding])
    assert f"host  CREDENTIAL REFUSED  status {status}: Wrong key […], and not […]" in told
    assert "sk-abc" not in told
    assert "\x1b" not in told
    assert len(told.splitlines()) == 2


async def test_a_credential_in_a_header_is_not_quoted_either(server: Scripted, probe: Any) -> None:
    url = server.at("a", answer({"error": "Unknown user c2VjcmV0."}, 401))
    finding = await probe(url, api_key=None, headers={"authorization": "Basic c2VjcmV0"})
    assert finding.why == "status 401: Unknown user […]. at '/models'"


async def test_a_missing_credential_is_told_as_such(server: Scripted, probe: Any) -> None:
    finding = await probe(server.at("a", answer(b"", 401)), api_key=None)
    assert "host  CREDENTIAL MISSING  status 401" in online_report([finding])


async def test_a_missing_provider_is_reported(probe: Any) -> None:
    finding = await probe(f"http://127.0.0.1:{dead_port()}/v1")
    assert finding == Finding("host", Outcome.UNREACHABLE, "connect: nobody listens there")
    assert online_report([finding]) == "online\n  host  NOT REACHABLE  connect: nobody listens there\n"


async def test_a_name_that_is_not_known_is_told(probe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert (await probe("https://nowhere.invalid/v1")).why == "DNS: its name is not known here"


@pytest.mark.parametrize("steps", [[End.HANG], [b"HTTP/1.1 200", End.HANG]])
async def test_silence_is_told(server: Scripted, probe: Any, steps: list[Step]) -> None:
    finding = await probe(server.at("a", *steps), QUICK)
    assert (finding.outcome, finding.why) == (Outcome.UNREACHABLE, "timeout: no answer within 0.2 seconds")


async def test_a_list_that_drips_is_given_up(server: Scripted, probe: Any) -> None:
    drops: list[Step] = [step for _ in range(50) for step in (b" ", 0.1)]
    finding = await probe(server.at("a", head(connection="close"), *drops), QUICK)
    assert "did not come whole: it fell silent" in finding.why


@pytest.mark.parametrize("steps", [[End.CLOSE], [End.RESET], [b"SSH-2.0-x\r\n\r\n"]])
async def test_a_server_that_hangs_up_or_speaks_otherwise_is_told(
    server: Scripted, probe: Any, steps: list[Step]
) -> None:
    finding = await probe(server.at("a", *steps))
    assert finding.outcome is Outcome.UNREACHABLE
    assert finding.why == "the connection was lost before the answer began"


async def test_no_handshake_in_time_is_told(probe: Any) -> None:
    with bound() as listener:
        listener.listen()
        finding = await probe(f"https://127.0.0.1:{listener.getsockname()[1]}", Timeouts(connect=0.2, read=5, total=5))
    assert finding.why == "timeout: no connection within 0.2 seconds"


async def test_a_certificate_that_is_not_trusted_is_told(probe: Any) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    listener = bound()
    running = await asyncio.start_server(lambda _, writer: writer.close(), sock=listener, ssl=context)
    try:
        finding = await probe(f"https://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        running.close()
    assert finding.why.startswith("TLS: its certificate is not trusted: ")


async def test_a_server_without_tls_is_told(server: Scripted, probe: Any) -> None:
    listener = bound()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    running = await asyncio.start_server(plain, sock=listener)
    try:
        finding = await probe(f"https://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        running.close()
    assert finding.why.startswith("TLS: ")
