"""Writes the two files of the schema from the tables: `.venv/bin/python -m scripts.schema`, after a change of them."""

from app.ledger.database.ddl import DIALECTS, FOLDER, render


def main() -> None:
    for dialect in DIALECTS:
        (FOLDER / f"schema-{dialect}.sql").write_text(render(dialect), encoding="utf-8")


if __name__ == "__main__":
    main()
