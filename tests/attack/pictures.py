"""Pictures that are all fault: segments by the million, bombs, and what packs a thousand times its bytes."""

from functools import cache

from tests.imaging.hostile import HOSTILE, jpeg, segment
from tests.pixels import bomb, png


@cache
def hostile_pictures() -> tuple[bytes, ...]:
    return (
        *(make(20_000 if "packed" in name else 100_000) for name, make in HOSTILE.items()),
        jpeg(segment(0xE1) * 3_000_000),
        jpeg(b"\xff" * 12_000_000),
        bomb(),
        png((9_000, 5_500), 8, 2, [bytes(27_000)] * 5_500),  # good, and as large as may be
    )
