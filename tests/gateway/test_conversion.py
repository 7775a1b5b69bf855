from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from app.errors import Failure, Unavailable, UpstreamError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.conversion import Wanted, reformatting
from app.imaging.workers import Workers
from app.storage.spool import Spool
from tests.drawings import into, play
from tests.pixels import bomb, corners, encoded, exif, near, stored

pytestmark = pytest.mark.anyio

SERVED = Served("p", "m", 1)
PICTURE = corners((64, 48))


class Spools:
    def __init__(self) -> None:
        self.made: list[Spool] = []

    def __call__(self) -> Spool:
        self.made.append(Spool(1000))
        return self.made[-1]

    @property
    def closed(self) -> bool:
        return all(is_closed(spool) for spool in self.made)


def is_closed(spool: Spool) -> bool:
    try:
        spool.read(0, 0)
    except ValueError:
        return True
    return False


@pytest.fixture
def spools() -> Spools:
    return Spools()


@pytest.fixture
def workers(spools: Spools) -> Iterator[Workers]:
    with Workers(spools) as workers:
        yield workers


def image(data: bytes, piece: int = 1000, index: int = 0, partial: int | None = None) -> list[Event]:
    text = base64.b64encode(data)
    pieces = [ImageData(text[at : at + piece]) for at in range(0, len(text), piece)]
    return [ImageBegins(index, partial), *pieces, ImageEnds(facts={"output_format": "png", "quality": "high"})]


async def reformatted(
    events: list[Event], wanted: Wanted, workers: Workers, *, recompress: bool = False
) -> list[Event]:
    found: list[Event] = []
    with reformatting(into(found), wanted, workers, recompress=recompress) as sink:
        await play(events, sink)
    return found


def pictures(events: list[Event]) -> list[bytes]:
    """The images, whose pieces of base64 can be joined as they are."""
    found: list[bytes] = []
    for event in events:
        if isinstance(event, ImageBegins):
            found.append(b"")
        elif isinstance(event, ImageData):
            found[-1] += event.base64
    return [base64.b64decode(text, validate=True) for text in found]


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_an_image_in_the_wanted_format_passes_piece_by_piece(
    format: Any, workers: Workers, spools: Spools
) -> None:
    events = [SERVED, *image(encoded(PICTURE, format.upper())), Done({"total_tokens": 3})]
    passed = await reformatted(events, Wanted(format, 50), workers)
    assert all(one is other for one, other in zip(passed, events, strict=True))
    assert not spools.made


@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("piece", [1, 3, 1000, 10**9])
async def test_any_image_comes_out_in_the_wanted_format_however_it_is_cut(
    source: str, format: Any, piece: int, workers: Workers, spools: Spools
) -> None:
    data = encoded(PICTURE, source)
    events = await reformatted(image(data, piece), Wanted(format), workers)
    picture = opened(pictures(events)[0])
    assert (picture.format, picture.size) == (format.upper(), (64, 48))
    assert near(picture.convert("RGB").getpixel((5, 5)), (255, 0, 0), 30)
    assert (pictures(events)[0] == data) == (source.lower() == format)
    assert spools.closed


async def test_the_facts_of_a_converted_image_are_those_of_its_bytes(workers: Workers) -> None:
    source = encoded(stored(PICTURE, 6), "JPEG", exif=exif(6), quality=95)
    events = await reformatted([SERVED, *image(source), Done()], Wanted("png"), workers)
    ends = next(event for event in events if isinstance(event, ImageEnds))
    assert ends.facts == {"output_format": "png", "size": "64x48", "quality": "high"}
    assert near(opened(pictures(events)[0]).getpixel((5, 5)), (255, 0, 0), 30)


async def test_all_other_events_keep_their_places(workers: Workers) -> None:
    data = encoded(PICTURE)
    link: list[Event] = [ImageBegins(2), ImageLink("https://example.com/a.png"), ImageEnds("a fox")]
    events = [SERVED, *image(data, partial=0), *image(data), SERVED, *image(encoded(PICTURE, "JPEG"), index=1), *link]
    passed = await reformatted([*events, Done()], Wanted("jpeg"), workers)
    kinds = [type(event).__name__ for event in passed if not isinstance(event, ImageData)]
    assert kinds == [type(event).__name__ for event in [*events, Done()] if not isinstance(event, ImageData)]
    assert [opened(picture).format for picture in pictures(passed) if picture] == ["JPEG"] * 3
    assert passed[-4:-1] == link


async def test_a_large_image_leaves_in_pieces(workers: Workers) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((600, 600), 90)] * 3)
    events = await reformatted(image(encoded(noise, "JPEG")), Wanted("png"), workers)
    pieces = [event.base64 for event in events if isinstance(event, ImageData)]
    assert len(pieces) > 1
    assert all(len(piece) == 262_144 for piece in pieces[:-1])
    assert opened(pictures(events)[0]).size == (600, 600)


async def test_a_transparent_image_becomes_a_jpeg_on_white(workers: Workers) -> None:
    events = await reformatted(image(encoded(Image.new("RGBA", (16, 16), (255, 0, 0, 0)))), Wanted("jpeg"), workers)
    assert near(opened(pictures(events)[0]).getpixel((3, 3)), (255, 255, 255))


@pytest.mark.parametrize("format", ["jpeg", "webp"])
async def test_the_compression_is_the_quality(format: Any, workers: Workers) -> None:
    events = image(encoded(Image.effect_noise((128, 128), 90)))
    sizes = [len(pictures(await reformatted(events, Wanted(format, q), workers))[0]) for q in (0, 50, 100)]
    assert sizes == sorted(set(sizes))
    usual = len(pictures(await reformatted(events, Wanted(format), workers))[0])
    assert sizes[1] < usual < sizes[2]


@pytest.mark.parametrize("format", ["jpeg", "webp"])
async def test_an_image_in_the_wanted_format_is_compressed_anew_if_that_is_wanted(
    format: Any, workers: Workers
) -> None:
    data = encoded(Image.effect_noise((128, 128), 90), format.upper(), quality=95)
    events = await reformatted(image(data), Wanted(format, 10), workers, recompress=True)
    assert len(pictures(events)[0]) < len(data) / 2


@pytest.mark.parametrize("wanted", [Wanted("jpeg"), Wanted("png", 10)])
async def test_nothing_is_compressed_anew_without_a_compression_that_means_something(
    wanted: Wanted, workers: Workers
) -> None:
    events = image(encoded(PICTURE, wanted.format.upper()))
    assert await reformatted(events, wanted, workers, recompress=True) == events


CUT = encoded(Image.effect_noise((100, 100), 90))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (CUT[: len(CUT) // 2], "damaged or cut"),
        (b"hello, I am no picture", "no PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' />", "no PNG"),
        (b"\x89PNG", "too short"),
        (bomb(), "60000x60000"),
    ],
)
async def test_an_image_that_cannot_be_converted_may_have_been_paid_for(
    data: bytes, reason: str, workers: Workers, spools: Spools
) -> None:
    with pytest.raises(UpstreamError, match=reason) as failed:
        await reformatted(image(data, 3), Wanted("jpeg"), workers)
    assert failed.value.failure is Failure.UNCERTAIN
    assert spools.closed


@pytest.mark.parametrize("text", [b"iVBORw0KGgoAAAANSUh!", b"iVBORw0KGgoAAAANSUhEU"])
async def test_text_that_is_no_base64_is_a_broken_answer(text: bytes, workers: Workers) -> None:
    with pytest.raises(UpstreamError, match="base64"):
        await reformatted([ImageBegins(0), ImageData(text), ImageEnds()], Wanted("jpeg"), workers)


@pytest.mark.parametrize("failure", [UpstreamError(Failure.UNCERTAIN, "cut"), asyncio.CancelledError()])
async def test_a_failure_in_the_middle_leaves_nothing_open(
    failure: BaseException, workers: Workers, spools: Spools
) -> None:
    with pytest.raises(type(failure)), reformatting(into([]), Wanted("jpeg"), workers) as sink:
        await play([*image(encoded(PICTURE))[:-1], failure], sink)
    assert spools.made
    assert spools.closed


async def test_a_stage_behind_that_fails_closes_the_spools(workers: Workers, spools: Spools) -> None:
    async def push(event: Event) -> None:
        if isinstance(event, ImageData):
            raise OSError("full")

    with pytest.raises(OSError, match="full"), reformatting(push, Wanted("jpeg"), workers) as sink:
        await play(image(encoded(PICTURE)), sink)
    assert spools.made
    assert spools.closed


async def test_a_paid_image_waits_where_others_are_refused(spools: Spools) -> None:
    with Workers(spools, threads=1, waiting=0) as workers:
        events = image(encoded(PICTURE))
        answers = await asyncio.gather(*(reformatted(events, Wanted("jpeg"), workers) for _ in range(5)))
    assert all(opened(pictures(answer)[0]).format == "JPEG" for answer in answers)


async def test_a_full_disk_does_not_invite_to_pay_again() -> None:
    class Full(Spool):
        def write(self, data: object) -> None:
            raise OSError(28, "No space left on device")

    with Workers(lambda: Full(0)) as workers, pytest.raises(Unavailable, match="No space") as failed:
        await reformatted(image(encoded(PICTURE)), Wanted("jpeg"), workers)
    assert (failed.value.should_retry, failed.value.perhaps_paid) == (False, True)
