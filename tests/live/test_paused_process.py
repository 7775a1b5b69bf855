"""The process stands still for longer than a provider may be silent, as in a container that is paused. What the
provider sent meanwhile was paid for, and is delivered."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.live.books import assert_right, config, draw, rows
from tests.live.crowds import tally, together
from tests.live.painter import painting
from tests.live.servers import process
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
SILENCE = 5.0


@pytest.mark.parametrize("timeout", [{"read": SILENCE}, {"total": SILENCE}])
async def test_what_came_while_the_process_stood_still_is_delivered(tmp_path: Path, timeout: dict[str, float]) -> None:
    async with painting() as painter:
        settings = config(painter)
        settings["providers"]["painter"]["timeout"] = timeout
        with process(settings, tmp_path) as gateway:
            calls = [asyncio.create_task(draw(gateway.port, f"a-{number}", "hold")) for number in range(4)]
            await until(lambda: painter.at_once == len(calls), gateway.printed)
            gateway.process.send_signal(signal.SIGSTOP)
            painter.released.set()
            await asyncio.sleep(SILENCE + 1)
            gateway.process.send_signal(signal.SIGCONT)
            assert tally(await together(calls)) == {"200 images": len(calls)}
        assert assert_right(await rows(tmp_path), painter) == (4, 4, 0)
