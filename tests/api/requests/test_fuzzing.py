"""Any bytes, cut anywhere: the doors give a request or an ApiError, and where the network cuts makes no difference."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.api.requests.part_headers import disposition, parameters
from app.errors import ApiError
from app.images import ImageRequest, Operation
from app.storage.spool import Uploads
from tests.api.requests.feeding import content, form, png, read

FORM = "multipart/form-data; boundary=cut"
BASE64 = base64.b64encode(png())
URL = b"data:image/png;base64," + BASE64
BEGINNING, END = b'{"model": "m", "prompt": "p", "images": [{"image_url": "', b'"}]}'

texts = st.lists(
    st.sampled_from(
        [BASE64, BASE64[:7], b"data:image/png;base64,", b"https://h.test/", b"AAAA", b"A", b"=", b"%3D", b"%0A", b"%",
         b"%4", b"+", b"-", b" ", b"\n", b"\\n", b"\\r\\n", b"\\t", b"\\/", b"\\\\", b"\\", b"\\u000a", b"\\u003d",
         b"\\u00e4", b"\\ud83d", b"\\ude00", b"\\ud83d\\ude00", b"\\u0000", b"\x00", b"\xff", b"\xc3\xa4", b",", b":"]
    )
    | st.binary(max_size=4),
    max_size=12,
).map(b"".join)  # fmt: skip
documents = st.lists(
    st.sampled_from(
        [BEGINNING, END, b'"' + URL + b'"', b'"images": [', b'{"image_url": ', b'"mask": ', b'"image_url"',
         b'"i\\u006dage_url"', b'"n": 2', b'"size": "auto"', b'"file_id": "x"', b"{", b"}", b"[", b"]", b",", b":",
         b'"', b"null", b"true", b"1e999", b"NaN",
         b"-", b"1" * 5000, b" ", b"\xef\xbb\xbf", b"[" * 70, b'{"a":' * 70, b'"svg": {"model": "x"}']
    )
    | texts,
    max_size=14,
).map(b"".join)  # fmt: skip
bodies = documents | st.binary(max_size=200) | st.builds(lambda text: BEGINNING + text + END, texts)
cuts = st.lists(st.integers(1, 80), min_size=1, max_size=8)


def pieces(body: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        for size in sizes:
            if at < len(body):
                yield body[at : at + size]
            at += size


def outcome(runner: asyncio.Runner, operation: Operation, content_type: str, body: Any) -> tuple[Any, ...]:
    with Uploads() as uploads:
        try:
            request: ImageRequest = runner.run(read(operation, content_type, body, uploads=uploads))
        except ApiError as error:
            assert error.status in (400, 413), error.message
            assert len(error.message) <= 4001
            return (error.status, error.param, error.code, error.message)
        pictures = (*request.images, request.mask, request.markup)
        held = tuple((content(each), each.filename, each.media_type, each.size) for each in pictures if each)
        return (replace(request, images=(), mask=None, markup=None), held)


@given(bodies, cuts)
@example(BEGINNING + b"\\n" * 3000 + END, [7])
@example(BEGINNING + URL + b"\\n" * 200_000 + END, [70_000])
@example(BEGINNING + URL + b"%0A" * 3000 + END, [10])
@example(BEGINNING + URL + b" " * 3000 + END, [3])
@example(BEGINNING + URL.replace(b"=", b"\\u003d").replace(b"/", b"\\/") + END, [1])
@example(b'{"a": ' + b"[" * 5000, [80])
@example(b'{"a": ' + b"[]," * 5000, [80])
@example(b'{"a": 1.' + b"1" * 5000 + b"}", [80])
@example(b'{"image_url": ' * 60, [80])
@example(b'{"' + b"\\u0069mage_url" * 90 + b'": ""}', [9])
@settings(max_examples=150)
def test_any_bytes_in_place_of_json_are_a_request_or_an_error_however_they_are_cut(
    body: bytes, sizes: list[int]
) -> None:
    with asyncio.Runner() as runner:
        for operation in (Operation.GENERATIONS, Operation.EDITS):
            whole = outcome(runner, operation, "application/json", body)
            cut = outcome(runner, operation, "application/json", pieces(body, sizes))
            # The first of two faults is reported, unless both came in one piece.
            assert cut == whole or len(cut) == len(whole) == 4


parts = st.lists(
    st.sampled_from(
        [form(("model", "m"), ("prompt", "p"), ("image", "a.png", png())), b"--cut", b"--cut--", b"--", b"\r\n", b"\r",
         b"\n", b"\r\n\r\n", b"--cut\r\n", b"\r\n--cut\r\n", b"\r\n--cut--\r\n", b"\r\n--cu",
         b"Content-Disposition: form-data",
         b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n',
         b'Content-Disposition: form-data; name="mask"; filename*=UTF-8\'\'%C3%A4\r\n\r\n',
         b'Content-Disposition: form-data; name="n"\r\n\r\n',
         b'Content-Disposition: form-data; name="svg[a][b]"\r\n\r\n', b"Content-Transfer-Encoding: base64\r\n",
         b'; name="model"', b"; name=prompt", b'; filename="', b"a: b\r\n" * 20, b"x" * 5000,
         png(), png()[:20], b"2", b"\xff", b"\x00", b":", b'"', b";"]
    )
    | st.binary(max_size=6),
    max_size=14,
).map(b"".join)  # fmt: skip
forms = (
    parts | st.binary(max_size=200) | st.builds(lambda rest: form(("model", "m"), ("prompt", "p"))[:-9] + rest, parts)
)


@given(forms, cuts)
@example(b"\r\n" * 3000, [7])
@example(b"\r\npreamble\r\n" + form(("model", "m")), [3])
@example(b"\r\n\n" + form(("model", "m")), [1])
@example(b"--cut\r\n" + b"a: b\r\n" * 3000, [7])
@example(b"--cut\r\nContent-Disposition: form-data" + b'; a="' * 500, [9])
@example(b'--cut\r\nContent-Disposition: form-data; name="' + b"x" * 9000, [80])
@example(form(("image", "a.png", png(padding=b"\r\n--cu" * 900))), [7])
@example(form(*[(f"f{index}", "x") for index in range(201)]), [80])
@example(form(("svg" + "[a]" * 200, "x"), ("svg[a]", "x"), ("svg[a][b]", "x")), [80])
@example(form(("model", "m")) + b"\r\n" * 9000, [80])
@settings(max_examples=150)
def test_any_bytes_in_place_of_a_form_are_a_request_or_an_error_however_they_are_cut(
    body: bytes, sizes: list[int]
) -> None:
    with asyncio.Runner() as runner:
        for operation in (Operation.EDITS, Operation.VARIATIONS):
            whole = outcome(runner, operation, FORM, body)
            cut = outcome(runner, operation, FORM, pieces(body, sizes))
            assert cut[:3] == whole[:3]  # the parser tells in its words where it was in a piece


@given(
    st.text(st.characters(max_codepoint=255), max_size=120)
    | st.sampled_from(['multipart/form-data; boundary="cut', "é"])
)
def test_any_content_type_is_read_or_refused(said: str) -> None:
    with asyncio.Runner() as runner:
        for kind in (said, f"multipart/form-data; boundary={said}", f"application/{said}+json"):
            try:
                runner.run(read(Operation.EDITS, kind, form(("model", "m"))))
            except ApiError as error:
                assert error.status == 400


@pytest.mark.parametrize(
    "repeated",
    [b";", b"; ", b"; \t", b'; a="', b'; a="\\', b";a=", b"; a=b", b';a="\\"', b'; a="" ', b"; a =", b"'",
     b"; filename*=UTF-8''%41"],
)  # fmt: skip
def test_a_part_header_of_any_length_is_read_in_linear_time(repeated: bytes) -> None:
    began = time.process_time()
    header = b"form-data" + repeated * (200_000 // len(repeated))
    disposition(header)
    disposition(header + b'"')
    parameters(header).get(b"boundary")
    assert time.process_time() - began < 10  # 0.2 s; hours if it were quadratic
