"""Admission: whether a request may be drawn now. Knows no HTTP, and not how much of a limit is left: `limits` does.

A request that is admitted gets a ticket, which holds one of its key's places. A run that begins takes the ticket over,
and releases it when it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.access.keyring import Key
from app.access.limits import Limits
from app.catalog.fitting import Fitted


@dataclass(slots=True, eq=False)
class Ticket:
    """The place of one admitted request."""

    key: Key
    limits: Limits
    is_held: bool = True

    def release(self) -> None:
        """Give the key's place back; another call does nothing. The request still counts against the key's rate."""
        if self.is_held:
            self.is_held = False
            self.limits.give_back(self.key)


@dataclass(frozen=True, slots=True)
class Admission:
    """Holds requests to the limits of their keys, as the keys state them at that moment. `clock` gives seconds."""

    limits: Limits
    clock: Callable[[], float]

    async def admit(self, key: Key, candidates: Sequence[Fitted], n: int) -> Ticket:  # noqa: ARG002 (see below)
        """Take what the request needs of every limit: all of it, or nothing if one limit refuses. Raises RateLimited.

        `candidates` are the ways to serve the request, and `n` is how many images it asks for. The limits of today
        count requests alone and look at neither.
        """
        self.limits.take(key, self.clock())
        return Ticket(key, self.limits)
