"""Changes of projects, keys and budgets. Each is one transaction: the rows, a line of the audit log, and the revision,
by which every process learns of it. Knows no HTTP, and no key but by its digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Executable,
    Table,
    Text,
    and_,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    update,
)

from app.ledger.database import tables
from app.ledger.database.directory_rows import read_directory
from app.ledger.database.protocol import Database, DuplicateRow
from app.ledger.database.statements import fetch, write
from app.ledger.values.changes import Actor, BudgetState, Missing, Taken
from app.ledger.values.directory import ApiKey, Budget, Directory, Project
from app.ledger.values.limits import Limits
from app.ledger.values.windows import Period, period_at

Entity = TypeVar("Entity", Project, ApiKey, Budget)


@dataclass(frozen=True, slots=True)
class Registry:
    """Reads and changes the directory. `clock` gives microseconds since the epoch. `key_names` has the names of
    the configuration's keys, by their ids."""

    database: Database
    clock: Callable[[], int]
    key_names: Mapping[str, str] = field(default_factory=dict)

    async def directory(self) -> Directory:
        return (await read_directory(self.database)).naming(self.key_names)

    async def note(self, actor: Actor, action: str, kind: str, id: str, after: Mapping[str, Any]) -> None:
        """Write a line of the audit log about a change that was made elsewhere."""
        await write(self.database, self._audit(actor, action, kind, id, after=after))

    # --- projects ---

    async def add_project(self, project: Project, actor: Actor) -> None:
        """Raises Taken."""
        await self._add("project", tables.project, project, actor)

    async def update_project(self, id: str, actor: Actor, **changes: Any) -> Project:
        """Change fields of a project, and return it as it is now. Raises Missing and Taken."""
        project = _find((await self.directory()).projects, id)
        return await self._update("project", tables.project, project, changes, actor)

    async def archive_project(self, id: str, actor: Actor) -> Project:
        """Archive a project: its keys draw no more. Raises Missing."""
        project = _find((await self.directory()).projects, id)
        changes = {"archived_at": self.clock()}
        return await self._update("project", tables.project, project, changes, actor, action="archive")

    # --- keys ---

    async def add_key(self, key: ApiKey, actor: Actor) -> None:
        """Raises Taken."""
        await self._add("api_key", tables.api_key, key, actor)

    async def update_key(self, id: str, actor: Actor, **changes: Any) -> ApiKey:
        """Change fields of a key, and return it as it is now. Raises Missing."""
        key = _find((await self.directory()).keys, id)
        return await self._update("api_key", tables.api_key, key, changes, actor)

    async def rotate_key(self, id: str, digest: bytes, previous_until: int, actor: Actor) -> ApiKey:
        """Give a key a new digest. The old one stays good until `previous_until`. Raises Missing."""
        key = _find((await self.directory()).keys, id)
        changes = {"digest": digest, "previous_digest": key.digest, "previous_until": previous_until}
        return await self._update("api_key", tables.api_key, key, changes, actor, action="rotate")

    async def delete_key(self, id: str, actor: Actor) -> None:
        """Delete a key. Its row stays, for its drawings. Raises Missing."""
        key = _find((await self.directory()).keys, id)
        statement = update(tables.api_key).where(tables.api_key.c.id == id).values(deleted_at=self.clock())
        await self._write([statement], self._audit(actor, "delete", "api_key", id, before=_row(key)))

    async def projects_of_keys(self) -> Mapping[str, str | None]:
        """Return the project of each key, also of those that were deleted."""
        rows = await fetch(self.database, select(tables.api_key.c.id, tables.api_key.c.project_id))
        return {row["id"]: row["project_id"] for row in rows}

    # --- budgets ---

    async def add_budget(self, budget: Budget, actor: Actor) -> None:
        """Add a budget. It counts all drawings of its window, also those from before it was made; `total` begins with
        it. Raises Taken."""
        period = period_at(budget.window, budget.timezone, self.clock(), budget.since)
        statements: list[Executable] = [insert(tables.budget).values(**_row(budget))]
        models = await self._models_of(budget)
        if budget.window != "total" and models:
            statements += _count_drawn(budget, period, models)
            if self.database.dialect == "postgresql":  # no drawing may end between the two statements
                statements.insert(0, text("lock table drawing in share row exclusive mode"))
        await self._write(statements, self._audit(actor, "create", "budget", budget.id, after=_row(budget)))

    async def update_budget(self, id: str, actor: Actor, **changes: Any) -> Budget:
        """Change the amount, the hardness or the thresholds of a budget, and return it. To change what it counts,
        remove it and add another. Raises Missing."""
        budgets = {budget.id: budget for budget in (await self.directory()).budgets}
        return await self._update("budget", tables.budget, _find(budgets, id), changes, actor)

    async def remove_budget(self, id: str, actor: Actor) -> None:
        """Raises Missing."""
        budget = _find({budget.id: budget for budget in (await self.directory()).budgets}, id)
        statement = update(tables.budget).where(tables.budget.c.id == id).values(removed_at=self.clock())
        await self._write([statement], self._audit(actor, "delete", "budget", id, before=_row(budget)))

    async def budget_states(self, budgets: Iterable[Budget]) -> Sequence[BudgetState]:
        """Return the use of each budget in its present period."""
        now = self.clock()
        periods = [(x, period_at(x.window, x.timezone, now, x.since)) for x in budgets]
        c = tables.budget_period.c
        wanted = [and_(c.budget_id == budget.id, c.starts_at == period.starts_at) for budget, period in periods]
        rows = await fetch(self.database, select(tables.budget_period).where(or_(*wanted))) if wanted else []
        used = {row["budget_id"]: (row["spent_nano"], row["held_nano"], row["in_doubt_nano"]) for row in rows}
        return [BudgetState(budget, period, *used.get(budget.id, (0, 0, 0))) for budget, period in periods]

    # --- the configuration's ---

    async def adopt(self, projects: Iterable[Project], budgets: Iterable[Budget]) -> None:
        """Bring the projects and budgets of the configuration into the database, and end those that it no longer has.
        A project is known by its name, a budget by what it counts. Raises Taken if another process does the same."""
        actor, known = Actor("gateway", "configuration"), await self.directory()
        named = {project.name: project for project in known.projects.values()}
        stated = {project.name: project for project in projects}
        for name, project in stated.items():
            if name not in named:
                await self.add_project(project, actor)
                continue
            changes = {"limits": project.limits, "source": "file", "archived_at": None}
            await self._update("project", tables.project, named[name], changes, actor)
        for name, project in named.items():
            if project.source == "file" and name not in stated and project.archived_at is None:
                await self.archive_project(project.id, actor)
        of_file = [budget for budget in known.budgets if budget.source == "file"]
        present = {budget.counted: budget for budget in reversed(of_file)}
        for budget in of_file:
            if present[budget.counted] is not budget:  # added twice, by processes of an older version
                await self.remove_budget(budget.id, actor)
        wanted = {budget.counted: budget for budget in budgets}
        for which, budget in wanted.items():
            if which not in present:
                await self.add_budget(await self._as_new(budget), actor)
                continue
            settings = {"amount": budget.amount, "hard": budget.hard, "thresholds": budget.thresholds}
            await self._update("budget", tables.budget, present[which], settings, actor)
        for which, budget in present.items():
            if which not in wanted:
                await self.remove_budget(budget.id, actor)

    # --- inside ---

    async def _as_new(self, budget: Budget) -> Budget:
        """Return a budget of the configuration with an id that was never used. Processes that add it at the same moment
        find the same one."""
        c = tables.budget.c
        before = select(c.id).where(c.removed_at.is_not(None), or_(c.id == budget.id, c.id.like(f"{budget.id}.%")))
        count = len(await fetch(self.database, before))
        return replace(budget, id=f"{budget.id}.{count}") if count else budget

    async def _models_of(self, budget: Budget) -> Sequence[str]:
        """Return the models that were ever drawn and that the budget counts."""
        rows = await fetch(self.database, select(tables.drawing.c.model).distinct())
        return [
            row["model"]
            for row in rows
            if not budget.models or any(map(partial(fnmatchcase, row["model"]), budget.models))
        ]

    async def _add(self, kind: str, table: Table, entity: Project | ApiKey, actor: Actor) -> None:
        row = _row(entity)
        await self._write([insert(table).values(**row)], self._audit(actor, "create", kind, entity.id, after=row))

    async def _update(
        self, kind: str, table: Table, entity: Entity, changes: Mapping[str, Any], actor: Actor, action: str = "update"
    ) -> Entity:
        changed = replace(entity, **changes)
        before, after = _row(entity), _row(changed)
        values = {name: value for name, value in after.items() if value != before[name]}
        if values:
            audit = self._audit(actor, action, kind, entity.id, {name: before[name] for name in values}, values)
            await self._write([update(table).where(table.c.id == entity.id).values(**values)], audit)
        return changed

    def _audit(
        self,
        actor: Actor,
        action: str,
        kind: str,
        id: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Executable:
        return insert(tables.audit).values(
            at=self.clock(),
            actor_kind=actor.kind,
            actor_id=actor.id,
            address=actor.address,
            request_id=actor.request_id,
            action=action,
            object_kind=kind,
            object_id=id,
            before=_told(before),
            after=_told(after),
        )

    async def _write(self, statements: Sequence[Executable], audit: Executable) -> None:
        revision = tables.revision.c
        raised = update(tables.revision).where(revision.name == "directory").values(number=revision.number + 1)
        try:
            await write(self.database, *statements, audit, raised)
        except DuplicateRow as error:
            raise Taken(str(error)) from error


def _count_drawn(budget: Budget, period: Period, models: Sequence[str]) -> Sequence[Executable]:
    """Return the statements that charge a new budget with the earlier drawings of its period."""
    drawing, charge, states = tables.drawing.c, tables.charge.c, tables.budget_period.c
    owners = {"project": drawing.project_id == budget.scope_id, "key": drawing.key_id == budget.scope_id}
    is_counted = and_(drawing.at >= period.starts_at, drawing.model.in_(models), owners.get(budget.scope, true()))
    which: list[Any] = [cast(literal(budget.id), Text), cast(literal(period.starts_at), BigInteger)]
    sums = [
        func.coalesce(func.sum(column), 0) for column in (drawing.held_nano, drawing.cost_nano, drawing.in_doubt_nano)
    ]
    columns: list[Any] = [*which, cast(literal(period.ends_at), BigInteger), *sums]
    charged = select(*columns).where(drawing.id.in_(select(charge.drawing_id).where(charge.budget_id == budget.id)))
    into = [
        states.budget_id,
        states.starts_at,
        states.ends_at,
        states.held_nano,
        states.spent_nano,
        states.in_doubt_nano,
    ]
    return [
        insert(tables.charge).from_select(
            [charge.drawing_id, charge.budget_id, charge.starts_at], select(drawing.id, *which).where(is_counted)
        ),
        insert(tables.budget_period).from_select(into, charged),
    ]


def _find(entities: Mapping[str, Entity], id: str) -> Entity:
    if id not in entities:
        raise Missing(id)
    return entities[id]


_COLUMNS = {"amount": "amount_nano"}  # fields that have another name in their table


def _row(entity: Project | ApiKey | Budget) -> dict[str, Any]:
    """Return the columns of an entity."""
    row = dict[str, Any]()
    for each in fields(entity):
        value = getattr(entity, each.name)
        if isinstance(value, Limits):
            row |= asdict(value)
        elif each.name != "owner":  # is in the row that `scope_id` names
            if isinstance(value, tuple):
                value = json.dumps(value)
            row[_COLUMNS.get(each.name, each.name)] = int(value) if isinstance(value, bool) else value
    if isinstance(entity, ApiKey):
        del row["last_used_at"]  # written by the processes that use it
        del row["source"]  # those of the configuration are in no table
    return row


def _told(row: Mapping[str, Any] | None) -> str | None:
    """Write a row for the audit log: everything but digests."""
    if row is None:
        return None
    return json.dumps({name: value for name, value in row.items() if not isinstance(value, bytes)}, sort_keys=True)
