"""A drawing: one request, its money and its attempts. The values that admission and attempts hand to the ledger. Pure.

They never change. Those of each request are not frozen all the same, since making frozen ones takes three times as
long.

                 sent                settle: cost
      HELD ────────────────▶ SENT ────────────────────────────────────────────▶ SETTLED
        │                     ├─ settle: nothing paid ────────────▶ RELEASED       ▲
        │ settle: nothing     │                                        ▲           │
        ├─────────────────────┼────────────────────────────────────────┘   unpaid  │ paid
        │                     │ settle: perhaps paid                       ┌───────┤
        │                     └──────────────────────────▶ IN_DOUBT ───────┴───────┘
        └ settle: cost (joined images, a provider that answered early) ▶ SETTLED

HELD: money is reserved, and nothing has left. SENT: an attempt may have left, so a crash leaves the drawing in doubt.
The other three have ended, and settling them again changes nothing. One exception: a drawing that recovery left in
doubt after a crash (`INTERRUPTED`) can still be settled, by the process that was thought to be dead or by one that
resumed its job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.catalog.prices import CostSource
from app.ledger.values.directory import Budget
from app.ledger.values.limits import Limit, LimitState
from app.ledger.values.windows import Period


class State(StrEnum):
    HELD = "held"
    SENT = "sent"
    SETTLED = "settled"
    RELEASED = "released"
    IN_DOUBT = "in_doubt"


class Outcome(StrEnum):
    """How a drawing ended, in the words of the metrics."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"  # drawn and paid for, at least some of it; the request failed nevertheless
    REFUSED = "refused"
    FAILED = "failed"
    PERHAPS_PAID = "perhaps_paid"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # a crash ended it
    JOINED = "joined"  # an answer from the run of another request


LONGEST_TEXT = 256  # characters of a foreign text in a row


def storable(text: str | None) -> str | None:
    """Return a foreign text as both databases take it: without NUL and halves of surrogate pairs, and not longer than
    `LONGEST_TEXT`."""
    if text is None or (text.isprintable() and len(text) <= LONGEST_TEXT):
        return text
    kept = text[:LONGEST_TEXT].encode("utf-8", "replace").decode()
    return kept.replace("\0", "?")


def new_id(now: float, randomness: bytes) -> str:
    """Make a drawing's id: a UUID of version 7, as 32 hexadecimal digits, which sorts by time. `randomness` has ten
    bytes."""
    number = int(now * 1000) << 80 | int.from_bytes(randomness[:10])
    number = number & ~(0xF << 76) | 7 << 76
    number = number & ~(0b11 << 62) | 0b10 << 62
    return f"{number:032x}"


@dataclass(slots=True)
class Admission:
    """A request that wants to draw. `most` is what it may cost at the dearest of its candidates, for all its images;
    None: one of them has no price. `pixels` are those of one image as it will be drawn; 0: unknown."""

    id: str
    request_id: str
    run_id: str
    key_id: str
    project_id: str | None
    operation: str
    asked_model: str
    model: str
    n: int
    pixels: int = 0
    most: int | None = None
    limits: tuple[Limit, ...] = ()
    end_user: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    client: str | None = None
    asked: str | None = None  # the parameters that may be kept, as JSON


@dataclass(frozen=True, slots=True)
class Claim:
    """A budget that a drawing counts in, and the period at its admission."""

    budget: Budget
    period: Period


@dataclass(slots=True)
class Ticket:
    """An admitted request. `limits` are the states of its limits. `is_deferred`: the database is away, and the journal
    has it."""

    drawing_id: str
    held: int
    limits: tuple[LimitState, ...] = ()
    is_deferred: bool = False


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A budget that a request counts in, and its use: `used` is spent or in doubt, `held` by running requests."""

    budget: Budget
    period: Period
    amount: int
    used: int
    held: int

    @property
    def left(self) -> int:
        return max(self.amount - self.used - self.held, 0)


@dataclass(frozen=True, slots=True)
class Foresight:
    """The result that an admission would have now. Empty while the database is away and nothing depends on it."""

    limits: tuple[LimitState, ...] = ()
    budgets: tuple[BudgetUse, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """A limit is used up. `retry_after` in seconds; None: the request needs more than the limit ever has."""

    state: LimitState
    needed: int
    retry_after: float | None
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """A hard budget has too little room. `used` is spent or in doubt, `held` by running requests.

    `is_reserved`: there would be room if all running requests ended without a cost, so another try makes sense. If not,
    the budget has room again when its period ends.
    """

    budget: Budget
    period: Period
    amount: int
    used: int
    held: int
    needed: int
    limits: tuple[LimitState, ...] = ()

    @property
    def is_reserved(self) -> bool:
        return self.used + self.needed <= self.amount


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A hard budget is in scope, and the request has no price."""

    budget: Budget


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The database is away, and a hard budget or a limit cannot be kept without it."""

    reason: str


Refusal = LimitRefusal | BudgetRefusal | Unpriced | Unavailable


@dataclass(slots=True)
class AttemptSent:
    """An attempt whose first byte is about to leave. `most` is what it may cost."""

    drawing_id: str
    seq: int
    at: int
    provider: str
    deployment: str
    model: str  # as the provider calls it
    images: int
    most: int
    dropped: str | None = None  # names of hints, with commas between them
    mapped: str | None = None  # such as size=1024x768


@dataclass(slots=True)
class Beginning:
    """A drawing that counts in nothing, and its first attempt. `at`: when it was admitted."""

    admission: Admission
    at: int
    attempt: AttemptSent


@dataclass(slots=True)
class AttemptResult:
    """How an attempt ended."""

    seq: int
    provider: str
    deployment: str
    model: str
    result: str
    images: int = 0
    ms: int | None = None
    http_status: int | None = None
    provider_request_id: str | None = None
    cost: int = 0
    in_doubt: int = 0


@dataclass(slots=True)
class Settlement:
    """The end of a drawing. With neither `cost` nor `in_doubt` its reservation is released."""

    drawing_id: str
    at: int
    outcome: Outcome
    cost: int = 0
    in_doubt: int = 0
    cost_source: CostSource = "none"
    price_id: int | None = None
    images: int = 0
    provider: str | None = None
    deployment: str | None = None
    upstream_model: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    quality: str | None = None
    http_status: int | None = None
    error_code: str | None = None
    queue_ms: int | None = None
    first_ms: int | None = None
    total_ms: int | None = None
    attempts: tuple[AttemptResult, ...] = ()
    by: str = "gateway"
    note: str = ""

    @property
    def kind(self) -> str:
        """The kind of its entry in the ledger."""
        return {State.IN_DOUBT: "in_doubt", State.RELEASED: "release"}.get(self.state, "settle")

    @property
    def state(self) -> State:
        if self.in_doubt:
            return State.IN_DOUBT
        return State.SETTLED if self.cost or self.images else State.RELEASED


@dataclass(frozen=True, slots=True)
class Joined:
    """An answer from an existing run: a row of its own that cost nothing. `saved`: what a new drawing would cost."""

    id: str
    at: int
    request_id: str
    run_id: str
    key_id: str
    project_id: str | None
    operation: str
    asked_model: str
    model: str
    n: int
    images: int
    saved: int
    end_user: str | None = None
    tags: str | None = None  # JSON


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A drawing of a process that is gone. `at_stake`: what its attempts may have cost, at most what is held."""

    drawing_id: str
    run_id: str
    state: State
    held: int
    at_stake: int
