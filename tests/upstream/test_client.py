"""Sending to providers, over raw sockets: recipes, failures, silence and compressed answers."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import os
import random
import resource
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from app.catalog.deployments import Deployment, Provider
from app.catalog.profiles import Profile, Timeouts
from app.dialects import Base64, Credential, Ingredient, UpstreamRequest
from app.errors import Failure, Unavailable, UpstreamError
from app.upstream.client import LONGEST_ERROR, PIECE, USER_AGENT, Upstream
from app.upstream.transport import AiohttpTransport
from tests.dialects.asking import Memory
from tests.live.loops import dead_port
from tests.live.scripted import End, Scripted, answer, head
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the gateway itself runs


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as running:
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with AiohttpTransport() as transport:
        yield Upstream(transport)


def deployed(base_url: str, timeout: Timeouts | None = None, **provider: Any) -> Deployment:
    profile = Profile(timeout=timeout or Timeouts(connect=2.0, read=2.0, total=5.0))
    return Deployment(Provider("host", "openai", base_url, **provider), "model", profile)


def request(*body: Ingredient, **more: Any) -> UpstreamRequest:
    return UpstreamRequest("/images", "application/json", body or (b"{}",), **more)


async def sent(upstream: Upstream, deployment: Deployment, what: UpstreamRequest | None = None) -> tuple[int, bytes]:
    async with upstream.send(what or request(), deployment) as found:
        return found.head.status, b"".join([piece async for piece in found.pieces])


async def failed(upstream: Upstream, deployment: Deployment) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await sent(upstream, deployment)
    assert caught.value.message
    return caught.value


# --- recipes ---


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 2])
async def test_a_recipe_has_exactly_the_length_that_was_announced(
    server: Scripted, upstream: Upstream, size: int
) -> None:
    data = os.urandom(size)
    what = request(b'{"image":"', Base64(Memory(data)), b'","raw":', Memory(data), b"}")
    assert await sent(upstream, deployed(server.at("a", answer(b"said"))), what) == (200, b"said")
    [received] = server.received("a")
    assert received.body == b'{"image":"' + base64.b64encode(data) + b'","raw":' + data + b"}"
    assert received.headers["content-length"] == str(len(received.body))
    assert "transfer-encoding" not in received.headers


async def test_a_recipe_of_text_alone_is_sent_at_once(server: Scripted, upstream: Upstream) -> None:
    await sent(upstream, deployed(server.at("a", answer(b""))), request(b'{"model":"m"}'))
    [received] = server.received("a")
    assert (received.method, received.target, received.json) == ("POST", "/a/v1/images", {"model": "m"})


async def test_a_recipe_may_be_cooked_again(server: Scripted, upstream: Upstream) -> None:
    what, deployment = request(b"<", Base64(Memory(b"picture")), b">"), deployed(server.at("a", answer(b"")))
    await sent(upstream, deployment, what)
    await sent(upstream, deployment, what)
    first, second = server.received("a")
    assert first.body == second.body


async def test_an_upload_is_read_in_pieces(server: Scripted, upstream: Upstream) -> None:
    lengths: list[int] = []

    class Noting(Memory):
        def read(self, offset: int, length: int) -> bytes:
            lengths.append(length)
            return super().read(offset, length)

    await sent(upstream, deployed(server.at("a", answer(b""))), request(Base64(Noting(b"x" * 1_000_000))))
    assert max(lengths) == PIECE
    assert len(lengths) == -(-1_000_000 // PIECE)


async def test_an_upload_goes_through_a_proxy(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.at("", answer(b"by proxy")).removesuffix("//v1"))
    data = os.urandom(PIECE + 1)
    async with AiohttpTransport() as transport:
        said = await sent(Upstream(transport), deployed("http://images.test"), request(b"<", Memory(data), b">"))
    assert said == (200, b"by proxy")
    assert server.received("")[0].body == b"<" + data + b">"


async def test_a_request_without_a_body_announces_none(server: Scripted, upstream: Upstream) -> None:
    await sent(upstream, deployed(server.at("a", answer(b""))), UpstreamRequest("/jobs/1", method="GET"))
    [received] = server.received("a")
    assert (received.method, received.target, received.body) == ("GET", "/a/v1/jobs/1", b"")
    assert not {"content-type", "content-length", "transfer-encoding"} & set(received.headers)


# --- headers ---


async def test_a_request_carries_the_credential_and_wants_nothing_compressed(
    server: Scripted, upstream: Upstream
) -> None:
    deployment = deployed(server.at("a", answer(b"")), api_key="secret", headers={"X-Team": "art"})
    await sent(upstream, deployment, request(headers={"x-more": "1"}))
    headers = server.received("a")[0].headers
    host = headers.pop("host")
    assert deployment.provider.base_url.startswith(f"http://{host}")
    assert headers == {
        "accept": "application/json, text/event-stream", "accept-encoding": "identity", "user-agent": USER_AGENT,
        "authorization": "Bearer secret", "x-team": "art", "x-more": "1", "content-type": "application/json",
        "content-length": "2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("credential", "sent_as"),
    [
        (Credential(), ("authorization", "Bearer secret")),
        (Credential(scheme="Key"), ("authorization", "Key secret")),
        (Credential("x-key", ""), ("x-key", "secret")),
    ],
)
async def test_a_dialect_says_where_the_credential_stands(
    server: Scripted, upstream: Upstream, credential: Credential, sent_as: tuple[str, str]
) -> None:
    deployment = deployed(server.at("a", answer(b"")), api_key="secret")
    await sent(upstream, deployment, request(credential=credential))
    headers = server.received("a")[0].headers
    assert [(name, value) for name, value in headers.items() if "secret" in value] == [sent_as]


async def test_an_address_of_the_provider_s_own_gets_the_credential(server: Scripted, upstream: Upstream) -> None:
    deployment = deployed(server.at("a", answer(b"said")), api_key="secret")
    server.at("jobs", answer(b"said"))
    what = UpstreamRequest(f"{server.base_url}/jobs/1?sig=a%2Fb%3D", method="GET")
    assert await sent(upstream, deployment, what) == (200, b"said")
    [received] = server.received("jobs")
    assert (received.target, received.headers["authorization"]) == ("/jobs/1?sig=a%2Fb%3D", "Bearer secret")


@pytest.mark.parametrize("other", ["http://127.0.0.1:{port}/jobs/1", "http://localhost:{port}/jobs/1", "@evil.test/1"])
async def test_nothing_is_sent_to_an_address_that_is_not_the_provider_s_own(
    server: Scripted, upstream: Upstream, other: str
) -> None:
    server.at("jobs", answer(b"said"))
    port = server.base_url.rpartition(":")[2]
    target = UpstreamRequest(other.format(port=port), method="GET")
    with pytest.raises(UpstreamError, match="not the provider's own") as caught:
        await sent(upstream, deployed("https://api.example.test/v1", api_key="secret"), target)
    assert (caught.value.failure, caught.value.is_final) == (Failure.UNCERTAIN, True)
    assert (server.received("jobs"), server.connections) == ([], 0)


async def test_an_exchange_may_have_timeouts_of_its_own(server: Scripted, upstream: Upstream) -> None:
    deployment = deployed(server.at("a", End.HANG))
    began = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        async with upstream.send(request(), deployment, Timeouts(60.0, 60.0, total=0.05)):
            pass
    assert caught.value.timed_out and time.monotonic() - began < 30


async def test_an_answer_behind_long_headers_is_read(server: Scripted, upstream: Upstream) -> None:
    what = answer(b"said", content_security_policy="x" * 20_000)
    assert await sent(upstream, deployed(server.at("a", what)), request(b"{}")) == (200, b"said")


async def test_headers_of_the_configuration_take_the_place_of_our_own(server: Scripted, upstream: Upstream) -> None:
    headers = {"Authorization": "Key abc", "User-Agent": "team"}
    await sent(upstream, deployed(server.at("a", answer(b"")), api_key="secret", headers=headers))
    received = server.received("a")[0].headers
    assert (received["authorization"], received["user-agent"]) == ("Key abc", "team")


async def test_without_a_credential_none_is_sent(server: Scripted, upstream: Upstream) -> None:
    await sent(upstream, deployed(server.at("a", answer(b""))))
    assert "authorization" not in server.received("a")[0].headers


async def test_the_head_of_an_answer_has_its_names_in_lower_case(server: Scripted, upstream: Upstream) -> None:
    deployment = deployed(server.at("a", b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"))
    async with upstream.send(request(), deployment) as found:
        assert (found.head.status, found.head.headers["retry-after"]) == (429, "7")


async def test_an_answer_that_says_when_to_come_back_has_a_date_to_count_from(
    server: Scripted, upstream: Upstream
) -> None:
    told = b"HTTP/1.1 429 Slow\r\n%bRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n"
    async with upstream.send(request(), deployed(server.at("a", told % b""))) as found:
        date = parsedate_to_datetime(found.head.headers["date"])
        assert abs(date.timestamp() - time.time()) < 60
    own = b"Date: Wed, 21 Oct 2026 07:27:00 GMT\r\n"
    async with upstream.send(request(), deployed(server.at("b", told % own))) as found:
        assert found.head.headers["date"] == "Wed, 21 Oct 2026 07:27:00 GMT"


# --- failures ---


@pytest.mark.parametrize(
    "url", [f"http://127.0.0.1:{dead_port()}", "http://no-such-host.invalid"], ids=["refused", "no such host"]
)
async def test_without_a_connection_nothing_was_sent(upstream: Upstream, url: str) -> None:
    error = await failed(upstream, deployed(url))
    assert (error.failure, error.timed_out, error.status) == (Failure.NOT_SENT, False, None)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_a_gateway_without_descriptors_blames_no_provider(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise aiohttp.ClientOSError(number, "Too many open files")

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", refuse)
    with pytest.raises(Unavailable) as caught:
        await sent(upstream, deployed("http://127.0.0.1:9"))
    assert (caught.value.code, caught.value.retry_after) == ("server_is_overloaded", 5.0)
    assert not caught.value.perhaps_paid


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
async def test_a_name_that_cannot_be_looked_up_for_lack_of_descriptors_blames_no_provider(
    upstream: Upstream, host: str
) -> None:
    deployment = deployed(f"http://{host}:{dead_port()}")
    assert (await failed(upstream, deployment)).failure is Failure.NOT_SENT  # what is imported for it is there now
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:  # the system gives the lowest number that is free
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno(), before[1]))
        try:
            with pytest.raises(Unavailable) as caught:
                await sent(upstream, deployment)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (caught.value.code, caught.value.perhaps_paid) == ("server_is_overloaded", False)


@pytest.mark.parametrize(
    ("steps", "where"),
    [
        ((End.CLOSE,), "before the answer began"),
        ((End.RESET,), "before the answer began"),
        ((b"nonsense\r\n\r\n", End.CLOSE), "before the answer began"),
        ((head(content_length="9") + b"12345", End.CLOSE), "in the middle of the answer"),
        ((head(content_length="9") + b"12345", 0.05, End.RESET), "in the middle of the answer"),
        ((head(transfer_encoding="chunked") + b"5\r\n12345\r\n", End.CLOSE), "in the middle of the answer"),
    ],
)
async def test_what_is_lost_after_sending_may_have_been_drawn(
    server: Scripted, upstream: Upstream, steps: tuple[Any, ...], where: str
) -> None:
    error = await failed(upstream, deployed(server.at("a", *steps)))
    assert (error.failure, error.timed_out) == (Failure.UNCERTAIN, False)
    assert where in error.message
    assert len(server.received("a")) == 1


@pytest.mark.parametrize(
    ("timeout", "steps", "where"),
    [
        (Timeouts(read=0.1), (End.HANG,), "before the answer began"),
        (Timeouts(first_byte=0.1), (End.HANG,), "before the answer began"),
        (Timeouts(total=0.1), (End.HANG,), "before the answer began"),
        (Timeouts(read=0.1), (head(content_length="9") + b"1", End.HANG), "in the middle of the answer"),
        (Timeouts(read=0.1, first_byte=9), (head(content_length="9") + b"1", End.HANG), "in the middle of the answer"),
        (Timeouts(total=0.2), (head(content_length="9") + b"1", End.HANG), "in the middle of the answer"),
    ],
)
async def test_silence_after_sending_may_have_been_drawn(
    server: Scripted, upstream: Upstream, timeout: Timeouts, steps: tuple[Any, ...], where: str
) -> None:
    error = await failed(upstream, deployed(server.at("a", *steps), timeout))
    assert (error.failure, error.timed_out) == (Failure.UNCERTAIN, True)
    assert where in error.message


async def test_no_failure_tells_the_credential(upstream: Upstream) -> None:
    deployment = deployed(f"http://127.0.0.1:{dead_port()}", api_key="secret-of-ours")
    assert "secret-of-ours" not in str(await failed(upstream, deployment))
    assert "secret-of-ours" not in repr(deployment)


# --- compressed answers ---

BODY = os.urandom(500_000) + b"\0" * 5_000_000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)), ("x-gzip", gzip.compress(BODY)), ("GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)), ("identity", BODY), ("", BODY),
    ],
)  # fmt: skip
async def test_a_compressed_answer_is_inflated_in_small_pieces(
    server: Scripted, upstream: Upstream, encoding: str, body: bytes
) -> None:
    half = len(body) // 2
    steps = (head(content_length=str(len(body)), content_encoding=encoding) + body[:half], 0.01, body[half:])
    async with upstream.send(request(), deployed(server.at("a", *steps))) as found:
        got = [piece async for piece in found.pieces]
    assert b"".join(got) == BODY
    assert max(map(len, got)) <= PIECE or body is BODY


async def test_others_have_their_turn_while_a_small_piece_is_inflated_to_much(
    server: Scripted, upstream: Upstream
) -> None:
    address = server.at("a", answer(gzip.compress(b"\0" * 100 * PIECE), content_encoding="gzip"))
    turns, pieces_of_a_turn = 0, list[int]()

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    async with upstream.send(request(), deployed(address)) as found:
        async for _ in found.pieces:
            pieces_of_a_turn.append(turns)
    task.cancel()
    assert max(map(pieces_of_a_turn.count, pieces_of_a_turn)) <= 2


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", gzip.compress(BODY)[:-9], "cut"),
        ("gzip", b"", "cut"),
        ("gzip", b"{}" * 20, "garbled"),
        ("deflate", b"x\x9c" + b"\xff" * 100, "garbled"),
        ("br", b"\x0b\x02\x80{}\x03", "'br'"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), "'gzip, gzip'"),
    ],
    ids=["without its end", "empty", "plain", "wrong inside", "unknown", "twice"],
)
async def test_what_cannot_be_inflated_may_have_been_drawn(
    server: Scripted, upstream: Upstream, encoding: str, body: bytes, words: str
) -> None:
    error = await failed(upstream, deployed(server.at("a", answer(body, content_encoding=encoding))))
    assert error.failure is Failure.UNCERTAIN
    assert words in error.message


# --- the text of an error ---


async def test_of_an_error_so_much_is_read_as_its_words_need(server: Scripted, upstream: Upstream) -> None:
    deployment = deployed(server.at("a", answer(b"x" * 10_000_000, 500)))
    async with upstream.send(request(), deployment) as found:
        assert await found.text() == b"x" * LONGEST_ERROR
    await until(lambda: not server.connections)


@pytest.mark.parametrize("steps", [(End.CLOSE,), (End.HANG,)])
async def test_of_an_error_that_breaks_off_what_came_is_read(
    server: Scripted, upstream: Upstream, steps: tuple[Any, ...]
) -> None:
    deployment = deployed(server.at("a", head(500, content_length="99") + b"half of", *steps), Timeouts(read=0.2))
    async with upstream.send(request(), deployment) as found:
        assert await found.text() == b"half of"


async def test_an_error_in_a_strange_encoding_has_no_words(server: Scripted, upstream: Upstream) -> None:
    async with upstream.send(request(), deployed(server.at("a", answer(b"?", 500, content_encoding="br")))) as found:
        assert (found.head.status, await found.text()) == (500, b"")


# --- leaving ---


async def test_who_leaves_in_the_middle_leaves_no_connection(server: Scripted, upstream: Upstream) -> None:
    deployment = deployed(server.at("a", head(content_length="9") + b"1", End.HANG))
    with pytest.raises(KeyError):
        async with upstream.send(request(), deployment) as found:
            async for _ in found.pieces:
                raise KeyError
    await until(lambda: not server.connections)
    assert server.received("a")[0].left.is_set()


async def test_an_answer_that_was_read_leaves_its_connection_to_the_next(server: Scripted, upstream: Upstream) -> None:
    server.at("a", answer(gzip.compress(b"said"), content_encoding="gzip"))
    deployment = deployed(server.at("a", answer(b"no", 500)))
    assert await sent(upstream, deployment) == (200, b"said")
    async with upstream.send(request(), deployment) as found:
        assert await found.text() == b"no"
    assert await sent(upstream, deployment) == (500, b"no")
    assert server.connections == 1


async def test_deployments_differ_in_patience(server: Scripted, upstream: Upstream) -> None:
    url = server.at("a", 0.3, answer(b"said"))
    patient = deployed(url)
    hasty = replace(patient, profile=Profile(timeout=Timeouts(read=0.1)))
    assert (await failed(upstream, hasty)).timed_out
    assert await sent(upstream, patient) == (200, b"said")


# --- long bodies ---

LONG = random.Random(1).randbytes(1_000_000)


@pytest.mark.parametrize("first", [0, 1, 100_000, len(LONG) - 1])
async def test_a_long_body_comes_whole_and_its_connection_is_used_again(
    server: Scripted, upstream: Upstream, first: int
) -> None:
    deployment = deployed(server.at("a", head(content_length=str(len(LONG))) + LONG[:first], 0.01, LONG[first:]))
    for _ in range(3):
        assert await sent(upstream, deployment) == (200, LONG)
    assert server.connections == 1


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_a_long_body_that_is_cut_is_not_taken_for_the_whole(
    server: Scripted, upstream: Upstream, end: End
) -> None:
    steps = (head(content_length=str(len(LONG))) + LONG[:100_000], 0.01, LONG[100_000:-1], 0.01, end)
    error = await failed(upstream, deployed(server.at("a", *steps)))
    assert (error.failure, error.timed_out) == (Failure.UNCERTAIN, False)
    assert "in the middle of the answer" in error.message


async def test_bytes_behind_a_long_body_belong_to_no_answer(server: Scripted, upstream: Upstream) -> None:
    deployment = deployed(
        server.at("a", head(content_length=str(len(LONG))) + LONG[:9], 0.01, LONG[9:] + answer(b"lie"))
    )
    for _ in range(2):
        assert await sent(upstream, deployment) == (200, LONG)


async def test_a_long_body_falls_silent(server: Scripted, upstream: Upstream) -> None:
    steps = (head(content_length=str(len(LONG))) + LONG[:100], 0.01, LONG[100:-1], End.HANG)
    error = await failed(upstream, deployed(server.at("a", *steps), Timeouts(read=0.2)))
    assert (error.failure, error.timed_out) == (Failure.UNCERTAIN, True)


async def test_a_whole_body_stays_whole_when_the_connection_ends_before_it_is_read(
    server: Scripted, upstream: Upstream
) -> None:
    begun = asyncio.Event()
    ending = (head(content_length=str(len(LONG))) + LONG[:9], begun, LONG[9:] + b"\r\n", End.CLOSE)
    async with upstream.send(request(), deployed(server.at("a", *ending))) as found:
        pieces = [await anext(found.pieces)]
        begun.set()
        await until(lambda: not server.connections)
        assert b"".join([*pieces, *[piece async for piece in found.pieces]]) == LONG


async def test_the_time_for_an_answer_does_not_run_while_its_own_reader_lets_it_wait(
    server: Scripted, upstream: Upstream
) -> None:
    long = bytes(64 << 20)  # more than sockets hold
    deployment = deployed(server.at("a", answer(long)), Timeouts(total=2))
    async with upstream.send(request(), deployment) as found:
        await anext(found.pieces)
        await asyncio.sleep(2.5)
        assert sum([len(piece) async for piece in found.pieces]) > len(long) / 2


async def test_the_time_for_an_answer_runs_on_after_its_own_reader_let_it_wait(
    server: Scripted, upstream: Upstream
) -> None:
    some = answer(LONG)[: len(LONG) // 2]
    deployment = deployed(server.at("a", some, End.HANG), Timeouts(total=0.5))
    with pytest.raises(UpstreamError) as caught:
        async with upstream.send(request(), deployment) as found:
            await anext(found.pieces)
            await asyncio.sleep(0.7)
            async with asyncio.timeout(PATIENCE):
                async for _ in found.pieces:
                    pass
    assert caught.value.timed_out


async def test_the_time_for_an_answer_does_not_run_on_when_it_has_come(server: Scripted, upstream: Upstream) -> None:
    deployment = deployed(server.at("a", answer(LONG)), Timeouts(total=0.3))
    async with upstream.send(request(), deployment) as found:
        pieces = [await anext(found.pieces)]
        async with asyncio.timeout(5):
            while sum(map(len, pieces)) < len(LONG) - 100_000:
                pieces.append(await anext(found.pieces))
        await asyncio.sleep(0.4)
        assert b"".join([*pieces, *[piece async for piece in found.pieces]]) == LONG
