"""What makes two requests the same."""

from dataclasses import replace
from typing import Any

import pytest

from app.images import ImageRequest, Operation, Size, Upload
from app.runs.fingerprint import fingerprint
from app.storage.spool import Spool


def upload(data: bytes, filename: str = "a.png", memory: int = 1_000_000) -> Upload:
    spool = Spool(memory)
    spool.write(data)
    return Upload(spool, filename, "image/png")


def edit(**fields: Any) -> ImageRequest:
    given = {"prompt": "a fox", "images": (upload(b"one"), upload(b"two")), "size": Size(64, 64), "n": 2, **fields}
    return ImageRequest(Operation.EDITS, "flux", parameters={"quality": "high", "seed": 7}, **given)


def test_the_same_fields_and_files_are_the_same_request() -> None:
    assert fingerprint(edit()) == fingerprint(edit())


def test_neither_names_of_files_nor_where_they_lie_make_a_difference() -> None:
    on_disk = upload(b"one", "renamed.png", memory=0)
    assert fingerprint(edit()) == fingerprint(edit(images=(on_disk, upload(b"two"))))
    assert isinstance(on_disk.blob, Spool)
    on_disk.blob.close()


def test_the_order_of_parameters_makes_no_difference() -> None:
    first, second = {"quality": "high", "seed": 7}, {"seed": 7, "quality": "high"}
    assert fingerprint(replace(edit(), parameters=first)) == fingerprint(replace(edit(), parameters=second))


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a hen"},
        {"model": "flux-2"},
        {"operation": Operation.VARIATIONS},
        {"images": (upload(b"two"), upload(b"one"))},
        {"images": (upload(b"onetwo"),)},
        {"images": (upload(b"one"),), "mask": upload(b"two")},
        {"images": (upload(b"one"),), "markup": upload(b"two")},
        {"size": Size(64, 65)},
        {"size": None},
        {"n": 1},
        {"stream": True},
        {"raw": True},
        {"response_format": "url"},
        {"parameters": {"quality": "high", "seed": "7"}},
        {"parameters": {"quality": "high"}},
        {"extra": (("lora", b"1"),)},
        {"mask_convention": "white"},
        {"partial_images": 1},
    ],
    ids=[
        *("prompt", "model", "operation", "order of the images", "images in one", "mask", "markup", "size", "no size"),
        *("n", "stream", "raw", "response_format", "other parameters", "fewer parameters", "extra", "mask_convention"),
        "partial_images",
    ],
)
def test_whatever_else_differs_makes_another_request(other: dict[str, Any]) -> None:
    assert fingerprint(edit()) != fingerprint(replace(edit(), **other))


def test_neither_a_bound_on_the_cost_nor_tags_make_a_difference() -> None:
    other = replace(edit(), max_cost=5, tags={"team": "blue"})
    assert fingerprint(other) == fingerprint(edit())


def test_files_that_were_closed_cannot_be_told() -> None:
    request = edit(images=(upload(b"one"),))
    for each in filter(None, (*request.images, request.mask, request.markup)):
        assert isinstance(each.blob, Spool)
        each.blob.close()
    with pytest.raises(ValueError, match="closed"):
        fingerprint(request)


def test_what_is_not_known_makes_a_difference() -> None:
    assert fingerprint(edit(extra=(("x", b"[1]"),))) == fingerprint(edit(extra=(("x", b"[1]"),)))
    assert fingerprint(edit(extra=(("x", b"[1]"),))) != fingerprint(edit(extra=(("x", b'"[1]"'),)))
