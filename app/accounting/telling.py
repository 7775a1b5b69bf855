"""Compute a drawing's cost for its caller: in advance, by image, and in all. Pure.

The book settles each attempt when it has ended. A caller gets the head of its answer earlier, so the cost there follows
from the price, the number of images, and the size of the first one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.catalog import prices
from app.catalog.estimates import named_quality, subject_of
from app.catalog.prices import Price, Subject
from app.gateway.attempt import Attempt, Outcome
from app.images import Size

_PERHAPS = (Outcome.UNCERTAIN, Outcome.CANCELLED, Outcome.CRASHED)
_NOTHING = (Outcome.NOT_SENT, Outcome.FAILED, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The images of one attempt, for their price. `subject` is one image as requested, the facts that an image has
    `shown` go over it; `images` of the `asked` ones are whole."""

    first: int  # index
    images: int
    asked: int
    subject: Subject
    price: Price | None
    usage: Mapping[str, Any] | None
    is_done: bool
    shown: Sequence[Mapping[str, Any]] = ()

    def like_the_last(self, n: int) -> Subject:
        """Return `n` images like the last whole one."""
        return _as_shown(replace(self.subject, n=n), self.shown[-1] if self.shown else {})

    def cost(self) -> prices.Cost:
        """Return the cost of the whole images, which may be of several sizes and qualities. Tokens and a reported cost
        are told of all in one sum."""
        price = self.price
        if price is None:
            return prices.Cost(0, "none")
        kinds = Counter(_as_shown(self.subject, facts) for facts in self.shown)
        if len(kinds) < 2 or not price.is_told_beforehand:
            return prices.cost(price, self.like_the_last(self.images), self.usage)
        costs = [prices.cost(price, replace(kind, n=count)) for kind, count in kinds.items()]
        return prices.Cost(sum(cost.nano for cost in costs), costs[-1].source)

    def covers(self) -> range:
        """Return the indices of its images: all that it may draw, until it has ended."""
        return range(self.first, self.first + (self.images if self.is_done else self.asked))


def drawn_by(attempts: Iterable[Attempt]) -> list[Drawn]:
    """Return the images that the attempts have drawn, or are drawing. Failed attempts are left out, except one that was
    perhaps paid for and has no price: it makes the whole cost unknown."""
    unknown, found = list[Drawn](), list[Drawn]()
    for attempt in attempts:
        outcome, price = attempt.outcome, attempt.deployment.profile.stated_price
        if outcome in _PERHAPS:
            if attempt.exchanges and price is None:
                unknown.append(Drawn(attempt.first, 0, 0, subject_of(attempt.fitted, 1), None, None, is_done=True))
        elif outcome not in _NOTHING:
            found.append(as_drawn(attempt))
    return unknown + found


def as_drawn(attempt: Attempt) -> Drawn:
    """Return the images of an attempt that has drawn some, or is drawing."""
    return Drawn(
        attempt.first,
        attempt.images,
        attempt.fitted.request.n,
        subject_of(attempt.fitted, 1),
        attempt.deployment.profile.stated_price,
        attempt.usage,
        attempt.is_done,
        attempt.shown,
    )


def expected(drawn: Sequence[Drawn], n: int, have: Collection[int], seen: Callable[[], Size | None]) -> int | None:
    """Return the cost of all `n` images of a drawing, or None if it is unknown before their end. `have` are the indices
    of finished images; `seen` returns the size of the picture that is arriving. Images that no attempt draws yet count
    like the last attempt's."""
    if not drawn:
        return None
    amounts = [_cost(each, len(each.covers()), seen) for each in drawn]
    covered = set(have).union(*(each.covers() for each in drawn))
    if missing := sum(index not in covered for index in range(n)):
        amounts.append(_cost(replace(drawn[-1], is_done=False), missing, seen))
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def cost_of(
    drawn: Sequence[Drawn], index: int, facts: Mapping[str, Any], usage: Mapping[str, Any] | None
) -> int | None:
    """Return the cost of one image, or None if it is not known (yet). Where only the end of an answer shows the cost of
    its images, as their tokens in one sum or their quality, the last image has the cost of all."""
    each = _of(drawn, index)
    if each is None or (price := each.price) is None:
        return None
    subject, has_size = _as_shown(each.subject, facts), _size_in(facts) is not None
    is_over = each.is_done or each.asked == 1 == each.images
    if prices.is_known(price, subject, usage) and (has_size or not price.depends_on_size):
        cost = prices.cost(price, subject, usage)
    elif is_over and index == each.first + each.images - 1:
        cost = each.cost()
    else:
        return None
    return None if cost.source == "none" else cost.nano


def is_open(drawn: Sequence[Drawn], index: int) -> bool:
    """True if the cost of an image may follow from the end of its answer, which has not come yet."""
    each = _of(drawn, index)
    return each is not None and each.price is not None and not each.is_done


def _of(drawn: Sequence[Drawn], index: int) -> Drawn | None:
    found = [each for each in drawn if index in each.covers()] or [each for each in drawn if each.first <= index]
    return found[-1] if found else None


def settled(drawn: Sequence[Drawn]) -> int | None:
    """Return the cost of the attempts that have ended. None: one of all attempts has no price."""
    total = 0
    for each in drawn:
        if each.price is None:
            return None
        if each.is_done:
            total += each.cost().nano
    return total


def _cost(drawn: Drawn, n: int, seen: Callable[[], Size | None]) -> int | None:
    price = drawn.price
    if price is None or not price.is_told_beforehand:
        return None
    if drawn.is_done:
        cost = drawn.cost()
        return None if cost.source == "none" else cost.nano
    subject = drawn.like_the_last(n)
    if price.depends_on_size:
        subject = replace(subject, size=seen() or subject.size)
    least, most = prices.least(price, subject), prices.most(price, subject)
    return most if least == most else None


def _as_shown(subject: Subject, facts: Mapping[str, Any]) -> Subject:
    if not facts:
        return subject
    quality, size = named_quality(facts), _size_in(facts)
    return replace(subject, quality=quality or subject.quality, size=size or subject.size)


def _size_in(facts: Mapping[str, Any]) -> Size | None:
    return Size.parse(str(facts.get("size") or ""))
