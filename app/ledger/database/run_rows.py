"""The table `run`: the rows of a process's stored runs, beside their files. Written out without SQLAlchemy, since a
start reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

from app.ledger.database.protocol import Database
from app.ledger.database.upkeep import placeholders

_COLUMNS = (
    *("id", "key_id", "idempotency_digest", "fingerprint", "state", "names", "drawing_id", "began_at", "ended_at"),
    "replica",
)
_READ = f"select {', '.join(_COLUMNS[:-1])} from run where replica = {{}}"
# Another process may have a run of the same key and idempotency key: then the table keeps the first.
_INSERT = f"insert into run ({', '.join(_COLUMNS)}) values ({{}}) on conflict do nothing"
# The process that has the file has the run, whichever replica it belonged to before.
_UPDATE = """update run set replica = {}, fingerprint = {}, state = {}, names = {}, drawing_id = {}, ended_at = {}
    where id = {}"""
_DELETE = "delete from run where id = {}"
_CLEAR = "delete from run where replica = {}"


@dataclass(frozen=True, slots=True)
class RunRow:
    """`id` is the name of the run's file. `names` are the ids of the requests that it answers: callers choose them, so
    runs of two keys may have the same. `idempotency_digest` and `fingerprint` are HMAC-SHA256, of the idempotency key
    and of the fingerprint of the request. `drawing_id` is the ledger's. Times are microseconds since the epoch;
    `ended_at` None: the run is under way."""

    id: str
    key_id: str
    idempotency_digest: bytes | None
    fingerprint: bytes | None
    state: str
    names: tuple[str, ...]
    drawing_id: str | None
    began_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class RunTable:
    """The rows of one replica. `database` returns it, or raises DatabaseUnavailable."""

    database: Callable[[], Database]
    replica: str

    async def read(self) -> dict[str, RunRow]:
        """Return the rows by their ids. Raises DatabaseUnavailable."""
        database = self.database()
        found = dict[str, RunRow]()
        for values in await database.query(_READ.format(*placeholders(database, 1)), (self.replica,)):
            id, key_id, digest, fingerprint, state, names, drawing_id, began_at, ended_at = values
            found[id] = RunRow(
                id, key_id, digest, fingerprint, state, tuple(json.loads(names)), drawing_id, began_at, ended_at
            )
        return found

    async def write(self, rows: Collection[RunRow], removed: Collection[str] = (), *, replace: bool = False) -> None:
        """Write rows and remove others by their ids, in one transaction. `replace` removes all that are not in `rows`.
        Raises DatabaseUnavailable."""
        database = self.database()
        one, values, changes = (placeholders(database, count) for count in (1, len(_COLUMNS), 7))
        clear, delete = _CLEAR.format(*one), _DELETE.format(*one)
        insert, update = _INSERT.format(", ".join(values)), _UPDATE.format(*changes)
        statements: list[tuple[str, tuple[object, ...]]] = [(clear, (self.replica,))] if replace else []
        statements += [(delete, (id,)) for id in removed]
        for row in rows:
            names = json.dumps(row.names)
            changed = (self.replica, row.fingerprint, row.state, names, row.drawing_id, row.ended_at, row.id)
            whole = (row.id, row.key_id, row.idempotency_digest, row.fingerprint, row.state, names, row.drawing_id)
            statements += [(update, changed), (insert, (*whole, row.began_at, row.ended_at, self.replica))]
        await database.execute(statements)
