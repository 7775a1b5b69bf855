from __future__ import annotations

from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.splitter import ImageSplitter

DATA, END = ImageData(b"AAAA"), ImageEnds()


class Image:
    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_each_image_has_an_object_of_its_own_and_other_events_have_none() -> None:
    images = ImageSplitter(Image)
    first = [images.push(event) for event in (ImageBegins(0), DATA, DATA, END)]
    second = [images.push(event) for event in (ImageBegins(1, 2), ImageLink("https://h/1"), END)]
    assert len({id(image) for image in first}) == len({id(image) for image in second}) == 1
    assert first[0] is not None
    assert first[0] is not second[0]
    assert images.begins == ImageBegins(1, 2)
    other: tuple[Event, ...] = (Served("p", "m", 1), Done())
    assert [images.push(event) for event in other] == [None, None]


def test_an_object_is_closed_when_the_next_begins_or_all_is_over() -> None:
    images = ImageSplitter(Image)
    first, second = images.push(ImageBegins(0)), images.push(ImageBegins(1))
    assert first is not None
    assert second is not None
    assert (first.is_closed, second.is_closed) == (True, False)
    images.close()
    assert second.is_closed
    assert images.push(DATA) is None


def test_an_object_that_was_released_stays_open() -> None:
    images = ImageSplitter(Image)
    image = images.push(ImageBegins(0))
    images.release()
    images.push(ImageBegins(1))
    images.close()
    assert image is not None
    assert not image.is_closed


def test_data_before_the_first_image_belongs_to_none() -> None:
    assert ImageSplitter(Image).push(DATA) is None
