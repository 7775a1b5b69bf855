"""One attack from its beginning to its verdict: a gateway in a process of its own, its providers, the attackers and the
ordinary callers, and whoever measures."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from tests.attack.attacks import ATTACKS, PATIENCE, Attack, Target
from tests.attack.callers import Caller, Ledger
from tests.attack.observation import Peak, probing, watch
from tests.attack.pictures import hostile_pictures
from tests.attack.upstream import Upstream
from tests.attack.verdict import Verdict, latency, server_errors
from tests.live.servers import Config, Process, process, provider, served_by

FILES = 512  # descriptors of the gateway
CALLERS = 10
REST = 3.0  # seconds, until what is held at the end is counted
TEAM, ROGUE = "the-key-of-the-team", "the-key-of-the-rogue"
MEGABYTE = 1024 * 1024


def configured(upstream: Upstream) -> Config:
    converted = {"mask": "white", "output_formats": ["png"]}
    kinds = {"honest": {"max_concurrency": 64}, "strings": {}, "skeleton": {}, "pictures": {}, "cut": {}}
    return {
        "providers": {kind: provider(upstream.at(kind), retries=0, **more) for kind, more in kinds.items()},
        "models": {
            "flux": served_by("honest"),
            "convert": served_by("honest", profile=converted),
            **{kind: served_by(kind, profile={"output_formats": ["png"]}) for kind in kinds if kind != "honest"},
        },
        "keys": [{"name": "team", "key": TEAM}, {"name": "rogue", "key": ROGUE, "max_concurrency": 24}],
        "runs": {"retain_seconds": 60},
    }


async def attack(seconds: float, folder: Path, names: Collection[str] = ATTACKS, nice: int = 0) -> Verdict:
    """Attack for so long, in the ways of these names; then let the ordinary callers end. `nice`: how much lower than
    the gateway's the priority of all others becomes, for good: theirs would be other machines."""
    hostile_pictures()  # which takes its time to make
    async with Upstream().serving() as upstream:
        with process(configured(upstream), folder) as gateway:
            resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
            os.nice(nice)
            return await fought(seconds, gateway, upstream, names)


async def fought(seconds: float, gateway: Process, upstream: Upstream, names: Collection[str]) -> Verdict:
    began, peak, ledger, over = time.monotonic(), Peak(), Ledger(), asyncio.Event()
    target = Target(gateway.port, ROGUE, (f"attack-{number}" for number in itertools.count()))
    idle = gateway.memory("VmRSS")
    async with probing(gateway.port) as health, watched(gateway, peak):
        ends = {name: Counter[str]() for name in names}
        async with asyncio.TaskGroup() as ordinary:
            for number in range(CALLERS):
                ordinary.create_task(Caller(number, gateway.port, TEAM, ledger).until(over))
            await attacked(target, ends, seconds)
            over.set()
        await asyncio.sleep(REST)
    exit_code = gateway.process.poll()
    lines = [json.loads(line) for line in gateway.printed().splitlines() if line.startswith("{")]
    errors = [json.dumps(line)[:2_000] for line in lines if line["level"] in ("error", "critical")]
    return Verdict(
        seconds=round(time.monotonic() - began, 1),
        health=latency(health),
        memory={"idle": idle / MEGABYTE, "peak": peak.memory / MEGABYTE, "end": gateway.memory("VmRSS") / MEGABYTE},
        descriptors={"allowed": FILES, "most": peak.descriptors},
        pictures={
            "asked": len(ledger.asked),
            "got": len(ledger.got),
            "drawn": sum(upstream.drawn[prompt] > 0 for prompt in ledger.asked),
            "drawn for attackers": sum(prompt not in ledger.asked for prompt in upstream.drawn),
        },
        lost=ledger.lost,
        drawn_twice={prompt: count for prompt, count in upstream.drawn.items() if count > 1},
        answers=dict(ledger.answers.most_common()),
        attacks={name: dict(found.most_common()) for name, found in ends.items()},
        unexpected=[f"{name}: {end}" for name, found in ends.items() for end in found if not ATTACKS[name].allows(end)],
        server_errors=server_errors(lines),
        log_errors=errors + gateway.said[2:],
        exit_code=exit_code,
    )


async def attacked(target: Target, ends: dict[str, Counter[str]], seconds: float) -> None:
    """All of the table at once. An attack that is under way at the end is broken off, and does not count."""
    attackers = [
        asyncio.ensure_future(again(ATTACKS[name], target, found))
        for name, found in ends.items()
        for _ in range(ATTACKS[name].crowd)
    ]
    try:
        await asyncio.sleep(seconds)
    finally:
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)


async def again(attack: Attack, target: Target, ends: Counter[str]) -> None:
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                ends[await attack.make(target)] += 1
        except TimeoutError:
            ends["unanswered"] += 1
        except OSError:
            ends["closed"] += 1
        except Exception as error:  # shown among the unexpected ends, and the others go on
            ends[f"{type(error).__name__}: {error}"[:200]] += 1
        await asyncio.sleep(attack.pause * (0.5 + random.random()))


@asynccontextmanager
async def watched(gateway: Process, peak: Peak) -> AsyncIterator[None]:
    watching = asyncio.create_task(watch(gateway, peak))
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
