"""The processes that use one database. Each has a row and renews its beat. A process whose beat is old is dead, and the
others end the drawings that it left. The database's own clock counts, since clocks of machines differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.ledger.database.protocol import Database, Dialect, ForeignSecret
from app.ledger.database.upkeep import placeholders
from app.microseconds import DAY, to_microseconds

BEAT_SECONDS = 5.0
DEAD_SECONDS = 15.0  # without a beat

_DEAD_AFTER = to_microseconds(DEAD_SECONDS)
_FORGOTTEN_AFTER = DAY

_CLOCK: Mapping[Dialect, str] = {
    "sqlite": "cast((julianday('now') - 2440587.5) * 86400000000.0 as bigint)",
    "postgresql": "cast(extract(epoch from clock_timestamp()) * 1000000 as bigint)",
}
_UNDER_WAY = "d.state in ('held', 'sent', 'in_doubt') and d.state <> 'in_doubt'"  # as the partial index says it
_BEAT = """insert into replica (name, secret, beat_at) values ({}, {}, {clock})
    on conflict (name) do update set secret = excluded.secret, beat_at = excluded.beat_at"""
_FORGET = f"delete from replica where beat_at < {{clock}} - {_FORGOTTEN_AFTER}"
_LEAVE = f"""delete from replica where name = {{}} and not exists
    (select 1 from drawing d where {_UNDER_WAY} and d.replica = replica.name)"""
_OTHERS = f"select 1 from replica where name <> {{}} and secret <> {{}} and beat_at > {{clock}} - {_DEAD_AFTER} limit 1"
_DEAD = f"""select distinct d.replica from drawing d left join replica r on r.name = d.replica
    where {_UNDER_WAY} and d.replica <> {{}} and coalesce(r.beat_at, 0) <= {{clock}} - {_DEAD_AFTER}"""


@dataclass(frozen=True, slots=True)
class Replica:
    """A process, as the others see it. `secret` is a digest of the gateway's secret, which all of them share."""

    name: str
    secret: str = ""


async def enter(database: Database, replica: Replica) -> None:
    """Write the row of a process that starts, before it ends or admits anything. Raises ForeignSecret if another living
    process of a Postgres has another secret: keys and links of one would not be good at the other. SQLite's file lies
    beside the secret."""
    await beat(database, replica)
    if database.dialect == "sqlite":
        return
    first, second = placeholders(database, 2)
    sql = _OTHERS.format(first, second, clock=_CLOCK[database.dialect])
    if await database.query(sql, (replica.name, replica.secret)):
        await leave(database, replica)
        raise ForeignSecret(
            "Another gateway with another secret uses this Postgres. Let all of them state the same: `secret: "
            "${IMAGE_GATEWAY_SECRET}`, for example with the content of the first one's file `secret`. If the other one "
            f"has just been stopped, start again in {DEAD_SECONDS:.0f} seconds."
        )


async def beat(database: Database, replica: Replica) -> None:
    """Renew the beat of a process, and delete those that have long been dead."""
    clock, (first, second) = _CLOCK[database.dialect], placeholders(database, 2)
    alive = _BEAT.format(first, second, clock=clock), (replica.name, replica.secret)
    await database.execute([alive, (_FORGET.format(clock=clock), ())])


async def leave(database: Database, replica: Replica) -> None:
    """Delete the row when the process ends in order. It stays if the next start resumes drawings: until then the others
    leave them alone."""
    await database.execute([(_LEAVE.format(*placeholders(database, 1)), (replica.name,))])


async def find_dead(database: Database, name: str) -> Sequence[str]:
    """Return the names of dead processes that have drawings under way. `name` is the process that asks."""
    sql = _DEAD.format(*placeholders(database, 1), clock=_CLOCK[database.dialect])
    return [str(row[0]) for row in await database.query(sql, (name,))]
