"""The registry: changes of projects, keys and budgets, and prices, over both databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.catalog.prices import Price, Tier
from app.ledger.book.verification import verify
from app.ledger.database.directory_rows import read_directory
from app.ledger.database.opening import open_database
from app.ledger.database.price_rows import record_prices
from app.ledger.database.protocol import Database, Row
from app.ledger.values.changes import BudgetState, Missing, Taken
from app.ledger.values.drawings import Claim
from app.ledger.values.limits import Limits
from app.ledger.values.windows import period_at
from tests.ledger.samples import (
    ME,
    NOW,
    REPLICA,
    a_budget,
    a_key,
    a_project,
    a_settlement,
    an_admission,
    claims_of,
    periods,
    registry_of,
)

Test = Callable[[Database], Coroutine[Any, Any, None]]


@pytest.fixture
def over(url: str | None, tmp_path: Path) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def running() -> None:
            database = await open_database(url, tmp_path, has_own_clock=False)
            try:
                await test(database)
                assert await verify(database) == []
            finally:
                await database.aclose()

        asyncio.run(running())

    return run


def test_what_is_added_is_read_as_it_was(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        project = a_project(limits=Limits(1, 2, 3, 4))
        key = a_key(scopes=("draw", "usage"), models=("flux/*",), operations=("edits",), expires_at=NOW + 5)
        budget = a_budget(scope="key", scope_id=key.id, models=("*",), thresholds=(50, 80), timezone="Asia/Kathmandu")
        await registry.add_project(project, ME)
        await registry.add_key(key, ME)
        await registry.add_budget(budget, ME)
        found = await registry.directory()
        assert (found.projects, found.keys) == ({project.id: project}, {key.id: key})
        assert found.budgets == (replace(budget, owner="ci"),)

    over(test)


def test_each_change_raises_the_revision_and_leaves_a_line_without_digests(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        before = (await registry.directory()).revision
        await registry.add_project(a_project(), ME)
        await registry.add_key(a_key(), ME)
        await registry.update_key("key00001", ME, name="build", limits=Limits(5))
        assert (await registry.directory()).revision == before + 3
        rows = await database.query(
            "select actor_id, action, object_kind, object_id, before, after from audit order by id"
        )
        assert [tuple(row[:4]) for row in rows] == [
            ("test", "create", "project", "proj_1"),
            ("test", "create", "api_key", "key00001"),
            ("test", "update", "api_key", "key00001"),
        ]
        assert json.loads(rows[2][4]) == {"name": "ci", "requests_per_minute": None}
        assert json.loads(rows[2][5]) == {"name": "build", "requests_per_minute": 5}
        assert "digest" not in json.loads(rows[1][5])

    over(test)


def test_a_change_that_changes_nothing_leaves_no_trace(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        await registry.add_project(a_project(), ME)
        before = await registry.directory()
        assert await registry.update_project("proj_1", ME, name="design") == a_project()
        assert await registry.directory() == before

    over(test)


def test_names_and_digests_are_taken_once_and_unknown_ones_are_missing(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        await registry.add_project(a_project(), ME)
        with pytest.raises(Taken):
            await registry.add_project(a_project(id="proj_2"), ME)
        await registry.add_key(a_key(), ME)
        with pytest.raises(Taken):
            await registry.add_key(a_key(id="key00002"), ME)
        for change in (registry.delete_key("none", ME), registry.archive_project("none", ME)):
            with pytest.raises(Missing):
                await change
        assert len((await registry.directory()).keys) == 1

    over(test)


def test_a_rotation_keeps_the_id_and_leaves_the_old_key_good_for_its_grace(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        await registry.add_project(a_project(), ME)
        await registry.add_key(a_key(), ME)
        await registry.rotate_key("key00001", b"n" * 32, NOW + 10, ME)
        found = await registry.directory()
        assert [key.id if (key := found.find_key(digest, NOW)) else None for digest in (b"n" * 32, bytes(32))] == [
            "key00001",
            "key00001",
        ]
        assert found.find_key(bytes(32), NOW + 10) is None
        assert found.find_key(b"?" * 32, NOW) is None

    over(test)


def test_a_deleted_key_is_gone_and_its_row_stays(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        await registry.add_project(a_project(), ME)
        await registry.add_key(a_key(), ME)
        await registry.update_key("key00001", ME, disabled_at=NOW, disabled_why="leaked")
        assert not (await registry.directory()).keys["key00001"].is_usable(NOW)
        await registry.delete_key("key00001", ME)
        assert not (await registry.directory()).keys
        assert [tuple(row) for row in await database.query("select deleted_at from api_key")] == [(NOW,)]

    over(test)


def test_a_new_budget_counts_what_its_window_has_already_drawn(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        ended, held, other = an_admission(), an_admission(most=30), an_admission(project_id="proj_2")
        old = an_admission(model="flux/pro")
        for admission in (ended, held, other):
            await database.admit(admission, (), REPLICA, NOW)
        await database.admit(old, (), REPLICA, NOW - 86_400_000_000)
        await database.settle(a_settlement(ended.id, cost=70))
        budget = a_budget(scope="project", scope_id="proj_1", models=("flux/*",), window="day")
        await registry.add_budget(budget, ME)
        assert await periods(database) == [("bud_1", 30, 70, 0)]
        await database.settle(a_settlement(held.id, cost=20))
        await registry.add_budget(a_budget(id="bud_2", window="total", since=NOW + 1), ME)
        assert await periods(database) == [("bud_1", 0, 90, 0)]

    over(test)


def test_the_state_of_a_budget_is_that_of_its_present_period(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry, budget = registry_of(database), a_budget(window="day")
        await registry.add_budget(budget, ME)
        yesterday = period_at("day", "UTC", NOW - 86_400_000_000)
        await database.admit(an_admission(), [Claim(budget, yesterday)], REPLICA, NOW)
        await database.admit(an_admission(most=7), claims_of(budget), REPLICA, NOW)
        assert await registry.budget_states([budget, a_budget(id="new")]) == [
            BudgetState(budget, period_at("day", "UTC", NOW), held=7),
            BudgetState(a_budget(id="new"), period_at("month", "UTC", NOW)),
        ]

    over(test)


def test_prices_have_versions(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        cheap, dear = (Price((Tier(per_image=1),)), "file"), (Price((Tier(per_image=2),)), "file")
        first = await record_prices(database, {("nebula", "a"): cheap, ("nebula", "b"): cheap}, NOW)
        again = await record_prices(database, {("nebula", "a"): cheap, ("nebula", "b"): cheap}, NOW)
        assert first == again
        later = await record_prices(database, {("nebula", "a"): dear, ("nebula", "b"): cheap}, NOW + 5)
        assert later["nebula", "a"] != first["nebula", "a"]
        assert later["nebula", "b"] == first["nebula", "b"]
        rows = await database.query("select valid_from, valid_to from price where model = 'a' order by id")
        assert [tuple(row) for row in rows] == [(NOW, NOW + 5), (NOW + 5, None)]

    over(test)


def test_the_configurations_projects_and_budgets_come_change_and_go(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry = registry_of(database)
        project, budget = a_project(source="file"), a_budget(source="file")
        await registry.add_budget(a_budget(id="made_here", window="day"), ME)
        await registry.adopt([project], [budget])
        await registry.adopt([replace(project, limits=Limits(5))], [replace(budget, id="another_id", amount=7)])
        found = await registry.directory()
        assert found.projects == {project.id: replace(project, limits=Limits(5))}
        assert [(x.id, x.amount) for x in found.budgets] == [("bud_1", 7), ("made_here", 1000)]
        await registry.adopt([], [])
        found = await registry.directory()
        assert found.projects[project.id].archived_at == NOW
        assert [x.id for x in found.budgets] == ["made_here"]
        await registry.adopt([project], [budget])
        found = await registry.directory()
        assert found.projects[project.id].archived_at is None
        assert [x.id for x in found.budgets] == ["bud_1.1", "made_here"]

    over(test)


def test_processes_that_start_together_add_each_budget_of_the_configuration_once(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        projects, budgets = [a_project(source="file")], [a_budget(source="file"), a_budget(id="b", window="day")]
        budgets = [replace(budget, source="file") for budget in budgets]

        async def adopt() -> None:
            while True:
                with contextlib.suppress(Taken):  # as the gateway does
                    return await registry_of(database).adopt(projects, budgets)

        for _ in range(3):  # anew, changing nothing, and after they were taken away
            await asyncio.gather(*(adopt() for _ in range(4)))
            await asyncio.gather(*(adopt() for _ in range(2)))
            found = await registry_of(database).directory()
            assert sorted(x.window for x in found.budgets) == ["day", "month"]
            await registry_of(database).adopt(projects, [])
            assert (await registry_of(database).directory()).budgets == ()

    over(test)


def test_a_budget_that_was_added_twice_by_an_older_version_is_left_once(over: Callable[[Test], None]) -> None:
    async def test(database: Database) -> None:
        registry, budget = registry_of(database), a_budget(source="file")
        for id in ("bud_a", "bud_b"):
            await registry.add_budget(replace(budget, id=id), ME)
        await registry.adopt([], [replace(budget, amount=7)])
        assert [(x.id, x.amount) for x in (await registry.directory()).budgets] == [("bud_a", 7)]

    over(test)


def test_a_key_that_is_made_while_the_directory_is_read_is_never_without_its_project(
    over: Callable[[Test], None],
) -> None:
    async def test(database: Database) -> None:
        registry, asked = registry_of(database), 0

        class Busy:
            """Makes a project and its key between two of the questions."""

            def __init__(self, after: int) -> None:
                self.left = after

            async def query(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Row]:
                found = await database.query(sql, parameters)
                self.left -= 1
                if self.left == 0:
                    await registry.add_project(a_project(id=f"proj_{asked}", name=f"project {asked}"), ME)
                    key = a_key(id=f"key{asked:05}", digest=bytes([asked] * 32), project_id=f"proj_{asked}")
                    await registry.add_key(key, ME)
                return found

        for asked in range(1, 5):
            busy: Any = Busy(asked)
            found = await read_directory(busy)
            assert {key.project_id for key in found.keys.values()} <= found.projects.keys()

    over(test)
