"""The schema: tables, files and migrations say the same, and a start imports nothing that it can spare."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from app.ledger.database.ddl import DIALECTS, FOLDER, render
from app.ledger.database.opening import FILE, open_database
from app.ledger.database.postgres import open_pool
from app.ledger.database.protocol import DatabaseUnavailable, Dialect, SchemaError
from app.ledger.database.schema import HEAD, prepare_postgres
from app.ledger.database.upgrades import migrations, upgrade_postgres, upgrade_sqlite
from tests.ledger.conftest import new_database
from tests.live.loops import dead_port

LIGHT = """
import asyncio, sys
from pathlib import Path
from app.ledger.database.opening import open_database
async def main():
    await (await open_database(None, Path(sys.argv[1]))).aclose()
for _ in range(2):
    asyncio.run(main())
print([name for name in ("sqlalchemy", "alembic", "asyncpg") if name in sys.modules])
"""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_file_of_the_schema_is_that_of_the_tables(dialect: Dialect) -> None:
    written = (FOLDER / f"schema-{dialect}.sql").read_text(encoding="utf-8")
    assert written == render(dialect), "run: .venv/bin/python -m scripts.schema"


def test_the_newest_migration_is_the_one_that_a_start_asks_for() -> None:
    assert migrations().get_heads() == [HEAD]


def test_a_start_on_sqlite_imports_neither_sqlalchemy_nor_alembic(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIGHT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "[]"


def sqlite_schema(path: Path) -> list[tuple[object, ...]]:
    """Every column and every index; the texts of the statements differ in their layout."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        names = [row[0] for row in db.execute("select name from sqlite_master where type = 'table' order by name")]
        columns = [(name, *row) for name in names for row in db.execute(f"pragma table_info('{name}')")]
        tables = db.execute("select name, wr from pragma_table_list where schema = 'main' order by name").fetchall()
        indexes = db.execute(
            "select name, tbl_name, sql from sqlite_master where type = 'index' order by name"
        ).fetchall()
        first = db.execute("select * from revision").fetchall()
        return [*columns, *tables, *((n, t, " ".join(s.split()) if s else s) for n, t, s in indexes), *first]


def test_migrations_and_the_fast_way_make_the_same_schema_in_sqlite(tmp_path: Path) -> None:
    migrated = tmp_path / "migrated.db"
    upgrade_sqlite(migrated)
    asyncio.run(opened_and_closed(None, tmp_path))
    assert sqlite_schema(migrated) == sqlite_schema(tmp_path / FILE)
    with contextlib.closing(sqlite3.connect(migrated)) as db:
        assert db.execute("select version_num from alembic_version").fetchall() == [(HEAD,)]


def test_migrations_and_the_fast_way_make_the_same_schema_in_postgres(postgres_server: str) -> None:
    async def described(url: str) -> list[tuple[object, ...]]:
        pool = await open_pool(url)
        try:
            columns = await pool.fetch(
                "select table_name, column_name, data_type, is_nullable, column_default "
                "from information_schema.columns where table_schema = 'public' order by 1, 2"
            )
            indexes = await pool.fetch(
                "select tablename, indexdef from pg_indexes where schemaname = 'public' order by 1, 2"
            )
            functions = await pool.fetch("select proname, prosrc from pg_proc where proname like 'ledger_%' order by 1")
            return [tuple(row) for row in (*columns, *indexes, *functions)]
        finally:
            await pool.close()

    async def run() -> None:
        fast, migrated = new_databases
        await opened_and_closed(fast, Path())
        await upgrade_postgres(migrated)
        assert await described(fast) == await described(migrated)

    new_databases = [new_database(postgres_server) for _ in range(2)]
    asyncio.run(run())


async def opened_and_closed(url: str | None, folder: Path, *, migrate: bool = True) -> None:
    await (await open_database(url, folder, migrate=migrate)).aclose()


def test_an_old_schema_is_brought_up_to_date_or_refused(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("create table alembic_version (version_num varchar(32) not null)")
        db.execute("insert into alembic_version values ('0000')")
        db.commit()
    with pytest.raises(SchemaError, match="image-gateway db upgrade"):
        asyncio.run(opened_and_closed(None, tmp_path, migrate=False))


def test_a_schema_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    asyncio.run(opened_and_closed(None, tmp_path))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("update alembic_version set version_num = '9999'")
        db.commit()
    with pytest.raises(SchemaError, match="newer than this version"):
        asyncio.run(opened_and_closed(None, tmp_path))


def test_many_processes_may_make_the_schema_at_once(postgres_server: str) -> None:
    url = new_database(postgres_server)

    async def prepare() -> None:
        pool = await open_pool(url)
        try:
            await prepare_postgres(pool, url, migrate=True)
        finally:
            await pool.close()

    async def run() -> None:
        await asyncio.gather(*(prepare() for _ in range(4)))

    asyncio.run(run())


def test_the_file_can_be_read_by_its_user_alone(tmp_path: Path) -> None:
    asyncio.run(opened_and_closed(None, tmp_path))
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        asyncio.run(opened_and_closed(None, tmp_path / "missing"))
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(opened_and_closed(f"postgresql://nobody@127.0.0.1:{dead_port()}/none", tmp_path))


@pytest.mark.parametrize("password", ["s3cr#et", "s3cr/et", "s3cr?et", "s3c[ret"])
def test_a_url_that_cannot_be_read_is_not_quoted(password: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be read") as caught:
        asyncio.run(open_pool(f"postgresql://gateway:{password}@127.0.0.1:1/gateway"))
    assert "s3c" not in "".join(traceback.format_exception(caught.value))
