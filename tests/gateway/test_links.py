from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pybase64
import pytest

from app.errors import ApiError, UpstreamFailed
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served
from app.gateway.links import linking
from app.storage.disk import DiskStore
from app.storage.files import StoredFile
from tests.drawings import into, play

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
SVG = b"<!-- " + b"x" * 300 + b" --><svg xmlns='http://www.w3.org/2000/svg'/>"
SERVED = Served("p", "m", 1)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path, lifetime=100, max_bytes=1_000_000, clock=lambda: 1000.0)


def url_for(file: StoredFile) -> str:
    return f"https://h/files/{file.name}"


def pieces(data: bytes, seed: int = 1) -> list[Event]:
    text, found, chance = pybase64.b64encode(data), [], random.Random(seed)
    while text:
        cut = chance.choice([1, 2, 3, 4, 5, 7, 100, 1001])
        found.append(ImageData(text[:cut]))
        text = text[cut:]
    return list(found)


def image(index: int, data: bytes, partial: int | None = None, seed: int = 1) -> list[Event]:
    return [ImageBegins(index, partial), *pieces(data, seed), ImageEnds(seed=index)]


async def content(store: DiskStore, event: Event) -> bytes:
    assert isinstance(event, ImageLink)
    kept = await store.open(event.url.removeprefix("https://h/files/"))
    assert kept is not None
    data = kept.read(0, 10_000_000)
    kept.close()
    return data


async def collected(
    store: DiskStore, events: Sequence[Event | Exception], held: ExitStack | None = None
) -> list[Event]:
    found: list[Event] = []
    with linking(into(found), store, url_for, held or ExitStack()) as sink:
        await play(events, sink)
    return found


@pytest.mark.parametrize("seed", range(20))
async def test_the_link_takes_the_place_of_data_cut_anywhere(store: DiskStore, seed: int) -> None:
    data = PNG[: 1000 + seed]
    out = await collected(store, [SERVED, *image(0, data, seed=seed), Done()])
    assert [type(event) for event in out] == [Served, ImageBegins, ImageLink, ImageEnds, Done]
    assert out[3] == ImageEnds(seed=0)
    assert await content(store, out[2]) == data
    assert isinstance(out[2], ImageLink)
    assert out[2].url.endswith(".png")


async def test_several_images_and_partial_ones_each_get_a_link(store: DiskStore, tmp_path: Path) -> None:
    events = [SERVED, *image(0, b"\xff\xd8\xff part", 0), *image(0, PNG), *image(1, SVG), *image(2, b"?"), Done()]
    out = await collected(store, list(events))
    links = [event for event in out if isinstance(event, ImageLink)]
    assert [link.url.rpartition(".")[2] for link in links] == ["jpg", "png", "svg", "bin"]
    assert [await content(store, link) for link in links] == [b"\xff\xd8\xff part", PNG, SVG, b"?"]
    assert len(list(tmp_path.iterdir())) == 4


async def test_an_upstreams_own_link_and_an_image_without_data_pass_unchanged(store: DiskStore, tmp_path: Path) -> None:
    events: list[Event | Exception] = [
        SERVED, ImageBegins(0), ImageLink("https://p/1"), ImageEnds(), ImageBegins(1), ImageEnds(), Done(),
    ]  # fmt: skip
    assert await collected(store, events) == events
    assert list(tmp_path.iterdir()) == []


async def test_nothing_comes_before_the_first_image_is_stored(store: DiskStore, tmp_path: Path) -> None:
    told: list[Event] = []
    with pytest.raises(UpstreamFailed, match="broken"), linking(into(told), store, url_for, ExitStack()) as sink:
        await play([SERVED, *image(0, PNG)[:-1], UpstreamFailed("broken")], sink)
    assert told == []
    assert list(tmp_path.iterdir()) == []
    assert store.writing == 0


@pytest.mark.parametrize("text", [b"AAA", b"!!!!", b"AA=A", b"AAAA=AAA"])
async def test_text_that_is_no_base64_breaks_the_answer_and_leaves_no_file(
    store: DiskStore, tmp_path: Path, text: bytes
) -> None:
    with pytest.raises(ApiError) as refused:
        await collected(store, [SERVED, ImageBegins(0), ImageData(text), ImageEnds(), Done()])
    assert (refused.value.status, refused.value.should_retry) == (502, False)
    assert list(tmp_path.iterdir()) == []
    assert store.writing == 0


async def test_work_that_is_given_up_in_the_middle_leaves_no_file_but_the_whole_ones(
    store: DiskStore, tmp_path: Path
) -> None:
    told: list[Event] = []
    with suppress(asyncio.CancelledError), linking(into(told), store, url_for, ExitStack()) as sink:
        await play([SERVED, *image(0, PNG), *image(1, PNG)[:-1], asyncio.CancelledError()], sink)
    assert isinstance(told[-1], ImageBegins)
    assert len(list(tmp_path.iterdir())) == 1
    assert store.writing == 0


async def test_a_disk_without_room_is_an_error(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(ApiError) as refused:
            await collected(store, [SERVED, *image(0, PNG), Done()])
    assert (refused.value.status, refused.value.code) == (503, "no_room_for_files")
    assert list(tmp_path.iterdir()) == []


async def test_pictures_of_one_answer_never_make_room_for_each_other(tmp_path: Path) -> None:
    small, held = DiskStore(tmp_path, lifetime=100, max_bytes=len(PNG), clock=lambda: 1000.0), ExitStack()
    out = await collected(small, [SERVED, *image(0, PNG), *image(1, PNG), *image(2, PNG), Done()], held)
    links = [event for event in out if isinstance(event, ImageLink)]
    assert [await content(small, link) for link in links] == [PNG] * 3
    with pytest.raises(ApiError):
        small.check_room()
    held.close()
    small.check_room()
    await collected(small, [SERVED, *image(0, PNG), Done()])
    assert len(list(tmp_path.iterdir())) == 1
