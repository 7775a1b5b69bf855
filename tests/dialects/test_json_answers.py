from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.json_answers import LARGEST_DOCUMENT, ByFirstByte, JsonAnswer, SmallDocument, usage_of
from app.errors import Failure, UpstreamError
from app.events import Done, ImageBegins, ImageData, ImageEnds, ImageLink
from tests.dialects.asking import Told, pictures, told


def read(document: Any) -> list[Told]:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return told(JsonAnswer(10), [text])


def refused(document: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(document)
    return caught.value


def test_an_answer_becomes_its_image_and_what_is_said_of_it() -> None:
    image = {"b64_json": "AAAA", "revised_prompt": "better", "seed": 7, "size": "8x8", "quality": None}
    usage = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}
    told_usage = {**usage, "input_tokens_details": {"text_tokens": 1, "image_tokens": 0}}
    document = {"created": 1, "data": [image], "usage": usage, "quality": "auto", "background": "opaque", "x": 1}
    assert read(document) == [
        ImageBegins(0),
        ImageData(b"AAAA"),
        ImageEnds("better", 7, told_usage, {"background": "opaque", "quality": "auto", "size": "8x8"}),
        Done(told_usage, {"background": "opaque", "quality": "auto"}),
    ]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_facts_that_stand_before_the_end_of_the_first_image_are_those_of_each_image(step: int) -> None:
    def facts(document: dict[str, Any]) -> list[dict[str, str]]:
        text = json.dumps(document).encode()
        events = told(JsonAnswer(10), (text[at : at + step] for at in range(0, len(text), step)))
        assert events[-1] == Done(None, {"quality": "medium", "size": "8x8"})
        return [dict(event.facts) for event in events if isinstance(event, ImageEnds)]

    stated = {"quality": "medium", "size": "8x8"}
    one, other = {"b64_json": "AAAA"}, {"url": "https://a.test/1", "size": "4x4"}
    assert facts({**stated, "data": [one]}) == facts({"data": [one], **stated}) == [stated]
    assert facts({**stated, "data": [one, other]}) == [stated, {**stated, "size": "4x4"}]
    assert facts({"quality": "medium", "data": [one, other], "size": "8x8"}) == [
        {"quality": "medium"},
        {"quality": "medium", "size": "4x4"},
    ]
    assert facts({"data": [one, other], **stated}) == [{}, {"size": "4x4"}]


def test_what_is_said_of_who_asked_and_of_vectors_is_repeated() -> None:
    svg = {"model": "gpt-svg", "input_tokens": 1, "output_tokens": 2, "reasoning_tokens": 0, "total_tokens": 3}
    *_, done = read({"data": [{"b64_json": "AAAA"}], "safety_identifier": "team-7", "svg_usage": svg})
    assert done == Done(None, {"safety_identifier": "team-7", "svg_usage": svg})


def test_several_images_come_in_order_and_the_last_one_carries_the_usage() -> None:
    events = read({"usage": {"prompt_tokens": 5, "total_tokens": 5}, "data": [{"b64_json": x} for x in ("AA", "BB")]})
    assert pictures(events) == [b"AA", b"BB"]
    assert [event.index for event in events if isinstance(event, ImageBegins)] == [0, 1]
    assert [bool(event.usage) for event in events if isinstance(event, ImageEnds)] == [False, True]


def test_facts_of_an_image_that_come_before_and_behind_its_text_are_its_own() -> None:
    events = read(
        b'{"data":[{"seed":1,"b64_json":"AA","revised_prompt":"one"},{"revised_prompt":"two","b64_json":"BB","seed":2}]}'
    )
    ends = [event for event in events if isinstance(event, ImageEnds)]
    assert [(end.revised_prompt, end.seed) for end in ends] == [("one", 1), ("two", 2)]


@pytest.mark.parametrize("noise", [{"seed": "7", "revised_prompt": 3}, {"seed": True, "revised_prompt": ""}])
def test_facts_of_a_wrong_kind_are_left_out(noise: dict[str, Any]) -> None:
    assert read({"data": [{"b64_json": "AA", **noise}]})[2] == ImageEnds()


def test_a_link_beside_a_null_text_is_the_image() -> None:
    events = read({"data": [{"b64_json": None, "url": "https://a.test/1", "revised_prompt": "r"}]})
    assert events == [ImageBegins(0), ImageLink("https://a.test/1"), ImageEnds("r"), Done()]


@pytest.mark.parametrize("entry", [{"b64_json": "AA", "url": None}, {"url": "https://a.test", "b64_json": "AA"}])
def test_a_text_goes_before_a_link(entry: dict[str, Any]) -> None:
    assert pictures(read({"data": [entry]})) == [b"AA"]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("data:image/png;base64,AAAA", b"AAAA"), ("data:;base64,AA==", b"AA=="),
        ("DATA:image/png;name=a.png;BASE64,A%2BA%3D", b"A+A="), ("data:image/png;base64,AAA\nA", b"AAA\nA"),
        ("data:image/png;base64,AA%", b"AA%"), ("data:image/png;base64,AA%4", b"AA%4"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_data_url_is_the_image_itself(url: str, text: bytes, step: int) -> None:
    data = [{"url": url, "revised_prompt": "r"}, {"url": "https://a.test/1"}, {"url": url, "b64_json": "the same"}]
    body = json.dumps({"data": data}).encode()
    events = told(JsonAnswer(10), (body[at : at + step] for at in range(0, len(body), step)))
    assert pictures(events) == [text, "https://a.test/1", text]
    assert [event.revised_prompt for event in events if isinstance(event, ImageEnds)] == ["r", None, None]


def test_a_data_url_of_any_length_passes_in_pieces() -> None:
    decoder = JsonAnswer(10)
    passed = list(decoder.feed(b'{"data":[{"url":"data:image/png;base64,'))
    for _ in range(64):
        passed += decoder.feed(b"A" * 65_536)
        assert passed[-1] == ImageData(b"A" * 65_536)
    passed += [*decoder.feed(b'"}]}'), *decoder.close()]
    assert sum(len(event.base64) for event in passed if isinstance(event, ImageData)) == 4 * 1_048_576


def test_a_link_without_end_is_an_error() -> None:
    assert "a link is longer than 65536 bytes" in refused({"data": [{"url": "https://a.test/" + "a" * 65_536}]}).message


@pytest.mark.parametrize(
    "url", ["data:image/svg+xml;utf8,<svg/>", "data:image/png;base64,", "https://a.test/;base64,A"]
)
def test_another_url_is_a_link(url: str) -> None:
    assert read({"data": [{"url": url}]})[1] == ImageLink(url)


entries = st.one_of(
    st.text("ABCD", min_size=1, max_size=9).map(lambda text: {"b64_json": text}),
    st.text("abc", min_size=1, max_size=9).map(lambda path: {"url": f"https://a.test/{path}", "b64_json": None}),
    st.text("abc", min_size=1, max_size=9).map(lambda path: {"url": f"https://a.test/{path}"}),
)


@given(st.lists(entries, min_size=1, max_size=5), st.booleans(), st.integers(1, 7))
def test_texts_and_links_mixed_come_in_the_order_of_the_answer(
    data: list[dict[str, Any]], first: bool, step: int
) -> None:
    document = {"data": data, "created": 1} if first else {"created": 1, "status": "success", "data": data}
    text = json.dumps(document).encode()
    events = told(JsonAnswer(10), (text[at : at + step] for at in range(0, len(text), step)))
    assert pictures(events) == [e["b64_json"].encode() if e.get("b64_json") else e["url"] for e in data]
    assert [e.index for e in events if isinstance(e, ImageBegins)] == list(range(len(data)))


@pytest.mark.parametrize(
    "data",
    [
        [{"b64_json": "AA"}, {}], [{}, {"b64_json": "AA"}], [{"url": "https://a.test"}, {"b64_json": ""}],
        [{"b64_json": "AA"}, None, {"b64_json": "BB"}], [{"b64_json": None, "url": None}, {"b64_json": "AA"}],
    ],
)  # fmt: skip
def test_an_answer_with_one_image_missing_is_an_error(data: list[Any]) -> None:
    error = refused({"data": data})
    assert error.failure is Failure.UNCERTAIN
    assert "missing" in error.message or "no image" in error.message


@pytest.mark.parametrize(
    "text",
    [
        b'{"data":[{"b64_json":"AAAA"}],"data":[]}',
        b'{"data":[{"b64_json":"AAAA"}],"data":null}',
        b'{"data":[{"b64_json":"AAAA"}],"data":{}}',
        b'{"data":[{"b64_json":"AAAA"},{"b64_json":"BBBB"}],"data":[{}]}',
        b'{"data":[{"b64_json":"AAAA"}],"data":[{"b64_json":"BBBB"}]}',
        b'{"data":[{"b64_json":"AAAA","b64_json":"AAAA"}]}',
        b'{"data":[{"b64_json":"AAAA"},{"b64_json":"BBBB","b64_json":"BBBB"}]}',
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_an_answer_that_says_something_twice_is_an_error(text: bytes, step: int) -> None:
    with pytest.raises(UpstreamError) as caught:
        told(JsonAnswer(10), (text[at : at + step] for at in range(0, len(text), step)))
    assert caught.value.failure is Failure.UNCERTAIN
    assert "twice" in caught.value.message


def test_a_text_elsewhere_is_no_image() -> None:
    preview = {"b64_json": "XX"}
    assert pictures(read({"preview": preview, "data": [{"more": preview, "b64_json": "AA"}]})) == [b"AA"]


def test_a_failure_told_behind_an_image_is_a_failure_all_the_same() -> None:
    error = refused({"data": [{"b64_json": "AA"}], "status": "failed", "message": "out of memory"})
    assert (error.failure, error.message) == (Failure.FAILED, "out of memory")


@pytest.mark.parametrize(
    "more", [{"status": "finished"}, {"detail": "high"}, {"error": {"code": 0, "message": "success"}}]
)
@pytest.mark.parametrize("image", [{"b64_json": "AA"}, {"url": "https://a.test"}])
def test_words_that_tell_of_no_failure_break_no_image(image: dict[str, Any], more: dict[str, Any]) -> None:
    assert read({"data": [image], **more}) == read({**more, "data": [image]}) == read({"data": [image]})


def test_a_drawing_that_is_under_way_is_perhaps_paid() -> None:
    error = refused({"id": "job1", "status": "queued"})
    assert (error.failure, error.message) == (Failure.UNCERTAIN, "it says 'queued' instead of giving the image")


def test_a_reason_told_of_one_image_beside_another_one_lets_nothing_be_drawn_again() -> None:
    error = refused({"data": [{"url": "https://a.test"}, {"error": {"message": "no", "code": "moderation_blocked"}}]})
    assert (error.failure, error.message) == (Failure.UNCERTAIN, "image 2 of the answer is missing")


def test_a_moderation_inside_a_200_is_a_refusal() -> None:
    error = refused({"data": [], "error": {"code": "moderation_blocked", "message": "no"}})
    assert (error.failure, error.status, error.code) == (Failure.REFUSED, 400, "moderation_blocked")


def test_an_answer_without_an_image_and_without_a_reason_was_perhaps_paid() -> None:
    assert refused({"created": 1, "data": []}).failure is Failure.UNCERTAIN


def test_a_piece_of_a_picture_is_passed_on_as_it_came() -> None:
    answer = JsonAnswer(10)
    list(answer.feed(b'{"data":[{"b64_json":"AA'))
    piece = b"B" * 1000
    [event] = answer.feed(piece)
    assert isinstance(event, ImageData)
    assert event.base64 is piece


# --- usage ---


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        ({"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}, (5, 2, 3, 2, 0)),
        ({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}, (5, 2, 3, 2, 0)),
        ({"prompt_tokens": 0, "total_tokens": 0}, (0, 0, 0, 0, 0)),
        ({"prompt_tokens": 2, "total_tokens": 5}, (5, 2, 3, 2, 0)),
        ({"completion_tokens": 3, "total_tokens": 5}, (5, 2, 3, 2, 0)),
        ({"input_tokens": 2, "output_tokens": 3}, (5, 2, 3, 2, 0)),
        ({"total_tokens": 5}, (5, 0, 5, 0, 0)),
        ({"output_tokens": 3}, (3, 0, 3, 0, 0)),
        ({"prompt_tokens": 9, "total_tokens": 5}, (5, 9, 0, 9, 0)),
        (
            {"input_tokens": 9, "output_tokens": 1, "input_tokens_details": {"text_tokens": 4, "image_tokens": 5}},
            (10, 9, 1, 4, 5),
        ),
        ({"prompt_tokens": 9, "total_tokens": 9, "prompt_tokens_details": {"image_tokens": 5}}, (9, 9, 0, 4, 5)),
        ({"input_tokens": 1, "output_tokens": 1, "input_tokens_details": "x"}, (2, 1, 1, 1, 0)),
    ],
)
def test_usage_is_told_in_openais_shape(said: dict[str, Any], usage: tuple[int, ...]) -> None:
    total, taken, made, text, image = usage
    assert usage_of({"usage": said}) == {
        "total_tokens": total,
        "input_tokens": taken,
        "output_tokens": made,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
    }


@pytest.mark.parametrize("said", [None, [], "x", {}, {"generated_images": 1}, {"total_tokens": "5"}, {"x": True}])
def test_usage_that_counts_no_tokens_is_none(said: Any) -> None:
    assert usage_of({"usage": said}) is None
    assert usage_of({}) is None


def test_details_of_what_was_made_are_kept() -> None:
    details = {"image_tokens": 1, "text_tokens": 0}
    usage = usage_of({"usage": {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": details}})
    assert usage is not None
    assert usage["output_tokens_details"] == details


# --- the choice ---


@pytest.mark.parametrize("blank", [b"", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_what_an_answer_begins_with_chooses_its_decoder(blank: bytes) -> None:
    text = blank + b'{"data":[{"b64_json":"AA"}]}'
    assert pictures(told(ByFirstByte(10), [text])) == [b"AA"]
    assert pictures(told(ByFirstByte(10), (text[at : at + 1] for at in range(len(text))))) == [b"AA"]


@pytest.mark.parametrize(
    ("text", "word"), [(b"<html>", "HTML"), (b"plain words", "neither"), (b"\x89PNG", "neither"), (b"", "empty")]
)
def test_what_is_no_json_is_told_as_what_it_is(text: bytes, word: str) -> None:
    with pytest.raises(UpstreamError, match=word):
        told(ByFirstByte(10), [text])


def test_endless_white_space_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="white space"):
        told(ByFirstByte(10), [b" " * 65_536] * 20)


def test_events_are_only_read_where_the_dialect_knows_them() -> None:
    with pytest.raises(UpstreamError):
        told(ByFirstByte(10), [b'data: {"b64_json":"AA"}\n\n'])


# --- small documents ---


def test_a_small_document_is_read_whole_however_it_is_cut() -> None:
    for step in (1, 1000):
        decoder = SmallDocument(lambda document: [Done(document)])
        text = b' {"id": "1", "polling_url": "https://a.test"}\n'
        assert [event for at in range(0, len(text), step) for event in decoder.feed(text[at : at + step])] == []
        assert list(decoder.close()) == [Done({"id": "1", "polling_url": "https://a.test"})]


@pytest.mark.parametrize("text", [b"", b"[]", b"7", b"null", b"{", b'{"a":1}{}', b"<html>", b"[" * 100_000, b"\xff"])
def test_a_small_document_that_is_no_object_is_an_error_and_perhaps_paid(text: bytes) -> None:
    decoder = SmallDocument(lambda _: ())
    decoder.feed(text)
    with pytest.raises(UpstreamError) as caught:
        decoder.close()
    assert caught.value.failure is Failure.UNCERTAIN


def test_a_small_document_is_bounded() -> None:
    decoder = SmallDocument(lambda _: ())
    decoder.feed(b" " * LARGEST_DOCUMENT)
    with pytest.raises(UpstreamError, match="longer than 1048576 bytes"):
        decoder.feed(b" ")
