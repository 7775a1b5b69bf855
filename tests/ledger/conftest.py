"""The databases that tests run over: each test gets an empty one of each kind."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.ledger.database.ddl import FIRST_ROW
from app.ledger.database.opening import open_database
from app.ledger.database.tables import metadata
from tests.ledger.postgres import find_binaries, running_postgres

_numbers = itertools.count()


def required_binaries() -> Path:
    """Find Postgres, or leave the test out."""
    binaries = find_binaries()
    if binaries is None:
        reason = "no Postgres on this machine (Debian: apt install postgresql)"
        if os.environ.get("GATEWAY_TESTS_COMPLETE"):
            pytest.fail(reason)
        pytest.skip(reason)
    return binaries


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server, with a slash at its end."""
    with running_postgres(required_binaries()) as address:
        yield address


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> str:
    """The URL of a database with the schema."""
    url = new_database(postgres_server)

    async def prepare() -> None:
        await (await open_database(url, Path())).aclose()

    asyncio.run(prepare())
    return url


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    """The URL of a database with empty tables."""
    empty_postgres(postgres_database)
    return postgres_database


def new_database(server: str) -> str:
    """Make an empty database, and return its URL."""
    name = f"gateway_{next(_numbers)}"
    _execute(f"{server}postgres", f"create database {name}")
    return f"{server}{name}"


def empty_postgres(url: str) -> None:
    """Empty the tables."""
    names = ", ".join(table.name for table in metadata.sorted_tables)
    _execute(url, f"truncate {names}; {FIRST_ROW}")


def _execute(url: str, sql: str) -> None:
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The setting `database.url`: None for SQLite."""
    if request.param == "sqlite":
        return None
    found: str = request.getfixturevalue("postgres_url")
    return found


class Clock:
    """A clock that a test sets: seconds since the epoch."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    @property
    def micros(self) -> int:
        return int(self.now * 1_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_790_000_000.0)
