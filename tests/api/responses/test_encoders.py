from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder
from app.errors import ApiError, InvalidRequest, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.images import Operation, Size
from tests.codecs.test_sse import read as read_sse
from tests.dialects.asking import asked

SERVED = Served("netmind", "flux", 2, ("style",), ("size=8x8",))
USAGE = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}
CREATED = 1_700_000_000


def sent(encoder: JsonEncoder | SseEncoder, events: Iterable[Event]) -> bytes:
    return b"".join(encoder.encode(event) for event in events)


def as_json(events: Iterable[Event], **asked_for: Any) -> dict[str, Any]:
    found = json.loads(sent(JsonEncoder(asked(**asked_for), CREATED), events))
    assert isinstance(found, dict)
    return found


def parsed(stream: bytes) -> list[tuple[str | None, dict[str, Any]]]:
    """The events by the rules of server-sent events: the last `event:` line of a block holds."""
    assert not stream or stream.endswith(b"\n\n"), "the SDKs lose a last event without its blank line"
    assert b"\nid:" not in stream and b"\nretry:" not in stream
    return [(name, json.loads(data)) for _, data, name in read_sse([stream])]


def as_sse(events: Iterable[Event], **asked_for: Any) -> list[tuple[str | None, dict[str, Any]]]:
    encoder = SseEncoder(asked(stream=True, **asked_for), CREATED)
    found = parsed(sent(encoder, events))
    assert not encoder.inside
    return found


def image(index: int = 0, *texts: bytes, partial: int | None = None, **ends: Any) -> list[Event]:
    return [ImageBegins(index, partial), *map(ImageData, texts or (b"AAAA",)), ImageEnds(**ends)]


def link(index: int, url: str, **ends: Any) -> list[Event]:
    return [ImageBegins(index), ImageLink(url), ImageEnds(**ends)]


# Any text that JSON can carry, half a surrogate pair included, which an upstream's escapes can spell.
words = st.text(st.characters(exclude_categories=()), max_size=8)
ends = st.fixed_dictionaries(
    {},
    optional={
        "revised_prompt": words,
        "seed": st.integers(0, 9),
        "usage": st.just(USAGE),
        "facts": st.dictionaries(
            st.sampled_from(["size", "quality", "background", "output_format"]), words, max_size=3
        ),
    },
)
base64_text = st.text("ABab01+/=", min_size=1, max_size=9).map(str.encode)


@st.composite
def calls(draw: st.DrawFn) -> list[Event]:
    """All events of a call, as the gateway passes them on."""
    events: list[Event] = [SERVED]
    for index in range(draw(st.integers(1, 3))):
        for partial in range(draw(st.integers(0, 2))):
            events += image(index, *draw(st.lists(base64_text, min_size=1, max_size=3)), partial=partial, **draw(ends))
        if draw(st.booleans()):
            events += image(index, *draw(st.lists(base64_text, min_size=1, max_size=3)), partial=None, **draw(ends))
        else:
            events += link(index, "https://a.test/" + draw(words), **draw(ends))
        if draw(st.booleans()):
            events.append(SERVED)
    return [*events, Done(draw(st.none() | st.just(USAGE)), draw(st.dictionaries(st.just("quality"), words)))]


def texts(events: Iterable[Event], *, partials: bool) -> list[str]:
    found: list[str] = []
    for event in events:
        if isinstance(event, ImageBegins):
            wanted = partials or event.partial is None
            found += [""] * wanted
        elif isinstance(event, ImageData) and wanted:
            found[-1] += event.base64.decode()
        elif isinstance(event, ImageLink):
            found[-1] = event.url.encode(errors="replace").decode()
    return found


# --- JSON ---


@given(calls())
def test_every_call_is_a_json_document_with_its_finished_images(events: list[Event]) -> None:
    document = as_json(events)
    assert [entry.get("b64_json") or entry["url"] for entry in document["data"]] == texts(events, partials=False)
    assert document["created"] == CREATED
    assert "gateway" not in document


def test_an_answer_begins_and_goes_on_byte_for_byte_as_openais() -> None:
    encoder = JsonEncoder(asked(), CREATED)
    assert encoder.encode(SERVED) == b""
    assert encoder.encode(ImageBegins(0)) == b""
    assert encoder.encode(ImageData(b"AAAA")) == b'{"created":1700000000,"data":[{"b64_json":"AAAA'
    assert encoder.encode(ImageData(b"BB==")) == b"BB=="
    assert (
        encoder.encode(ImageEnds("r \u00e9", 7, facts={"size": "8x8"}))
        == '","revised_prompt":"r \u00e9","seed":7}'.encode()
    )
    assert encoder.encode(ImageBegins(1)) == b""
    assert encoder.encode(ImageLink("https://a.test/?a=b&c")) == b',{"url":"https://a.test/?a=b&c"'
    assert encoder.encode(ImageEnds()) == b"}"
    assert encoder.encode(Done({"total_tokens": 1})) == b'],"size":"8x8","usage":{"total_tokens":1}}'


def test_a_piece_inside_of_an_image_is_passed_on_as_it_came() -> None:
    for encoder in (JsonEncoder(asked(), CREATED), SseEncoder(asked(stream=True), CREATED)):
        for event in image()[:-1]:
            encoder.encode(event)
        piece = b"B" * 1000
        assert encoder.encode(ImageData(piece)) is piece


def test_partial_images_have_no_place_in_json() -> None:
    assert as_json([*image(0, b"PPPP", partial=0), *image(), Done()])["data"] == [{"b64_json": "AAAA"}]


def test_the_facts_of_a_picture_go_before_the_words_of_provider_and_caller() -> None:
    document = as_json(
        [*image(facts={"size": "8x8", "output_format": "png"}), Done(None, {"size": "auto", "background": "opaque"})],
        parameters={"quality": "high", "style": "vivid"},
    )
    assert document == {
        "created": CREATED, "data": [{"b64_json": "AAAA"}],
        "size": "8x8", "output_format": "png", "background": "opaque", "quality": "high",
    }  # fmt: skip


def test_usage_is_told_only_where_there_is_some() -> None:
    assert as_json([*image(), Done(USAGE)])["usage"] == USAGE
    assert "usage" not in as_json([*image(), Done()])
    assert "usage" not in as_json([*image(usage=USAGE), Done({})])


def test_an_unknown_fact_of_a_picture_is_left_out() -> None:
    known_to_none = image(facts={"size": None, "output_format": None})
    assert as_json([*known_to_none, Done(None, {"size": "8x8", "output_format": "png"})]) == {
        "created": CREATED, "data": [{"b64_json": "AAAA"}],
    }  # fmt: skip
    [(_, data)] = as_sse(known_to_none, size=Size(8, 8))
    assert (data["size"], data["output_format"]) == ("auto", "unknown")


@pytest.mark.parametrize("asked_for", ["transparent", "opaque", "auto"])
@pytest.mark.parametrize("alpha", [True, False, None])
def test_a_background_is_repeated_unless_the_picture_denies_it(asked_for: str, alpha: bool | None) -> None:
    fields: dict[str, Any] = {"parameters": {"background": asked_for}}
    denied = asked_for == "transparent" and alpha is False
    assert as_json([*image(alpha=alpha), Done()], **fields).get("background") == (None if denied else asked_for)
    [(_, data)] = as_sse(image(alpha=alpha), **fields)
    assert data["background"] == ("opaque" if denied else asked_for)


def test_a_background_that_the_provider_states_is_told_as_stated() -> None:
    fields: dict[str, Any] = {"parameters": {"background": "transparent"}}
    stated = {"background": "transparent"}
    assert as_json([*image(alpha=False), Done(None, stated)], **fields)["background"] == "transparent"
    [(_, data)] = as_sse(image(alpha=False, facts=stated), **fields)
    assert data["background"] == "transparent"


# --- server-sent events ---


@given(calls())
def test_every_call_is_a_stream_of_events_with_all_its_images(events: list[Event]) -> None:
    found = as_sse(events)
    assert [data.get("b64_json") or data["url"] for _, data in found] == texts(events, partials=True)
    for name, data in found:
        assert name == data["type"]
        assert {"created_at", "size", "quality", "background", "output_format", "index"} <= set(data)
        assert ("partial_image_index" in data) == (data["type"] == "image_generation.partial_image")
        assert ("gateway" in data) == (data["type"] == "image_generation.completed")


def test_a_stream_goes_byte_for_byte_as_openais() -> None:
    encoder = SseEncoder(asked(stream=True, size=Size(8, 8)), CREATED)
    assert sent(encoder, [SERVED, ImageBegins(0, 0)]) == b""
    assert not encoder.inside
    start = b'event: image_generation.partial_image\ndata: {"b64_json":"PP'
    assert encoder.encode(ImageData(b"PP")) == start
    assert encoder.inside
    assert encoder.encode(ImageEnds()) == (
        b'","type":"image_generation.partial_image","created_at":1700000000,"size":"8x8","quality":"auto",'
        b'"background":"auto","output_format":"png","partial_image_index":0,"index":0}\n\n'
    )
    assert not encoder.inside
    assert sent(encoder, image(0, b"AA")[:-1]) == b'event: image_generation.completed\ndata: {"b64_json":"AA'


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (Operation.GENERATIONS, "image_generation"),
        (Operation.EDITS, "image_edit"),
        (Operation.VARIATIONS, "image_variation"),
    ],
)
def test_each_operation_has_events_of_its_own_name(operation: Operation, name: str) -> None:
    encoder = SseEncoder(asked(operation, stream=True), CREATED)
    assert [n for n, _ in parsed(sent(encoder, [*image(partial=0), *image()]))] == [
        f"{name}.partial_image",
        f"{name}.completed",
    ]


def test_a_completed_event_names_its_deployment_and_its_usage() -> None:
    [(_, data)] = as_sse([SERVED, *image(usage=USAGE, seed=7, revised_prompt="r"), Done(USAGE)])
    assert data["gateway"] == {
        "provider": "netmind", "model": "flux", "attempts": 2, "dropped": ["style"], "mapped": ["size=8x8"],
    }  # fmt: skip
    assert (data["usage"], data["seed"], data["revised_prompt"]) == (USAGE, 7, "r")


def test_the_deployment_may_change_from_one_image_to_the_next() -> None:
    found = as_sse([SERVED, *image(0), Served("nebula", "flux", 3), *image(1)])
    assert [data["gateway"]["provider"] for _, data in found] == ["netmind", "nebula"]
    assert [data["index"] for _, data in found] == [0, 1]


def test_the_facts_of_an_image_go_before_what_was_asked() -> None:
    asked_for = {"size": Size(8, 8), "parameters": {"quality": "high", "background": "opaque"}}
    [(_, data)] = as_sse(
        [SERVED, *image(facts={"size": "9x9", "quality": "low", "output_format": "webp"})], **asked_for
    )
    assert [data[name] for name in ("size", "quality", "background", "output_format")] == [
        "9x9",
        "low",
        "opaque",
        "webp",
    ]


# --- errors among events ---

ERROR = UpstreamFailed('it "broke"\n\n\u2028', code="upstream_timeout", details={"moderation_details": {"a": [1]}})


def raised(stream: bytes) -> dict[str, Any]:
    """The error object that both official SDKs raise for the last event."""
    name, data = parsed(stream)[-1]
    assert name == "error"
    assert data["type"] == "error"
    error = data["error"]
    assert isinstance(error, dict)
    assert {"message", "type", "param", "code"} <= set(error)
    return error


def test_an_error_between_events_is_an_event_of_its_own() -> None:
    encoder = SseEncoder(asked(stream=True), CREATED)
    stream = sent(encoder, [SERVED, *image(partial=0)]) + encoder.error(ERROR)
    assert raised(stream) == ERROR.envelope()["error"]
    assert len(parsed(stream)) == 2


@given(calls(), st.integers(0, 40))
def test_an_error_anywhere_makes_what_it_breaks_off_an_error(events: list[Event], at: int) -> None:
    encoder = SseEncoder(asked(stream=True), CREATED)
    stream = sent(encoder, events[:at]) + encoder.error(ERROR)
    assert raised(stream) == ERROR.envelope()["error"]
    assert all(name == data["type"] for name, data in parsed(stream))


def test_an_error_inside_an_image_renames_the_event_that_had_begun() -> None:
    encoder = SseEncoder(asked(stream=True), CREATED)
    begun = sent(encoder, image()[:-1])
    assert begun.startswith(b"event: image_generation.completed\n")
    [(name, data)] = parsed(begun + encoder.error(InvalidRequest("no", param="p", code="c")))
    assert (name, data["b64_json"]) == ("error", "AAAA")
    assert data["error"] == {"message": "no", "type": "invalid_request_error", "param": "p", "code": "c"}


def test_an_error_with_half_a_surrogate_pair_can_still_be_told() -> None:
    encoder = SseEncoder(asked(stream=True), CREATED)
    assert raised(encoder.error(ApiError("half \ud800")))["message"] == "half ?"


def test_a_comment_is_no_event() -> None:
    encoder = SseEncoder(asked(stream=True), CREATED)
    assert encoder.comment().startswith(b":")
    assert parsed(encoder.comment() + sent(encoder, image()) + encoder.comment()) == as_sse(image())


# --- bytes ---


@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(0, 600), max_size=5))
def test_the_bytes_of_one_image_are_told_however_its_text_is_cut(data: bytes, at: list[int]) -> None:
    text = base64.b64encode(data)
    cuts = sorted(place % (len(text) + 1) for place in at)
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b]
    encoder = RawEncoder()
    events = [SERVED, *image(0, b"PPPP", partial=0), *image(0, *pieces), Done()]
    assert b"".join(map(encoder.encode, events)) == data


def test_the_type_of_the_bytes_is_known_before_the_first_of_them_leaves() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 200
    encoder = RawEncoder()
    pieces = base64.b64encode(png)
    for at in range(0, len(pieces), 8):
        if encoder.encode(ImageData(pieces[at : at + 8])):
            assert encoder.content_type == b"image/png"
            return
    pytest.fail("nothing was told")
