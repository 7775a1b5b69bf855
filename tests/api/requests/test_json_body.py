from __future__ import annotations

import asyncio
import base64
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.requests.body import ClientGone, Limits
from app.api.requests.image_url import ImageUrl
from app.api.requests.json_body import MOST_FIELDS
from app.api.requests.reading import read_request
from app.codecs.json_tap import MOST_STRINGS, JsonTap
from app.errors import ApiError, InvalidRequest, TooLarge, Unavailable
from app.images import Operation, Size, Upload
from app.storage.spool import Budget, Uploads
from tests.api.requests.feeding import LIMITS, content, png, read_json, receiving, scope, unknown
from tests.memory import bytes_held_by

pytestmark = pytest.mark.anyio
TEXT = {"model": "m", "prompt": "p"}


def data_url(data: bytes, prefix: str = "data:image/png;base64,") -> str:
    return prefix + base64.b64encode(data).decode()


def edit(*pictures: Any, **fields: Any) -> dict[str, Any]:
    return {**TEXT, "images": list(pictures), **fields}


PICTURE = {"image_url": data_url(png())}


async def refused(fields: Any, operation: Operation = Operation.EDITS, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await read_json(operation, fields, **options)
    return caught.value


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "parsed as JSON"),
        (b'{"model": "m",}', "parsed as JSON"),
        (b'{"model": "m"} x', "parsed as JSON"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b"NaN", "got a decimal number"),
        (b'{"n": ' + b"1" * 5000 + b"}", "as JSON: an integer has more digits"),
        (b'{"a": "tab\there"}', "parsed as JSON"),
        (b"[" * 50_000, "parsed as JSON"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "deeper than 64"),
        (b'{"a": [' + b"[]," * 340_000 + b"1]}", "more than 16384 objects and arrays"),
        (b"[]", "expected an object, but got an array"),
        (b'"text"', "expected an object, but got a string"),
        (b"null", "expected an object, but got null"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused_with_the_reason(body: bytes, told: str) -> None:
    fault = await refused(body, Operation.GENERATIONS)
    assert told in fault.message
    assert (fault.status, fault.type, fault.param) == (400, "invalid_request_error", None)


@pytest.mark.parametrize("operation", [Operation.GENERATIONS, Operation.EDITS])
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"n": NaN}', b'{"a": "\xff"}', b"[" * 1000, b"{} {}"])
async def test_both_json_operations_refuse_the_same(operation: Operation, body: bytes) -> None:
    fault = await refused(body, operation)
    assert (fault.status, fault.type) == (400, "invalid_request_error")


@pytest.mark.parametrize("operation", [Operation.GENERATIONS, Operation.EDITS])
@pytest.mark.parametrize("text", [r"\ud800", r"\udc00\ud83d", r"a\u0000b", r"\\\u0000"])
async def test_escapes_that_spell_no_text_are_refused_by_their_field(operation: Operation, text: str) -> None:
    body = f'{{"model": "m", "prompt": "{text}", "images": []}}'.encode()
    assert (await refused(body, operation)).param == "prompt"
    body = f'{{"model": "m", "prompt": "p", "images": [], "extra": {{"a": ["{text}"]}}}}'.encode()
    assert (await refused(body, operation)).param == "extra"
    assert (await refused(f'{{"model": "m", "a{text}": 1}}'.encode(), operation)).code == "invalid_value"


async def test_escapes_that_spell_text_are_text() -> None:
    body = rb'{"model": "m", "prompt": "\ud83e\udd8a \\u0000 \u00e9", "x": "\\ud800"}'
    request = await read_json(Operation.GENERATIONS, body)
    assert request.prompt == "🦊 \\u0000 é"
    assert unknown(request) == (("x", "\\ud800"),)


@pytest.mark.parametrize("operation", [Operation.GENERATIONS, Operation.EDITS])
@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 400 + b".0"])
async def test_numbers_that_json_cannot_spell_are_refused_by_their_field(operation: Operation, number: bytes) -> None:
    for name, value in ((b"n", number), (b"guidance", number), (b"extra", b'{"a": [1, ' + number + b"]}")):
        body = b'{"model": "m", "prompt": "p", "images": [], "%b": %b}' % (name, value)
        fault = await refused(body, operation)
        assert (fault.status, fault.param, fault.code) == (400, name.decode(), "invalid_value")
    assert (await refused(b'{"a\\ud800": %b}' % number, operation)).param == "a?"


async def test_a_number_that_a_later_value_of_its_name_replaces_is_no_obstacle() -> None:
    assert (await read_json(Operation.GENERATIONS, b'{"model":"m","prompt":"p","n":NaN,"n":2}')).n == 2


async def test_unknown_fields_of_a_generation_are_kept_as_bytes() -> None:
    lists = "[" + ",".join(["[]"] * 16_000) + "]"
    request = await read_json(Operation.GENERATIONS, f'{{"model":"m","prompt":"p","x":{lists}}}'.encode())
    assert request.extra == (("x", lists.encode()),)


async def test_a_document_of_very_many_objects_is_refused_before_they_are_built() -> None:
    body = b'{"model":"m","prompt":"p","x":[' + b"{}," * 340_000 + b"1]}"
    tracemalloc.start()
    try:
        fault = await refused(body, Operation.GENERATIONS)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(body)
    finally:
        tracemalloc.stop()
    assert fault.status == 400


@pytest.mark.parametrize("operation", [Operation.GENERATIONS, Operation.EDITS])
@pytest.mark.parametrize("number", [1, float("nan")])
async def test_a_document_of_very_many_fields_is_refused_before_each_is_looked_at(
    operation: Operation, number: float
) -> None:
    fault = await refused({**TEXT, **{f"x{count}": number for count in range(MOST_FIELDS)}}, operation)
    assert (fault.status, fault.param, fault.code) == (400, None, "invalid_value")
    assert f"at most {MOST_FIELDS}" in fault.message


async def test_brackets_in_text_are_text() -> None:
    prompt = "[{" * 15_000
    assert (await read_json(Operation.GENERATIONS, {**TEXT, "prompt": prompt})).prompt == prompt


@pytest.mark.parametrize("value", [[[]] * 10_000, [1] * 10_000, {"k" * 100_000: [1] * 20}])
async def test_an_edit_refuses_fields_that_a_form_would_spell_out_at_great_length(value: object) -> None:
    fault = await refused(edit(PICTURE, x=value))
    assert (fault.status, fault.param) == (400, "x")
    assert "10000 values" in fault.message
    assert unknown(await read_json(Operation.EDITS, edit(PICTURE, x=[1] * 9000)))


async def test_an_object_that_is_known_is_small() -> None:
    fault = await refused({**TEXT, "svg": {"model": "m", "x": [[]] * 10_000}}, Operation.GENERATIONS)
    assert (fault.status, fault.param) == (400, "svg")


async def test_image_urls_beyond_the_most_are_refused_and_not_left_out() -> None:
    fault = await refused(edit(PICTURE, x=[{"image_url": "a"}] * MOST_STRINGS))
    assert (fault.status, "more than 4096 strings" in fault.message) == (400, True)


async def test_a_byte_order_mark_and_duplicate_keys_are_no_obstacle() -> None:
    body = b'\xef\xbb\xbf{"model": "m", "prompt": "a", "prompt": "b"}'
    assert (await read_json(Operation.GENERATIONS, body)).prompt == "b"


async def test_a_generation_over_a_megabyte_is_refused() -> None:
    fault = await refused({**TEXT, "image": "x" * 1_100_000}, Operation.GENERATIONS)
    assert (fault.status, type(fault)) == (413, TooLarge)


async def test_unknown_fields_of_a_generation_pass_unchanged() -> None:
    extra = {"image": "u", "mask": 1, "images": [{"image_url": "x"}], "mask_convention": "white", "lora": {"a": [1.5]}}
    request = await read_json(Operation.GENERATIONS, {**TEXT, **extra, "nothing": None})
    assert unknown(request) == tuple(extra.items())
    assert request.images == ()


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", "DATA:text/plain;a=b;BASE64,", ""])
async def test_an_image_is_a_data_url_of_any_type_or_bare_base64(prefix: str) -> None:
    for padding in (b"", b"x", b"xy"):
        data = png(padding=padding)
        request = await read_json(Operation.EDITS, edit({"image_url": data_url(data, prefix)}))
        assert [content(upload) for upload in request.images] == [data]
        assert request.images[0].media_type == "image/png"
        assert request.images[0].size == Size(8, 8)
        assert request.images[0].filename == "images-0.png"


async def test_mask_and_markup_are_read_beside_the_images() -> None:
    fields = edit(PICTURE, {"image_url": data_url(png(9))}, mask={"image_url": data_url(png(2))}, n=2)
    request = await read_json(Operation.EDITS, {**fields, "markup": {"image_url": data_url(png(3))}})
    assert [content(u) for u in (*request.images, request.mask, request.markup)] == [png(w) for w in (8, 9, 2, 3)]
    assert request.mask is not None
    assert request.mask.filename == "mask.png"
    assert request.n == 2
    assert unknown(request) == ()


@pytest.mark.parametrize("fields", [{"mask": None}, {"mask": None, "markup": None, "size": None}])
async def test_null_is_absent(fields: dict[str, Any]) -> None:
    request = await read_json(Operation.EDITS, edit({"image_url": data_url(png()), "file_id": None}, **fields))
    assert request.mask is None
    assert len(request.images) == 1


@given(st.integers(1, 200), st.binary(max_size=300), st.booleans())
@settings(max_examples=60, deadline=None)
def test_where_the_network_cuts_an_edit_makes_no_difference(step: int, padding: bytes, slashes: bool) -> None:
    body = json.dumps(edit({"image_url": data_url(png(padding=padding))}, mask=PICTURE)).encode()
    if slashes:
        body = body.replace(b"/", b"\\/")
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    with Uploads() as uploads:
        receive = receiving(pieces)
        request = asyncio.run(read_request(Operation.EDITS, scope("application/json"), receive, LIMITS, uploads))
        assert content(request.images[0]) == png(padding=padding)
        assert content(request.mask) == png()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("data:image/png;base64", "without a comma"),
        ("data:" + "x" * 2000, "without a comma"),
        ("data:image/png,abcd", "not base64"),
        ("data:image/svg+xml;utf8,<svg/>", "not base64"),
        (data_url(png())[:-1], "cut"),
        (data_url(png())[:-1] + "\n", "cut"),
        (data_url(png()).replace("A", " A"), "no base64"),
        (data_url(png()).replace("A", "%zz"), "no base64"),
        (data_url(png()) + "%", "cut"),
        (data_url(png(padding=b"x")) + "%3D", "cut"),
        (data_url(png(padding=b"x")) + "\nAAAA", "no base64"),
        (data_url(png(padding=b"x")) + "\nA%41AA", "no base64"),
        (data_url(png(padding=b"x")) + "AAAA", "no base64"),
        (data_url(png(padding=b"xx")).replace("A", "-"), "no base64"),
        (data_url(b"A") + data_url(b"B", ""), "no base64"),
        ("http://example.com/a.png", "'http' is not taken"),
        ("file:///etc/passwd", "'file' is not taken"),
        ("ftp://example.com/" + "x" * 100, "'ftp' is not taken"),
        ("hello world", "no base64"),
        ("pictures/fox.png", "A path cannot be read from here"),
    ],
)
async def test_an_image_url_that_cannot_be_read_is_refused_with_the_reason(url: str, told: str) -> None:
    fault = await refused(edit({"image_url": url}))
    assert told in fault.message
    assert "data:image/png;base64,…" in fault.message
    assert (fault.status, fault.param, fault.code) == (400, "images[0].image_url", "invalid_value")
    assert (await refused(edit(PICTURE, mask={"image_url": url}))).param == "mask.image_url"


def lines(text: str, end: str) -> str:
    return end.join(text[at : at + 76] for at in range(0, len(text), 76)) + end


SPELLINGS: dict[str, Callable[[str], str]] = {
    "lines": lambda text: lines(text, "\n"),
    "lines of MIME": lambda text: lines(text, "\r\n"),
    "a newline": lambda text: text + "\n",
    "a space": lambda text: " " + text,
    "escapes": lambda text: text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
    "all escapes": lambda text: "".join(f"%{ord(char):02x}" for char in text),
    "escaped lines": lambda text: quote(lines(text, "\n")),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_data_url_may_be_spelt_as_tools_spell_it_however_it_is_cut(spelling: str) -> None:
    for padding in (b"\xff\xfe", b"\xff\xfe\xfb", b"\xff\xfe\xfb\xef" * 40):
        data = png(padding=padding)
        text = SPELLINGS[spelling](base64.b64encode(data).decode())
        body = json.dumps(edit({"image_url": "data:image/png;base64," + text})).encode()
        for step in (1, 2, 3, 5, 7, 64, len(body)):
            pieces = [body[at : at + step] for at in range(0, len(body), step)]
            with Uploads() as uploads:
                receive = receiving(pieces)
                request = await read_request(Operation.EDITS, scope("application/json"), receive, LIMITS, uploads)
                assert content(request.images[0]) == data


def test_little_is_held_of_an_image_that_is_spelt_oddly() -> None:
    with Uploads() as uploads:
        url = ImageUrl("images[0].image_url", LIMITS, uploads)
        url.feed(b"data:image/png;base64,")
        held = bytes_held_by(url)
        for piece in (b"iVBO\nRw%", b"30", b"%3d\n", b"\r\n" * 10_000, b"%0A" * 10_000, b"%0"):
            url.feed(piece)
            assert bytes_held_by(url) - held < 20


@pytest.mark.parametrize("unit", [b"\\n", b"\\u000a", b"%0A", b" ", b"\n", b"A%0a", b"\\r\\n", b"\\n%0D"])
async def test_white_space_beyond_the_line_ends_of_an_image_is_refused_before_it_has_all_come(unit: bytes) -> None:
    head, piece = b'{"model": "m", "prompt": "p", "images": [{"image_url": "data:;base64,', unit * 20_000
    taken = 0

    def coming() -> Iterator[bytes]:
        nonlocal taken
        yield head
        for _ in range(200):
            taken += 1
            yield piece

    left = coming()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(left), "more_body": True}

    limits = Limits(upload_bytes=1_000_000, request_bytes=100_000_000)
    with pytest.raises(InvalidRequest, match="white space") as caught:
        await read_request(Operation.EDITS, scope("application/json"), receive, limits, Uploads())
    assert (caught.value.param, caught.value.code) == ("images[0].image_url", "invalid_value")
    assert taken < 20


async def test_an_image_of_the_greatest_size_may_come_in_lines() -> None:
    data = png(padding=bytes(999_000))
    text = base64.encodebytes(data).decode().replace("\n", "\r\n")
    with Uploads() as uploads:
        request = await read_json(Operation.EDITS, edit({"image_url": text}), uploads=uploads)
        assert content(request.images[0]) == data


@pytest.mark.parametrize("unit", [b"\\n", b"\\u002b", b"%2B", b"%41", b"\\/"])
def test_ten_megabytes_of_escapes_are_read_in_seconds(unit: bytes) -> None:
    tap, seen = JsonTap(frozenset({"image_url"})), 0
    limits = Limits(upload_bytes=100_000_000, request_bytes=100_000_000)
    with Uploads() as uploads:
        url, piece = ImageUrl("mask.image_url", limits, uploads), unit * (262_144 // len(unit))
        began = time.process_time()
        for data in (b'{"image_url": "data:;base64,', *[piece] * 40):
            for event in tap.feed(data):
                if isinstance(event, bytes):
                    url.feed(event)
                    seen += 1
        assert seen >= 40
        assert time.process_time() - began < 60  # 0.2 s


async def test_a_text_that_is_escaped_twice_is_refused_at_any_cut() -> None:
    body = json.dumps(edit({"image_url": data_url(png(padding=b"x")).replace("A", "%2541")})).encode()
    for step in range(1, 40):
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
        with pytest.raises(InvalidRequest, match="no base64"):
            await read_request(Operation.EDITS, scope("application/json"), receiving(pieces), LIMITS, Uploads())


async def test_padding_ends_the_text_wherever_it_is_cut() -> None:
    body = json.dumps(edit({"image_url": "data:;base64," + "A" * 40 + "QQ==QUJD"})).encode()
    for at in range(len(body)):
        receive = receiving([body[:at], body[at:]])
        with pytest.raises(InvalidRequest, match="no base64"):
            await read_request(Operation.EDITS, scope("application/json"), receive, LIMITS, Uploads())


@pytest.mark.parametrize(
    ("images", "param", "code"),
    [
        (None, "images", "missing_required_parameter"),
        ({}, "images", "invalid_type"),
        ("data:image/png;base64,AAAA", "images", "invalid_type"),
        ([], "images", "empty_array"),
        (["text"], "images[0]", "invalid_type"),
        ([PICTURE, None], "images[1]", "invalid_type"),
        ([PICTURE, {}], "images[1].image_url", "missing_required_parameter"),
        ([{"image_url": None}], "images[0].image_url", "missing_required_parameter"),
        ([{"image_url": 5}], "images[0].image_url", "invalid_type"),
        ([{"image_url": {"url": "x"}}], "images[0].image_url", "invalid_type"),
        ([{"file_id": "file-1"}], "images[0].file_id", "invalid_value"),
        ([{"file_id": "file-1", **PICTURE}], "images[0].file_id", "invalid_value"),
        ([{"type": "image_url", **PICTURE}], "images[0].type", "unknown_parameter"),
        ([{"image_url": ""}], "images[0].image_url", "invalid_image_file"),
        ([{"image_url": data_url(b"hello there")}], "images[0].image_url", "invalid_image_file"),
        ([{"image_url": data_url(png(30_000, 30_000))}], "images[0].image_url", "invalid_image_file"),
        ([PICTURE] * 17, "images", "array_above_max_length"),
        ([{}] * 17, "images", "array_above_max_length"),
    ],
)
async def test_images_of_the_wrong_shape_are_refused_by_their_place(images: Any, param: str, code: str) -> None:
    fault = await refused({**TEXT, "images": images})
    assert (fault.status, fault.param, fault.code) == (400, param, code)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "m" * 500_000},
        {**TEXT, "n": "n" * 500_000},
        {**TEXT, "size": "s" * 500_000},
        {**TEXT, "images": [{"k" * 500_000: 1}]},
        {**TEXT, "images": [PICTURE], "é" * 200_000: "\0"},
        {**TEXT, "images": [{"image_url": "x" * 31 + ":"}]},
        {**TEXT, "images": [{"image_url": "https://" + "h" * 500_000}]},
        b'{"model": ' + b"1" * 500_000 + b"}",
        b'{"model": 1.' + b"1" * 500_000 + b"e999}",
    ],
)
@pytest.mark.parametrize("operation", [Operation.GENERATIONS, Operation.EDITS])
async def test_an_error_quotes_no_more_of_a_request_than_a_line(operation: Operation, fields: Any) -> None:
    try:
        await read_json(operation, fields)
    except ApiError as error:
        assert len(error.message) < 600
        assert len(error.param or "") <= 257


async def test_sixteen_images_are_taken() -> None:
    assert len((await read_json(Operation.EDITS, edit(*[PICTURE] * 16))).images) == 16


@pytest.mark.parametrize("name", ["image", "image[]"])
async def test_the_names_of_the_other_door_are_answered_with_those_of_this_one(name: str) -> None:
    fault = await refused({**TEXT, name: "data:image/png;base64,AAAA"})
    assert "'images'" in fault.message
    assert (fault.param, fault.code) == (name, "unknown_parameter")


async def test_faults_are_reported_in_the_order_model_prompt_images_n() -> None:
    assert (await refused({"images": [], "n": 0})).param == "model"
    assert (await refused({"model": "m", "images": [], "n": 0})).param == "prompt"
    assert (await refused({**TEXT, "images": [], "n": 0})).param == "images"
    assert (await refused(edit(PICTURE, n=0))).param == "n"


async def test_an_address_is_refused_unless_it_can_be_fetched() -> None:
    fault = await refused(edit({"image_url": "https://example.com/a.png"}))
    assert "server.remote_images" in fault.message
    assert fault.param == "images[0].image_url"


async def test_an_address_is_fetched_and_judged_like_any_image() -> None:
    asked: list[tuple[str, str]] = []
    files = {"a": png(), "b": b"<html>"}

    async def fetch(url: str, place: str) -> Upload:
        asked.append((place, url))
        spool = uploads.spool(1000)
        spool.write(files[url[-1]])
        return Upload(spool, "remote", "image/png" if url[-1] == "a" else "text/html")

    with Uploads() as uploads:
        fields = edit({"image_url": "https://example.com/a"}, PICTURE, mask={"image_url": "HTTPS://example.com/?a"})
        request = await read_json(Operation.EDITS, fields, fetch=fetch, uploads=uploads)
        assert asked == [
            ("images[0].image_url", "https://example.com/a"),
            ("mask.image_url", "HTTPS://example.com/?a"),
        ]
        assert [upload.filename for upload in request.images] == ["remote", "images-1.png"]
        assert request.mask is not None
        fault = await refused(edit({"image_url": "https://example.com/b"}), fetch=fetch)
        assert (fault.param, fault.code) == ("images[0].image_url", "invalid_image_file")
        asked.clear()
        await refused(edit({"image_url": "https://example.com/a"}, n=0), fetch=fetch)
        assert asked == []  # nothing is fetched for a request that is refused anyway
        for address in ("https://a b/", "https://ä/", "https://" + "x" * 9000):
            assert (await refused(edit({"image_url": address}), fetch=fetch)).code == "invalid_value"


async def test_all_images_of_a_request_have_to_arrive_from_their_addresses_within_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.requests.json_body.FETCHING_SECONDS", 0.02)

    async def fetch(url: str, place: str) -> Upload:
        await asyncio.sleep(60)
        raise AssertionError

    fault = await refused(edit({"image_url": "https://example.com/a"}), fetch=fetch)
    assert (fault.param, fault.code) == ("images", "invalid_image_url")


async def test_the_texts_of_an_edit_count_as_memory_until_its_uploads_are_closed() -> None:
    budget = Budget(memory_bytes=10_000)
    elsewhere = {"image_url": "x" * 3000}
    with Uploads(budget=budget) as uploads:
        await read_json(Operation.EDITS, edit(PICTURE, prompt="x" * 4000, other=elsewhere), uploads=uploads)
        assert 7000 < budget.memory < 8000
        with pytest.raises(Unavailable, match="no room to keep the text"), Uploads(budget=budget) as more:
            await read_json(Operation.EDITS, edit(PICTURE, prompt="x" * 4000), uploads=more)
    assert budget.memory == 0


async def test_the_last_of_duplicate_keys_counts() -> None:
    first, last = json.dumps([PICTURE]), json.dumps([{"image_url": data_url(png(2))}])
    body = f'{{"model": "m", "prompt": "p", "images": {first}, "images": {last}}}'.encode()
    assert [content(u) for u in (await read_json(Operation.EDITS, body)).images] == [png(2)]
    body = f'{{"model": "m", "prompt": "p", "images": {first}, "images": []}}'.encode()
    assert (await refused(body)).code == "empty_array"


async def test_an_image_url_under_an_unknown_field_passes_unchanged() -> None:
    extra = {"image_url": 'first \\ " é', "style_reference": [{"image_url": "second"}, {"image_url": None}]}
    request = await read_json(Operation.EDITS, edit(PICTURE, **extra))
    assert unknown(request) == tuple(extra.items())
    assert (await refused(edit(PICTURE, image_url="x" * 3_000_000))).status == 413
    assert (await refused(edit(PICTURE, note="x" * 3_000_000))).status == 413
    large = {"image_url": data_url(png(padding=bytes(700_000)))}
    with Uploads() as uploads:
        assert (await refused(json.dumps(edit(large, large)).encode()[:-1], uploads=uploads)).status == 400


@pytest.mark.parametrize("place", ["images[0]", "mask"])
async def test_an_image_over_the_limit_is_refused_by_its_decoded_size(place: str) -> None:
    limits = Limits(upload_bytes=1000, request_bytes=100_000)
    large = {"image_url": data_url(png(padding=b"x" * 1000))}
    fields = edit(PICTURE, mask=large) if place == "mask" else edit(large)
    fault = await refused(fields, limits=limits)
    assert (fault.status, fault.param) == (413, f"{place}.image_url")
    assert "server.max_upload_mb" in fault.message


async def test_a_client_that_leaves_is_not_answered() -> None:
    for operation in (Operation.GENERATIONS, Operation.EDITS):
        receive = receiving([b'{"model": "m"'], gone=True)
        with pytest.raises(ClientGone):
            await read_request(operation, scope("application/json"), receive, LIMITS, Uploads())


async def test_an_image_of_thirty_megabytes_takes_less_than_two_of_memory() -> None:
    head, tail = json.dumps(edit({"image_url": data_url(png()) + "@"})).encode().split(b"@")
    chunk = base64.b64encode(bytes(49_152))

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(640):
            yield bytes(memoryview(chunk))
        yield tail

    left = pieces()

    async def receive() -> dict[str, Any]:
        data = next(left, b"")
        return {"type": "http.request", "body": data, "more_body": bool(data)}

    limits = Limits(upload_bytes=50_000_000, request_bytes=60_000_000)
    with Uploads() as uploads:
        tracemalloc.start()
        try:
            request = await read_request(Operation.EDITS, scope("application/json"), receive, limits, uploads)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert request.images[0].blob.size == len(png()) + 640 * 49_152
        assert peak < 2_000_000
