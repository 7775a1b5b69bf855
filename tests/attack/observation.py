"""What is measured while the attack goes on: how soon /healthz answers, asked from a process of its own, and what the
gateway's processes hold."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.live.servers import Process


def probe(port: int) -> None:
    """Ask each 100 ms over one connection that stays, until SIGTERM; then print the seconds of each answer. A question
    that was not answered is infinite."""
    over, seconds = [], []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    line = HTTPConnection("127.0.0.1", port, timeout=30)
    while not over:
        began = time.perf_counter()
        try:
            line.request("GET", "/healthz")
            alive = line.getresponse().read() == b'{"status":"ok"}'
        except (OSError, HTTPException):
            line.close()
            alive = False
        took = time.perf_counter() - began
        seconds.append(took if alive else float("inf"))
        time.sleep(max(0.0, 0.1 - took))
    sys.stdout.write(json.dumps(seconds))


@asynccontextmanager
async def probing(port: int) -> AsyncIterator[list[float]]:
    """The seconds are there at the end, sorted."""
    found: list[float] = []
    asking = subprocess.Popen([sys.executable, "-m", __name__, str(port)], stdout=subprocess.PIPE)
    try:
        assert asking.stdout
        await asyncio.to_thread(asking.stdout.readline)
        yield found
        asking.terminate()
        said, _ = await asyncio.to_thread(asking.communicate, timeout=60)
        found += sorted(json.loads(said))
    finally:
        asking.kill()
        asking.wait()


@dataclass(slots=True)
class Peak:
    memory: int = 0  # bytes that are resident
    descriptors: int = 0


async def watch(gateway: Process, peak: Peak) -> None:
    """Look at the process and its children each half second, for ever."""
    while True:
        memory, descriptors = holds(gateway.process.pid)
        peak.memory = max(peak.memory, memory, gateway.memory())
        peak.descriptors = max(peak.descriptors, descriptors)
        await asyncio.sleep(0.5)


def holds(pid: int) -> tuple[int, int]:
    """Bytes and descriptors of a process and its children."""
    memory = descriptors = 0
    with contextlib.suppress(OSError):  # it has ended
        folder = Path(f"/proc/{pid}")
        memory = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = len(os.listdir(folder / "fd"))
        for thread in os.listdir(folder / "task"):
            for child in (folder / "task" / thread / "children").read_text().split():
                more = holds(int(child))
                memory, descriptors = memory + more[0], descriptors + more[1]
    return memory, descriptors


if __name__ == "__main__":
    probe(int(sys.argv[1]))
