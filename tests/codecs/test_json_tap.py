from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.codecs.json_tap import (
    MAX_DEPTH,
    MOST_HOLDERS,
    MOST_STRINGS,
    JsonTap,
    JsonTapError,
    StringBegins,
    StringEnds,
    TapEvent,
)

KEYS = frozenset({"b64_json", "ünï"})
Tapped = tuple[tuple[str | int, ...], bytes]

text = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\/{}[],: \nabu0\U0001f600')), max_size=12
)
names = st.one_of(text, st.sampled_from(sorted(KEYS)))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4))
)
documents = st.dictionaries(names, values, max_size=5)
layouts = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "indent": st.sampled_from([None, None, 0, 2, "\t"]),
        "separators": st.sampled_from([None, (",", ":"), (" ,\r\n", " :\t ")]),
    }
)


def collect(events: Iterable[TapEvent]) -> list[Tapped]:
    """The tapped strings, put together; checks that events come in order."""
    found: list[Tapped] = []
    begun: StringBegins | None = None
    content = b""
    for event in events:
        if isinstance(event, StringBegins):
            assert begun is None
            begun, content = event, b""
        elif isinstance(event, StringEnds):
            assert begun is not None
            found.append((begun.path, content))
            begun = None
        else:
            assert begun is not None
            assert event != b""
            content += event
    assert begun is None
    return found


def tap(chunks: Iterable[bytes], keys: frozenset[str] = KEYS) -> tuple[list[Tapped], Any]:
    parser = JsonTap(keys)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    skeleton = parser.close()
    return collect(events), skeleton


def bytewise(document: bytes) -> Iterator[bytes]:
    return (document[i : i + 1] for i in range(len(document)))


def pieces(document: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(document) + 1) for cut in cuts), len(document)]
    return [document[start:end] for start, end in pairwise(edges)]


def tap_everywhere(document: bytes) -> tuple[list[Tapped], Any]:
    """Cut nowhere, everywhere, and in two at every place: the answer, which must be the same."""
    answer = tap([document])
    assert tap(bytewise(document)) == answer
    for cut in range(len(document)):
        assert tap([document[:cut], document[cut:]]) == answer
    return answer


def expected(value: Any, path: tuple[str | int, ...] = ()) -> tuple[list[Tapped], Any]:
    """The same by the whole-document parser."""
    found: list[Tapped] = []
    steps: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        steps, blank = value.items(), {}
    elif isinstance(value, list):
        steps, blank = enumerate(value), dict[Any, Any]()
    else:
        return [], value
    for step, inner in steps:
        if step in KEYS and isinstance(inner, str) and isinstance(value, dict):
            found.append(((*path, step), inner.encode()))
            blank[step] = ""
        else:
            more, blank[step] = expected(inner, (*path, step))
            found += more
    return found, blank if isinstance(value, dict) else list(blank.values())


def fails(document: bytes, match: str) -> None:
    for chunks in ([document], bytewise(document)):
        with pytest.raises(JsonTapError, match=match):
            tap(chunks)


@settings(deadline=None, max_examples=300)
@given(document=documents, layout=layouts, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_every_document_reads_as_the_whole_document_parser_reads_it(
    document: dict[str, Any], layout: dict[str, Any], cuts: list[int]
) -> None:
    body = json.dumps(document, **layout).encode()
    answer = expected(json.loads(body))
    assert tap([body]) == answer
    assert tap(pieces(body, cuts)) == answer
    assert tap(bytewise(body)) == answer


@settings(deadline=None, max_examples=100)
@given(document=documents, layout=layouts)
def test_every_strict_prefix_of_a_document_is_an_error(document: dict[str, Any], layout: dict[str, Any]) -> None:
    body = json.dumps(document, **layout).encode()
    step = 1 + len(body) // 200
    for end in range(0, len(body), step):
        parser = JsonTap(KEYS)
        parser.feed(body[:end])
        with pytest.raises(JsonTapError, match="truncated"):
            parser.close()


@settings(deadline=None, max_examples=300)
@given(body=st.text('{}[]",:\\/ue0d81b64_json ', max_size=40).map(str.encode), cuts=st.lists(st.integers(0, 40)))
def test_garbage_is_refused_wherever_the_whole_document_parser_refuses_it(body: bytes, cuts: list[int]) -> None:
    for document in (body, b'{"b64_json":"' + body + b'"}', b'{"b64_json":' + body + b"}"):
        answers: list[tuple[list[Tapped], Any] | None] = []
        for chunks in ([document], pieces(document, cuts), bytewise(document)):
            try:
                answers.append(tap(chunks))
            except JsonTapError:
                answers.append(None)
        assert answers[0] == answers[1] == answers[2]
        try:
            good = json.loads(document)
        except ValueError:
            assert answers[0] is None
        else:
            if answers[0] is None:  # the one thing that only the tap refuses: half of a surrogate pair
                assert rb"\ud" in document
            else:
                assert answers[0][1] == expected(good)[1]


def test_a_tapped_string_is_announced_with_the_way_to_it() -> None:
    body = b'{"created": 1, "data": [{}, {"b64_json": "QUJD", "seed": 7}]}'
    parser = JsonTap(KEYS)
    assert parser.feed(body) == [StringBegins(("data", 1, "b64_json")), b"QUJD", StringEnds()]
    assert parser.close() == {"created": 1, "data": [{}, {"b64_json": "", "seed": 7}]}


def test_an_empty_tapped_string_begins_and_ends_without_a_piece() -> None:
    assert JsonTap(KEYS).feed(b'{"b64_json":""}') == [StringBegins(("b64_json",)), StringEnds()]


@pytest.mark.parametrize("value", ["null", "12", "-1.5e3", "true", '{"a": "x"}', '["x", "y"]', "[]"])
def test_a_value_that_is_no_string_stays_in_the_skeleton(value: str) -> None:
    body = f'{{"b64_json" : {value} , "x": "y"}}'.encode()
    assert tap_everywhere(body) == ([], json.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"note": "the key \\"b64_json\\": \\"AAAA\\" is quoted"}',
        b'{"a": "b64_json", "b": "x"}',
        b'{"a": ["b64_json", "x"]}',
        b'{"a": {"b64_json_2": "x", "xb64_json": "y"}}',
        b'{"a\\"b64_json": "x"}',
        b'{"a": "b64_json\\\\", "b": "\\\\"}',
    ],
)
def test_the_name_of_the_key_elsewhere_is_not_tapped(body: bytes) -> None:
    assert tap_everywhere(body) == ([], json.loads(body))


def test_a_key_may_be_spelt_with_escapes() -> None:
    body = rb'{"b64\u005fjson": "QQ==", "\u00fcn\u00ef": "x", "d\u0061ta": [{"b64_jso\u006E" : "Qg=="}]}'
    assert tap_everywhere(body)[0] == [
        (("b64_json",), b"QQ=="),
        (("ünï",), b"x"),
        (("data", 0, "b64_json"), b"Qg=="),
    ]


@pytest.mark.parametrize(
    ("spelt", "meant"),
    [
        (rb"iVBOR\/\/8\/", b"iVBOR//8/"),  # PHP
        (rb"QQ\u003d\u003D", b"QQ=="),  # Gson
        (rb"QUJD\nREVG\r\n", b"QUJD\nREVG\r\n"),  # MIME
        (rb"\"\\\/\b\f\n\r\t", b'"\\/\b\f\n\r\t'),
        (rb"a\\/b\\\/c\\\\/", b"a\\/b\\/c\\\\/"),
        (rb"\\", b"\\"),
        (rb"\\\"", b'\\"'),
        (rb"x\\u0041", b"x\\u0041"),
        (rb"\u0000\u00e9\u20AC\uD7ff\ue000", "\0é€\ud7ff\ue000".encode()),
        (rb"\ud83d\uDE00\uDBFF\udfff", "\U0001f600\U0010ffff".encode()),
        ("grün 😀".encode(), "grün 😀".encode()),
        ("ü\\u00fcü\\/😀".encode(), "üüü/😀".encode()),
        (b"data:image\\/png;base64,QUJD", b"data:image/png;base64,QUJD"),
    ],
)
def test_escapes_are_undone_wherever_they_are_cut(spelt: bytes, meant: bytes) -> None:
    body = b'{"data":[{"b64_json":"' + spelt + b'"}]}'
    assert tap_everywhere(body) == ([(("data", 0, "b64_json"), meant)], {"data": [{"b64_json": ""}]})
    assert json.loads(body)["data"][0]["b64_json"].encode() == meant


@pytest.mark.parametrize(
    "spelt",
    [
        rb"\ud83d", rb"\ud83dx", rb"\ud83d\n", rb"\ud83d\u0041", rb"\ud83d\ud83d\ude00", rb"\ude00", rb"\ude00\ud83d",
        rb"\x41", rb"\u12g4", rb"\u12", rb"\'", rb"\U0041",
    ],
)  # fmt: skip
def test_bad_escapes_and_lone_surrogates_in_a_tapped_string_are_errors(spelt: bytes) -> None:
    fails(b'{"b64_json":"AAAA' + spelt + b'"}', "escape or half of a surrogate")


def test_what_came_before_a_string_can_be_parsed_without_the_rest() -> None:
    document = b'\xef\xbb\xbf {"a":1,"data":[{"b64_json":"AAAA","seed":7},{"x":[1,{"y":2}],"b64_json":"BBBB"}],"z":3}'
    for size in (1, 7, len(document)):
        tap = JsonTap(frozenset({"b64_json"}))
        found = [event for at in range(0, len(document), size) for event in tap.feed(document[at : at + size])]
        first, second = (event for event in found if isinstance(event, StringBegins))
        assert tap.document_so_far(first) == {"a": 1, "data": [{"b64_json": ""}]}
        assert tap.holder(first, second) == {"b64_json": "", "seed": 7}
        before = [{"b64_json": "", "seed": 7}, {"x": [1, {"y": 2}], "b64_json": ""}]
        assert tap.document_so_far(second) == {"a": 1, "data": before}


def test_bare_control_characters_elsewhere_are_errors() -> None:
    fails(b'{"a":"x\ny"}', "malformed.*control character")
    fails(b'{"a\n":{"b64_json":"x"}}', "malformed")


@pytest.mark.parametrize("before", [b"", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n "])
@pytest.mark.parametrize("after", [b"", b"\n", b" \r\n\t "])
def test_white_space_around_the_document_and_a_byte_order_mark_are_allowed(before: bytes, after: bytes) -> None:
    found, skeleton = tap_everywhere(before + b'{"b64_json":"QQ=="}' + after)
    assert found == [(("b64_json",), b"QQ==")]
    assert skeleton == {"b64_json": ""}


@pytest.mark.parametrize("garbage", [b"x", b"{}", b" null", b"\n,", b'"', b"}", b']{"b64_json":"x"}'])
def test_anything_after_the_document_is_an_error(garbage: bytes) -> None:
    fails(b'{"b64_json":"QQ=="}' + garbage, "follows the end")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>502 Bad Gateway</html>", b"{]", b"}", b"[}", b'{"a":1,}', b'{"a" 1}', b'["a":1]', b':"x"', b"{:1}",
        b"[1 2]", b'{"b64_json":"x" "y"}', b'{"b64_json" "x"}', b'["b64_json":"x"]', b'{"b64_json"::"x"}',
        b'{"b64_json":1"x"}', b'{"a":tru}', b'{"a":"\xff"}', b'{"a\xff":{"b64_json":"x"}}', b'{"b64_json":"x"]', b"x{}",
        b'{"a":"\\q"}', b"\xef\xbb\xbf\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_malformed_documents_are_errors(body: bytes) -> None:
    fails(body, "malformed")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_know_are_errors(constant: str) -> None:
    fails(f'{{"a":{constant}}}'.encode(), "is not JSON")


@pytest.mark.parametrize("body", [b"", b" \n", b"{", b'{"b64_json"', b'{"b64_json":', b'{"b64_json":"AAAA', b'"abc'])
def test_truncated_documents_are_errors(body: bytes) -> None:
    fails(body, "truncated")


@pytest.mark.parametrize("body", [b"[]", b'"b64_json"', b"12", b"null", b'[{"b64_json":1}]', b' "x"'])
def test_a_document_need_not_be_an_object(body: bytes) -> None:
    assert tap_everywhere(body) == ([], json.loads(body))


def test_a_tapped_string_may_lie_in_a_list_at_the_top() -> None:
    assert tap_everywhere(b'[1,[],"x",{"b64_json":"A"}]')[0] == [((3, "b64_json"), b"A")]


def test_a_key_that_comes_twice_has_both_strings_tapped_and_the_last_value_in_the_document() -> None:
    found, skeleton = tap_everywhere(b'{"b64_json":"A","b64_json":"B","b64_json":null,"a":1,"a":2}')
    assert [content for _, content in found] == [b"A", b"B"]
    assert skeleton == {"b64_json": None, "a": 2}


def test_a_chunk_wholly_inside_a_tapped_string_is_passed_on_without_a_copy() -> None:
    parser = JsonTap(KEYS)
    parser.feed(b'{"b64_json":"')
    chunk = b"QUJD" * 16384
    for _ in range(3):
        (piece,) = parser.feed(chunk)
        assert piece is chunk
    assert parser.feed(b'"}') == [StringEnds()]


def test_tapped_strings_are_not_in_the_skeleton() -> None:
    parser = JsonTap(KEYS, max_skeleton=100)
    parser.feed(b'{"b64_json":"')
    for _ in range(100):
        parser.feed(b"QUJD" * 1000)
    parser.feed(b'"}' + b" " * 1000)
    assert parser.close() == {"b64_json": ""}


@pytest.mark.parametrize("body", [b'{"a":"' + b"x" * 100 + b'"}', b"[" + b"1," * 50 + b"1]", b" " * 101 + b"{}"])
def test_a_skeleton_above_the_bound_is_an_error(body: bytes) -> None:
    for chunks in ([body], bytewise(body)):
        parser = JsonTap(KEYS, max_skeleton=100)
        with pytest.raises(JsonTapError, match="more than 100 bytes beside"):
            [parser.feed(chunk) for chunk in chunks]


def test_a_skeleton_of_exactly_the_bound_is_taken() -> None:
    body = b'{"a":"x"}'
    parser = JsonTap(KEYS, max_skeleton=len(body))
    parser.feed(body)
    assert parser.close() == {"a": "x"}


@pytest.mark.parametrize("size", [7, 1000, 1_000_000])
def test_strings_beyond_the_most_are_left_out_and_counted(size: int) -> None:
    document = b"[" + b'{"a":"x"},' * (MOST_STRINGS + 2) + b'{"a":"' + b"y" * 2_000_000 + b'"}]'
    tap = JsonTap(frozenset({"a"}))
    events = [event for at in range(0, len(document), size) for event in tap.feed(document[at : at + size])]
    assert len(collect(events)) == MOST_STRINGS
    assert tap.left_out == 3
    assert tap.close() == [{"a": ""}] * (MOST_STRINGS + 3)


def test_a_long_name_above_many_strings_is_held_once() -> None:
    tap = JsonTap(frozenset({"a"}))
    events = tap.feed(b'{"' + b"k" * 10_000 + b'":[' + b'{"a":""},' * 100)
    names = {id(event.path[0]) for event in events if isinstance(event, StringBegins)}
    assert len(names) == 1


def test_objects_and_arrays_are_bounded_in_number() -> None:
    most = b"[" + b"[],{}," * ((MOST_HOLDERS - 2) // 2) + b"[]]"
    assert len(tap([most])[1]) == MOST_HOLDERS - 1
    with pytest.raises(JsonTapError, match="more than 16384 objects and arrays"):
        tap([most[:-1] + b",{}]"])


def test_nesting_is_bounded() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert tap([deepest]) == ([], json.loads(deepest))
    fails(b"[" + deepest + b"]", "nests deeper than 64")
    fails(b'{"a":' * 100_000, "nests deeper than 64")


def test_after_an_error_every_call_raises_it_again() -> None:
    parser = JsonTap(KEYS)
    with pytest.raises(JsonTapError, match="was not opened"):
        parser.feed(b"}")
    for _ in range(2):
        with pytest.raises(JsonTapError, match="was not opened"):
            parser.feed(b"{}")
        with pytest.raises(JsonTapError, match="was not opened"):
            parser.close()


def test_feeding_nothing_changes_nothing() -> None:
    chunks = [c for byte in bytewise(rb'{"b64_json":"\u00e9"}') for c in (b"", byte, b"")]
    assert tap(chunks) == ([(("b64_json",), "é".encode())], {"b64_json": ""})
