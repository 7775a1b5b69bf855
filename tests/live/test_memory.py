"""What a request leaves behind in memory: a failure whose frames stay alive keeps the pieces of images in them."""

import gc
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.crowds import asking, call, drawn_by, fault, simulated
from tests.live.house import GPT_IMAGE_2
from tests.live.loops import in_thread
from tests.live.servers import serving

pytestmark = pytest.mark.anyio

APP = str(Path(__file__).parents[2] / "app") + "/"


def ours(objects: list[Any]) -> Counter[str]:
    """The frames of the gateway's code among them. The sandbox runs in the same process and does not count."""
    files = [each.f_code.co_filename for each in objects if isinstance(each, FrameType)]
    return Counter(name.removeprefix(APP) for name in files if name.startswith(APP) and "/sandbox/" not in name)


MISHAPS = ("500", "moderation", "failed200", "html200", "cut", "reset", "truncated_image", "badbase64")


@pytest.mark.parametrize("mishap", MISHAPS)
async def test_a_failed_request_leaves_no_frames(tmp_path: Path, mishap: str) -> None:
    with in_thread(Sandbox) as sandbox:
        config = {
            "providers": {"openai": simulated(sandbox.base_url, "openai")},
            "models": {"gpt": {**drawn_by("openai"), "profile": GPT_IMAGE_2}},
        }
        async with serving(config, tmp_path) as gateway:
            outcome = await call(gateway.port, asking(fault(mishap), "gpt"))
            assert outcome.kind != "images"
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await call(gateway.port, asking(fault(mishap), "gpt"))
                kept = ours(gc.get_objects())
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                garbage = ours(gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            assert not garbage
            # The failed runs are known for a while; what is at work here is the watch over the store.
            assert sum(kept.values()) < 3, kept
