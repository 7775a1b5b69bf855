from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import AvifImagePlugin, Image

from app.errors import Unavailable
from app.images import Size
from app.imaging.operations import Redraw, RedrawMask, Undrawable, WithoutAlpha
from app.imaging.workers import BYTES_PER_PIXEL, MOST_MEMORY, PIXELS, WRITING_WEBP, Workers
from app.storage.spool import Spool
from tests.pixels import bomb, corners, encoded, opened, spool
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio

PNG = encoded(corners((40, 30)))  # 1,200 pixels


class Gated:
    """A picture that is read only once the test lets it; every reading of its pixels is counted."""

    def __init__(self, data: bytes = PNG) -> None:
        self._data = data
        self._open = threading.Event()
        self._main = threading.get_ident()
        self.started = threading.Event()
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        if threading.get_ident() != self._main:
            self.started.set()
            assert self._open.wait(5)
        return self._data[offset : offset + length]

    def release(self) -> None:
        self._open.set()


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(spool, threads=2, waiting=2, max_pixels=10_000) as workers:
        yield workers


def drawing(workers: Workers, source: Gated, *, paid: bool = False) -> asyncio.Task[Size]:
    return asyncio.create_task(workers.redraw(source, spool(), Redraw("jpeg"), paid=paid))


async def started(source: Gated) -> None:
    assert await asyncio.to_thread(source.started.wait, 5)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_picture_is_redrawn_in_another_thread(workers: Workers) -> None:
    target = spool()
    assert await workers.redraw(spool(PNG), target, Redraw("webp", size=Size(20, 10))) == Size(20, 10)
    assert opened(target).format == "WEBP"


async def test_a_mask_is_redrawn(workers: Workers) -> None:
    target = spool()
    await workers.redraw(spool(PNG), target, RedrawMask("white", "alpha"))
    assert opened(target).mode == "RGBA"
    with pytest.raises(WithoutAlpha):
        await workers.redraw(spool(PNG), spool(), RedrawMask("alpha", "white"))


async def test_beyond_the_line_there_is_no_room_at_once_and_the_line_moves_on(workers: Workers) -> None:
    sources = [Gated() for _ in range(4)]
    tasks = [drawing(workers, source) for source in sources]
    await settle()
    with pytest.raises(Unavailable) as refused:
        await workers.redraw(spool(PNG), spool(), Redraw("jpeg"))
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    await started(sources[1])
    assert not sources[2].started.is_set()
    for source in sources:
        source.release()
    assert await asyncio.gather(*tasks) == [Size(40, 30)] * 4
    assert await workers.redraw(spool(PNG), spool(), Redraw("jpeg")) == Size(40, 30)


async def test_a_paid_image_waits_however_long_the_queue_is(workers: Workers) -> None:
    sources = [Gated() for _ in range(9)]
    tasks = [drawing(workers, source, paid=True) for source in sources]
    await settle()
    for source in sources:
        source.release()
    assert await asyncio.gather(*tasks) == [Size(40, 30)] * 9


async def test_a_caller_that_leaves_the_queue_makes_room_in_it(workers: Workers) -> None:
    sources = [Gated() for _ in range(5)]
    tasks = [drawing(workers, source) for source in sources[:4]]
    await settle()
    tasks[2].cancel()
    await settle()
    tasks.append(drawing(workers, sources[4]))
    for source in sources:
        source.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Size, Size, asyncio.CancelledError, Size, Size]
    assert not sources[2].started.is_set()


async def test_a_caller_that_leaves_just_when_its_turn_comes_passes_it_on(workers: Workers) -> None:
    sources = [Gated() for _ in range(4)]
    tasks = [drawing(workers, source) for source in sources]
    await started(sources[1])
    sources[0].release()
    await asyncio.wait([tasks[0]])
    tasks[2].cancel()
    for source in sources:
        source.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await asyncio.gather(*(workers.redraw(spool(PNG), spool(), Redraw("png")) for _ in range(2)))


async def test_work_whose_caller_has_left_writes_nothing_more_and_has_its_thread_until_it_ends() -> None:
    with Workers(spool, threads=1, max_pixels=10_000) as workers:
        source, target, next_one = Gated(), spool(), Gated()
        task = asyncio.create_task(workers.redraw(source, target, Redraw("jpeg")))
        await started(source)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        target.close()  # would raise in the thread, or write over what another has in the file by now
        following = drawing(workers, next_one)
        await settle()
        assert not next_one.started.is_set()
        source.release()
        next_one.release()
        assert await following == Size(40, 30)
        assert target.size == 0


async def test_an_image_that_takes_too_long_fails_at_once_and_its_thread_is_busy_until_it_ends() -> None:
    with Workers(spool, threads=1, max_pixels=10_000, seconds=0.05) as workers:
        slow, other = Gated(), Gated()
        target = spool()
        with pytest.raises(Undrawable, match=r"it takes more than 0\.05 s to convert"):
            await workers.redraw(slow, target, Redraw("jpeg"))
        other.release()
        waits = drawing(workers, other)
        await settle()
        assert not waits.done()
        slow.release()
        await asyncio.wait([waits])
        assert target.size == 0


async def test_another_keys_image_is_in_work_at_once_however_much_one_key_sends(workers: Workers) -> None:
    large = encoded(Image.new("RGB", (100, 100)))  # all the pixels that a key may have
    sources = [Gated(large), Gated(large), *(Gated() for _ in range(6))]
    tasks = [
        asyncio.create_task(workers.redraw(source, spool(), Redraw("png"), key="greedy", paid=True))
        for source in sources
    ]
    await started(sources[0])
    assert await workers.redraw(spool(PNG), spool(), Redraw("png"), key="other") == Size(40, 30)
    assert (await workers.look(spool(PNG), key="third")).size == Size(40, 30)
    assert not any(source.started.is_set() for source in sources[1:])
    for source in sources:
        source.release()
    assert len(await asyncio.gather(*tasks)) == 8


async def test_a_key_that_has_nothing_in_work_goes_before_one_that_has() -> None:
    with Workers(spool, threads=1, max_pixels=10_000) as workers:
        order: list[str] = []

        async def draw(name: str, source: Gated) -> None:
            await workers.redraw(source, spool(), Redraw("png"), key=name[0])
            order.append(name)

        held = [Gated(), Gated()]
        tasks = [asyncio.create_task(draw(name, source)) for name, source in zip(("a1", "b1"), held, strict=True)]
        await started(held[0])
        await started(held[1])
        names = ["a2", "a3", "b2", "c1"]
        sources = [Gated() for _ in names]
        tasks += [asyncio.create_task(draw(name, source)) for name, source in zip(names, sources, strict=True)]
        await settle()
        held[0].release()
        await started(sources[3])  # c came last, and has nothing in work
        assert not any(source.started.is_set() for source in sources[:3])
        for source in (*held, *sources):
            source.release()
        await asyncio.gather(*tasks)
        assert sorted(order) == ["a1", "a2", "a3", "b1", "b2", "c1"]


async def test_a_key_that_fills_the_line_loses_its_last_place_to_another() -> None:
    with Workers(spool, threads=1, waiting=3, max_pixels=10_000) as workers:
        sources = [Gated() for _ in range(6)]
        tasks = [
            asyncio.create_task(workers.redraw(source, spool(), Redraw("png"), key=key))
            for source, key in zip(sources, ("a", "b", "a", "a", "a", "b"), strict=True)
        ]
        await settle()
        with pytest.raises(Unavailable) as refused:
            await asyncio.wait_for(asyncio.shield(tasks[4]), PATIENCE)
        assert refused.value.code == "media_queue_full"
        with pytest.raises(Unavailable):
            await workers.redraw(spool(PNG), spool(), Redraw("png"), key="a")
        for source in sources:
            source.release()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Size] * 4 + [Unavailable, Size]


async def test_large_pictures_are_not_in_work_together(workers: Workers) -> None:
    large = encoded(Image.new("RGB", (100, 60)))  # 6,000 of the 10,000 pixels
    sources = [Gated(large), Gated(large), Gated()]
    tasks = [drawing(workers, source) for source in sources]
    await started(sources[0])
    await settle()
    assert not sources[1].started.is_set()
    assert not sources[2].started.is_set()  # nobody overtakes
    sources[0].release()
    await started(sources[1])
    await started(sources[2])
    for source in sources:
        source.release()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("data", "order"),
    [
        (bomb(), Redraw("png")),
        (encoded(Image.new("L", (101, 100))), Redraw("png")),
        (PNG, Redraw("png", size=Size(200, 100))),
        (encoded(Image.new("L", (10, 900))), Redraw("png", size=Size(900, 10))),  # and 900x900 in between
    ],
)
async def test_more_pixels_than_there_may_be_are_refused_before_anything_is_read(
    workers: Workers, data: bytes, order: Redraw
) -> None:
    with pytest.raises(Undrawable, match="10,000 pixels"):
        await workers.redraw(spool(data), spool(), order)


async def test_a_header_that_hides_its_size_does_not_hide_a_bomb(workers: Workers) -> None:
    jpeg = encoded(Image.new("RGB", (200, 100)), "JPEG")
    with pytest.raises(Undrawable, match="10,000 pixels"):
        await workers.redraw(spool(jpeg[:20] + b"\0" + jpeg[20:]), spool(), Redraw("png"))


async def test_a_look_needs_no_decoding(workers: Workers) -> None:
    assert (await workers.look(spool(PNG[:60]))).size == Size(40, 30)


async def test_closing_sends_those_in_line_away_and_waits_for_the_rest() -> None:
    workers = Workers(spool, threads=1)
    first, second = Gated(), Gated()
    tasks = [drawing(workers, first), drawing(workers, second)]
    await started(first)
    threading.Timer(0.05, first.release).start()
    workers.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Size, Unavailable]
    with pytest.raises(Unavailable, match="going down"):
        await workers.redraw(spool(PNG), spool(), Redraw("png"))


async def test_too_little_memory_is_an_error_of_its_own(workers: Workers) -> None:
    class Greedy(Spool):
        def read(self, offset: int, length: int) -> bytes:
            if threading.current_thread() is not threading.main_thread():
                raise MemoryError
            return super().read(offset, length)

    source = Greedy(1 << 20)
    source.write(PNG)
    with pytest.raises(Unavailable, match="memory"):
        await workers.redraw(source, spool(), Redraw("png"))


MEASURED = """
import asyncio, json, re, sys
from PIL import Image
from app.images import Size
from app.imaging.operations import Redraw, RedrawMask
from app.storage.spool import Spool
from app.imaging.workers import Workers

def peak():  # getrusage would count what the parent had before exec
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s*([0-9]+) kB", file.read())[1]) * 1024

def stored(path):
    source = Spool(0)
    with open(path, "rb") as file:
        source.write(file.read())
    return source

async def main(works):
    with Workers(lambda: Spool(0), waiting=len(works), seconds=3600) as workers:
        from app.imaging import pillow
        works = [(stored(path), eval(order), key) for path, order, key in works]
        before = peak()
        await asyncio.gather(*(workers.redraw(source, Spool(0), order, key=key) for source, order, key in works))
        print(peak() - before)

asyncio.run(main(json.loads(sys.argv[1])))
"""


def measured(*works: tuple[Path, str, str]) -> int:
    """Bytes of memory that these pictures, with what becomes of each and its key, take at the most all at once."""
    command = [sys.executable, "-c", MEASURED, json.dumps([(str(path), *rest) for path, *rest in works])]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


KINDS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "png": ("RGBA", "PNG", {}, "Redraw('jpeg')"),
    "jpeg": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}, "Redraw('png', 95, 6)"),
    "webp": ("RGBA", "WEBP", {"method": 0}, "Redraw('webp', 95, 6, Size({1}, {0}))"),
    "from_webp": ("RGBA", "WEBP", {"lossless": True, "method": 0}, "Redraw('png', 95, 6, Size({1}, {0}))"),
    "mask": ("RGBA", "PNG", {"compress_level": 1}, "RedrawMask('alpha', 'alpha', (6, 6), Size({0}, {1}))"),
    "from_tiff": ("RGBA", "TIFF", {"compression": "tiff_deflate"}, "Redraw('jpeg')"),
    "from_bmp": ("RGBA", "BMP", {}, "Redraw('jpeg')"),
    **({"from_avif": ("RGBA", "AVIF", {"speed": 10}, "Redraw('png')")} if AvifImagePlugin.SUPPORTED else {}),
}


def picture(folder: Path, kind: str, edge: int, **others: Any) -> tuple[Path, str]:
    mode, format, options, order = KINDS[kind]
    noise = Image.effect_noise((edge // 4, edge // 4), 60).resize((edge, edge))
    image = Image.merge(mode, [noise] * len(mode))
    path = folder / kind
    path.write_bytes(encoded(image, format, **options, **others))
    return path, order.format(edge - 16, edge - 32)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory was held")
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_for_each_pixel_is_bounded(tmp_path: Path, kind: str) -> None:
    edge = 1200
    path, order = picture(tmp_path, kind, edge)
    allowed = BYTES_PER_PIXEL * edge * edge * (WRITING_WEBP if "webp" in order else 1) + 2 * path.stat().st_size
    assert measured((path, order, "")) <= allowed + 8_388_608


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory was held")
@pytest.mark.parametrize(("kind", "count"), [("png", 32), ("jpeg", 4), ("webp", 3), ("from_webp", 4), ("mask", 4)])
def test_many_large_pictures_at_once_stay_within_the_bound(tmp_path: Path, kind: str, count: int) -> None:
    path, order = picture(tmp_path, kind, 4096)
    allowed = BYTES_PER_PIXEL * 50_000_000 + 4 * path.stat().st_size
    assert measured(*[(path, order, "")] * count) <= allowed


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory was held")
def test_the_worst_that_all_keys_can_ask_for_at_once_takes_the_memory_that_is_stated(tmp_path: Path) -> None:
    """The largest WebP of one key, written as WebP, and beside it as much of another's as there is room for."""
    (tmp_path / "large").mkdir()
    large, order = picture(tmp_path / "large", "webp", 7071, quality=60)
    other, other_order = picture(tmp_path, "from_webp", 3400)
    asked = (3400**2 + 2 * other.stat().st_size // BYTES_PER_PIXEL) * 4
    assert 0.95 * PIXELS < asked <= PIXELS
    files = 2 * (large.stat().st_size + other.stat().st_size)
    taken = measured((large, order, "greedy"), (other, other_order, "other"))
    assert 0.75 * MOST_MEMORY < taken <= MOST_MEMORY + files


async def test_a_failure_does_not_hold_the_picture(workers: Workers) -> None:
    with pytest.raises(Undrawable) as failed:
        await workers.redraw(spool(encoded(Image.effect_noise((90, 90), 90))[:4000]), spool(), Redraw("png"))
    assert failed.value.__cause__ is failed.value.__context__ is None
    frames = [str(entry.path) for entry in failed.traceback]
    assert not any(frame.endswith("app/imaging/pillow.py") for frame in frames)
