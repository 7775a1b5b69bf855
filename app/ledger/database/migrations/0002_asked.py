"""Add the asked parameters of drawings, and the dropped and mapped ones of attempts."""

import sqlalchemy as sa
from alembic import op

from app.ledger.database.schema import function_statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("drawing", sa.Column("asked", sa.Text()))
    op.add_column("attempt", sa.Column("dropped", sa.Text()))
    op.add_column("attempt", sa.Column("mapped", sa.Text()))
    if op.get_bind().dialect.name == "postgresql":
        for statement in function_statements():
            op.get_bind().exec_driver_sql(statement)
