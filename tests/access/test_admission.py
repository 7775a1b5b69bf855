from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

from app.access.admission import Admission
from app.access.keyring import Key
from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import Fitted
from app.catalog.prices import Price, Tier
from app.catalog.profiles import Profile, SizeRule
from app.errors import InvalidRequest, RateLimited
from app.images import ImageRequest, Operation, Size, Upload
from app.ledger.ledger import Ledger, Policy, open_ledger
from app.ledger.values import drawings
from app.ledger.values.directory import Budget
from app.ledger.values.drawings import Foresight, Outcome, Refusal, Settlement, Ticket, Unavailable, Unpriced
from app.ledger.values.limits import Limit, LimitState, Measure, states_of
from app.ledger.values.limits import Limits as KeyLimits
from tests.dialects.asking import Memory

pytestmark = pytest.mark.anyio

KEY = Key("team", "team", limits=KeyLimits(requests_per_minute=2, max_concurrency=1))
A_FOX = ImageRequest(Operation.GENERATIONS, "flux", "a fox")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Desk:
    """An admission over a ledger, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.ledger: Ledger | None = None

    async def admit(self, key: Key = KEY) -> Ticket:
        assert self.ledger is not None
        return await Admission(self.ledger, lambda: self.now, os.urandom).admit("r-1", key, A_FOX, [])

    async def end(self, ticket: Ticket) -> None:
        assert self.ledger is not None
        await self.ledger.settle(Settlement(ticket.drawing_id, int(self.now * 1e6), Outcome.FAILED))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk()
    async with open_ledger(
        None, tmp_path, policy=Policy(), clock=lambda: desk.now, warn=lambda *_, **__: None
    ) as desk.ledger:
        yield desk


async def test_a_ticket_holds_its_keys_place_until_the_drawing_has_ended(desk: Desk) -> None:
    ticket = await desk.admit()
    with pytest.raises(RateLimited, match="Key 'team' may have 1 requests running at a time") as caught:
        await desk.admit()
    assert (caught.value.code, caught.value.retry_after) == ("rate_limit_exceeded", 1.0)
    await desk.end(ticket)
    await desk.end(ticket)
    await desk.admit()
    with pytest.raises(RateLimited):
        await desk.admit()


async def test_the_rate_counts_admitted_requests_alone_and_flows_back_with_time(desk: Desk) -> None:
    ticket = await desk.admit()
    for _ in range(5):
        with pytest.raises(RateLimited, match="running at a time"):
            await desk.admit()
    await desk.end(ticket)
    await desk.end(await desk.admit())
    with pytest.raises(RateLimited, match="Key 'team' may make 2 requests a minute") as caught:
        await desk.admit()
    refusal = caught.value
    assert (refusal.status, refusal.type, refusal.code, refusal.param) == (429, "requests", "rate_limit_exceeded", None)
    assert refusal.retry_after == 30.0
    desk.now += 30
    await desk.admit()


async def test_each_key_has_limits_of_its_own_and_without_one_there_is_none(desk: Desk) -> None:
    await desk.admit()
    for _ in range(100):
        await desk.admit(Key("free", "free"))
    await desk.admit(Key("other", "other", limits=KeyLimits(requests_per_minute=1, max_concurrency=1)))


async def test_a_changed_limit_holds_at_once_and_goes_on_from_what_was_used(desk: Desk) -> None:
    for _ in range(4):
        await desk.admit(Key("team", "team", limits=KeyLimits(requests_per_minute=4)))
    with pytest.raises(RateLimited):
        await desk.admit(Key("team", "team", limits=KeyLimits(requests_per_minute=8)))
    desk.now += 7.5
    await desk.admit(Key("team", "team", limits=KeyLimits(requests_per_minute=8)))


# --- what is asked of the ledger ---


class Asked:
    """A ledger that only listens, or refuses."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.refusal = refusal
        self.wanted: drawings.Admission | None = None

    async def admit(self, admission: drawings.Admission) -> Ticket | Refusal:
        self.wanted = admission
        return self.refusal or Ticket(admission.id, admission.most or 0)

    async def foresee(self, admission: drawings.Admission) -> Foresight | Refusal:
        self.wanted = admission
        return self.refusal or Foresight()

    async def limit_states(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]:
        return states_of(limits, [0] * len(limits), 0)


def fitted(price: float | None, size: Size | None = None, rule: SizeRule | None = None) -> Fitted:
    tiers = () if price is None else (Tier(per_image=round(price * 1e9)),)
    profile = Profile(price=Price(tiers) if tiers else None, size=rule or SizeRule())
    return Fitted(
        Deployment(Provider("a", "openai", "http://a"), "flux", profile),
        ImageRequest(Operation.GENERATIONS, "flux", n=1, size=size),
    )


async def ask(ledger: Asked, candidates: list[Fitted], n: int = 1, key: Key = KEY) -> drawings.Admission:
    request = ImageRequest(Operation.GENERATIONS, "alias", "a fox", n=n)
    await Admission(ledger, lambda: 1.0, os.urandom).admit("r-1", key, request, candidates, "flux")
    assert ledger.wanted is not None
    return ledger.wanted


async def test_the_dearest_candidate_is_reserved_for_all_images() -> None:
    asked = await ask(Asked(), [fitted(0.01), fitted(0.04)], n=3)
    assert (asked.most, asked.n, asked.asked_model, asked.model) == (120_000_000, 3, "alias", "flux")
    assert {limit.measure for limit in asked.limits} == {Measure.REQUESTS, Measure.CONCURRENCY}
    assert (await ask(Asked(), [fitted(0.01), fitted(None)])).most is None


async def test_megapixels_are_those_of_the_size_that_will_be_drawn() -> None:
    assert (await ask(Asked(), [fitted(1, Size(512, 256))])).pixels == 512 * 256
    assert (await ask(Asked(), [fitted(1)])).pixels == 1024 * 1024


async def test_a_refusal_of_the_ledger_becomes_an_error() -> None:
    budget = Budget("b", "all", None, 1, "day")
    with pytest.raises(InvalidRequest) as caught:
        await ask(Asked(Unpriced(budget)), [fitted(None)])
    assert caught.value.code == "model_unpriced"
    with pytest.raises(Exception, match="ledger cannot be reached") as away:
        await ask(Asked(Unavailable("it is away")), [fitted(1)])
    assert getattr(away.value, "retry_after", None) == 5.0


async def test_the_ledger_learns_what_a_request_asks_for_without_its_texts_and_pictures() -> None:
    picture = Upload(Memory(b"png"), "a.png", "image/png")
    texts = {"negative_prompt": "a secret", "user": "anna", "style": "like Anna", "safety_identifier": "anna"}
    asked = {"quality": "high", "seed": 7, "guidance": 3.5, "output_format": "webp"}
    request = ImageRequest(
        Operation.EDITS, "flux", "a fox", (picture, picture), picture, size=Size(512, 768), parameters=texts | asked
    )
    ledger = Asked()
    admission = Admission(ledger, lambda: 1.0, os.urandom)
    await admission.admit("r-1", KEY, request, [fitted(1)])
    assert ledger.wanted is not None and ledger.wanted.asked is not None
    assert json.loads(ledger.wanted.asked) == {"size": "512x768", "images": 2, "mask": True} | asked
    await admission.admit("r-2", KEY, A_FOX, [fitted(1)])
    assert ledger.wanted.asked is None


@pytest.mark.parametrize(
    ("setting", "user", "kept"),
    [
        (True, "anna", "anna"),
        (True, "x" * 300, "x" * 256),
        (True, "", None),
        (True, None, None),
        (False, "anna", None),
        ("hash", "anna", hashlib.sha256(b"anna").hexdigest()),
    ],
)
async def test_the_user_of_a_request_is_kept_as_the_setting_says(
    setting: bool | Literal["hash"], user: str | None, kept: str | None
) -> None:
    ledger = Asked()
    parameters = {} if user is None else {"user": user}
    request = ImageRequest(Operation.GENERATIONS, "flux", "a fox", parameters=parameters)
    admission = Admission(ledger, lambda: 1.0, os.urandom, end_users=setting)
    await admission.admit("r-1", KEY, request, [fitted(1)])
    assert ledger.wanted is not None
    assert ledger.wanted.end_user == kept
