"""Postgres: a pool of connections, and one function for each step of the money path. Knows nothing of money.

The functions are in `functions.sql`; they take the values as JSON, in the form that the journal has too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from app.ledger.database.protocol import DatabaseUnavailable, Dialect, DuplicateRow, Full, Row
from app.ledger.database.sqlite_money import UNFINISHED
from app.ledger.values.drawings import (
    Admission,
    AttemptSent,
    Beginning,
    BudgetRefusal,
    Claim,
    Joined,
    LimitRefusal,
    Settlement,
    State,
    Ticket,
    Unfinished,
)
from app.ledger.values.limits import retry_after, states_of
from app.ledger.values.text import admission_fields, as_fields
from app.ledger.values.windows import Period

if TYPE_CHECKING:
    import asyncpg

CONNECTIONS = 10
CONNECT_SECONDS = 2.0
COMMAND_SECONDS = 10.0
STREAM_SECONDS = 600.0  # that the first rows of an export or of a proof may take
QUEUE_SECONDS = 10.0  # that a caller waits for a connection: hundreds may ask at one moment
TRIES = 3  # of a transaction that conflicts with another one

T = TypeVar("T")

_UNFINISHED = UNFINISHED.replace("?", "$1").replace("min(", "least(")
_JOIN = """insert into drawing (id, request_id, run_id, at, ended_at, replica, key_id, project_id, operation,
    asked_model, model, state, outcome, n, images, saved_nano, cost_source, end_user, tags)
    values ($1,$2,$3,$4,$4,$5,$6,$7,$8,$9,$10,'settled','joined',$11,$12,$13,'none',
    $14,$15) on conflict (id) do nothing"""

_BEGIN_ALL = """select ledger_defer(x->'admission', '{}', '{}', '{}', $2, (x->>'at')::bigint),
    ledger_sent(x->'attempt') from jsonb_array_elements($1) x"""
_SETTLE_ALL = "select ledger_settle(x, x->>'kind', x->>'state') from jsonb_array_elements($1) x"


class PostgresDatabase:
    """One Postgres. By default its own clock counts, which all replicas share; in tests the caller's."""

    dialect: Dialect = "postgresql"

    def __init__(self, pool: asyncpg.Pool, *, has_own_clock: bool = True) -> None:
        self._pool = pool
        self._has_own_clock = has_own_clock

    async def aclose(self) -> None:
        try:
            await asyncio.wait_for(self._pool.close(), COMMAND_SECONDS)
        except TimeoutError:
            self._pool.terminate()

    # --- the money path ---

    async def admit(
        self, admission: Admission, claims: Sequence[Claim], replica: str, now: int
    ) -> Ticket | LimitRefusal | BudgetRefusal:
        limits = admission.limits
        needs = [limit.needed(admission.n, admission.pixels) for limit in limits]
        steps = [limit.step(need) if limit.is_rate else None for limit, need in zip(limits, needs, strict=True)]
        answer = await self._call(
            "select ledger_admit($1,$2,$3,$4,$5,$6,$7,$8,$9)",
            json.dumps(admission_fields(admission)),
            [limit.scope for limit in limits],
            steps,
            [limit.amount for limit in limits],
            *_claims(claims),
            replica,
            self._clock(now),
        )
        found = json.loads(answer)
        at: int = found["now"]
        states = states_of(limits, found["uses"], at)
        if (i := found.get("limit")) is not None:
            wait = retry_after(limits[i], needs[i], found["uses"][i], at)
            return LimitRefusal(states[i], needs[i], wait, states)
        if (budget_id := found.get("budget")) is not None:
            claim = next(claim for claim in claims if claim.budget.id == budget_id)
            numbers = found["amount"], found["used"], found["held"], admission.most or 0
            return BudgetRefusal(claim.budget, claim.period, *numbers, states)
        return Ticket(admission.id, found["held"], states)

    async def reserve(self, drawing_id: str, most: int, now: int, *, has_left: bool = False) -> bool | Full:
        sql = "select ledger_reserve($1,$2,$3,$4)"
        answer = await self._call(sql, drawing_id, most, self._clock(now), has_left)
        if answer is None:
            return False
        found = json.loads(answer)
        if not found:
            return True
        period = Period(found["starts_at"], found["ends_at"])
        return Full(found["budget"], period, found["amount"], found["used"], found["held"], found["needed"])

    async def sent(self, attempt: AttemptSent) -> bool:
        return bool(await self._call("select ledger_sent($1)", json.dumps(as_fields(attempt))))

    async def record(self, begun: Sequence[Beginning], ended: Sequence[Settlement], replica: str) -> None:
        starts = [
            {"admission": admission_fields(each.admission), "at": each.at, "attempt": as_fields(each.attempt)}
            for each in begun
        ]
        ends = [as_fields(end) | {"kind": end.kind, "state": end.state} for end in ended]

        async def both(connection: Any) -> None:
            async with connection.transaction():
                if starts:
                    await connection.execute(_BEGIN_ALL, json.dumps(starts), replica)
                if ends:
                    await connection.execute(_SETTLE_ALL, json.dumps(ends))

        await self._use(both)

    async def settle(self, settlement: Settlement) -> bool:
        fields = json.dumps(as_fields(settlement))
        sql = "select ledger_settle($1,$2,$3)"
        return bool(await self._call(sql, fields, settlement.kind, settlement.state))

    async def resolve(self, drawing_id: str, at: int, by: str, note: str, *, paid: bool) -> bool:
        return bool(await self._call("select ledger_resolve($1,$2,$3,$4,$5)", drawing_id, paid, at, by, note))

    async def defer(self, admission: Admission, claims: Sequence[Claim], replica: str, at: int) -> None:
        fields = json.dumps(admission_fields(admission))
        await self._call("select ledger_defer($1,$2,$3,$4,$5,$6)", fields, *_claims(claims), replica, at)

    async def join(self, joined: Joined, replica: str) -> None:
        values = (joined.id, joined.request_id, joined.run_id, joined.at, replica, joined.key_id,
                  joined.project_id, joined.operation, joined.asked_model, joined.model, joined.n, joined.images,
                  joined.saved, joined.end_user, joined.tags)  # fmt: skip
        await self._call(_JOIN, *values)

    async def unfinished(self, replica: str) -> Sequence[Unfinished]:
        rows = await self.query(_UNFINISHED, (replica,))
        return [Unfinished(id, run_id, State(state), held, int(stake)) for id, run_id, state, held, stake in rows]

    # --- plain statements ---

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        async def rows(connection: Any) -> Sequence[Row]:
            return [tuple(row) for row in await connection.fetch(sql, *parameters)]

        return await self._use(rows)

    async def stream(self, sql: str, parameters: Sequence[Any] = (), chunk: int = 1000) -> AsyncIterator[Sequence[Row]]:
        with _translated():
            connection = await self._pool.acquire(timeout=QUEUE_SECONDS)
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        try:
            with _translated():
                await transaction.start()
                cursor = await connection.cursor(sql, *parameters, timeout=STREAM_SECONDS)
            while True:
                with _translated():
                    rows = await cursor.fetch(chunk, timeout=STREAM_SECONDS)
                if not rows:
                    break
                yield [tuple(row) for row in rows]
        finally:
            with contextlib.suppress(DatabaseUnavailable), _translated():
                await transaction.rollback()
            await self._pool.release(connection)

    async def execute(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> Sequence[int]:
        async def run(connection: Any) -> Sequence[int]:
            async with connection.transaction():
                return [_changed(await connection.execute(sql, *parameters)) for sql, parameters in statements]

        return await self._use(run)

    # --- connections ---

    def _clock(self, now: int) -> int | None:
        return None if self._has_own_clock else now

    async def _call(self, sql: str, *parameters: Any) -> Any:
        return await self._use(lambda connection: connection.fetchval(sql, *parameters))

    async def _use(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do `work` on a connection, and again if it conflicted with another transaction."""
        import asyncpg

        in_the_way = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
        for tried in range(1, TRIES + 1):
            try:
                with _translated():
                    async with self._pool.acquire(timeout=QUEUE_SECONDS) as connection:
                        return await work(connection)
            except in_the_way:
                if tried == TRIES:
                    raise
        raise AssertionError("unreachable")


async def open_pool(url: str) -> asyncpg.Pool:
    """Connect. Raises DatabaseUnavailable, whose message quotes nothing of a URL that cannot be read."""
    import asyncpg

    try:
        with _translated():
            return await asyncpg.create_pool(
                url, min_size=1, max_size=CONNECTIONS, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS
            )
    except ValueError:
        raise DatabaseUnavailable(
            "the URL of the database cannot be read. Write special characters of the password as %2F, %23, %3F, %40 …"
        ) from None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise asyncpg's errors as those of the protocol. The error of a faulty statement stays as it is."""
    import asyncpg

    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise DuplicateRow(str(error)) from error
    except (
        OSError,
        TimeoutError,
        asyncpg.InterfaceError,
        asyncpg.PostgresConnectionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.OperatorInterventionError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InternalServerError,
        asyncpg.PostgresIOError,
    ) as error:
        raise DatabaseUnavailable(str(error) or type(error).__name__) from error


def _claims(claims: Sequence[Claim]) -> tuple[list[str], list[int], list[int | None]]:
    return (
        [claim.budget.id for claim in claims],
        [claim.period.starts_at for claim in claims],
        [claim.period.ends_at for claim in claims],
    )


def _changed(status: str) -> int:
    """Return the number of rows of a command's tag, such as `UPDATE 3`."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
