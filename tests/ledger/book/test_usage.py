from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.ledger.book.rollups import Rollups
from app.ledger.book.usage import Dimension, Usage, read_usage
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.values.drawings import Joined
from app.microseconds import DAY, HOUR
from tests.ledger.samples import ME, NOW, REPLICA, a_key, a_project, a_settlement, an_admission, registry_of

pytestmark = pytest.mark.anyio
LATER = NOW + 3 * DAY


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def database(url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(url, tmp_path, has_own_clock=False)
    registry = registry_of(opened)
    await registry.add_project(a_project(), ME)
    await registry.add_key(a_key(), ME)
    for admission, day, cost, in_doubt in (
        (an_admission(), 0, 100, 0),
        (an_admission(model="sdxl"), 0, 30, 20),
        (an_admission(key_id="filekey1", project_id=None), 1, 60, 0),
    ):
        at = NOW + day * DAY
        await opened.admit(admission, (), REPLICA, at)
        end = a_settlement(admission.id, cost, in_doubt, images=2, width=1000, height=500, provider="nebula")
        await opened.settle(replace(end, at=at + 9))
    joined = an_admission()
    await opened.join(
        Joined(
            joined.id, NOW, "req_j", "req_0", "key00001", "proj_1", "generations", "schnell", "flux/schnell", 1, 1, 70
        ),
        REPLICA,
    )
    yield opened
    await opened.aclose()


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (
            "project",
            [
                Usage("proj_1", "design", 2, 4, 2_000_000, 130, 20, 70),
                Usage("", "(none)", 1, 2, 1_000_000, 60, 0, 0),
            ],
        ),
        (
            "key",
            [
                Usage("key00001", "ci", 2, 4, 2_000_000, 130, 20, 70),
                Usage("filekey1", "stated", 1, 2, 1_000_000, 60, 0, 0),
            ],
        ),
        (
            "model",
            [
                Usage("flux/schnell", "flux/schnell", 2, 4, 2_000_000, 160, 0, 70),
                Usage("sdxl", "sdxl", 1, 2, 1_000_000, 30, 20, 0),
            ],
        ),
        (
            "day",
            [
                Usage("2026-09-21", "2026-09-21", 2, 4, 2_000_000, 130, 20, 70),
                Usage("2026-09-22", "2026-09-22", 1, 2, 1_000_000, 60, 0, 0),
            ],
        ),
    ],
)
async def test_usage_is_summed_up_by(database: Database, by: Dimension, expected: list[Usage]) -> None:
    assert await read_usage(database, by, NOW - DAY, {"filekey1": "stated"}, LATER) == expected


async def test_only_what_was_admitted_since_counts(database: Database) -> None:
    [line] = await read_usage(database, "project", NOW + DAY, {}, LATER)
    assert (line.requests, line.cost) == (1, 60)
    assert await read_usage(database, "provider", NOW + 2 * DAY, {}, LATER) == []


@pytest.mark.parametrize("since", [0, 1, -1, HOUR, HOUR + 1, DAY - 1, DAY, DAY + 1, DAY + 10 * HOUR + 7, 2 * DAY - 1])
async def test_what_is_rolled_up_and_what_is_not_yet_add_up_to_the_drawings(database: Database, since: int) -> None:
    begin = NOW - NOW % DAY + since
    drawn = f"select count(*), sum(cost_nano) from drawing where at >= {begin} and outcome <> 'joined'"
    [(requests, cost)] = await database.query(drawn, ())
    for now in (NOW, NOW + HOUR, NOW + DAY, LATER):
        lines = await read_usage(database, "project", begin, {}, now)
        assert (sum(line.requests for line in lines), sum(line.cost for line in lines)) == (requests, cost or 0)


async def test_what_was_settled_after_its_hour_was_rolled_up_counts(database: Database) -> None:
    before = await read_usage(database, "model", NOW - DAY, {}, LATER)
    admission = an_admission(model="late")
    await database.admit(admission, (), REPLICA, NOW)
    await database.settle(replace(a_settlement(admission.id, 5, provider="nebula"), at=LATER))
    after = await read_usage(database, "model", NOW - DAY, {}, LATER)
    assert [line for line in after if line.id != "late"] == before
    assert [line.cost for line in after if line.id == "late"] == [5]


async def test_usage_is_told_of_a_database_that_cannot_be_written_to(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await read_usage(database, "project", NOW - DAY, {}, NOW)

    async def fail(self: Rollups) -> int:
        raise DatabaseUnavailable("it is locked")

    monkeypatch.setattr(Rollups, "refresh", fail)
    assert await read_usage(database, "project", NOW - DAY, {}, LATER) == expected
