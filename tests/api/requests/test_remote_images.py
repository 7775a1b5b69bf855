from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest

from app.api.requests import remote_images as remote
from app.api.requests.body import Limits
from app.errors import FetchError, InvalidRequest, Reason, TooLarge, Unavailable
from app.images import Size, Upload
from app.storage.spool import Spool, Uploads
from tests.api.requests.feeding import png

pytestmark = pytest.mark.anyio


@dataclass
class Fetching:
    """A fetcher that gives this, or fails with it."""

    result: bytes | FetchError
    max_bytes: int | None = None
    rate: int | None = None

    async def fetch(self, url: str, *, max_bytes: int, rate: int) -> AsyncGenerator[bytes, None]:
        self.max_bytes, self.rate = max_bytes, rate
        if isinstance(self.result, FetchError):
            raise self.result
        for at in range(0, len(self.result), 10):
            yield self.result[at : at + 10]


async def upload(result: bytes | FetchError, uploads: Uploads) -> Upload:
    fetching = Fetching(result)
    url, place = "https://h.test/x", "images[1].image_url"
    found = await remote.upload(fetching, Limits(1000, 2000, memory_bytes=20, rate=7), uploads, url, place)
    assert (fetching.max_bytes, fetching.rate) == (1000, 7)
    return found


async def test_a_picture_at_an_address_is_as_good_as_one_that_was_sent() -> None:
    picture = png(8, 6)
    with Uploads() as uploads:
        found = await upload(picture, uploads)
        assert found.blob.read(0, 1000) == picture
        assert (found.media_type, found.filename, found.size) == ("image/png", "image.png", Size(8, 6))


async def test_an_unknown_format_is_left_for_later_judgement() -> None:
    with Uploads() as uploads:
        assert (await upload(b"unknown", uploads)).media_type == "application/octet-stream"


async def test_a_failure_is_the_callers_and_names_the_field() -> None:
    error = FetchError(Reason.PRIVATE, "at 'h.test' is not fetched")
    with Uploads() as uploads, pytest.raises(InvalidRequest, match=r"The image at 'h.test' is not fetched\.") as told:
        await upload(error, uploads)
    assert (told.value.status, told.value.param, told.value.code) == (400, "images[1].image_url", "invalid_image_url")


async def test_a_picture_that_is_too_large_is_told_as_one_that_was_sent() -> None:
    error = FetchError(Reason.TOO_LARGE, "at 'h.test' is larger than 1 MB")
    with Uploads() as uploads, pytest.raises(TooLarge) as told:
        await upload(error, uploads)
    assert (told.value.status, told.value.param, told.value.code) == (413, "images[1].image_url", "file_too_large")


async def test_a_full_disk_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Spool, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "write", full)
    with Uploads() as uploads, pytest.raises(Unavailable, match="No space left"):
        await upload(b"x", uploads)
