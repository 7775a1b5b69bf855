from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.requests.body import ClientGone, Limits
from app.api.requests.reading import read_request
from app.errors import InvalidRequest, TooLarge, Unavailable
from app.images import Operation
from app.storage.spool import Budget, Uploads
from tests.api.requests.feeding import LIMITS, content, form, png, read, read_form, receiving, scope, unknown, whole
from tests.imaging.hostile import HOSTILE

pytestmark = pytest.mark.anyio
TEXT = [("model", "m"), ("prompt", "p")]
PICTURE = ("image", "a.png", png())
OTHERS = {
    "image/gif": b"GIF89a\x01\x00\x01\x00",
    "image/bmp": b"BM\x36\x00\x00\x00\x00\x00\x00\x00",
    "image/heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
    "image/svg\\+xml": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "image/tiff": b"II*\x00\x08\x00\x00\x00",
    "application/pdf": b"%PDF-1.7",
    "no image that is known": b"hello",
}


async def refused(*parts: Any, operation: Operation = Operation.EDITS, **options: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await read_form(operation, *parts, **options)
    return caught.value


async def test_one_image_is_read() -> None:
    request = await read_form(Operation.EDITS, *TEXT, PICTURE)
    assert (request.model, request.prompt, request.n, request.parameters) == ("m", "p", 1, {})
    assert [content(upload) for upload in request.images] == [png()]
    assert request.images[0].filename == "a.png"


@pytest.mark.parametrize(
    "names",
    [
        ["image", "image", "image"],
        ["image[]", "image[]", "image[]"],
        ["image[0]", "image[1]", "image[2]"],
        ["image", "image[]", "image[]"],
    ],
)
async def test_several_images_may_be_named_in_any_way(names: list[str]) -> None:
    files = [png(width) for width in (1, 2, 3)]
    parts = [(name, "x.png", file) for name, file in zip(names, files, strict=True)]
    request = await read_form(Operation.EDITS, *parts, *TEXT)
    assert [content(upload) for upload in request.images] == files


@given(
    paddings=st.lists(
        st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"cut", b"\r\n--cu", b"x" * 50])).map(b"".join), min_size=1
    ),
    sizes=st.lists(st.integers(1, 90), min_size=1),
)
async def test_files_that_nearly_hold_the_boundary_are_read_however_the_form_is_cut(
    paddings: list[bytes], sizes: list[int]
) -> None:
    """Pieces without a boundary go around the library's parser, which must notice nothing of it."""
    files = [png(padding=padding) for padding in paddings[:16] if b"\r\n--cut" not in padding]
    whole_form = form(*TEXT, *(("image[]", "x.png", file) for file in files or [png()]))
    pieces, at = list[bytes](), 0
    while at < len(whole_form):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(whole_form[at : at + size])
        at += size
    request = await read(Operation.EDITS, "multipart/form-data; boundary=cut", pieces)
    assert [content(upload) for upload in request.images] == (files or [png()])


async def test_numbered_images_are_put_in_the_order_of_their_numbers() -> None:
    parts = [(f"image[{index}]", "x.png", png(index + 1)) for index in (10, 2, 0)]
    request = await read_form(Operation.EDITS, *parts, *TEXT)
    assert [upload.size.width for upload in request.images if upload.size] == [1, 3, 11]


async def test_the_same_number_twice_is_a_duplicate() -> None:
    part = ("image[0]", "x.png", png())
    fault = await refused(*TEXT, part, part)
    assert (fault.param, fault.code) == ("image[0]", "duplicate_parameter")


@pytest.mark.parametrize("name", ["mask", "mask[]", "mask[0]"])
async def test_one_mask_may_be_named_in_any_way(name: str) -> None:
    request = await read_form(Operation.EDITS, PICTURE, (name, "m.png", png(4)), *TEXT)
    assert content(request.mask) == png(4)


async def test_two_masks_are_one_too_many() -> None:
    fault = await refused(PICTURE, ("mask", "m.png", png()), ("mask[]", "m.png", png()), *TEXT)
    assert (fault.param, fault.code) == ("mask", "duplicate_parameter")
    assert (await refused(PICTURE, ("mask[1]", "m.png", png()), *TEXT)).param == "mask[1]"


async def test_sixteen_images_are_taken_and_seventeen_refused() -> None:
    parts = [("image[]", "x.png", png())] * 16
    assert len((await read_form(Operation.EDITS, *TEXT, *parts)).images) == 16
    fault = await refused(*TEXT, *parts, ("image[]", "x.png", png()))
    assert (fault.status, fault.param, fault.code) == (400, "image", "array_above_max_length")


@pytest.mark.parametrize("kind", OTHERS)
async def test_bytes_that_are_no_picture_we_take_are_refused_by_what_they_are(kind: str) -> None:
    with pytest.raises(InvalidRequest, match=kind) as caught:
        await read_form(Operation.EDITS, *TEXT, ("image", "a.png", OTHERS[kind]))
    assert (caught.value.param, caught.value.code) == ("image", "invalid_image_file")
    assert "PNG, JPEG or WebP" in caught.value.message
    assert caught.value.type == "image_generation_user_error"


@pytest.mark.parametrize(
    ("field", "named"), [("image", "image"), ("image[]", "image[0]"), ("image[3]", "image[3]"), ("mask", "mask")]
)
async def test_an_empty_file_is_refused_by_its_field(field: str, named: str) -> None:
    parts = [PICTURE] if field == "mask" else []
    fault = await refused(*TEXT, *parts, (field, "a.png", b""))
    assert (fault.param, fault.code, fault.status) == (named, "invalid_image_file", 400)


async def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    fault = await refused(*TEXT, ("image", "a.png", png(30_000, 30_000)))
    assert "30000x30000" in fault.message
    assert fault.code == "invalid_image_file"
    assert (await read_form(Operation.EDITS, *TEXT, ("image", "a.png", png(10_000, 10_000)))).images


async def test_a_header_of_too_many_parts_is_refused_before_anything_reads_it_to_its_end() -> None:
    data = HOSTILE["jpeg: empty segments"](5_000)
    fault = await refused(*TEXT, ("image", "a.jpg", data))
    assert (fault.status, fault.param, fault.code) == (400, "image", "invalid_image_file")
    assert "more than 4,096 segments" in fault.message
    assert "Save it anew without metadata" in fault.message


@pytest.mark.parametrize("field", ["image", "mask"])
async def test_a_file_over_the_limit_is_refused_by_its_field_and_the_setting(field: str) -> None:
    limits = Limits(upload_bytes=1024, request_bytes=100_000)
    parts = [PICTURE] if field == "mask" else []
    with pytest.raises(TooLarge, match=r"server\.max_upload_mb") as caught:
        await read_form(Operation.EDITS, *TEXT, *parts, (field, "a.png", png(padding=b"x" * 1024)), limits=limits)
    assert (caught.value.status, caught.value.param) == (413, field)
    assert "larger than 0.000976562 MB" in caught.value.message
    assert "Make it smaller" in caught.value.message


async def test_a_file_of_too_many_pixels_is_told_to_be_smaller_with_the_bound() -> None:
    limits = Limits(upload_bytes=100_000, request_bytes=100_000, pixels=7)
    with pytest.raises(InvalidRequest, match="Make it smaller: at most 7 pixels") as caught:
        await read_form(Operation.EDITS, *TEXT, ("image", "a.png", png()), limits=limits)
    assert (caught.value.param, caught.value.code) == ("image", "invalid_image_file")


async def test_a_file_of_exactly_the_limit_is_taken() -> None:
    limits = Limits(upload_bytes=len(png(padding=b"x" * 1000)), request_bytes=100_000)
    request = await read_form(Operation.EDITS, *TEXT, ("image", "a", png(padding=b"x" * 1000)), limits=limits)
    assert request.images[0].blob.size == limits.upload_bytes


async def test_a_request_over_the_limit_is_refused_while_it_is_still_sent() -> None:
    limits = Limits(upload_bytes=100_000, request_bytes=2000)
    body = form(*TEXT, ("image", "a.png", png(padding=b"x" * 5000)))
    with pytest.raises(TooLarge, match=r"server\.max_request_mb"):
        await read(Operation.EDITS, "multipart/form-data; boundary=cut", [body[:1500], body[1500:]], limits=limits)


async def test_text_in_the_place_of_a_file_is_told_as_openai_tells_it() -> None:
    fault = await refused(*TEXT, ("image", "<_io.BufferedReader>"))
    assert fault.message.startswith(
        "Invalid type for 'image': expected one of an array of files or file, but got a string instead."
    )
    assert (fault.param, fault.code) == ("image", "invalid_type")
    fault = await refused(*TEXT, PICTURE, ("mask", "x"))
    assert (fault.param, fault.code) == ("mask", "invalid_type")
    fault = await refused(*TEXT, ("image[]", png(padding=b"\xff" * 2_000_000)))  # a client that names no file
    assert (fault.param, fault.code) == ("image[]", "invalid_type")


@pytest.mark.parametrize("name", ["image", "image[]", "mask"])
async def test_a_path_without_the_sign_that_curl_wants_is_told_so(name: str) -> None:
    fault = await refused(*TEXT, *([] if name != "mask" else [PICTURE]), (name, "fox.png"))
    assert "with curl, an '@' stands before its path: -F " in fault.message
    assert "fox.png" not in fault.message


async def test_a_file_in_the_place_of_text_is_told() -> None:
    fault = await refused(("model", "m"), ("prompt", "p.txt", b"a fox"), PICTURE)
    assert fault.param == "prompt"
    assert "-F 'prompt=<FILE'" in fault.message
    fault = await refused(*TEXT, PICTURE, ("control", "c.png", png()))
    assert (fault.param, fault.code) == ("control", "invalid_type")
    assert "'image', 'image[]' and 'mask'" in fault.message
    fault = await refused(("model", "m"), PICTURE, ("mask", "m.png", png()), operation=Operation.VARIATIONS)
    assert (fault.param, fault.code) == ("mask", "invalid_type")
    assert "taken as 'image' here" in fault.message


@pytest.mark.parametrize("part", [("images", "x.png", png()), ("images[]", "x.png", png()), ("images", "text")])
async def test_images_is_the_name_of_the_other_door(part: Any) -> None:
    fault = await refused(*TEXT, part)
    assert "'image' or 'image[]'" in fault.message
    assert (fault.param, fault.code) == (part[0], "unknown_parameter")


@pytest.mark.parametrize(
    "part",
    [
        ("images[" + "0" * 900 + "]", "x"),
        ("x" * 900, b"\xff"),
        ("x" * 900, "a\0b"),
        ("x" * 900, "a.txt", b"a"),
        ("svg" + f"[{'k' * 400}]" * 2, "x"),
    ],
)
async def test_a_long_name_is_shortened_in_what_is_told(part: Any) -> None:
    fault = await refused(*TEXT, PICTURE, part, part)
    assert len(fault.message) < 300
    assert len(fault.param or "") <= 257


async def test_no_image_is_a_missing_parameter() -> None:
    for operation in (Operation.EDITS, Operation.VARIATIONS):
        fault = await refused(*TEXT, operation=operation)
        assert (fault.param, fault.code) == ("image", "missing_required_parameter")


async def test_faults_are_reported_in_the_order_model_prompt_image_n() -> None:
    bad = [("n", "abc"), ("image", "a.png", b"hello"), ("size", "bogus")]
    assert (await refused(*bad)).param == "model"
    assert (await refused(*bad, ("model", "m"))).param == "prompt"
    assert (await refused(*bad, *TEXT)).param == "image"
    assert (await refused(bad[0], PICTURE, bad[2], *TEXT)).param == "n"
    assert (await refused(PICTURE, bad[2], *TEXT)).param == "size"


async def test_a_text_field_twice_is_a_duplicate_unless_it_is_a_list() -> None:
    fault = await refused(*TEXT, PICTURE, ("n", "1"), ("n", "1"))
    assert (fault.param, fault.code) == ("n", "duplicate_parameter")
    request = await read_form(Operation.EDITS, *TEXT, PICTURE, ("tags[]", "a"), ("tags[]", "b"))
    assert unknown(request) == (("tags[]", "a"), ("tags[]", "b"))


async def test_the_texts_of_a_form_count_as_memory_until_its_uploads_are_closed() -> None:
    budget = Budget(memory_bytes=10_000)
    with Uploads(budget=budget) as uploads:
        await read_form(Operation.EDITS, ("model", "m"), ("prompt", "x" * 6000), PICTURE, uploads=uploads)
        assert 6000 < budget.memory < 7000
        with pytest.raises(Unavailable, match="no room to keep the text"), Uploads(budget=budget) as more:
            await read_form(Operation.EDITS, ("model", "m"), ("prompt", "x" * 6000), PICTURE, uploads=more)
    assert budget.memory == 0


async def test_text_is_utf8_and_holds_no_nul() -> None:
    request = await read_form(Operation.EDITS, ("model", "m"), ("prompt", "Füchse 🦊"), PICTURE)
    assert request.prompt == "Füchse 🦊"
    assert (await refused(("model", "m"), ("prompt", b"\xff"), PICTURE)).param == "prompt"
    assert (await refused(("model", "m"), ("prompt", "a\0b"), PICTURE)).param == "prompt"


async def test_all_text_together_is_at_most_a_megabyte() -> None:
    half = "x" * 600_000
    with pytest.raises(TooLarge, match="images not counted"):
        await read_form(Operation.EDITS, *TEXT, PICTURE, ("a", half), ("b", half))


async def test_a_variation_takes_an_image_and_no_mask() -> None:
    request = await read_form(Operation.VARIATIONS, ("model", "m"), PICTURE)
    assert request.prompt is None
    assert len(request.images) == 1
    request = await read_form(Operation.VARIATIONS, *TEXT, PICTURE)
    assert request.prompt == "p"
    fault = await refused(*TEXT, PICTURE, ("mask", "m.png", png()), operation=Operation.VARIATIONS)
    assert fault.param == "mask"


@pytest.mark.parametrize(
    ("content_type", "body", "told"),
    [
        ("multipart/form-data", form(*TEXT), "names no boundary"),
        ("multipart/form-data; boundary=", form(*TEXT), "names no boundary"),
        ("multipart/form-data; boundary=" + "x" * 300, form(*TEXT), "longer than 200 bytes"),
        ("multipart/form-data; boundary=other", form(*TEXT), "could not be read"),
        ("multipart/form-data; boundary=cut", form(*TEXT, PICTURE)[:-10], "before the closing boundary"),
        ("multipart/form-data; boundary=cut", form(*TEXT, PICTURE)[:-60], "before the closing boundary"),
        ("multipart/form-data; boundary=cut", b"", "no parts"),
        ("multipart/form-data; boundary=cut", form(*[(f"f{i}", "x") for i in range(201)]), "more than 200 parts"),
        ("multipart/form-data; boundary=cut", b"--cut\r\nX: y\r\n\r\n\r\n--cut--\r\n", "no name"),
        ("multipart/form-data; boundary=cut", b"--cut\r\nX: " + b"y" * 9000 + b"\r\n\r\n", "header size"),
        (
            "multipart/form-data; boundary=cut",
            b'--cut\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n',
            "transfer encoding",
        ),
    ],
)
async def test_a_form_that_is_not_well_formed_is_refused(content_type: str, body: bytes, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as caught:
        await read(Operation.EDITS, content_type, body)
    assert caught.value.status == 400


async def test_a_client_that_leaves_in_mid_upload_is_not_answered() -> None:
    body = form(*TEXT, PICTURE)
    receive = receiving([body[:100]], gone=True)
    with pytest.raises(ClientGone):
        await read_request(Operation.EDITS, scope("multipart/form-data; boundary=cut"), receive, LIMITS, Uploads())


async def test_a_file_of_forty_megabytes_takes_less_than_two_of_memory() -> None:
    head, tail = form(*TEXT, ("image", "a.png", png() + b"@@")).split(b"@@")
    chunk = bytes(262_144)

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(160):
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
            request = await read_request(
                Operation.EDITS, scope("multipart/form-data; boundary=cut"), receive, limits, uploads
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert request.images[0].blob.size == len(png()) + 160 * len(chunk)
        assert peak < 2_000_000


async def test_a_picture_is_the_same_in_memory_and_on_disk() -> None:
    data = png(padding=bytes(range(256)) * 100)
    with Uploads() as uploads:
        for memory in (0, 1000, 1_000_000):
            limits = Limits(1_000_000, 1_000_000, memory_bytes=memory)
            request = await read_form(Operation.EDITS, *TEXT, ("image", "a", data), limits=limits, uploads=uploads)
            assert whole(request.images[0].blob) == data
