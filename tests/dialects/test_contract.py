"""What every dialect has to hold. A new one is picked up by itself, and asks for sample answers in the table here."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects import Base64, Dialect, Exchange, JobDialect, ResponseHead, load, names
from app.errors import Failure, UpstreamError
from app.events import ImageBegins, ImageEnds
from app.images import Operation, Size
from tests.dialects.asking import GOOD, NONCE, asked, decoded, deployed, pictures, rendered, size_of, told, upload

ASKED = asked(n=3)
TEXT = b"iVBORw0KGgoAAAANSUhEUgAA+/8="
ESCAPED = TEXT.replace(b"/", b"\\/").replace(b"=", b"\\u003d")


@dataclass(frozen=True)
class Sample:
    """A good answer: what makes it whole, what may follow, and the pictures in it."""

    whole: bytes
    pictures: tuple[bytes | str, ...] = (TEXT,)
    after: bytes = b"\n"


def one(**more: object) -> bytes:
    return json.dumps({"created": 1, "data": [{"b64_json": TEXT.decode(), **more}]}).encode()


EVENTS = (
    b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image",'
    b'"b64_json":"AAAA","partial_image_index":0}\n\n: keep-alive\n\n'
    b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"' + TEXT + b'",'
    b'"usage":{"total_tokens":3,"input_tokens":1,"output_tokens":2}}'
)
SAMPLES: dict[str, list[Sample]] = {
    "openai": [
        Sample(one(revised_prompt="a \u00e9", seed=7)),
        Sample(b'\xef\xbb\xbf \r\n{"data":[{"b64_json":"' + ESCAPED + b'"}]}'),
        Sample(b'{ "data" : [ { "b64_json" : null, "url" : "https:\\/\\/a.test\\/1" } ] }', ("https://a.test/1",)),
        Sample(
            b'{"data":[{"b64_json":"AAAA"},{"url":"https://a.test/2"},{"b64_json":"BBBB","seed":2}],"usage":null}',
            (b"AAAA", "https://a.test/2", b"BBBB"),
        ),
        Sample(EVENTS, after=b"\n\n"),
        Sample(EVENTS.replace(b"\n", b"\r\n"), after=b"\r\n\r\ndata: [DONE]\r\n\r\n"),
    ],
    "nebula_block": [
        Sample(
            b'{"model":"m","object":"list","data":[{"timings":{"inference":13.37},"index":0,"b64_json":"' + ESCAPED
            + b'"}],"message":"Image generated successfully","status":"success"}'
        ),
        Sample(b'{"status":"success","data":[{"b64_json":"AAAA"},{"b64_json":"BBBB"}]}', (b"AAAA", b"BBBB")),
    ],
    "bfl": [
        Sample(
            b'{"id":"7","polling_url":"https:\\/\\/api.bfl.ai\\/v1\\/get_result?id=7","cost":3,"input_mp":0,"output_mp":1}',
            (),
        ),
    ],
}  # fmt: skip
EACH = [(name, sample) for name in names() for sample in SAMPLES.get(name, ())]
each_dialect = pytest.mark.parametrize("name", names())
each_sample = pytest.mark.parametrize(("name", "sample"), EACH)


def read(dialect: Dialect, answer: bytes) -> list[object]:
    """What a decoder tells of an answer, cut nowhere and cut everywhere: the same."""
    at_once = decoded(dialect, answer, ASKED)
    assert at_once == told(dialect.decoder(ASKED, GOOD), (answer[at : at + 1] for at in range(len(answer))))
    return list(at_once)


@each_dialect
def test_there_are_sample_answers_for_every_dialect(name: str) -> None:
    assert SAMPLES.get(name), f"add good answers of {name!r} to SAMPLES"


# --- out ---

EVERYTHING = {
    "n": 2,
    "size": Size(640, 480),
    "response_format": "b64_json",
    "parameters": {"seed": 3, "guidance": 2.5, "negative_prompt": 'no "dogs"\n'},
    "extra": (("lora", {"name": "x", "weights": [1, None, True]}),),
}


@pytest.mark.parametrize(
    ("name", "operation"),
    [(name, each) for name in names() for each in Operation if each in load(name).profile.operations],
)
@pytest.mark.parametrize("more", [{}, EVERYTHING], ids=["the least", "everything"])
def test_a_body_is_a_recipe_of_a_known_length_that_holds_the_uploads_and_not_their_bytes(
    name: str, operation: Operation, more: dict[str, object]
) -> None:
    dialect = load(name)
    picture, mask = upload(b"P" * 1001), upload(b"M" * 1000, "mask.png")
    files = {} if operation is Operation.GENERATIONS else {"images": (picture,), "mask": mask}
    request = asked(operation, **more, **files)
    sent = dialect.encode(request, deployed(name, dialect.profile), NONCE)
    assert sent.method == "POST"
    assert sent.target.startswith("/") and not sent.target.endswith("/")
    assert len(rendered(sent.body)) == sum(map(size_of, sent.body))
    blobs = [part.blob if isinstance(part, Base64) else part for part in sent.body if not isinstance(part, bytes)]
    assert blobs == ([picture.blob, mask.blob] if files else [])
    literal = b"".join(part for part in sent.body if isinstance(part, bytes))
    assert b"PPPP" not in literal and b"MMMM" not in literal
    assert sent == dialect.encode(request, deployed(name, dialect.profile), NONCE)
    if sent.content_type == "application/json":
        assert isinstance(json.loads(rendered(sent.body)), dict)
    else:
        assert NONCE in sent.content_type


# --- back ---


@each_sample
def test_a_good_answer_holds_its_pictures_however_it_is_cut(name: str, sample: Sample) -> None:
    events = read(load(name), sample.whole + sample.after)
    assert pictures(events) == list(sample.pictures)  # type: ignore[arg-type]
    finished = [e.index for e in events if isinstance(e, ImageBegins) and e.partial is None]
    assert finished == list(range(len(sample.pictures)))
    assert sum(isinstance(e, ImageEnds) for e in events) >= len(sample.pictures)


@each_sample
def test_an_answer_cut_in_two_anywhere_tells_the_same(name: str, sample: Sample) -> None:
    dialect, answer = load(name), sample.whole + sample.after
    expected = decoded(dialect, answer, ASKED)
    for at in range(len(answer)):
        assert told(dialect.decoder(ASKED, GOOD), [answer[:at], answer[at:]]) == expected


@given(st.data())
def test_an_answer_cut_into_many_pieces_tells_the_same(data: st.DataObject) -> None:
    name, sample = data.draw(st.sampled_from(EACH))
    dialect, answer = load(name), sample.whole + sample.after
    cuts = sorted(data.draw(st.sets(st.integers(0, len(answer)), max_size=12)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert told(dialect.decoder(ASKED, GOOD), pieces) == decoded(dialect, answer, ASKED)


@each_sample
def test_an_answer_that_is_cut_off_anywhere_is_an_error_and_perhaps_paid(name: str, sample: Sample) -> None:
    dialect = load(name)
    for end in range(len(sample.whole)):
        with pytest.raises(UpstreamError) as caught:
            decoded(dialect, sample.whole[:end], ASKED)
        assert caught.value.failure is Failure.UNCERTAIN, sample.whole[:end]


@each_sample
def test_a_job_is_polled_without_drawing_again_and_another_process_can_take_it_up(name: str, sample: Sample) -> None:
    dialect = load(name)
    *before, last = decoded(dialect, sample.whole, ASKED)
    if not isinstance(last, Exchange):
        return
    assert before == []
    assert last.is_repeatable and last.after > 0
    assert isinstance(dialect, JobDialect), f"{name!r} needs a function `resume`"
    resumed = dialect.resume(json.loads(json.dumps(last.job)), replace(ASKED.outline(), n=1))
    assert (resumed.request, resumed.is_repeatable, resumed.job) == (last.request, True, None)
    with pytest.raises(UpstreamError) as caught:
        told(resumed.decoder(GOOD), [b"<html>"])
    assert caught.value.failure is Failure.UNCERTAIN and not caught.value.is_final


NOT_ANSWERS = [
    b"", b" \r\n", b"null", b"true", b"7", b'"text"', b"[]", b"[{}]", b"{}", b"{", b"}", b"{]", b'{"data":{}}',
    b'{"data":[]}', b'{"data":null}', b'{"data":[null]}', b'{"data":[{}]}', b'{"data":["AAAA"]}',
    b'{"data":[{"b64_json":null}]}', b'{"data":[{"b64_json":""}]}', b'{"data":[{"b64_json":["AAAA"]}]}',
    b'{"data":[{"url":null}]}', b'{"data":[{"url":""}]}', b'{"data":[{"b64_json":"AAAA"},{}]}',
    b'{"data":[{"b64_json":""},{"b64_json":"AAAA"}]}', b'{"b64_json":"AAAA"}', b'{"created":1,"data":[{"b64":"AAAA"}]}',
    b'{"data":[{"b64_json":"AAAA"}]} and more', b'{"data":[{"b64_json":"AAAA"}]}{}',
    b'{"data":[{x "b64_json":"AAAA"}]}',
    b'{"x":tru,"data":[{"b64_json":"AAAA"}]}', b'{"x":"\\ud800\\q","data":[{"b64_json":"AAAA"}]}',
    b"<!DOCTYPE html><title>Welcome</title>", b"<html>", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08", b"error: no", b"data",
    b"data:", b"data: \n\n", b"data: [DONE]\n\n", b"data: {}\n\n", b"data: nonsense\n\n", b"event: x\n\n",
    b": only\n\n",
    b"[DONE]", b"\xff\xfe", b"\x00" * 100,
]  # fmt: skip


@each_dialect
@pytest.mark.parametrize("answer", NOT_ANSWERS, ids=ascii)
def test_what_is_no_answer_is_an_error_and_perhaps_paid_however_it_is_cut(name: str, answer: bytes) -> None:
    for chunks in ([answer], [answer[at : at + 1] for at in range(len(answer))]):
        with pytest.raises(UpstreamError) as caught:
            told(load(name).decoder(ASKED, GOOD), chunks)
        assert caught.value.failure is Failure.UNCERTAIN
        assert caught.value.message


@given(st.data())
def test_no_answer_makes_a_decoder_raise_anything_but_an_upstream_error(data: st.DataObject) -> None:
    name, sample = data.draw(st.sampled_from(EACH))
    answer = bytearray(sample.whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(answer)))
        upto = data.draw(st.integers(at, min(len(answer), at + 6)))
        answer[at:upto] = data.draw(st.binary(max_size=6) | st.sampled_from([b'"', b"\\", b"{", b"}", b",", b"\n\n"]))
    half = data.draw(st.integers(0, len(answer)))
    try:
        # `told` checks that what is told is in order.
        assert told(load(name).decoder(ASKED, GOOD), [bytes(answer[:half]), bytes(answer[half:])])
    except UpstreamError as error:
        assert error.message


# --- errors ---

SAID = "Something about it"
SHAPES = {
    "failed": {"data": None, "message": SAID, "status": "failed"},
    "detail": {"detail": SAID},
    "validation": {"detail": [{"loc": ["body", "size"], "msg": SAID, "type": "value_error"}]},
    "status and message": {"status": "error", "message": SAID},
    "OpenAI's": {"error": {"message": SAID, "type": "t", "param": "size", "code": "c"}},
    "a proxy's": {"error": {"message": SAID, "type": "t", "param": None, "code": "401"}},
    "with details": {"status": "error", "error": {"code": "invalid_size", "message": SAID, "details": {"a": 1}}},
    "a text": {"error": SAID, "code": "c"},
    "nested": {"detail": {"error": SAID}},
    "several": {"id": "x", "name": "bad_request", "errors": [SAID]},
}
STATUSES = {
    400: Failure.REFUSED, 401: Failure.CREDENTIAL, 402: Failure.CREDENTIAL, 403: Failure.CREDENTIAL,
    404: Failure.REFUSED, 405: Failure.REFUSED, 408: Failure.UNCERTAIN, 413: Failure.REFUSED, 415: Failure.REFUSED,
    422: Failure.REFUSED, 429: Failure.RATE_LIMITED, 500: Failure.UNAVAILABLE, 502: Failure.UNAVAILABLE,
    503: Failure.UNAVAILABLE, 504: Failure.UNCERTAIN, 520: Failure.UNCERTAIN, 522: Failure.UNCERTAIN,
    524: Failure.UNCERTAIN, 529: Failure.UNCERTAIN,
}  # fmt: skip


@each_dialect
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("status", STATUSES)
def test_an_error_is_classed_by_its_status_and_told_in_its_own_words(name: str, shape: str, status: int) -> None:
    error = load(name).error(ResponseHead(status, {}), json.dumps(SHAPES[shape]).encode())
    assert error.failure is STATUSES[status]
    assert error.status == status
    assert SAID in error.message


@each_dialect
@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"{", b"[]", b"null", b'"x"', b"\xff" * 99, b"{}"])
@pytest.mark.parametrize("status", STATUSES)
def test_an_error_without_readable_words_is_classed_all_the_same(name: str, body: bytes, status: int) -> None:
    error = load(name).error(ResponseHead(status, {}), body)
    assert error.failure is STATUSES[status]
    assert error.message


@each_dialect
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "with details"])
def test_words_of_failure_under_a_200_are_a_failure(name: str, shape: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded(load(name), json.dumps(SHAPES[shape]).encode())
    assert caught.value.failure is Failure.FAILED
    assert SAID in caught.value.message


@each_dialect
@pytest.mark.parametrize("code", ["content_policy_violation", "moderation_blocked", "invalid_size", "400"])
def test_a_refusal_under_a_200_is_a_refusal(name: str, code: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded(load(name), json.dumps({"status": "error", "error": {"code": code, "message": SAID}}).encode())
    assert caught.value.failure is Failure.REFUSED
    assert (caught.value.code, caught.value.message) == (code, SAID)
