from __future__ import annotations

import json
import re
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.profiles import Profile
from app.dialects import UpstreamRequest, openai
from app.errors import Failure, UpstreamError
from app.events import Done, ImageBegins, ImageData, ImageEnds, ImageLink
from app.images import ImageRequest, Operation, Size
from tests.dialects.asking import GOOD, NONCE, Told, asked, decoded, deployed, pictures, rendered, told, upload

EDITS, VARIATIONS = Operation.EDITS, Operation.VARIATIONS


def encoded(request: ImageRequest, profile: Profile = openai.profile) -> UpstreamRequest:
    return openai.encode(request, deployed("openai", profile), NONCE)


def fields(request: ImageRequest, profile: Profile = openai.profile) -> dict[str, Any]:
    """The JSON body."""
    sent = encoded(request, profile)
    assert sent.content_type == "application/json"
    found = json.loads(rendered(sent.body))
    assert isinstance(found, dict)
    return found


def parts(request: ImageRequest, profile: Profile = openai.profile) -> list[tuple[str, str | None, str | None, bytes]]:
    """The form's parts: name, file name, media type, content."""
    sent = encoded(request, profile)
    found = re.fullmatch(r"multipart/form-data; boundary=([\w-]{1,70})", sent.content_type)
    assert found
    body = rendered(sent.body)
    mark = b"--" + found[1].encode()
    assert body.startswith(mark + b"\r\n") and body.endswith(b"\r\n" + mark + b"--\r\n")
    split = body.removeprefix(mark + b"\r\n").removesuffix(b"\r\n" + mark + b"--\r\n").split(b"\r\n" + mark + b"\r\n")
    return [_part(*text.split(b"\r\n\r\n", 1)) for text in split]


def _part(head: bytes, content: bytes) -> tuple[str, str | None, str | None, bytes]:
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines) <= 2
    found = re.fullmatch(r'form-data; name="([^"]*)"(?:; filename="([^"]*)")?', headers["Content-Disposition"])
    assert found
    return found[1], found[2], headers.get("Content-Type"), content


def texts(request: ImageRequest, profile: Profile = openai.profile) -> list[tuple[str, str]]:
    return [(name, content.decode()) for name, filename, _, content in parts(request, profile) if filename is None]


# --- out: fields ---


def test_the_least_is_the_model_and_the_prompt() -> None:
    assert fields(asked()) == {"model": "its-name-there", "prompt": "a cat"}
    assert texts(asked(EDITS)) == [("model", "its-name-there"), ("prompt", "a cat")]
    assert texts(asked(VARIATIONS)) == [("model", "its-name-there")]


@pytest.mark.parametrize("operation", Operation)
def test_each_operation_has_its_path(operation: Operation) -> None:
    assert encoded(asked(operation)).target == f"/images/{operation}"


@pytest.mark.parametrize(
    ("more", "name", "value", "text"),
    [
        ({"n": 3}, "n", 3, "3"),
        ({"size": Size(640, 480)}, "size", "640x480", "640x480"),
        ({"response_format": "url"}, "response_format", "url", "url"),
        ({"stream": True}, "stream", True, "true"),
        ({"parameters": {"quality": "high"}}, "quality", "high", "high"),
        ({"parameters": {"seed": 0}}, "seed", 0, "0"),
        ({"parameters": {"guidance": 2.5}}, "guidance", 2.5, "2.5"),
        ({"parameters": {"guidance": 2.5}, "spelt": {"guidance": "guidance_scale"}}, "guidance_scale", 2.5, "2.5"),
        ({"parameters": {"negative_prompt": "\u00e9 \U0001f600"}}, "negative_prompt", "\u00e9 \U0001f600", None),
        ({"extra": (("tiling", False),)}, "tiling", False, "false"),
    ],
)
def test_a_parameter_is_sent_once_as_json_and_as_text(
    more: dict[str, Any], name: str, value: object, text: str | None
) -> None:
    assert fields(asked(**more)) == {"model": "its-name-there", "prompt": "a cat", name: value}
    form = dict(texts(asked(EDITS, **more)))
    assert form == {"model": "its-name-there", "prompt": "a cat", name: value if text is None else text}


def test_partial_images_go_with_a_stream_only() -> None:
    assert fields(asked(stream=True, partial_images=2))["partial_images"] == 2
    assert "partial_images" not in fields(asked(partial_images=2))


def test_the_profile_spells_what_it_knows() -> None:
    profile = Profile(parameters={"size": "image_size", "n": "batch_size", "prompt": "text", "steps": "num_steps"})
    more: dict[str, Any] = {"size": Size(8, 8), "n": 2, "parameters": {"steps": 4}, "spelt": {"steps": "num_steps_x"}}
    expected = {"model": "its-name-there", "text": "a cat", "batch_size": 2, "image_size": "8x8", "num_steps": 4}
    assert fields(asked(**more), profile) == expected


def test_a_size_goes_as_width_and_height_where_the_profile_says_so() -> None:
    profile = Profile(parameters={"width": "w", "height": "h"})
    assert fields(asked(size=Size(640, 480)), profile) == {
        "model": "its-name-there",
        "prompt": "a cat",
        "w": 640,
        "h": 480,
    }
    assert dict(texts(asked(EDITS, size=Size(640, 480)), profile))["h"] == "480"


def test_json_is_compact_and_not_ascii_only() -> None:
    assert rendered(encoded(asked(prompt="\u00e9 \u2028")).body) == (
        '{"model":"its-name-there","prompt":"\u00e9 \u2028"}'.encode()
    )


# --- out: forms ---


def test_one_file_is_called_image_and_several_image_in_brackets() -> None:
    one, two = upload(b"1", "1.png"), upload(b"2", "2.jpg", "image/jpeg")
    assert parts(asked(EDITS, images=(one,)))[2:] == [("image", "1.png", "image/png", b"1")]
    assert parts(asked(EDITS, images=(one, two)))[2:] == [
        ("image[]", "1.png", "image/png", b"1"),
        ("image[]", "2.jpg", "image/jpeg", b"2"),
    ]


def test_the_profile_names_the_files() -> None:
    profile = Profile(image_field="input_image", mask_field="mask_image")
    request = asked(EDITS, images=(upload(), upload()), mask=upload(b"m", "m.png"))
    assert [name for name, *_ in parts(request, profile)] == [
        "model", "prompt", "input_image", "input_image", "mask_image",
    ]  # fmt: skip


def test_mask_and_markup_come_last_and_text_comes_first() -> None:
    request = asked(EDITS, mask=upload(b"m", "m.png"), markup=upload(b"u", "u.png"), extra=(("x", 1),))
    assert [name for name, *_ in parts(request)] == ["model", "prompt", "x", "image", "mask", "markup"]


def test_what_is_nested_is_spelt_as_the_sdks_spell_it() -> None:
    extra: tuple[tuple[str, Any], ...] = (
        ("lora", {"name": "a", "scale": 0.5, "on": True, "off": None}),
        ("tags", ["x", "y"]),
        ("objs", [{"a": 1}, {"a": 2}]),
        ("deep", {"a": {"b": [1]}}),
        ("none", None),
        ("empty", []),
    )
    assert texts(asked(EDITS, extra=extra))[2:] == [
        ("lora[name]", "a"), ("lora[scale]", "0.5"), ("lora[on]", "true"), ("tags[]", "x"), ("tags[]", "y"),
        ("objs[][a]", "1"), ("objs[][a]", "2"), ("deep[a][b][]", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("filename", "sent"),
    [
        ('a".png', "a%22.png"),
        ("a\r\nContent-Type: text/html\r\n\r\nx", "a%0D%0AContent-Type: text/html%0D%0A%0D%0Ax"),
        ("a\\", "a\\\\"),
        ("\u732b.png", "\u732b.png"),
        ("a;b=c", "a;b=c"),
        ("", ""),
    ],
)
def test_a_hostile_file_name_stays_a_file_name(filename: str, sent: str) -> None:
    assert parts(asked(EDITS, images=(upload(b"1", filename),)))[2:] == [("image", sent, "image/png", b"1")]


@given(st.text(max_size=30), st.text(max_size=30), st.binary(max_size=60))
def test_no_name_and_no_content_breaks_the_form(filename: str, name: str, content: bytes) -> None:
    request = asked(EDITS, images=(upload(content, filename),), extra=((name, "value"),))
    found = parts(request)
    assert [len(found), found[-1][0], found[-1][3], found[-2][3]] == [4, "image", content, b"value"]


def test_a_form_can_be_read_by_another_parser() -> None:
    sent = encoded(asked(EDITS, mask=upload(b"\x00\r\n--", "m.png"), prompt="line\r\nline"))
    text = b"Content-Type: " + sent.content_type.encode() + b"\r\n\r\n" + rendered(sent.body)
    message = BytesParser(policy=HTTP).parsebytes(text)
    names = [part.get_param("name", header="content-disposition") for part in message.iter_parts()]
    assert names == ["model", "prompt", "image", "mask"]


def test_the_boundary_holds_the_nonce_so_that_no_upload_can_foresee_it() -> None:
    assert encoded(asked(EDITS)).content_type.endswith(NONCE)
    other = openai.encode(asked(EDITS), deployed("openai", openai.profile), "f" * 32)
    assert other.content_type.endswith("f" * 32)


# --- back: events ---


def event(name: str | None, data: dict[str, Any] | str) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def named(type: str, **more: Any) -> bytes:
    return event(type, {"type": type, **more})


def completed(text: str = "AAAA", **more: Any) -> bytes:
    return named("image_generation.completed", b64_json=text, **more)


def partial(index: int, text: str = "PPPP", **more: Any) -> bytes:
    return named("image_generation.partial_image", b64_json=text, partial_image_index=index, **more)


def read(*blocks: bytes, n: int = 1) -> list[Told]:
    return decoded(openai, b"".join(blocks), asked(stream=True, n=n))


def refused(*blocks: bytes, n: int = 1) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(*blocks, n=n)
    return caught.value


def partials(events: list[Told]) -> list[int | None]:
    return [event.partial for event in events if isinstance(event, ImageBegins)]


@pytest.mark.parametrize(
    "aside",
    [
        event(None, {"type": "retry", "status": "timeout", "message": "worker timed out, retrying on another"}),
        event("warning.error", {"message": "1 worker failed, still drawing"}),
        event("progress", {"status": "failed"}),
    ],
)
def test_what_a_host_gets_over_ends_no_stream(aside: bytes) -> None:
    assert read(partial(0), aside, completed()) == read(partial(0), completed())


def test_a_stream_becomes_partial_images_the_image_and_its_usage() -> None:
    usage = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}
    whole = {**usage, "input_tokens_details": {"text_tokens": 1, "image_tokens": 0}}
    assert read(partial(0), partial(1, "QQQQ", size="8x8"), completed(usage=usage, quality="high")) == [
        ImageBegins(0, 0),
        ImageData(b"PPPP"),
        ImageEnds(),
        ImageBegins(0, 1),
        ImageData(b"QQQQ"),
        ImageEnds(facts={"size": "8x8"}),
        ImageBegins(0),
        ImageData(b"AAAA"),
        ImageEnds(usage=whole, facts={"quality": "high"}),
        Done(whole),
    ]


def test_edits_and_variations_have_events_of_their_own_name() -> None:
    assert pictures(read(named("image_edit.completed", b64_json="AA"))) == [b"AA"]
    assert partials(read(named("image_edit.partial_image", b64_json="PP"), completed())) == [0, None]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_as_they_like(end: bytes) -> None:
    text = (partial(0) + b": ping\n\n" + completed()).replace(b"\n", end)
    assert pictures(read(text)) == [b"AAAA"]


def test_events_without_a_name_go_by_their_type() -> None:
    assert partials(
        read(event(None, {"type": "x.partial_image", "b64_json": "P"}), event(None, {"b64_json": "A"}))
    ) == [
        0,
        None,
    ]
    assert partials(read(event(None, {"partial_image_index": 4, "b64_json": "P"}), completed())) == [4, None]


def test_an_index_behind_the_picture_is_counted_instead() -> None:
    block = event("image_generation.partial_image", {"b64_json": "P", "partial_image_index": 0})
    assert partials(read(block, block, completed())) == [0, 1, None]


def test_an_event_whose_data_spans_lines_is_one() -> None:
    assert pictures(read(b'event: x.completed\ndata: {"a": 1,\ndata: "b64_json":\ndata:"AAAA"}\n\n')) == [b"AAAA"]


@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b"data:[DONE]", b"event: done\ndata: [DONE]\n\n"])
def test_done_is_no_event_however_it_is_cut(done: bytes) -> None:
    text = completed() + done
    assert pictures(told(openai.decoder(asked(), GOOD), (text[at : at + 1] for at in range(len(text))))) == [b"AAAA"]


@pytest.mark.parametrize(
    "noise",
    [
        b"event: ping\n\n", b"event: ping\ndata:\n\n", b"data: \n\n", b"event: ping\ndata: {}\n\n", b"retry: 3000\n\n",
        b"id: 7\n\n", b": comment\n\n", b'data: {"error": null}\n\n', b'event: x\ndata: {"status": "generating"}\n\n',
        b'data: {"error": null, "status": "generating"}\n\n', b"data: null\n\n", b"data: 7\n\n", b"data: []\n\n",
        b'data: {"b64_json": null}\n\n', b'data: {"b64_json": ""}\n\n', b'data: {"x": {"b64_json": "AAAA"}}\n\n',
    ],
)  # fmt: skip
def test_other_events_are_passed_over(noise: bytes) -> None:
    assert read(noise, completed(), noise) == read(completed())


def test_several_completed_events_are_several_images_and_their_usage_is_added_up() -> None:
    usage = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}
    events = read(partial(0), completed("AA", usage=usage), partial(0), completed("BB", usage=usage), n=2)
    assert pictures(events) == [b"AA", b"BB"]
    assert [e.index for e in events if isinstance(e, ImageBegins)] == [0, 0, 1, 1]
    assert isinstance(done := events[-1], Done)
    assert done.usage is not None and done.usage["total_tokens"] == 6


def test_a_completed_event_may_hand_out_a_link() -> None:
    block = named("image_generation.completed", url="https://a.test/1", revised_prompt="r")
    assert read(block) == [ImageBegins(0), ImageLink("https://a.test/1"), ImageEnds("r"), Done()]


def test_a_completed_event_may_hand_out_a_data_url() -> None:
    block = named("image_generation.completed", url="data:image/png;base64,AAAA")
    assert read(block) == [ImageBegins(0), ImageData(b"AAAA"), ImageEnds(), Done()]


@pytest.mark.parametrize(
    "block",
    [
        event("error", {"type": "error", "error": {"code": "moderation_blocked", "message": "no", "type": "t"}}),
        event(None, {"error": {"code": "moderation_blocked", "message": "no", "type": "t"}}),
        event("error", {"type": "t", "code": "moderation_blocked", "message": "no"}),
        event(None, {"type": "error", "code": "moderation_blocked", "message": "no"}),
        b'data: {"type":"t","code":"moderation_blocked","message":"no"}\nevent: error\n\n',
        b'event: x.completed\ndata: {"b64_json":"AAAA","type":"error",'
        b'"error":{"code":"moderation_blocked","message":"no"}}\nevent: error\n\n',
    ],
)
@pytest.mark.parametrize("before", [b"", partial(0)], ids=["at once", "in mid-stream"])
def test_an_error_among_the_events_is_told_with_its_reason(before: bytes, block: bytes) -> None:
    error = refused(before, block)
    assert (error.failure, error.code, error.message) == (Failure.REFUSED, "moderation_blocked", "no")
    assert error.type in ("t", "error", None)


def test_a_flat_error_is_not_called_error_twice() -> None:
    assert refused(event("error", {"type": "error", "message": "no"})).type is None
    assert refused(event("error", {"type": "server_error", "message": "no"})).type == "server_error"


SAID = {"code": "c", "message": "no"}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"event: error\ndata: plain words\n\n", "plain words"),
        (b"event: error\ndata: plain\ndata: words\n\n", "plain\nwords"),
        (b'event: error\ndata: "no"\n\n', "no"),
        (b'event: error\ndata: ["no"]\n\n', "no"),
        (b'event: error\ndata: {"error":null,"message":"no"}\n\n', "no"),
        (b"event: error\ndata: " + b"no " * 50_000 + b"\n\n", "no " * 333 + "n…"),
        (named("image_generation.failed", message="no"), "no"),
        (named("image_edit.failed", error={"message": "no"}), "no"),
        (event(None, {"type": "image_generation.failed", "detail": "no"}), "no"),
        (event(None, {"status": "failed", "message": "no"}), "no"),
        (event(None, {"success": False, "message": "no"}), "no"),
        (b"event: error\ndata: {}\n\n", "the answer says that it failed, without a reason"),
        (b"event: error\ndata: null\n\n", "the answer says that it failed, without a reason"),
        (b"event: error\ndata:\n\n", "the answer says that it failed, without a reason"),
        (b"data: {}\nevent: error\n\n", "the answer says that it failed, without a reason"),
    ],
)
@pytest.mark.parametrize("before", [b"", partial(0)], ids=["at once", "in mid-stream"])
def test_an_event_that_is_called_a_failure_is_one_whatever_it_holds(before: bytes, block: bytes, message: str) -> None:
    error = refused(before, block)
    assert (error.failure, error.message, error.type, error.code) == (Failure.FAILED, message, None, None)


def test_a_refusal_in_plain_words_is_a_refusal() -> None:
    assert refused(b"event: error\ndata: flagged by content_filter\n\n").failure is Failure.REFUSED


@pytest.mark.parametrize("said", [{"detail": "no"}, {"message": "no"}, {"errors": [{"message": "no"}]}])
@pytest.mark.parametrize("after", [b"", b"data: [DONE]\n\n", b": bye\n\n"])
def test_an_answer_of_one_event_that_says_why_there_is_no_image_is_a_failure(said: Any, after: bytes) -> None:
    error = refused(event(None, said), after)
    assert (error.failure, error.message) == (Failure.FAILED, "no")


@pytest.mark.parametrize(
    "blocks",
    [
        [event(None, {"message": "warming up"}), event(None, {"message": "half way"})],
        [event(None, {"detail": "half way"}), partial(0)],
        [event("progress", {"message": "half way"})],
        [named("progress", message="half way")],
        [event(None, {"type": "progress", "message": "half way"})],
        [event(None, {"status": "queued", "message": "half way"})],
    ],
)
def test_words_on_the_way_to_an_image_are_no_failure(blocks: list[bytes]) -> None:
    assert pictures(read(*blocks, completed())) == [b"AAAA"]
    assert refused(*blocks).failure is Failure.UNCERTAIN


@pytest.mark.parametrize(
    "more", [{"error": {"code": 0, "message": "success"}}, {"status": "finished"}, {"detail": "x"}]
)
def test_words_that_tell_of_no_failure_break_no_image(more: dict[str, Any]) -> None:
    assert read(completed(**more)) == read(completed())


AFTER = [
    named("error", error={"message": "too late"}), b"event: error\ndata: words\n\n", completed("BBBB"),
    b'data: {"b64_json', b"x" * 9,
]  # fmt: skip


@pytest.mark.parametrize("after", AFTER, ids=range(len(AFTER)))
@pytest.mark.parametrize("step", [1 << 20, 7])
def test_what_follows_once_all_images_have_come_is_not_read(after: bytes, step: int) -> None:
    usage = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}
    whole = partial(0) + completed() + completed("BBBB", usage=usage)
    text = whole + after
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    assert told(openai.decoder(asked(n=2), GOOD), pieces) == read(whole, n=2)


def done_after(text: bytes, n: int = 1) -> int | None:
    """How many bytes it takes until the decoder has all."""
    decoder = openai.decoder(asked(stream=True, n=n), GOOD)
    for at in range(len(text)):
        list(decoder.feed(text[at : at + 1]))
        if decoder.done:
            return at + 1
    return None


def test_a_decoder_is_done_with_the_last_image_and_what_is_said_of_it() -> None:
    one, two = completed("AA"), completed("BB", usage={"total_tokens": 3})
    assert done_after(partial(0) + one + two) == len(partial(0) + one)
    assert done_after(one + partial(0) + two + one, n=2) == len(one + partial(0) + two)
    assert done_after(one + two, n=3) is None


def test_a_decoder_is_done_when_it_is_told_so() -> None:
    text = completed() + b"data: [DONE]"
    assert done_after(text + b"\n\n", n=2) == len(text)
    assert refused(partial(0), b"data: [DONE]\n\n", completed()).failure is Failure.UNCERTAIN


def test_json_is_done_with_its_end_only() -> None:
    assert done_after(b'{"data":[{"b64_json":"AAAA"}]} ') is None


@pytest.mark.parametrize(
    "blocks",
    [
        [partial(0)],
        [partial(0), b"data: [DONE]\n\n"],
        [b": nothing\n\n"],
        [completed("")],
        [named("image_generation.completed", b64_json=None)],
        [b"event: x.completed\ndata: <html>\n\n"],
        [b'event: x.completed\ndata: {"b64_json":"AAAA"\n\n'],
        [b'event: x.completed\ndata: {"b64_json":"AAAA"} {}\n\n'],
        [completed(), b"data: [DO\n\n"],
        [b"x" * 70_000],
        [b":" + b"x" * 70_000],
    ],
)
def test_a_stream_without_its_image_was_perhaps_paid(blocks: list[bytes]) -> None:
    assert refused(*blocks, n=2).failure is Failure.UNCERTAIN


def test_a_picture_that_turns_out_to_be_partial_is_not_taken_for_the_image() -> None:
    error = refused(event(None, {"b64_json": "PPPP", "type": "image_generation.partial_image"}), completed())
    assert error.failure is Failure.UNCERTAIN
    assert "partial" in error.message


def test_a_json_answer_to_a_stream_is_taken_as_well() -> None:
    assert pictures(read(b'{"data":[{"b64_json":"AAAA"}]}')) == [b"AAAA"]


def test_a_piece_of_a_picture_is_passed_on_as_it_came() -> None:
    decoder = openai.decoder(asked(stream=True), GOOD)
    list(decoder.feed(b'event: x.completed\ndata: {"type":"x.completed","b64_json":"AA'))
    piece = b"B" * 1000
    [found] = decoder.feed(piece)
    assert isinstance(found, ImageData)
    assert found.base64 is piece
