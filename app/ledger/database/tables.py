"""The tables, for SQLAlchemy. The hot path does not import this module: its statements are written out.

Columns that end with `_nano` hold money, those that end with `_at` microseconds since the epoch (UTC). Lists and
mappings are JSON texts, truths are 0 or 1, so a row means the same in SQLite and in Postgres.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows of an INTEGER PRIMARY KEY alone


def _money(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _limits() -> list[Column[int]]:
    names = ("requests_per_minute", "images_per_minute", "megapixels_per_minute", "max_concurrency")
    return [Column(name, Integer) for name in names]


# --- the directory ---

revision = Table(
    "revision",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

project = Table(
    "project",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    *_limits(),
    Column("source", Text, nullable=False),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("project_id", Text, ForeignKey("project.id")),
    Column("scopes", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("operations", Text, nullable=False),
    *_limits(),
    Column("default_response_format", Text),
    Column("previous_digest", LargeBinary),
    Column("previous_until", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("disabled_at", BigInteger),
    Column("disabled_why", Text),
    Column("last_used_at", BigInteger),
    Column("deleted_at", BigInteger),
)

price = Table(
    "price",
    metadata,
    Column("id", Number, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("valid_from", BigInteger, nullable=False),
    Column("valid_to", BigInteger),
    Column("source", Text, nullable=False),
    Index("price_by_model", "provider", "model", "valid_from"),
)

budget = Table(
    "budget",
    metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("scope_id", Text),
    Column("models", Text, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("window", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("hard", Integer, nullable=False),
    Column("thresholds", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("removed_at", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Number, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("address", Text),
    Column("request_id", Text),
    Column("action", Text, nullable=False),
    Column("object_kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Index("audit_by_time", "at", "id"),
    Index("audit_by_object", "object_kind", "object_id", "at"),
)

# --- what is used ---

bucket = Table(
    "bucket",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("full_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

lease = Table(
    "lease",
    metadata,
    Column("scope", Text, nullable=False),
    Column("drawing_id", Text, nullable=False),
    Column("replica", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "drawing_id"),
    Index("lease_by_drawing", "drawing_id"),
    sqlite_with_rowid=False,
)

budget_period = Table(
    "budget_period",
    metadata,
    Column("budget_id", Text, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger),
    _money("spent_nano"),
    _money("held_nano"),
    _money("in_doubt_nano"),
    PrimaryKeyConstraint("budget_id", "starts_at"),
    sqlite_with_rowid=False,
)

budget_alert = Table(
    "budget_alert",
    metadata,
    Column("budget_id", Text, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("threshold", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("budget_id", "starts_at", "threshold"),
    sqlite_with_rowid=False,
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Number, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("done_at", BigInteger),
    Index("outbox_open", "next_at", sqlite_where=text("done_at IS NULL"), postgresql_where=text("done_at IS NULL")),
)

# --- the processes ---

replica = Table(
    "replica",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
)

# --- drawings ---

OPEN = text("state IN ('held', 'sent', 'in_doubt')")

drawing = Table(
    "drawing",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("replica", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("project_id", Text),
    Column("end_user", Text),
    Column("tags", Text),
    Column("client", Text),
    Column("operation", Text, nullable=False),
    Column("asked_model", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text),
    Column("deployment", Text),
    Column("upstream_model", Text),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    Column("http_status", Integer),
    Column("error_code", Text),
    Column("n", Integer, nullable=False),
    Column("images", Integer, nullable=False, server_default=text("0")),
    Column("width", Integer),
    Column("height", Integer),
    Column("format", Text),
    Column("quality", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("queue_ms", Integer),
    Column("first_ms", Integer),
    Column("total_ms", Integer),
    _money("reserved_nano"),
    _money("held_nano"),
    _money("cost_nano"),
    _money("in_doubt_nano"),
    _money("saved_nano"),
    Column("cost_source", Text),
    Column("price_id", BigInteger),
    Column("asked", Text),
    Index("drawing_by_time", "at", "id"),
    Index("drawing_by_key", "key_id", "at", "id"),
    Index("drawing_by_project", "project_id", "at", "id"),
    Index("drawing_by_model", "model", "at", "id"),
    Index("drawing_by_provider", "provider", "at", "id"),
    Index("drawing_by_request", "request_id"),
    Index("drawing_open", "state", "at", sqlite_where=OPEN, postgresql_where=OPEN),
)

attempt = Table(
    "attempt",
    metadata,
    Column("drawing_id", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("sent_at", BigInteger),
    Column("provider", Text, nullable=False),
    Column("deployment", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("images", Integer, nullable=False),
    _money("most_nano"),
    Column("result", Text),
    Column("http_status", Integer),
    Column("provider_request_id", Text),
    Column("ms", Integer),
    _money("cost_nano"),
    _money("in_doubt_nano"),
    Column("dropped", Text),
    Column("mapped", Text),
    PrimaryKeyConstraint("drawing_id", "seq"),
    sqlite_with_rowid=False,
)

# Append only. The sums of a drawing's entries are its columns.
entry = Table(
    "entry",
    metadata,
    Column("id", Number, primary_key=True),
    Column("drawing_id", Text),
    Column("seq", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    _money("held_nano"),
    _money("spent_nano"),
    _money("in_doubt_nano"),
    Column("at", BigInteger, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("note", Text),
    Column("budget_id", Text),  # of a closing entry, which stands for drawings that were cleaned away
    Column("starts_at", BigInteger),
    UniqueConstraint("drawing_id", "seq"),
    Index("entry_by_budget", "budget_id", "starts_at"),
)

# In which period of which budgets a drawing counts.
charge = Table(
    "charge",
    metadata,
    Column("drawing_id", Text, nullable=False),
    Column("budget_id", Text, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("drawing_id", "budget_id"),
    Index("charge_by_budget", "budget_id", "starts_at"),
    sqlite_with_rowid=False,
)

# --- runs and reports ---

# The runs that have files; a run's id is the file's name. `names` are the ids of its requests, which callers choose.
run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("idempotency_digest", LargeBinary),
    Column("fingerprint", LargeBinary),
    Column("replica", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("names", Text, nullable=False),
    Column("drawing_id", Text),
    Column("began_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    UniqueConstraint("key_id", "idempotency_digest"),
    Index("run_by_fingerprint", "key_id", "fingerprint"),
)


def _usage(name: str) -> Table:
    dimensions = ("project_id", "key_id", "model", "provider", "operation", "size", "outcome")
    return Table(
        name,
        metadata,
        Column("starts_at", BigInteger, nullable=False),
        *(Column(dimension, Text, nullable=False, server_default=text("''")) for dimension in dimensions),
        *map(_count, ("requests", "images", "pixels", "milliseconds")),
        *map(_money, ("cost_nano", "in_doubt_nano", "saved_nano")),
        PrimaryKeyConstraint("starts_at", *dimensions),
    )


usage_hour = _usage("usage_hour")
usage_day = _usage("usage_day")
