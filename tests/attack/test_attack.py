"""The attack for some seconds: its facts, and nothing that hangs on the machine's speed."""

from pathlib import Path

import pytest

from tests.attack.attacks import ATTACKS
from tests.attack.battle import attack
from tests.attack.verdict import latency

pytestmark = pytest.mark.anyio
LONG = {"an upload of single bytes", "callers who never read", "half a head", "pipelining without reading"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.mark.slow
async def test_an_attack_in_all_ways_loses_no_picture_draws_none_twice_and_leaves_nothing_unanswered(
    tmp_path: Path,
) -> None:
    verdict = await attack(25, tmp_path)
    assert verdict.faults() == {}, verdict.table()
    assert verdict.pictures["asked"] == verdict.pictures["got"] == verdict.pictures["drawn"] > 0
    assert verdict.memory["peak"] < 1024, verdict.table()
    assert verdict.descriptors["most"] <= verdict.descriptors["allowed"]
    assert [name for name in ATTACKS if not verdict.attacks[name] and name not in LONG] == [], verdict.table()


def test_latencies_are_told_in_milliseconds_and_questions_without_an_answer_apart() -> None:
    found = latency([*(number / 1000 for number in range(1, 101)), float("inf")])
    assert found == {"p50": 51, "p99": 100, "max": 100, "asked": 101, "unanswered": 1}
