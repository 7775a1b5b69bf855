"""The account of each drawing, by the table in `docs/money.md`:

an attempt delivered ──────────────────────────▶ its cost
refused, failed or never left ─────────────────▶ nothing
uncertain; cancelled or crashed after sending ─▶ the most that it may cost, in doubt
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from app.access.keyring import Key
from app.access.max_cost import too_dear
from app.access.refusals import refusal_error, repeat_refused
from app.accounting.telling import Drawn, as_drawn, cost_of, drawn_by, expected, is_open, settled
from app.catalog import prices
from app.catalog.estimates import most, named_quality, quality_of
from app.catalog.fitting import Fitted
from app.errors import ApiError
from app.gateway.account import Account
from app.gateway.attempt import Attempt, Outcome
from app.images import ImageRequest, Size
from app.ledger.values import drawings
from app.ledger.values.drawings import (
    AttemptResult,
    AttemptSent,
    BudgetRefusal,
    Joined,
    Settlement,
    Unavailable,
    new_id,
    storable,
)
from app.microseconds import to_microseconds

_NOTHING = (Outcome.NOT_SENT, Outcome.FAILED, Outcome.REFUSED)
_TOO_DEAR = (
    "The image was perhaps paid for at an attempt that failed, and another attempt could make the request cost more "
    "than its 'max_cost'. So it is not drawn again."
)
_NO_COST = prices.Cost(0, "none")


class Book(Protocol):
    """The ledger, as far as accounts need it."""

    async def reserve(self, drawing_id: str, most: int) -> BudgetRefusal | Unavailable | None: ...

    async def sent(self, attempt: AttemptSent) -> Unavailable | None: ...

    async def settle(self, settlement: Settlement) -> None: ...

    async def record_joined(self, joined: Joined) -> None: ...


@dataclass(slots=True, eq=False)
class Accounts:
    """All accounts of a process. An observer of attempts: each is entered in the account of its call. `clock` gives
    seconds since the epoch, `randomness(n)` n random bytes."""

    book: Book
    clock: Callable[[], float]
    randomness: Callable[[int], bytes]
    currency: str = "USD"
    price_id: Callable[[str, str, prices.Price], int | None] = lambda *_: None  # of a provider's model
    _settling: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def open(
        self, drawing_id: str, held: int, request: ImageRequest, attempts: int = 0, lost: int = 0
    ) -> DrawingAccount:
        return DrawingAccount(
            self, drawing_id, held, self.clock(), request.n, request.max_cost, attempts=attempts, lost_before=lost
        )

    async def join(
        self,
        request_id: str,
        account: Account | None,
        request: ImageRequest,
        key: Key,
        model: str | None = None,
        end_user: str | None = None,
    ) -> None:
        joined = Joined(
            new_id(self.clock(), self.randomness(10)),
            self.now(),
            request_id,
            request_id,
            key.id,
            key.project.id if key.project else None,
            str(request.operation),
            request.model,
            model or request.model,
            request.n,
            request.n,
            account.cost if account else 0,
            end_user,
            json.dumps(dict(request.tags)) if request.tags else None,
        )
        await self.book.record_joined(joined)

    def attempt_began(self, attempt: Attempt) -> None:
        account = attempt.call.account
        if isinstance(account, DrawingAccount):
            account.enter(attempt)

    def first_image(self, attempt: Attempt) -> None:
        pass

    def attempt_ended(self, attempt: Attempt) -> None:
        pass

    def now(self) -> int:
        return to_microseconds(self.clock())

    def settle_later(self, settlement: Settlement) -> Awaitable[None]:
        task = asyncio.create_task(self.book.settle(settlement))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


@dataclass(slots=True, eq=False)
class DrawingAccount:
    """The account of one drawing of `n` images. `held` is the money reserved for it."""

    accounts: Accounts
    drawing_id: str
    held: int
    began: float
    n: int = 1  # images that were asked for
    max_cost: int | None = None  # the most that the caller would pay
    cost: int = 0
    in_doubt: int = 0
    attempts: int = 0  # in the book: the number of the last one
    lost_before: int = 0  # `lost`, in an earlier process
    _drawn: Sequence[Drawn] = ()  # once it is settled
    _told: int | None = None
    _leaving: list[tuple[int, Fitted]] = field(default_factory=list)  # in the book, and not begun
    _attempts: list[tuple[int, Attempt]] = field(default_factory=list)
    _is_settled: bool = False

    async def sent(self, fitted: Fitted) -> None:
        """Write the next attempt into the book. Reserve more before, if all attempts may cost more than is held. Raises
        ApiError."""
        self.attempts += 1
        number, worth = self.attempts, _most(fitted)
        self._leaving.append((number, fitted))
        try:
            at_stake = self._at_stake() if worth else 0
            if self._attempts and self.max_cost is not None and at_stake > self.max_cost:
                raise too_dear(_TOO_DEAR)
            if at_stake > self.held:
                if (refusal := await self.accounts.book.reserve(self.drawing_id, at_stake)) is not None:
                    if self._attempts and isinstance(refusal, BudgetRefusal):
                        raise repeat_refused(refusal, self.accounts.currency)
                    raise refusal_error(refusal, self.accounts.currency)
                self.held = max(self.held, at_stake)  # parts reserve side by side
            deployment = fitted.deployment
            attempt = AttemptSent(
                self.drawing_id,
                number,
                self.accounts.now(),
                deployment.provider.name,
                deployment.name,
                deployment.model,
                fitted.request.n,
                worth,
                dropped=",".join(fitted.dropped) or None,
                mapped=",".join(fitted.mapped) or None,
            )
            if (away := await self.accounts.book.sent(attempt)) is not None:
                raise refusal_error(away, self.accounts.currency)
        except BaseException:
            self._leaving.remove((number, fitted))
            raise

    def enter(self, attempt: Attempt) -> None:
        """Add an attempt that has begun: `sent` wrote it into the book, or an earlier process sent it."""
        for entry in self._leaving:
            if entry[1] is attempt.fitted:
                self._leaving.remove(entry)
                self._attempts.append((entry[0], attempt))
                return
        self.attempts += 1
        self._attempts.append((self.attempts, attempt))

    async def settle(self, error: ApiError | None) -> None:
        if not self._is_settled:
            await self.accounts.book.settle(self._close(error))

    def hand_on(self) -> None:
        self._is_settled = True

    def give_back(self) -> Awaitable[None]:
        if self._is_settled:
            nothing = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        self._is_settled = True
        return self.accounts.settle_later(Settlement(self.drawing_id, self.accounts.now(), drawings.Outcome.CANCELLED))

    @property
    def lost(self) -> int:
        """The possible cost of attempts that were given up for another one."""
        latest = {attempt.first: number for number, attempt in self._attempts}
        given_up = [entry for entry in self._attempts if latest[entry[1].first] != entry[0]]
        return self.lost_before + sum(_result(*entry)[0].in_doubt for entry in given_up)

    @property
    def told(self) -> int | None:
        """The cost of the attempts that have ended. None: some of it has no price."""
        return self._told if self._drawn else settled(self._seen())

    def expected(self, seen: Callable[[], Size | None]) -> int | None:
        if self._is_settled:
            return self.told
        have = self._attempts[-1][1].call.drawn.recordings if self._attempts else ()
        return expected(self._seen(), self.n, have, seen)

    @property
    def is_priced(self) -> bool:
        return any(drawn.price is not None for drawn in self._seen())

    def is_open(self, index: int) -> bool:
        return is_open(self._seen(), index)

    def cost_of(self, index: int, facts: Mapping[str, Any], usage: Mapping[str, Any] | None) -> int | None:
        return cost_of(self._seen(), index, facts, usage)

    def _seen(self) -> Sequence[Drawn]:
        return self._drawn or drawn_by([attempt for _, attempt in self._attempts])

    def _at_stake(self) -> int:
        """Return the possible cost of all attempts, including those that are leaving."""
        begun = sum(_at_stake(attempt) for _, attempt in self._attempts)
        return begun + sum(_most(fitted) for _, fitted in self._leaving)

    def _close(self, error: ApiError | None) -> Settlement:
        self._is_settled = True
        attempts = [attempt for _, attempt in self._attempts]
        self._drawn = drawn_by(attempts)
        results, sources, in_doubt, images = list[AttemptResult](), set[prices.CostSource](), 0, 0
        for number, attempt in self._attempts:
            result, source = _result(number, attempt)
            results.append(result)
            sources.add(source)
            self.cost += result.cost
            in_doubt += result.in_doubt
            images += result.images
        self._told = None if any(drawn.price is None for drawn in self._drawn) else self.cost
        if error is not None and error.perhaps_paid and not in_doubt:
            # The money held for images of jobs that could not be found again, or of answers without an image.
            in_doubt = max(-(-self.held * max(self.n - images, 0) // self.n), self.lost_before)
        else:
            in_doubt += self.lost_before
        self.in_doubt = in_doubt
        last = _last_word(attempts)
        began = attempts[0].began if attempts else 0.0
        first_images = [attempt.first_image_at for attempt in attempts if attempt.first_image_at is not None]
        size = _size(last) if last else None
        settlement = Settlement(
            self.drawing_id,
            self.accounts.now(),
            _outcome(error, attempts, in_doubt, self.n),
            self.cost,
            in_doubt,
            "reported" if "reported" in sources else "price" if "price" in sources else "none",
            price_id=self._price_id(last),
            images=images,
            provider=last.deployment.provider.name if last else None,
            deployment=last.deployment.name if last else None,
            upstream_model=last.deployment.model if last else None,
            width=size.width if size else None,
            height=size.height if size else None,
            format=storable(last.facts.get("output_format")) if last else None,
            quality=storable(_quality(last)) if last else None,
            http_status=error.status if error else 200,
            error_code=storable(error.code or error.type) if error else None,
            queue_ms=round(last.call.queued * 1000) if last else None,
            first_ms=round((min(first_images) - began) * 1000) if first_images else None,
            total_ms=round((self.accounts.clock() - self.began) * 1000),
            attempts=tuple(results),
        )
        self._attempts.clear()  # they know the request and its pictures
        self._leaving.clear()
        return settlement

    def _price_id(self, attempt: Attempt | None) -> int | None:
        price = attempt.deployment.profile.stated_price if attempt else None
        if attempt is None or price is None:
            return None
        return self.accounts.price_id(attempt.deployment.provider.name, attempt.deployment.model, price)


def _result(number: int, attempt: Attempt) -> tuple[AttemptResult, prices.CostSource]:
    """Return an attempt's result, and the source of its cost. One that has given all images counts as delivered while
    its connection still ends."""
    outcome = Outcome.DELIVERED if attempt.is_done and attempt.outcome is Outcome.UNDER_WAY else attempt.outcome
    cost, in_doubt = _NO_COST, 0
    deployment = attempt.deployment
    price = deployment.profile.stated_price
    if outcome is Outcome.DELIVERED and price is not None:
        cost = as_drawn(attempt).cost()
    elif outcome not in _NOTHING and attempt.exchanges:
        in_doubt = _most(attempt.fitted)
    result = AttemptResult(
        number,
        deployment.provider.name,
        deployment.name,
        deployment.model,
        outcome.name.lower(),
        attempt.images,
        None if attempt.ended is None else round((attempt.ended - attempt.began) * 1000),
        getattr(attempt.error, "status", None),
        storable(attempt.provider_request_id),
        cost=cost.nano,
        in_doubt=in_doubt,
    )
    return result, cost.source


def _at_stake(attempt: Attempt) -> int:
    """Return the cost of a delivered attempt, or else its possible cost: a provider may draw fewer images than
    requested."""
    if attempt.outcome is Outcome.DELIVERED:
        return _result(0, attempt)[0].cost
    return 0 if attempt.outcome in _NOTHING else _most(attempt.fitted)


def _last_word(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the attempt that the row names: the last one that drew, or else the last."""
    if len(attempts) < 2:
        return attempts[0] if attempts else None
    return max(attempts, key=lambda attempt: (attempt.images > 0, attempt.began))


def _most(fitted: Fitted) -> int:
    """Return the possible cost of an attempt; 0 if it is unknown."""
    return most(fitted, fitted.request.n) or 0


def _size(attempt: Attempt) -> Size | None:
    return _parsed(str(attempt.facts.get("size") or ""))


@lru_cache(maxsize=256)
def _parsed(size: str) -> Size | None:
    return Size.parse(size)


def _quality(attempt: Attempt) -> str | None:
    return named_quality(attempt.facts) or quality_of(attempt.fitted)


def _outcome(error: ApiError | None, attempts: list[Attempt], in_doubt: int, n: int) -> drawings.Outcome:
    if error is None:
        return drawings.Outcome.DELIVERED
    drawn = sum(attempt.images for attempt in attempts if attempt.outcome is Outcome.DELIVERED)
    if in_doubt or (error.perhaps_paid and drawn < n):
        return drawings.Outcome.PERHAPS_PAID
    if drawn < n and any(attempt.outcome is Outcome.REFUSED for attempt in attempts):
        return drawings.Outcome.REFUSED
    if drawn:
        return drawings.Outcome.UNDELIVERED
    return drawings.Outcome.FAILED if attempts else drawings.Outcome.CANCELLED
