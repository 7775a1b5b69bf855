"""The statements that make the tables, in each dialect. A file of them is kept, so that a start needs no SQLAlchemy."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from app.ledger.database.protocol import Dialect
from app.ledger.database.tables import metadata

DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgresql")
FOLDER = Path(__file__).parent
FIRST_ROW = "INSERT INTO revision (name, number) VALUES ('directory', 1)"


def render(dialect: Dialect) -> str:
    """Return the statements for an empty database."""
    spoken = sqlite.dialect() if dialect == "sqlite" else postgresql.dialect()  # type: ignore[no-untyped-call]
    statements = list[str]()
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=spoken)).strip())
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements += [str(CreateIndex(index).compile(dialect=spoken)) for index in indexes]
    statements.append(FIRST_ROW)
    lines = "\n".join(line.rstrip() for line in ";\n\n".join(statements).splitlines())
    return f"{lines};\n"
