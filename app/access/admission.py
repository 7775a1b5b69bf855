"""Admission: decide whether a request may be drawn now. It computes the request's needs, and asks the ledger for
limits, places and money at once. Knows no HTTP, and not how much of a limit is left.

An admitted request gets a ticket. Its account (`accounting`) follows its attempts, and frees the places when the run
has ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.access.keyring import Key
from app.access.refusals import TOLD, refusal_error
from app.catalog.estimates import dearest, pixels_of
from app.catalog.fitting import Fitted
from app.images import ImageRequest
from app.ledger.values import drawings
from app.ledger.values.drawings import Foresight, Refusal, Ticket, new_id
from app.ledger.values.limits import Limit, LimitState

LONGEST_USER = 256  # characters that are kept of a `user`
# The parameters that the ledger keeps: numbers and words of a list. The others may quote a prompt or name a person.
KEPT = frozenset(
    (
        *("seed", "guidance", "steps", "quality", "background", "moderation", "input_fidelity", "complexity"),
        *("frame_count", "frame_duration_ms", "output_format", "output_compression"),
    )
)


class Desk(Protocol):
    """The ledger, as far as admission needs it."""

    async def admit(self, admission: drawings.Admission) -> Ticket | Refusal: ...

    async def limit_states(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]: ...

    async def foresee(self, admission: drawings.Admission) -> Foresight | Refusal: ...


@dataclass(frozen=True, slots=True)
class Admission:
    """`clock` gives seconds since the epoch, `randomness(n)` n random bytes. `end_users`: True keeps the `user` of a
    request, "hash" its digest."""

    ledger: Desk
    clock: Callable[[], float]
    randomness: Callable[[int], bytes]
    currency: str = "USD"
    end_users: bool | Literal["hash"] = False

    async def admit(
        self, request_id: str, key: Key, request: ImageRequest, candidates: Sequence[Fitted], model: str | None = None
    ) -> Ticket:
        """Reserve the request's needs in every limit and budget: all of them, or none if one refuses. Raises
        RateLimited, InvalidRequest (no price), Unavailable.

        `candidates` are the ways to serve the request: the cost of the dearest is reserved. `model` is the model's own
        name, where the caller used an alias.
        """
        found = await self.ledger.admit(self._wanted(request_id, key, request, candidates, model))
        if not isinstance(found, Ticket):
            raise refusal_error(found, self.currency)
        return found

    async def foresee(
        self, request_id: str, key: Key, request: ImageRequest, candidates: Sequence[Fitted], model: str
    ) -> Foresight:
        """Return the result that `admit` would have now, and reserve nothing. Raises the same errors."""
        found = await self.ledger.foresee(self._wanted(request_id, key, request, candidates, model))
        if not isinstance(found, Foresight):
            raise refusal_error(found, self.currency)
        return found

    async def limit_states(self, key: Key) -> tuple[LimitState, ...]:
        """Return what is left of the key's limits, for an answer to a request that used none of them."""
        limits = [limit for limit in key.all_limits() if limit.measure in TOLD]
        return await self.ledger.limit_states(limits) if limits else ()

    def _wanted(
        self, request_id: str, key: Key, request: ImageRequest, candidates: Sequence[Fitted], model: str | None
    ) -> drawings.Admission:
        first = candidates[0] if candidates else None
        return drawings.Admission(
            new_id(self.clock(), self.randomness(10)),
            request_id,
            request_id,
            key.id,
            key.project.id if key.project else None,
            str(request.operation),
            request.model,
            model or request.model,
            request.n,
            pixels=pixels_of(request, first),
            most=dearest(candidates, request.n),
            limits=key.all_limits(),
            end_user=self.end_user(request),
            tags=request.tags,
            asked=asked_of(request),
        )

    def end_user(self, request: ImageRequest) -> str | None:
        """Return the `user` of a request as the ledger may keep it."""
        user = request.parameters.get("user")
        if not isinstance(user, str) or not user or not self.end_users:
            return None
        return hashlib.sha256(user.encode()).hexdigest() if self.end_users == "hash" else user[:LONGEST_USER]


def asked_of(request: ImageRequest) -> str | None:
    """Return a request's parameters as JSON, without its model and its number of images. None: it has none. Texts and
    pictures are left out."""
    asked: dict[str, Any] = {"size": str(request.size)} if request.size else {}
    if request.images:
        asked |= {"images": len(request.images)} | ({"mask": True} if request.mask else {})
    for name, value in request.parameters.items():
        if name in KEPT:
            asked[name] = value
    return json.dumps(asked) if asked else None
