"""The states of a run, and the only way from one to the next. Pure.

        WAITING           finish                  deliver
        or SENT ───────────────────────▶ FINISHED ──────────────▶ DELIVERED ◀─┐ deliver
           │                                                        │    ▲    ─┘
           │                                                  break │    │ deliver
           │ fail                                                   ▼    │
           ├──────────────▶ FAILED ◀──────────┐                     RETURNED
           │                   │ miss         │ tell
           │                   ▼              │
           │                  OWED ───────────┘
           │ fail_paid
           └──────────────▶ UNCERTAIN

    every state behind WAITING and SENT ── forget ──▶ FORGOTTEN

WAITING and SENT: the run is under way. They differ by `call.sent` alone, the requests that left or may have left: a run
goes from one to the other, and back if none did, without a step. All others have ended. The state alone decides about a
retry: the table in `docs/money.md` says how, and a test compares the two.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    WAITING = "nothing was sent to a provider"
    SENT = "a request was sent, or may have been: a drawing may cost money"
    FINISHED = "all images are there, and no caller has the whole answer"
    DELIVERED = "the socket of a caller took the last byte"
    RETURNED = "delivered, but the connection broke soon afterwards"
    FAILED = "failed, and no more than its whole images cost anything; the caller knows"
    OWED = "failed, and no more than its whole images cost anything; the caller could not be told"
    UNCERTAIN = "failed, and a drawing may have been paid for"
    FORGOTTEN = "closed and removed"

    __hash__ = object.__hash__  # an enum's own is written in Python, and the table is asked several times a request

    @property
    def is_delivered(self) -> bool:
        """True if it is the first to go when room is needed."""
        return self in (State.DELIVERED, State.RETURNED)

    @property
    def is_unpaid(self) -> bool:
        """True if it failed and may be drawn afresh without paying twice."""
        return self in (State.FAILED, State.OWED)


class Step(Enum):
    FINISH = "the last image is there"
    FAIL = "the work ended with an error, and nothing was paid but for whole images"
    FAIL_PAID = "the work ended with an error, and a drawing may have been paid for"
    DELIVER = "a caller has the whole answer"
    BREAK = "the connection broke soon after the whole answer was sent"
    TELL = "a caller got the error"
    MISS = "a caller could not be told the error"
    FORGET = "its time is up, or its room is needed"

    __hash__ = object.__hash__


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.WAITING, Step.FINISH): State.FINISHED,  # all images were there from an earlier run
    (State.WAITING, Step.FAIL): State.FAILED,
    (State.WAITING, Step.FAIL_PAID): State.UNCERTAIN,
    (State.SENT, Step.FINISH): State.FINISHED,
    (State.SENT, Step.FAIL): State.FAILED,
    (State.SENT, Step.FAIL_PAID): State.UNCERTAIN,
    (State.FINISHED, Step.DELIVER): State.DELIVERED,
    (State.FINISHED, Step.FORGET): State.FORGOTTEN,
    (State.DELIVERED, Step.DELIVER): State.DELIVERED,
    (State.DELIVERED, Step.BREAK): State.RETURNED,
    (State.DELIVERED, Step.FORGET): State.FORGOTTEN,
    (State.RETURNED, Step.DELIVER): State.DELIVERED,
    (State.RETURNED, Step.FORGET): State.FORGOTTEN,
    (State.FAILED, Step.TELL): State.FAILED,
    (State.FAILED, Step.MISS): State.OWED,
    (State.FAILED, Step.FORGET): State.FORGOTTEN,
    (State.OWED, Step.TELL): State.FAILED,
    (State.OWED, Step.MISS): State.OWED,
    (State.OWED, Step.FORGET): State.FORGOTTEN,
    (State.UNCERTAIN, Step.TELL): State.UNCERTAIN,
    (State.UNCERTAIN, Step.MISS): State.UNCERTAIN,
    (State.UNCERTAIN, Step.FORGET): State.FORGOTTEN,
}


class IllegalTransition(Exception):
    """A fault of the gateway: a step that the state does not know."""


def after(state: State, step: Step) -> State:
    """Return the next state. Raises IllegalTransition."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise IllegalTransition(f"{step.name} in state {state.name}") from None
