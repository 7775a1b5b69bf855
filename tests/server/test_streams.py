"""Whatever comes on a connection, and however the network cuts it: each whole request gets one answer, in order, and
little is held. `pytest -m slow tests/server` looks for longer."""

import asyncio
import zlib
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.server.protocol import LONGEST_HEAD, MOST_HEADERS
from tests.server.streams import BLOCK, MOST_IN_MEMORY, Outcome, cut, fed

H2C = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass(frozen=True)
class Ask:
    """A request as it is sent, and what the application makes of it."""

    stream: bytes
    said: str


def get(path: str = "/healthz", more: bytes = b"", before: bytes = b"") -> Ask:
    stream = before + f"GET {path} HTTP/1.1\r\nhost: x\r\n".encode() + more + b"\r\n"
    return Ask(stream, f"GET {path} 0 0")


def post(body: bytes, more: bytes = b"", path: str = "/v1") -> Ask:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    return Ask(head + more + b"\r\n" + body, f"POST {path} {len(body)} {zlib.crc32(body)}")


def chunked(chunks: list[bytes], more: bytes = b"", trailers: bytes = b"") -> Ask:
    body = b"".join(chunks)
    lines = b"".join(b"%x;a=b\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    head = b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n" + more + b"\r\n"
    return Ask(head + lines + b"0\r\n" + trailers + b"\r\n", f"POST /c {len(body)} {zlib.crc32(body)}")


def run(stream: bytes, at: list[int] | None = None, *, patient: bool = True) -> Outcome:
    return asyncio.run(fed(cut(stream, at or []), patient=patient))


TRICKY = [b"", b"\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"\n\r\n\r", b"a" * 100, HEALTH * 3]
bodies = st.sampled_from(TRICKY) | st.binary(max_size=40)
mores = st.sampled_from([b"", H2C, b"expect: 100-continue\r\n", b"x: " + b"y" * 300 + b"\r\n"])
trailers = st.sampled_from([b"", b"authorization: Bearer x\r\n", b"host: y\r\nx-request-id: 1\r\n", b"a:\r\n"])
asks = (
    st.builds(get, st.sampled_from(["/healthz", "/files/a"]), mores, st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]))
    | st.builds(post, bodies, mores)
    | st.builds(chunked, st.lists(bodies, max_size=3), mores, trailers)
)
places = st.lists(st.integers(0, 5000), max_size=12)

# What is no request, or no whole one; also what was believed or kept before.
SEEDS = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + HEALTH,
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 18446744073709551615\r\n\r\nab",
    b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc" + HEALTH,
    b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nabc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    *(ask.stream for ask in (get(), get(more=H2C), post(b"abc", H2C), chunked([b"abc"], H2C, b"host: y\r\n"))),
    *(ask.stream for ask in (post(b"abc", b"expect: 100-continue\r\n"), chunked([b"a", b"b"], b"", b"host: y\r\n"))),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    stream = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=6))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(stream)))
        length = draw(st.sampled_from([0, 0, 1, 2, 20]))
        stream[at : at + length] = draw(st.sampled_from([b"", b"\r\n", b"\0", b":", b" ", b"\n", b"0", b"host: x\r\n"]))
    if draw(st.booleans()):
        stream *= draw(st.sampled_from([2, 50]))
    return bytes(stream)


def answers_each(sent: list[Ask], at: list[int], patient: bool) -> None:
    outcome = run(b"".join(ask.stream for ask in sent), at, patient=patient)
    assert outcome.faults == []
    assert outcome.answers == [(200, ask.said) for ask in sent]
    assert outcome.asked == [ask.said for ask in sent]


def stands(stream: bytes, at: list[int], patient: bool) -> None:
    outcome = run(stream, at, patient=patient)
    assert outcome.faults == []
    assert outcome.most < MOST_IN_MEMORY
    statuses = [status for status, _ in outcome.answers]
    assert set(statuses) <= {200, 400, 431, 501}
    assert all(status == 200 for status in statuses[:-1])  # a refusal is the last word


few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=1_500)  # a minute in all; GATEWAY_FUZZ_EXAMPLES looks for longer


@few
@given(st.lists(asks, max_size=6), places, st.booleans())
def test_each_whole_request_gets_one_answer_in_order_however_it_is_cut(
    sent: list[Ask], at: list[int], patient: bool
) -> None:
    answers_each(sent, at, patient)


@few
@given(mutated(), places, st.booleans())
def test_no_stream_raises_or_is_kept(stream: bytes, at: list[int], patient: bool) -> None:
    stands(stream, at, patient)


@pytest.mark.slow
@many
@given(st.lists(asks, max_size=12), places, st.booleans())
def test_each_whole_request_gets_one_answer_for_long(sent: list[Ask], at: list[int], patient: bool) -> None:
    answers_each(sent, at, patient)


@pytest.mark.slow
@many
@given(mutated(), places, st.booleans())
def test_no_stream_raises_or_is_kept_for_long(stream: bytes, at: list[int], patient: bool) -> None:
    stands(stream, at, patient)


def test_a_request_that_arrives_byte_by_byte_is_answered_before_the_next_one_is_read() -> None:
    sent = [get(), post(b"\r\n\r\n"), chunked([b"\r\n\r\n", b"x"], H2C, b"host: y\r\n"), get(before=b"\r\n\r\n"), get()]
    stream = b"".join(ask.stream for ask in sent)
    outcome = run(stream, list(range(len(stream))))
    assert outcome.answers == [(200, ask.said) for ask in sent]


EACH = [
    get(before=b"\r\n"),
    get(more=H2C),
    post(b"\r\n\r\n", H2C),
    post(b"abc", b"expect: 100-continue\r\n"),
    chunked([b"\r\n\r\n", b"0\r\n\r\n"], b"", b"a:\r\n"),
    chunked([], H2C, b"a: b\r\n"),
    chunked([b"a"] * 20),
]


@pytest.mark.parametrize("number", range(len(EACH)))
def test_a_request_may_be_cut_anywhere(number: int) -> None:
    sent = [EACH[number], get("/next")]
    stream = b"".join(ask.stream for ask in sent)
    for place in range(1, len(stream)):
        outcome = run(stream, [place])
        assert outcome.answers == [(200, ask.said) for ask in sent], stream[:place]


def test_thousands_of_requests_in_one_block_are_all_answered_and_few_are_in_memory() -> None:
    outcome = run(HEALTH * (BLOCK // len(HEALTH)) * 2)
    assert len(outcome.answers) == BLOCK // len(HEALTH) * 2
    assert outcome.most < MOST_IN_MEMORY


def test_what_comes_although_reading_is_paused_is_bounded_by_what_was_on_its_way() -> None:
    whole = HEALTH * (LONGEST_HEAD // len(HEALTH) + 10)
    outcome = run(whole + HEALTH * 1000, [len(whole)])
    assert {status for status, _ in outcome.answers} == {200}
    assert outcome.most < MOST_IN_MEMORY


def test_half_a_request_at_the_end_of_a_pipeline_is_no_request() -> None:
    outcome = run(HEALTH * 2 + HEALTH[:-5])
    assert (outcome.asked, outcome.faults) == (["GET /healthz 0 0"] * 2, [])


def test_nothing_after_a_request_that_closes_is_answered() -> None:
    outcome = run(HEALTH + HEALTH[:-2] + b"connection: close\r\n\r\n" + HEALTH)
    assert len(outcome.answers) == 2


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nHOST: x\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nhost: x\r\nhost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * (MOST_HEADERS - 1) + b"\r\n", 200),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * MOST_HEADERS + b"\r\n", 431),
    ],
)
@pytest.mark.parametrize("before", [b"", HEALTH])
def test_a_head_is_held_to_the_rules_of_http(head: bytes, status: int, before: bytes) -> None:
    """RFC 9112: 3.2 of Host, 6.1 and 6.3 of how a body is framed."""
    outcome = run(before + head)
    told, body = outcome.answers[-1]
    assert (told, len(outcome.answers)) == (status, 1 + bool(before)), body
    if status != 200:
        assert '"code": "invalid_http"' in body
        assert len(outcome.asked) == bool(before)


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nhost: x\r\na: ", b"GET /", b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 99]
)
@pytest.mark.parametrize("in_one", [True, False])
def test_a_head_that_comes_to_its_end_is_bounded_too(start: bytes, in_one: bool) -> None:
    head = start + b"a" * LONGEST_HEAD + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    outcome = run(head, [] if in_one else [*range(0, len(head), 1000)])
    assert [status for status, _ in outcome.answers] == [431]


def test_an_over_long_head_behind_a_request_leaves_its_answer_alone() -> None:
    outcome = run(HEALTH + b"GET /" + b"a" * LONGEST_HEAD * 3 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert outcome.answers == [(200, "GET /healthz 0 0")]
