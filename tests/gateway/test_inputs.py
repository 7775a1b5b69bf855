from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from app.catalog import fitting
from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted
from app.catalog.profiles import FileFormat, Profile, SizeRule
from app.errors import InvalidRequest, Unavailable
from app.gateway.inputs import Preparation
from app.images import ImageRequest, Operation, Size, Upload
from app.imaging.formats import ENOUGH, dimensions, media_type
from app.imaging.workers import Workers
from app.storage.spool import Uploads
from tests.pixels import bomb, chunk, corners, encoded, exif, mpo, near, opened, png, spool, stored

pytestmark = pytest.mark.anyio

UNKNOWN = Profile()  # an OpenAI-shaped host of which nothing is known
PRESET = Profile(parameters={"size": "size"})
FILL = Profile(parameters={"size": "size"}, mask="white", size=SizeRule(multiple_of=16), default_size="input")


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    with Uploads() as uploads:
        yield uploads


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(spool) as workers:
        yield workers


def upload(data: bytes, filename: str = "photo.png") -> Upload:
    kind = media_type(data) or "application/octet-stream"
    return Upload(spool(data), filename, kind, dimensions(data[:ENOUGH]))


def request(*images: bytes | Upload, mask: bytes | None = None, **fields: Any) -> ImageRequest:
    return ImageRequest(
        Operation.EDITS,
        "m",
        images=tuple(image if isinstance(image, Upload) else upload(image) for image in images),
        mask=upload(mask, "mask.png") if mask else None,
        **fields,
    )


def fit(request: ImageRequest, profile: Profile) -> Fitted:
    fitted = fitting.fit(request, Deployment(Provider("p", "openai", "http://127.0.0.1"), "m", profile))
    assert isinstance(fitted, Fitted)
    return fitted


async def prepared(request: ImageRequest, profile: Profile, uploads: Uploads, workers: Workers) -> Fitted:
    return await Preparation(request, uploads, workers).prepare(fit(request, profile))


def of(upload: Upload | None) -> Image.Image:
    """The picture that an upload is; all that is said of it is true."""
    assert upload is not None
    image = opened(upload.blob)
    assert upload.media_type == Image.MIME[image.format or ""]
    assert upload.size == Size(*image.size)
    assert upload.filename.endswith({"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}[image.format or ""])
    return image


PLAIN = {
    "PNG": encoded(corners()),
    "PNG with alpha": encoded(Image.new("RGBA", (12, 8), (9, 9, 9, 9))),
    "JPEG": encoded(corners(), "JPEG"),
    "JPEG that is upright": encoded(corners(), "JPEG", exif=exif(1)),
    "WebP": encoded(corners(), "WEBP"),
}
ODD = {
    "palette": encoded(corners().quantize(4)),
    "16 bits": png((1, 1), 16, 2, [b"\x80\0\x40\0\0\0"]),
    "grey": encoded(corners().convert("L")),
    "grey with alpha": encoded(Image.new("LA", (4, 4))),
    "a transparent colour": encoded(corners(), transparency=(0, 0, 0)),
    "CMYK": encoded(corners().convert("CMYK"), "JPEG"),
    "animated": encoded(corners(), "WEBP", save_all=True, append_images=[Image.new("RGB", (12, 8))]),
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("profile", [UNKNOWN, PRESET])
async def test_an_image_that_fits_is_not_touched(
    kind: str, profile: Profile, uploads: Uploads, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "redraw", None)
    fitted = fit(asked := request(PLAIN[kind]), profile)
    assert await Preparation(asked, uploads, workers).prepare(fitted) is fitted


@pytest.mark.parametrize("kind", ODD)
async def test_odd_pixels_are_made_plain_for_hosts_that_are_known(
    kind: str, uploads: Uploads, workers: Workers
) -> None:
    image = of((await prepared(request(upload(ODD[kind], "photo")), PRESET, uploads, workers)).request.images[0])
    assert image.mode in ("RGB", "RGBA")
    assert getattr(image, "n_frames", 1) == 1


@pytest.mark.parametrize("kind", ODD)
async def test_odd_pixels_are_left_alone_for_hosts_that_are_not_known(
    kind: str, uploads: Uploads, workers: Workers
) -> None:
    asked = request(ODD[kind])
    assert (await prepared(asked, UNKNOWN, uploads, workers)).request.images == asked.images


@pytest.mark.parametrize("profile", [UNKNOWN, PRESET])
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
async def test_turned_pictures_are_made_upright_for_everybody(
    format: str, orientation: int, profile: Profile, uploads: Uploads, workers: Workers
) -> None:
    data = encoded(stored(corners((48, 32)), orientation), format, exif=exif(orientation), quality=95)
    fitted = await prepared(request(upload(data, "wrong.gif")), profile, uploads, workers)
    image = of(fitted.request.images[0])
    assert (image.format, image.size) == (format, (48, 32))
    assert near(image.getpixel((6, 6)), (255, 0, 0), 20)
    assert near(image.getpixel((41, 6)), (0, 255, 0), 20)
    assert near(image.getpixel((6, 25)), (0, 0, 255), 20)
    assert not image.getexif()


async def test_a_telephones_album_becomes_a_jpeg_for_everybody(uploads: Uploads, workers: Workers) -> None:
    fitted = await prepared(request(upload(mpo(6), "IMG_1.JPG")), UNKNOWN, uploads, workers)
    made = fitted.request.images[0]
    image = opened(made.blob)
    assert (image.format, image.size, made.filename) == ("JPEG", (16, 32), "IMG_1.JPG")
    assert (made.media_type, made.size) == ("image/jpeg", Size(16, 32))


@pytest.mark.parametrize(
    ("formats", "became"),
    [(("jpeg", "png"), "PNG"), (("webp", "jpeg"), "JPEG"), (("webp",), "WEBP"), (("png", "jpeg", "webp"), "GIF")],
)
async def test_a_format_that_is_not_taken_is_changed(
    formats: tuple[FileFormat, ...], became: str, uploads: Uploads, workers: Workers
) -> None:
    source = "WEBP" if "webp" not in formats else "PNG"
    profile = replace(UNKNOWN, input_formats=formats)
    asked = request(upload(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), source), f"a.b.{source.lower()}"))
    made = (await prepared(asked, profile, uploads, workers)).request.images[0]
    if became == "GIF":  # nothing has to become anything
        assert made is asked.images[0]
        return
    image = of(made)
    assert image.format == became
    assert made.filename.startswith("a.b.")
    if became == "JPEG":
        assert near(image.getpixel((1, 1)), (255, 255, 255))


async def test_a_picture_becomes_the_size_that_is_drawn_and_its_mask_with_it(
    uploads: Uploads, workers: Workers
) -> None:
    mask = Image.new("RGBA", (100, 60), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 50, 60))
    asked = request(encoded(corners((100, 60))), encoded(corners((30, 30))), mask=encoded(mask))
    fitted = await prepared(asked, FILL, uploads, workers)
    assert fitted.request.size == Size(96, 64)
    assert fitted.mapped == ("size=96x64",)
    assert [of(image).size for image in fitted.request.images] == [(96, 64), (30, 30)]
    white = of(fitted.request.mask)
    assert (white.mode, white.size) == ("L", (96, 64))
    assert (white.getpixel((5, 5)), white.getpixel((90, 60))) == (255, 0)


async def test_the_size_that_is_drawn_is_the_upright_pictures(uploads: Uploads, workers: Workers) -> None:
    data = encoded(stored(corners((32, 64)), 6), "JPEG", exif=exif(6))
    asked = request(upload(data, "a.jpg"))
    fitted = await prepared(asked, FILL, uploads, workers)
    assert (fitted.request.size, fitted.mapped) == (Size(32, 64), ())
    assert of(fitted.request.images[0]).size == (32, 64)


async def test_a_picture_of_a_size_that_is_drawn_gives_its_size_and_nothing_is_mapped(
    uploads: Uploads, workers: Workers
) -> None:
    asked = request(encoded(corners((96, 64))), encoded(corners((100, 60))))
    fitted = await prepared(asked, FILL, uploads, workers)
    assert (fitted.request.size, fitted.mapped) == (Size(96, 64), ())
    assert fitted.request.images == asked.images


async def test_a_derived_size_counts_where_no_size_can_be_said(uploads: Uploads, workers: Workers) -> None:
    profile = replace(FILL, parameters={})
    fitted = await prepared(request(encoded(corners((100, 60)))), profile, uploads, workers)
    assert (fitted.request.size, fitted.mapped) == (None, ("size=96x64",))
    assert of(fitted.request.images[0]).size == (96, 64)


async def test_a_size_that_was_asked_for_leaves_the_picture_as_it_is(uploads: Uploads, workers: Workers) -> None:
    asked = request(encoded(corners((100, 60))), size=Size(160, 160))
    fitted = await prepared(asked, FILL, uploads, workers)
    assert fitted.request.images[0] is asked.images[0]
    assert fitted.request.size == Size(160, 160)


async def test_markup_follows_the_picture_on_which_it_lies(uploads: Uploads, workers: Workers) -> None:
    profile = replace(FILL, parameters=None)
    asked = replace(request(encoded(corners((100, 60)))), markup=upload(encoded(corners((100, 60)))))
    assert of((await prepared(asked, profile, uploads, workers)).request.markup).size == (96, 64)
    asked = replace(asked, markup=upload(encoded(corners((20, 20)))))
    assert (await prepared(asked, profile, uploads, workers)).request.markup is asked.markup


async def test_an_odd_header_is_looked_through_where_the_size_matters(uploads: Uploads, workers: Workers) -> None:
    jpeg = encoded(corners((100, 60)), "JPEG")
    asked = request(upload(jpeg[:20] + b"\0" + jpeg[20:], "a.jpg"))
    assert asked.images[0].size == Size(100, 60)
    fitted = await prepared(asked, FILL, uploads, workers)
    assert fitted.request.size == Size(96, 64)
    assert of(fitted.request.images[0]).size == (96, 64)


MASKS = {
    "alpha": encoded(Image.new("RGBA", (12, 8), (1, 2, 3, 55))),
    "white": encoded(Image.new("L", (12, 8), 200)),
    "black": encoded(Image.new("L", (12, 8), 55)),
}


@pytest.mark.parametrize("said", MASKS)
@pytest.mark.parametrize("meant", MASKS)
async def test_every_mask_is_sent_in_the_deployments_convention(
    said: Any, meant: Any, uploads: Uploads, workers: Workers
) -> None:
    asked = request(PLAIN["PNG"], mask=MASKS[said], mask_convention=said)
    mask = (await prepared(asked, replace(UNKNOWN, mask=meant), uploads, workers)).request.mask
    expected = {"alpha": 55, "white": 200, "black": 55}[meant]
    image = of(mask)
    band = image.getchannel("A") if meant == "alpha" else image
    assert image.mode == ("RGBA" if meant == "alpha" else "L")
    assert set(band.tobytes()) == {expected}
    assert (mask is asked.mask) == (said == meant)


async def test_a_mask_that_is_no_png_becomes_one(uploads: Uploads, workers: Workers) -> None:
    webp = encoded(Image.new("RGBA", (12, 8), (0, 0, 0, 55)), "WEBP", lossless=True, exact=True)
    asked = request(PLAIN["PNG"], mask=webp)
    assert set(of((await prepared(asked, UNKNOWN, uploads, workers)).request.mask).getchannel("A").tobytes()) == {55}
    jpeg = encoded(Image.new("RGB", (12, 8), "white"), "JPEG")
    asked = request(PLAIN["PNG"], mask=jpeg, mask_convention="white")
    fitted = await prepared(asked, replace(UNKNOWN, mask="white"), uploads, workers)
    assert set(of(fitted.request.mask).tobytes()) == {255}


async def test_an_odd_alpha_mask_is_made_plain_for_hosts_that_are_known_alone(
    uploads: Uploads, workers: Workers
) -> None:
    palette = encoded(Image.new("P", (12, 8)), transparency=0)
    asked = request(PLAIN["PNG"], mask=palette)
    assert (await prepared(asked, UNKNOWN, uploads, workers)).request.mask is asked.mask
    assert of((await prepared(asked, PRESET, uploads, workers)).request.mask).mode == "RGBA"


@pytest.mark.parametrize("profile", [UNKNOWN, PRESET, FILL])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
async def test_a_mask_without_alpha_is_refused_with_the_remedy(
    format: str, profile: Profile, uploads: Uploads, workers: Workers
) -> None:
    with pytest.raises(InvalidRequest, match="mask_convention") as refused:
        await prepared(request(PLAIN["PNG"], mask=encoded(corners(), format)), profile, uploads, workers)
    error = refused.value
    assert (error.param, error.code, error.type) == (
        "mask",
        "invalid_mask_image_format",
        "image_generation_user_error",
    )


@pytest.mark.parametrize("profile", [UNKNOWN, PRESET, FILL])
async def test_a_mask_of_another_size_is_refused_with_both_sizes(
    profile: Profile, uploads: Uploads, workers: Workers
) -> None:
    with pytest.raises(InvalidRequest, match=r"20x20.*12x8") as refused:
        await prepared(request(PLAIN["PNG"], mask=encoded(Image.new("RGBA", (20, 20)))), profile, uploads, workers)
    assert refused.value.code == "invalid_mask_image_format"


def half(size: tuple[int, int]) -> Image.Image:
    """A mask that asks for the left half, or in a tall one for the upper half, to be repainted."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]) if size[0] > size[1] else (0, 0, size[0], size[1] // 2))
    return mask


async def test_a_mask_for_the_picture_as_it_is_seen_stays(uploads: Uploads, workers: Workers) -> None:
    image = upload(encoded(stored(corners((8, 12)), 6), "JPEG", exif=exif(6)), "a.jpg")
    asked = request(image, mask=encoded(half((8, 12))))
    assert (await prepared(asked, UNKNOWN, uploads, workers)).request.mask is asked.mask


async def test_a_mask_for_the_picture_as_it_is_stored_is_turned_with_it(uploads: Uploads, workers: Workers) -> None:
    image = upload(encoded(stored(corners((8, 12)), 6), "JPEG", exif=exif(6)), "a.jpg")
    asked = request(image, mask=encoded(stored(half((8, 12)), 6)))
    mask = of((await prepared(asked, UNKNOWN, uploads, workers)).request.mask)
    assert mask.getchannel("A").tobytes() == half((8, 12)).getchannel("A").tobytes()


async def test_a_mask_with_exif_of_its_own_is_turned_by_that(uploads: Uploads, workers: Workers) -> None:
    asked = request(PLAIN["PNG"], mask=encoded(stored(half((12, 8)), 3), exif=exif(3)))
    mask = of((await prepared(asked, UNKNOWN, uploads, workers)).request.mask)
    assert mask.getchannel("A").tobytes() == half((12, 8)).getchannel("A").tobytes()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bomb(), "60000x60000"),
        (encoded(Image.effect_noise((99, 99), 90))[:4000], "damaged or cut"),
        (encoded(Image.effect_noise((99, 99), 90), "JPEG")[:3000], "damaged or cut"),
        (b"\x89PNG\r\n\x1a\n", "damaged or cut"),
    ],
)
async def test_a_picture_that_cannot_be_read_is_the_callers_fault(
    data: bytes, reason: str, uploads: Uploads, workers: Workers
) -> None:
    profile = replace(PRESET, input_formats=("webp",))
    with pytest.raises(InvalidRequest, match=reason) as refused:
        await prepared(request(PLAIN["WebP"], data), profile, uploads, workers)
    error = refused.value
    assert (error.param, error.code, error.type) == (
        "image[1]",
        "invalid_image_file",
        "image_generation_user_error",
    )


async def test_a_picture_too_large_to_convert_is_told_to_be_smaller_with_the_bound(uploads: Uploads) -> None:
    profile = replace(PRESET, input_formats=("webp",))
    with Workers(spool, max_pixels=50) as workers, pytest.raises(InvalidRequest) as refused:
        await prepared(request(PLAIN["PNG"]), profile, uploads, workers)
    assert "12x8 pixels, and images of up to 50 pixels can be converted. Make it smaller." in refused.value.message


async def test_a_mask_that_cannot_be_read_is_the_callers_fault(uploads: Uploads, workers: Workers) -> None:
    cut = png((12, 8), 8, 6, [b"\0" * 20])
    with pytest.raises(InvalidRequest, match="damaged or cut") as refused:
        await prepared(request(PLAIN["PNG"], mask=cut), FILL, uploads, workers)
    assert refused.value.param == "mask"


async def test_a_mask_whose_header_hides_that_it_is_opaque_is_refused(uploads: Uploads, workers: Workers) -> None:
    deep = png((12, 8), 16, 0, [b"\0\0" * 12] * 8, chunk(b"tRNS", b""))
    with pytest.raises(InvalidRequest):
        await prepared(request(PLAIN["PNG"], mask=deep), FILL, uploads, workers)


async def test_a_full_queue_is_a_503(uploads: Uploads) -> None:
    with Workers(spool, threads=1, waiting=0) as workers:
        asked = [request(ODD["palette"]) for _ in range(3)]
        results = await asyncio.gather(
            *(prepared(one, PRESET, uploads, workers) for one in asked), return_exceptions=True
        )
    assert sorted(type(result).__name__ for result in results) == ["Fitted", "Unavailable", "Unavailable"]
    assert all(result.status == 503 for result in results if isinstance(result, Unavailable))


async def test_no_work_is_done_twice_for_one_request(
    uploads: Uploads, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, redraw = [], workers.redraw

    async def counted(*args: Any, **options: Any) -> Size:
        orders.append(args[2])
        return await redraw(*args, **options)

    monkeypatch.setattr(workers, "redraw", counted)
    asked = request(ODD["palette"], mask=MASKS["alpha"])
    preparation = Preparation(asked, uploads, workers)
    fitted = [fit(asked, replace(PRESET, mask=mask)) for mask in ("white", "white", "alpha", "black")]
    results = await asyncio.gather(*(preparation.prepare(one) for one in fitted))
    assert len(orders) == len(set(orders)) == 3  # the picture, and the mask for white and for black
    assert len({id(result.request.images[0]) for result in results}) == 1


async def test_a_call_that_is_given_up_leaves_the_work_to_the_next(uploads: Uploads, workers: Workers) -> None:
    asked = request(ODD["palette"])
    preparation = Preparation(asked, uploads, workers)
    first = asyncio.create_task(preparation.prepare(fit(asked, PRESET)))
    second = asyncio.create_task(preparation.prepare(fit(asked, PRESET)))
    await asyncio.sleep(0)
    first.cancel()
    assert of((await second).request.images[0]).mode == "RGB"
    with pytest.raises(asyncio.CancelledError):
        await first
