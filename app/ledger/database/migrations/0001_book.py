"""The book: projects, keys, prices, budgets, drawings and their entries."""

import sqlalchemy as sa
from alembic import op

from app.ledger.database.schema import function_statements

revision = "0001"
down_revision = None

OPEN = sa.text("state IN ('held', 'sent', 'in_doubt')")


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("drawing_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("most_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("provider_request_id", sa.Text(), nullable=True),
        sa.Column("ms", sa.Integer(), nullable=True),
        sa.Column("cost_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("in_doubt_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("drawing_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_by_object", "audit", ["object_kind", "object_id", "at"], unique=False)
    op.create_index("audit_by_time", "audit", ["at", "id"], unique=False)
    op.create_table(
        "bucket",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("full_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budget",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("scope_id", sa.Text(), nullable=True),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("hard", sa.Integer(), nullable=False),
        sa.Column("thresholds", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "budget_alert",
        sa.Column("budget_id", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "starts_at", "threshold"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budget_period",
        sa.Column("budget_id", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("spent_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("in_doubt_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "starts_at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "charge",
        sa.Column("drawing_id", sa.Text(), nullable=False),
        sa.Column("budget_id", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("drawing_id", "budget_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("charge_by_budget", "charge", ["budget_id", "starts_at"], unique=False)
    op.create_table(
        "drawing",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=True),
        sa.Column("end_user", sa.Text(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("asked_model", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("upstream_model", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("format", sa.Text(), nullable=True),
        sa.Column("quality", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("queue_ms", sa.Integer(), nullable=True),
        sa.Column("first_ms", sa.Integer(), nullable=True),
        sa.Column("total_ms", sa.Integer(), nullable=True),
        sa.Column("reserved_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("in_doubt_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("saved_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_source", sa.Text(), nullable=True),
        sa.Column("price_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("drawing_by_key", "drawing", ["key_id", "at", "id"], unique=False)
    op.create_index("drawing_by_model", "drawing", ["model", "at", "id"], unique=False)
    op.create_index("drawing_by_project", "drawing", ["project_id", "at", "id"], unique=False)
    op.create_index("drawing_by_provider", "drawing", ["provider", "at", "id"], unique=False)
    op.create_index("drawing_by_request", "drawing", ["request_id"], unique=False)
    op.create_index("drawing_by_time", "drawing", ["at", "id"], unique=False)
    op.create_index(
        "drawing_open",
        "drawing",
        ["state", "at"],
        unique=False,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_table(
        "entry",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("drawing_id", sa.Text(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("in_doubt_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("budget_id", sa.Text(), nullable=True),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("drawing_id", "seq"),
    )
    op.create_index("entry_by_budget", "entry", ["budget_id", "starts_at"], unique=False)
    op.create_table(
        "lease",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("drawing_id", sa.Text(), nullable=False),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "drawing_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("lease_by_drawing", "lease", ["drawing_id"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "outbox_open",
        "outbox",
        ["next_at"],
        unique=False,
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "price",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("price", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.BigInteger(), nullable=False),
        sa.Column("valid_to", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("price_by_model", "price", ["provider", "model", "valid_from"], unique=False)
    op.create_table(
        "project",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("images_per_minute", sa.Integer(), nullable=True),
        sa.Column("megapixels_per_minute", sa.Integer(), nullable=True),
        sa.Column("max_concurrency", sa.Integer(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "replica",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("beat_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "revision",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("idempotency_digest", sa.LargeBinary(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("replica", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("drawing_id", sa.Text(), nullable=True),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key_id", "idempotency_digest"),
    )
    op.create_index("run_by_fingerprint", "run", ["key_id", "fingerprint"], unique=False)
    op.create_table(
        "usage_day",
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("key_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("model", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("provider", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("operation", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("size", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("outcome", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("images", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pixels", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("milliseconds", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("in_doubt_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("saved_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint(
            "starts_at", "project_id", "key_id", "model", "provider", "operation", "size", "outcome"
        ),
    )
    op.create_table(
        "usage_hour",
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("key_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("model", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("provider", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("operation", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("size", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("outcome", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("images", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pixels", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("milliseconds", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("in_doubt_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("saved_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint(
            "starts_at", "project_id", "key_id", "model", "provider", "operation", "size", "outcome"
        ),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=True),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("operations", sa.Text(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("images_per_minute", sa.Integer(), nullable=True),
        sa.Column("megapixels_per_minute", sa.Integer(), nullable=True),
        sa.Column("max_concurrency", sa.Integer(), nullable=True),
        sa.Column("default_response_format", sa.Text(), nullable=True),
        sa.Column("previous_digest", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.Column("disabled_why", sa.Text(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.execute("INSERT INTO revision (name, number) VALUES ('directory', 1)")
    if op.get_bind().dialect.name == "postgresql":
        for statement in function_statements():
            op.get_bind().exec_driver_sql(statement)
