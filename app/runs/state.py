"""The states of a run, and the only way from one to the next. Pure.

                     send                        finish                    deliver
        WAITING ◀────────────▶ SENT ──────────────────────▶ FINISHED ──────────────▶ DELIVERED ◀─┐ deliver
           │      not_sent      │                                                      │    ▲    ─┘
           │                    │                                                break │    │ deliver
           │ fail               │ fail                                                 ▼    │
           ├────────────────────┼──────▶ FAILED ◀──────────┐                           RETURNED
           │                    │           │ miss         │ tell
           │                    │           ▼              │
           │                    │          OWED ───────────┘
           │ fail_paid          │ fail_paid
           └────────────────────┴──────▶ UNCERTAIN

    every state behind WAITING and SENT ── forget ──▶ FORGOTTEN

WAITING and SENT: the run is under way. All others have ended. The state alone decides about a retry: the table in
`docs/money.md` says how, and a test compares the two.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    WAITING = "nothing was sent to a provider"
    SENT = "a request was sent, or may have been: a drawing may cost money"
    FINISHED = "all images are there, and no caller has the whole answer"
    DELIVERED = "the socket of a caller took the last byte"
    RETURNED = "delivered, but the connection broke soon afterwards"
    FAILED = "failed without a cost, and the caller knows"
    OWED = "failed without a cost, and the caller could not be told"
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


class Event(Enum):
    SEND = "the first request is about to leave"
    NOT_SENT = "every request so far turned out not to have left"
    FINISH = "the last image is there"
    FAIL = "the work ended with an error, and nothing was paid"
    FAIL_PAID = "the work ended with an error, and a drawing may have been paid for"
    DELIVER = "a caller has the whole answer"
    BREAK = "the connection broke soon after the whole answer was sent"
    TELL = "a caller got the error"
    MISS = "a caller could not be told the error"
    FORGET = "its time is up, or its room is needed"

    __hash__ = object.__hash__


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.WAITING, Event.SEND): State.SENT,
    (State.WAITING, Event.FINISH): State.FINISHED,  # all images were there from an earlier run
    (State.WAITING, Event.FAIL): State.FAILED,
    (State.WAITING, Event.FAIL_PAID): State.UNCERTAIN,
    (State.SENT, Event.NOT_SENT): State.WAITING,
    (State.SENT, Event.FINISH): State.FINISHED,
    (State.SENT, Event.FAIL): State.FAILED,
    (State.SENT, Event.FAIL_PAID): State.UNCERTAIN,
    (State.FINISHED, Event.DELIVER): State.DELIVERED,
    (State.FINISHED, Event.FORGET): State.FORGOTTEN,
    (State.DELIVERED, Event.DELIVER): State.DELIVERED,
    (State.DELIVERED, Event.BREAK): State.RETURNED,
    (State.DELIVERED, Event.FORGET): State.FORGOTTEN,
    (State.RETURNED, Event.DELIVER): State.DELIVERED,
    (State.RETURNED, Event.FORGET): State.FORGOTTEN,
    (State.FAILED, Event.TELL): State.FAILED,
    (State.FAILED, Event.MISS): State.OWED,
    (State.FAILED, Event.FORGET): State.FORGOTTEN,
    (State.OWED, Event.TELL): State.FAILED,
    (State.OWED, Event.MISS): State.OWED,
    (State.OWED, Event.FORGET): State.FORGOTTEN,
    (State.UNCERTAIN, Event.TELL): State.UNCERTAIN,
    (State.UNCERTAIN, Event.MISS): State.UNCERTAIN,
    (State.UNCERTAIN, Event.FORGET): State.FORGOTTEN,
}


class IllegalTransition(Exception):
    """A fault of the gateway: an event that the state does not know."""


def after(state: State, event: Event) -> State:
    """Return the next state. Raises IllegalTransition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.name} in state {state.name}") from None
