"""The queries of reports, and their results: frozen values. Money is in nano-units, times are microseconds since the
epoch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from app.microseconds import DAY, HOUR, MINUTE

Width = Literal["minute", "hour", "day"]
Dimension = Literal["project_id", "key_id", "model", "provider", "operation", "size", "outcome"]
DIMENSIONS: tuple[Dimension, ...] = ("project_id", "key_id", "model", "provider", "operation", "size", "outcome")
MICROSECONDS: Mapping[Width, int] = {"minute": MINUTE, "hour": HOUR, "day": DAY}

Item = TypeVar("Item")


class UnknownRow(Exception):
    """The list has no row with this id, or has it no more."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some rows of a list. `has_more`: others come after them."""

    items: tuple[Item, ...] = ()
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class DrawingFilter:
    """Selects the drawings that match every field. `until` is exclusive."""

    state: str | None = None
    outcome: str | None = None
    project_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    provider: str | None = None
    operation: str | None = None
    request_id: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class DrawingRecord:
    """A row of the ledger."""

    id: str
    request_id: str
    run_id: str
    at: int
    ended_at: int | None
    key_id: str
    project_id: str | None
    end_user: str | None
    tags: str | None  # JSON
    operation: str
    asked_model: str
    model: str
    provider: str | None
    upstream_model: str | None
    state: str
    outcome: str | None
    http_status: int | None
    error_code: str | None
    n: int
    asked: str | None  # JSON
    images: int
    width: int | None
    height: int | None
    format: str | None
    quality: str | None
    attempts: int
    queue_ms: int | None
    first_ms: int | None
    total_ms: int | None
    held_nano: int
    cost_nano: int
    in_doubt_nano: int
    saved_nano: int
    cost_source: str | None
    price_id: int | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt of a drawing. Without `result` it has not ended."""

    seq: int
    sent_at: int | None
    provider: str
    deployment: str
    model: str
    images: int
    dropped: str | None
    mapped: str | None
    result: str | None
    http_status: int | None
    provider_request_id: str | None
    ms: int | None
    cost_nano: int
    in_doubt_nano: int


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """A movement of a drawing's money."""

    seq: int
    kind: str
    held_nano: int
    spent_nano: int
    in_doubt_nano: int
    at: int
    made_by: str
    note: str | None


@dataclass(frozen=True, slots=True)
class DrawingDetail:
    drawing: DrawingRecord
    attempts: tuple[AttemptRecord, ...]
    entries: tuple[EntryRecord, ...]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Sums up the drawings that were admitted from `since` on and before `until`, in buckets of `width`, for each
    combination of the dimensions `by`. `only` names the values of a dimension that count."""

    since: int
    until: int
    width: Width = "day"
    by: tuple[Dimension, ...] = ()
    only: Mapping[Dimension, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """The sums of one bucket, for one combination of values. `values` are those of `UsageQuery.by`; an empty one means
    that the drawings have none. `joined` are the requests that existing runs answered: nothing was drawn for them, and
    of the other sums they are in `saved` alone."""

    starts_at: int
    values: Mapping[Dimension, str]
    requests: int
    images: int
    pixels: int
    milliseconds: int
    cost: int
    in_doubt: int
    saved: int
    joined: int


@dataclass(frozen=True, slots=True)
class Timing:
    """How long delivered drawings took, in milliseconds. None: there is none."""

    median_ms: int | None = None
    p95_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Doubts:
    """The drawings that are in doubt now, from any time."""

    drawings: int = 0
    nano: int = 0
    oldest_at: int | None = None


@dataclass(frozen=True, slots=True)
class PriceRecord:
    """A price, as JSON, and the time for which it holds."""

    id: int
    provider: str
    model: str
    price: str
    valid_from: int
    valid_to: int | None
    source: str


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Selects lines of the audit log. `actions` are pairs of a kind of object and an action; `project_ids` select what
    happened to these projects and to their keys."""

    since: int | None = None
    until: int | None = None
    actions: tuple[tuple[str, str], ...] = ()
    actor_ids: tuple[str, ...] = ()
    object_ids: tuple[str, ...] = ()
    project_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A line of the audit log. `before` and `after` are JSON."""

    id: int
    at: int
    actor_kind: str
    actor_id: str
    address: str | None
    request_id: str | None
    action: str
    object_kind: str
    object_id: str
    before: str | None
    after: str | None
