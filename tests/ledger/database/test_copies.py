from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from app.ledger.book.verification import verify
from app.ledger.database.copies import CopyError, back_up, move, restore
from app.ledger.database.opening import open_database
from app.ledger.database.protocol import Database
from tests.ledger.conftest import new_database
from tests.ledger.samples import (
    ME,
    NOW,
    REPLICA,
    a_budget,
    a_key,
    a_project,
    a_settlement,
    an_admission,
    an_attempt,
    claims_of,
    count_of,
    drawings,
    periods,
    registry_of,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def fill(database: Database) -> None:
    registry = registry_of(database)
    await registry.add_project(a_project(), ME)
    await registry.add_key(a_key(previous_digest=b"\x00\xff" * 16, previous_until=5), ME)
    await registry.add_budget(a_budget(thresholds=(1,)), ME)
    for cost, in_doubt in ((40, 0), (0, 30)):
        admission = an_admission(tags={"team": "blue"})
        await database.admit(admission, claims_of(a_budget(thresholds=(1,))), REPLICA, NOW)
        await database.sent(an_attempt(admission.id))
        await database.settle(a_settlement(admission.id, cost, in_doubt))


async def test_a_backup_is_whole_while_others_write(tmp_path: Path) -> None:
    database = await open_database(None, tmp_path)
    await fill(database)
    back_up(tmp_path / "gateway.db", tmp_path / "backup.db")
    await database.aclose()
    assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o600
    assert not list(tmp_path.glob("backup.db?*"))
    (tmp_path / "other").mkdir()
    assert restore(tmp_path / "backup.db", tmp_path / "other/gateway.db") is None
    copy = await open_database(None, tmp_path / "other")
    assert await drawings(copy) == [("settled", 0, 40, 0), ("in_doubt", 0, 0, 30)]
    assert await verify(copy) == []
    await copy.aclose()


async def test_a_restore_keeps_what_was_there_also_what_its_log_held(tmp_path: Path) -> None:
    await (await open_database(None, tmp_path)).aclose()
    back_up(tmp_path / "gateway.db", tmp_path / "backup.db")
    database = await open_database(None, tmp_path)
    await fill(database)
    await database.aclose()
    before = restore(tmp_path / "backup.db", tmp_path / "gateway.db")
    assert before is not None
    with sqlite3.connect(before) as kept:
        assert kept.execute("select count(*) from drawing").fetchone() == (2,)
    database = await open_database(None, tmp_path)
    assert await count_of(database, "drawing") == 0
    await database.aclose()


async def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    await (await open_database(None, tmp_path)).aclose()
    back_up(tmp_path / "gateway.db", tmp_path / "backup.db")
    with sqlite3.connect(tmp_path / "backup.db") as db:
        db.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(CopyError, match=r"schema \(9999\) that is newer"):
        restore(tmp_path / "backup.db", tmp_path / "gateway.db")


@pytest.fixture
def empty_url(postgres_server: str) -> str:
    """The URL of a database without tables."""
    return new_database(postgres_server)


async def test_a_move_brings_everything_and_counting_goes_on(tmp_path: Path, empty_url: str) -> None:
    url = empty_url
    source = await open_database(None, tmp_path)
    await fill(source)
    assert await move(source, url) > 10
    target = await open_database(url, tmp_path, has_own_clock=False)
    assert await drawings(target) == await drawings(source)
    assert await periods(target) == await periods(source)
    assert await registry_of(target).directory() == await registry_of(source).directory()
    assert await verify(target) == []
    admission = an_admission()
    await target.admit(admission, claims_of(a_budget()), REPLICA, NOW)  # the numbers of entries go on
    await target.settle(a_settlement(admission.id, 5))
    assert await verify(target) == []
    with pytest.raises(CopyError, match="is not empty"):
        await move(source, url)
    await target.aclose()
    await source.aclose()
