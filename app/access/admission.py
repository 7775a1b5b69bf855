"""Admission: whether a request may be drawn now. Knows no HTTP, and not how much of a limit is left: `limits` does.

A request that is admitted gets a ticket, which holds one of its key's places:

    admit ──▶ HELD ──release──▶ RELEASED

A run that begins takes the ticket over and releases it when it has ended. To release it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto

from app.access.keyring import Key
from app.access.limits import Limits
from app.catalog.fitting import Fitted


class TicketState(Enum):
    HELD = auto()
    RELEASED = auto()


class Ticket:
    """The place of one admitted request."""

    def __init__(self, key: Key, limits: Limits) -> None:
        self.state = TicketState.HELD
        self._key = key
        self._limits = limits

    def release(self) -> None:
        """Give the key's place back. The request still counts against the key's rate."""
        if self.state is TicketState.HELD:
            self.state = TicketState.RELEASED
            self._limits.give_back(self._key)


class Admission:
    """Holds requests to the limits of their keys, as the keys state them at that moment. `clock` gives seconds."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock

    async def admit(self, key: Key, candidates: Sequence[Fitted], n: int) -> Ticket:  # noqa: ARG002 (see below)
        """Take what the request needs of every limit: all of it, or nothing if one limit refuses. Raises RateLimited.

        `candidates` are the ways to serve the request, and `n` is how many images it asks for. The limits of today
        count requests alone and look at neither.
        """
        self._limits.take(key, self._clock())
        return Ticket(key, self._limits)
