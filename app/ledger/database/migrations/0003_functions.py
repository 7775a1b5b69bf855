"""Bring the functions of Postgres up to date."""

from alembic import op

from app.ledger.database.schema import function_statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for statement in function_statements():
            op.get_bind().exec_driver_sql(statement)
