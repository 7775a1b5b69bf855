"""Answers that no provider gives in good faith: whatever comes, there are events or an UpstreamError, at a bounded
price. Samples of good answers are in `test_contract`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.codecs.sse import MOST_LINES
from app.dialects import load
from app.dialects.json_answers import LONGEST_REVISION
from app.dialects.openai import MOST_BESIDE, MOST_EVENTS
from app.errors import Failure, UpstreamError
from app.events import ImageBegins, ImageData, ImageEnds
from app.gateway.inspection import PARTIALS, Inspector
from tests.dialects.asking import GOOD, Told, asked, decoded, pictures, together
from tests.dialects.test_contract import EACH
from tests.drawings import look

OPENAI = load("openai")
ENTRY = b'{"b64_json":"AAAA"}'
LONG = b"[" + b",".join([b"1"] * 100_000) + b"]"


def read(body: bytes, n: int = 1, step: int = 131_072) -> list[Told]:
    return consumed("openai", (body[at : at + step] for at in range(0, len(body), step)), n)


def refused(body: bytes, n: int = 1) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(body, n)
    return caught.value


def consumed(name: str, chunks: Iterable[bytes], n: int) -> list[Told]:
    """As the gateway reads: nothing more is fed once the decoder is done."""
    decoder, events = load(name).decoder(asked(n=n), GOOD), list[Told]()
    for chunk in chunks:
        events += decoder.feed(chunk)
        if decoder.done:
            break
    return together([*events, *decoder.close()])


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each text was that the JSON parser saw."""
    lengths: list[int] = []

    decode = json.JSONDecoder.raw_decode

    def raw_decode(decoder: json.JSONDecoder, s: str, idx: int = 0) -> Any:
        found, end = decode(decoder, s, idx)
        lengths.append(end)
        return found, end

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", raw_decode)
    return lengths


@pytest.mark.parametrize(
    ("body", "n"),
    [
        (b'{"x":"' + b"x" * 400_000 + b'","data":[' + b",".join([ENTRY] * 4000) + b"]}", 1),
        (b'{"x":"' + b"x" * 400_000 + b'","data":[' + b",".join([ENTRY] * 4000) + b"]}", 10),
        (b'{"x":' + LONG + b',"data":[' + b",".join([b'{"url":"https://a.test"}'] * 4000) + b"]}", 10),
        (b'{"data":[{"url":"u",' + b",".join([b'"url":"u"'] * 4000) + b',"x":' + LONG + b',"b64_json":"AA=="}]}', 1),
        (b'data: {"x":' + LONG + b"," + b",".join([b'"b64_json":""'] * 4000) + b',"b64_json":"AA=="}\n\n', 1),
    ],
    ids=["one image", "ten images", "links", "one entry", "an event"],
)
def test_no_part_of_an_answer_is_parsed_for_each_of_its_strings(body: bytes, n: int, parsed: list[int]) -> None:
    events = read(body, n)
    assert len(pictures(events)) == n
    assert sum(parsed) < 3 * len(body)


def test_images_that_nobody_asked_for_are_passed_over_and_the_others_delivered() -> None:
    wanted = {"b64_json": "AAAA", "seed": 1}, {"b64_json": "BBBB", "seed": 2, "revised_prompt": "better"}
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    rests = ([{"b64_json": "C" * 2_000_000}], list[dict[str, str]]([{}]), [{"url": "u"}], [{"b64_json": "CC"}] * 5000)
    for more in rests:
        events = read(json.dumps({"data": [*wanted, *more], "usage": usage}).encode(), n=2)
        assert pictures(events) == [b"AAAA", b"BBBB"]
        ends = [event for event in events if isinstance(event, ImageEnds)]
        assert [(end.seed, end.revised_prompt, end.usage is None) for end in ends] == [
            (1, None, True),
            (2, "better", False),
        ]


def test_a_failure_told_behind_images_that_nobody_asked_for_is_a_failure() -> None:
    assert refused(b'{"data":[' + b",".join([ENTRY] * 9) + b'],"status":"failed"}').failure is Failure.FAILED


@pytest.mark.parametrize(
    "body",
    [
        b"data: {}\n\n" * (MOST_EVENTS + 1),
        b":\n" * (MOST_LINES + 1),
        b"data: {}\n" + b"\n" * (MOST_LINES + 1),
        b'data: {"b64_json":"\n' + b"data: A\n" * (MOST_LINES + 1),
        (b'event: x\ndata: {"x":"' + b"x" * 500_000 + b'"}\n\n') * (MOST_BESIDE // 500_000 + 1),
    ],
    ids=["events", "comments", "blank lines", "lines of data", "large events"],
)
def test_a_stream_without_end_is_an_error_and_perhaps_paid(body: bytes) -> None:
    error = refused(body)
    assert error.failure is Failure.UNCERTAIN
    assert "more than" in error.message


@pytest.mark.parametrize("after", [b":" * 100_000, b"\n" * (MOST_LINES + 1), b'data: {"b64_json":"\\q"}\n\n'])
@pytest.mark.parametrize("step", [1000, 10_000_000])
def test_a_stream_has_delivered_with_its_last_image_whatever_follows(after: bytes, step: int) -> None:
    body = b'data: {"b64_json":"AAAA"}\n\n' + after
    assert pictures(read(body, step=step)) == [b"AAAA"]


def test_a_picture_in_very_many_lines_comes_in_one_piece() -> None:
    decoder = OPENAI.decoder(asked(), GOOD)
    events = list(decoder.feed(b'data: {"b64_json":"' + b"\ndata: AAAA" * 10_000 + b'\ndata: "}\n\n'))
    assert [type(event) for event in events] == [ImageBegins, ImageData, ImageEnds]


def test_partial_images_without_end_are_passed_over() -> None:
    partial = b'event: image_generation.partial_image\ndata: {"b64_json":"AAAA","partial_image_index":%d}\n\n'
    stream = b"".join(partial % index for index in range(PARTIALS + 5)) + b'data: {"b64_json":"BBBB"}\n\n'
    events = look(Inspector(most=1), read(stream))
    assert pictures(events) == [b"BBBB"]
    begun = [event.partial for event in events if isinstance(event, ImageBegins)]
    assert begun == [*range(PARTIALS), None]


@pytest.mark.parametrize(
    "usage",
    [
        {"output_tokens": 10**4000, "input_tokens": 9 * 10**4299, "total_tokens": 3},
        {"output_tokens": 1, "output_tokens_details": {"x": [[]] * 1000, "y": 10**4000, "z" * 9999: 1}},
        {"output_tokens": 1, "output_tokens_details": {str(number): number for number in range(50_000)}},
    ],
    ids=["huge counts", "odd details", "many details"],
)  # fmt: skip
def test_of_a_usage_only_counts_are_kept_and_few(usage: dict[str, Any]) -> None:
    done = read(json.dumps({"data": [{"b64_json": "AAAA"}], "usage": usage}).encode())[-1]
    assert len(json.dumps(asdict(done))) < 1000


def test_what_is_said_of_an_image_is_kept_within_bounds() -> None:
    entry = {"b64_json": "AAAA", "revised_prompt": "e" * 300_000, "seed": 10**4000, "quality": "q" * 1000}
    [end] = [event for event in read(json.dumps({"data": [entry]}).encode()) if isinstance(event, ImageEnds)]
    assert (end.revised_prompt, end.seed, end.facts) == ("e" * LONGEST_REVISION, None, {})


@pytest.mark.parametrize(
    "error",
    [
        {"message": "no", "moderation_details": {"x": [[]] * 10_000}},
        {"message": "no", "moderation_details": {"x": 1e400}},
        {"message": "no", "moderation_details": {"x" * 60_000: "y"}},
        {"message": "no", "code": 10**4000, "type": "t" * 60_000},
        {"message": "A" * 99 + " ", "param": "A" * 60_000},
        {"detail": [{"loc": ["x" * 10_000] * 5, "detail": [{"loc": [[]] * 9000, "msg": "no"}] * 5}] * 5},
    ],
)
def test_what_an_error_says_is_kept_within_bounds(error: dict[str, Any]) -> None:
    for body in (json.dumps({"error": error}), json.dumps(error)):
        for told in (OPENAI.error(GOOD, body.encode()), OPENAI.error(GOOD, body[:65_536].encode())):
            said = [told.message, told.type, told.code, told.param, told.details]
            assert len(json.dumps(said, allow_nan=False)) < 10_000


@pytest.mark.parametrize(
    "body", [b"[" * 65_536, b'{"a":' * 13_000, b'{"error":' * 900 + b"1" + b"}" * 900, b"9" * 65_536]
)
def test_an_error_may_nest_as_deep_and_be_as_large_as_it_likes(body: bytes) -> None:
    assert OPENAI.error(GOOD, body).message


# --- anything at all ---

ODD = st.sampled_from(
    [
        b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r\n", b"\n\n", b"data:", b"data: ", b": x\n\n",
        b"event: error\n", b"event: image_generation.completed\n", b"data: [DONE]\n\n", b"null", b"1e400", b"NaN",
        b"-1", b"9" * 5000, b"[" * 70, b'{"a":' * 70, b"\\u", b"\\ud800", b"\xff", b"\x00", b"\xef\xbb\xbf", b"<html>",
        b'"data":[', b'"data":{}', b'"b64_json":', b'"url":', b'"AAAA"', b'"data:image/png;base64,AA=="',
        b'"https://[v1.a:.host]/"', b'"error":"no"', b'"status":"failed"', b'"seed":1e9', b'"partial_image_index":-1',
        b'"usage":{"input_tokens":99999999999999999999999}', b'"type":"image_generation.partial_image"', b"[],",
        b'"a":1,', ENTRY, ENTRY + b",",
    ]
)  # fmt: skip
WHOLE = st.sampled_from(EACH).map(lambda each: each[1].whole + each[1].after)
ANSWERS = st.one_of(
    st.lists(ODD | st.binary(max_size=4), max_size=20).map(b"".join),
    st.lists(ODD | WHOLE, max_size=6).map(b"".join),
    st.tuples(WHOLE, st.floats(0, 1), st.floats(0, 0.1), st.lists(ODD, max_size=3)).map(lambda drawn: _damaged(*drawn)),
)


def _damaged(whole: bytes, at: float, length: float, instead: list[bytes]) -> bytes:
    start = int(at * len(whole))
    return whole[:start] + b"".join(instead) + whole[start + int(length * len(whole)) :]


@settings(deadline=None, max_examples=250)
@given(
    answer=ANSWERS,
    n=st.sampled_from([1, 2, 10]),
    cuts=st.lists(st.integers(0, 10_000), max_size=5),
    status=st.sampled_from([200, 400, 429, 500]),
)
def test_any_bytes_are_events_or_an_upstream_error_and_the_same_however_they_are_cut(
    answer: bytes, n: int, cuts: list[int], status: int
) -> None:
    edges = [0, *sorted(cut % (len(answer) + 1) for cut in cuts), len(answer)]
    ways = [answer], [answer[start:end] for start, end in pairwise(edges)], [bytes([byte]) for byte in answer]
    for name in dict(EACH):
        outcomes = [_outcome(lambda chunks=chunks, name=name: consumed(name, chunks, n)) for chunks in ways]  # type: ignore[misc]
        assert outcomes[0] == outcomes[1] == outcomes[2]
        if isinstance(outcomes[0], list):
            json.dumps([asdict(event) for event in outcomes[0]], allow_nan=False, default=repr)
            assert len([event for event in outcomes[0] if isinstance(event, ImageBegins)]) <= 10 * n
            _outcome(lambda events=outcomes[0]: [*look(Inspector(most=n), events)])  # type: ignore[misc]
        assert load(name).error(type(GOOD)(status, {"retry-after": answer.decode("latin-1")}), answer).message


def _outcome(read: Callable[[], Sequence[Told]]) -> Sequence[Told] | Failure:
    try:
        return read()
    except UpstreamError as error:
        assert error.message
        return error.failure


def test_a_picture_with_the_samples_is_read_by_the_target_at_all() -> None:
    assert decoded(OPENAI, b'{"data":[' + ENTRY + b"]}", asked()) == read(b'{"data":[' + ENTRY + b"]}")
