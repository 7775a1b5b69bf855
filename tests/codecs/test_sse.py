from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.codecs.sse import EventBegins, EventEnds, SseError, SseEvent, SseReader

Seen = tuple[str | None, bytes, str | None]  # the name at the beginning, the data, the name at the end

line_ends = st.sampled_from(["\n", "\r", "\r\n"])
lines = st.one_of(
    st.just(""),
    st.sampled_from(
        [":", ": keepalive", "data", "data:", "data: ", "data:  x", "event", "event:", "id: 7", "retry: 10"]
    ),
    st.sampled_from(["dat: x", "data : x", "datax: y", " data: z", "event: a", "event:b:c", "eventful: d", "da", "d"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8).map("data: {}".format),
)
streams = st.tuples(
    st.sampled_from(["", "\ufeff"]), st.lists(st.tuples(lines, line_ends).map("".join), max_size=14), lines
).map(lambda parts: (parts[0] + "".join(parts[1]) + parts[2]).encode())


def collect(events: Iterable[SseEvent]) -> list[Seen]:
    """The events, put together; checks that they come in order."""
    seen: list[Seen] = []
    begun: EventBegins | None = None
    data = b""
    for event in events:
        if isinstance(event, EventBegins):
            assert begun is None
            begun, data = event, b""
        elif isinstance(event, EventEnds):
            assert begun is not None
            seen.append((begun.name, data, event.name))
            begun = None
        else:
            assert begun is not None
            assert event != b""
            data += event
    assert begun is None
    return seen


def read(chunks: Iterable[bytes]) -> list[Seen]:
    reader = SseReader()
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return collect([*events, *reader.close()])


def bytewise(stream: bytes) -> Iterator[bytes]:
    return (stream[i : i + 1] for i in range(len(stream)))


def read_everywhere(stream: bytes) -> list[Seen]:
    """Cut nowhere, everywhere, and in two at every place: the answer, which must be the same."""
    answer = read([stream])
    assert read(bytewise(stream)) == answer
    for cut in range(len(stream)):
        assert read([stream[:cut], stream[cut:]]) == answer
    return answer


def expected(stream: bytes) -> list[Seen]:
    """The same from the whole text, as the standard words it."""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    seen: list[Seen] = []
    first, name, data = "", "", list[str]()
    for line in [*text.split("\n"), ""]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                seen.append((first or None, "\n".join(data).encode(), name or None))
            first, name, data = "", "", []
        elif field == "event":
            name = value
        elif field == "data":
            first = first if data else name
            data.append(value)
    return seen


@settings(deadline=None, max_examples=400)
@given(stream=streams, cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_every_stream_reads_as_the_standard_says_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    answer = expected(stream)
    assert read([stream]) == answer
    assert read(stream[start:end] for start, end in pairwise(edges)) == answer
    assert read(bytewise(stream)) == answer


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_may_end_in_three_ways(end: bytes) -> None:
    stream = end.join([b": hello", b"event: a", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
    assert read_everywhere(stream) == [("a", b"1\n2", "a"), (None, b"3", None)]


def test_the_three_line_ends_may_be_mixed() -> None:
    stream = b"data: 1\r\r\ndata: 2\n\rdata: 3\r\n\ndata: 4\r\r"
    assert read_everywhere(stream) == [(None, digit, None) for digit in (b"1", b"2", b"3", b"4")]


def test_an_event_without_its_blank_line_is_ended_at_the_close() -> None:
    assert read_everywhere(b"data: 1\n\nevent: last\ndata: 2\n") == [(None, b"1", None), ("last", b"2", "last")]
    assert read_everywhere(b"data: 1\n\nevent: last\ndata: 2") == [(None, b"1", None), ("last", b"2", "last")]
    assert read_everywhere(b"data: 1\nevent: late") == [(None, b"1", "late")]


def test_closing_twice_yields_nothing_more() -> None:
    reader = SseReader()
    reader.feed(b"data: 1\n")
    assert reader.close() == [EventEnds(None)]
    assert reader.close() == []


def test_the_last_event_line_names_the_event() -> None:
    assert read_everywhere(b"event: a\ndata: 1\nevent: b\n\ndata: 2\n\n") == [("a", b"1", "b"), (None, b"2", None)]
    assert read_everywhere(b"event: a\nevent:\ndata: 1\n\n") == [(None, b"1", None)]


def test_blocks_without_data_yield_nothing_and_leave_no_name_behind() -> None:
    assert read_everywhere(b"event: a\nid: 1\nretry: 5\n: c\n\n\n\ndata: x\n\n") == [(None, b"x", None)]


def test_an_empty_data_line_is_an_event() -> None:
    assert read_everywhere(b"data\n\ndata:\n\ndata: \n\ndata:\ndata\n\n") == [
        (None, b"", None), (None, b"", None), (None, b"", None), (None, b"\n", None),
    ]  # fmt: skip


def test_one_space_after_the_colon_is_left_out() -> None:
    assert read_everywhere(b"data:x\n\ndata: x\n\ndata:  x \n\nevent:  e\ndata:\tx\n\n") == [
        (None, b"x", None), (None, b"x", None), (None, b" x ", None), (" e", b"\tx", " e"),
    ]  # fmt: skip


def test_a_byte_order_mark_is_skipped_once() -> None:
    assert read_everywhere(b"\xef\xbb\xbfdata: x\n\n") == [(None, b"x", None)]
    assert read_everywhere(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n") == []
    assert read_everywhere(b"data: \xef\xbb\xbf\n\n") == [(None, b"\xef\xbb\xbf", None)]


def test_a_name_that_is_not_utf_8_is_no_error() -> None:
    assert read_everywhere(b"event: \xff\ndata: \xff\n\n") == [("\ufffd", b"\xff", "\ufffd")]


def test_data_flows_before_its_line_has_ended() -> None:
    reader = SseReader()
    assert reader.feed(b"event: a\nda") == []
    assert reader.feed(b"ta:") == [EventBegins("a")]
    assert reader.feed(b" {") == [b"{"]
    assert reader.feed(b"}\n\n") == [b"}", EventEnds("a")]


def test_a_chunk_wholly_inside_a_data_line_is_passed_on_without_a_copy() -> None:
    reader = SseReader(max_line=10)
    reader.feed(b"data: ")
    chunk = b"QUJD" * 16384
    reader.feed(b"x")
    for _ in range(3):
        (piece,) = reader.feed(chunk)
        assert piece is chunk


@pytest.mark.parametrize("line", [b":" + b"x" * 10, b"event: long", b"x" * 11])
def test_a_line_above_the_bound_that_is_not_data_is_an_error(line: bytes) -> None:
    for chunks in ([line + b"\n"], bytewise(line)):
        reader = SseReader(max_line=10)
        with pytest.raises(SseError, match="longer than 10 bytes"):
            [reader.feed(chunk) for chunk in chunks]
        with pytest.raises(SseError, match="longer than 10 bytes"):
            reader.feed(b"\n")
        with pytest.raises(SseError, match="longer than 10 bytes"):
            reader.close()


def test_a_line_of_exactly_the_bound_is_taken() -> None:
    reader = SseReader(max_line=10)
    assert reader.feed(b"event: abc\ndata: x\n\n") == [EventBegins("abc"), b"x", EventEnds("abc")]
