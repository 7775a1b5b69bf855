from __future__ import annotations

import json
from pathlib import Path

from app.storage.data_dir import open_data_dir
from tests.commands.conftest import Book


def test_an_upgrade_makes_the_database_and_does_nothing_a_second_time(book: Book) -> None:
    done = book.carry_out("db", "upgrade")
    assert "the schema is up to date" in done.err
    assert (book.folder / "data/gateway.db").exists()
    assert book.carry_out("db", "upgrade").err == done.err


def test_commands_that_may_not_migrate_refuse_an_old_schema_and_name_the_upgrade(book: Book) -> None:
    book.carry_out("db", "upgrade")
    book.ask(lambda registry: registry.database.execute([("update alembic_version set version_num = '0000'", ())]))
    config = json.loads(book.file.read_text())
    book.file.write_text(json.dumps({**config, "database": {"migrate": False}}))
    done = book("keys", "list")
    assert (done.status, done.out) == (1, "")
    assert "image-gateway db upgrade" in done.err


def test_a_schema_that_is_newer_is_refused(book: Book) -> None:
    book.carry_out("db", "upgrade")
    book.ask(lambda registry: registry.database.execute([("update alembic_version set version_num = '9999'", ())]))
    done = book("db", "upgrade")
    assert done.status == 1
    assert "newer" in done.err


# --- backups ---


def names(book: Book) -> set[str]:
    return {key["name"] for key in book.carry_out("keys", "list", "--json").json if key["source"] == "database"}


def test_a_backup_brings_back_what_was_there_and_keeps_what_is_there_now(book: Book, tmp_path: Path) -> None:
    text = book.carry_out("keys", "create", "--project", "design", "--name", "laptop").lines[0]
    file = tmp_path / "backup.db"
    with open_data_dir(book.folder / "data"):  # as a running gateway holds it
        done = book.carry_out("db", "backup", str(file))
    assert str(book.folder / "data/secret") in done.err
    book.carry_out("keys", "create", "--project", "design", "--name", "later")
    assert names(book) == {"laptop", "later"}
    assert "gateway.db.before-restore" in book.carry_out("db", "restore", str(file)).err
    assert names(book) == {"laptop"}
    assert book.issued(0).find(text) is not None


def test_a_backup_is_not_written_over(book: Book, tmp_path: Path) -> None:
    book.carry_out("db", "upgrade")
    (tmp_path / "backup.db").write_text("precious")
    done = book("db", "backup", str(tmp_path / "backup.db"))
    assert done.status == 1
    assert "exists. Name a new file" in done.err
    assert (tmp_path / "backup.db").read_text() == "precious"


def test_beside_a_running_gateway_nothing_is_restored(book: Book, tmp_path: Path) -> None:
    book.carry_out("db", "upgrade")
    book.carry_out("db", "backup", str(tmp_path / "backup.db"))
    with open_data_dir(book.folder / "data"):
        done = book("db", "restore", str(tmp_path / "backup.db"))
    assert done.status == 1
    assert "Another gateway uses the data directory" in done.err


def test_what_is_no_backup_is_not_restored(book: Book, tmp_path: Path) -> None:
    book.carry_out("keys", "create", "--project", "design", "--name", "laptop")
    (tmp_path / "no-backup").write_text("something else")
    for file, words in (("no-backup", "is no backup"), ("missing", "There is no file")):
        done = book("db", "restore", str(tmp_path / file))
        assert done.status == 1
        assert words in done.err
    assert names(book) == {"laptop"}


def test_a_move_wants_the_url_of_a_postgres(book: Book) -> None:
    assert book("db", "move", "--to", "mysql://x").status == 2


def test_with_postgres_its_own_tools_are_named(book: Book, tmp_path: Path) -> None:
    config = json.loads(book.file.read_text())
    book.file.write_text(json.dumps({**config, "database": {"url": "postgresql://nobody@127.0.0.1:1/x"}}))
    done = book("db", "backup", str(tmp_path / "backup.db"))
    assert (done.status, done.err) == (1, "The database is a Postgres, which has tools of its own: pg_dump.\n")
