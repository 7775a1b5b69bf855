"""A ledger as a team has it after some weeks: projects, keys, budgets, prices, and drawings of every kind. The drawings
are the same each time, so that screenshots can be compared."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from app.access.key_text import new_key
from app.catalog.prices import Price, Tier
from app.images import Operation
from app.ledger.book.registry import Registry
from app.ledger.book.rollups import Rollups
from app.ledger.database.price_rows import record_prices
from app.ledger.database.upkeep import write_uses
from app.ledger.ledger import Ledger
from app.ledger.values.changes import Actor
from app.ledger.values.directory import ApiKey, Budget, Project
from app.ledger.values.drawings import Admission, AttemptResult, AttemptSent, Claim, Joined, Outcome, Settlement, new_id
from app.ledger.values.limits import Limits
from app.ledger.values.windows import period_at

SECOND, MILLI, DOLLAR = 1_000_000, 1000, 1_000_000_000
DAY = 86_400 * SECOND
DAYS = 45
REPLICA = "gateway"
Say = Callable[[str], str]

PROJECTS = (("design", 1.0), ("marketing", 0.7), ("web shop", 0.55), ("research", 0.3))
KEYS = (
    *(("figma plug-in", "design"), ("ana", "design"), ("campaigns", "marketing"), ("newsletter", "marketing")),
    *(("catalogue", "web shop"), ("notebook", "research")),
)
# model, provider, dollars for an image, seconds, share
MODELS = (
    ("black-forest-labs/FLUX.1-schnell", "netmind", 0.003, 2.1, 0.4),
    ("black-forest-labs/FLUX.1-Kontext-dev", "nebula", 0.025, 6.4, 0.25),
    ("flux-2-pro", "bfl", 0.045, 9.5, 0.15),
    ("gpt-image-2", "openai", 0.042, 21.0, 0.12),
    ("Bytedance/seedream-3-0-t2i-250415", "nebula", 0.03, 5.2, 0.08),
)
# outcome, the last attempt's result and status, error code, share
ENDS = (
    (Outcome.DELIVERED, "delivered", 200, None, 0.9),
    (Outcome.REFUSED, "refused", 400, "moderation_blocked", 0.03),
    (Outcome.FAILED, "failed", 502, "upstream_error", 0.02),
    (Outcome.PERHAPS_PAID, "uncertain", None, "upstream_timeout", 0.015),
    (Outcome.CANCELLED, None, 499, None, 0.015),
    (Outcome.JOINED, None, None, None, 0.02),
)
SIZES = ((1024, 1024), (1024, 768), (768, 1024), (1536, 1024))


async def fill(ledger: Ledger, now: float, drawings: int = 900, say: Say = str) -> None:
    """Write it, up to `now` in seconds. `say` may put another text for each name, code, user, tag and note."""
    team = _Team(ledger, int(now * SECOND), say)
    await team.settle_in()
    ages = (team.choice.random() ** 1.3 for _ in range(drawings))
    for time in sorted(team.now - int(age * DAYS * DAY) for age in ages):
        # The epoch began on a Thursday: on Saturdays and Sundays less is drawn.
        if (time // DAY) % 7 not in (2, 3) or team.choice.random() < 0.3:
            await team.draw(time)
    for days in (1.3, 2.6, 9.4):
        await team.draw(team.now - int(days * DAY), ENDS[3])
    await team.tidy_up()


class _Team:
    def __init__(self, ledger: Ledger, now: int, say: Say) -> None:
        self.ledger, self.now, self.say = ledger, now, say
        self.choice = random.Random(7)
        self.clock = now - (DAYS + 1) * DAY
        self.registry = Registry(ledger.database, lambda: self.clock)
        self.operator = Actor("command", say("mara"), "10.1.4.20")
        self.projects = {name: f"proj_{place:016x}" for place, (name, _) in enumerate(PROJECTS, 1)}
        self.keys = dict[str, str]()
        self.budgets: Sequence[Budget] = ()

    async def settle_in(self) -> None:
        for name, id in self.projects.items():
            limits = Limits(images_per_minute=600, max_concurrency=8) if name == "web shop" else Limits()
            await self.registry.add_project(Project(id, self.say(name), self.clock, limits=limits), self.operator)
        for place, (name, project) in enumerate(KEYS):
            limits = Limits(requests_per_minute=60, images_per_minute=120) if place % 2 else Limits()
            models = ("black-forest-labs/*",) if name == "notebook" else ()
            self.keys[name] = await self._issue(name, project, limits=limits, models=models)
            self.clock += 3600 * SECOND
        old = await self._issue("old intern", "design")
        left = {"disabled_at": self.now - 9 * DAY, "disabled_why": self.say("left the company")}
        await self.registry.update_key(old, self.operator, **left)
        prices = {which: (price, "config") for which, price in self._prices().items()}
        await record_prices(self.ledger.database, prices, self.clock)
        self.clock = self.now - (DAYS - 1) * DAY
        self.budgets = self._budgets()
        for budget in self.budgets:
            await self.registry.add_budget(budget, self.operator)

    async def _issue(self, name: str, project: str, **more: Any) -> str:
        text = new_key(self.choice.choice, is_admin=False)
        made: dict[str, Any] = {"created_at": self.clock, "created_by": "command:mara"}
        known = ApiKey(text.id, self.say(name), text.digest(b"pepper"), self.projects[project], **made, **more)
        await self.registry.add_key(known, self.operator)
        return text.id

    def _prices(self) -> dict[tuple[str, str], Price]:
        prices = {
            (provider, model): Price((Tier(per_image=round(dollars * DOLLAR)),))
            for model, provider, dollars, _, _ in MODELS
        }
        tokens = (("input", 5 * DOLLAR), ("output", 40 * DOLLAR))
        prices["openai", "gpt-image-2"] = Price(
            (
                Tier(quality="high", operation=Operation.GENERATIONS, per_image=167_000_000),
                Tier(per_million_tokens=tokens, at_most=200_000_000),
            )
        )
        return {(self.say(provider), self.say(model)): price for (provider, model), price in prices.items()}

    def _budgets(self) -> list[Budget]:
        since, projects, key = self.clock, self.projects, self.keys["campaigns"]
        models = (self.say("gpt-image-2"),)
        return [
            Budget("bud_all", "all", None, 60 * DOLLAR, "month", since=since, thresholds=(80, 100)),
            Budget("bud_design", "project", projects["design"], 12 * DOLLAR, "week", "Europe/Prague", since=since),
            Budget("bud_campaigns", "key", key, 2 * DOLLAR, "day", models=models, since=since, hard=False),
            Budget("bud_shop", "project", projects["web shop"], 90 * DOLLAR, "total", since=since),
        ]

    def _choose(self, rows: Sequence[Any]) -> Any:
        return self.choice.choices(rows, weights=[row[-1] for row in rows])[0]

    async def draw(self, time: int, end: Any = None) -> None:
        choice, database = self.choice, self.ledger.database
        model, provider, dollars, typical, _ = self._choose(MODELS)
        model, provider = self.say(model), self.say(provider)
        outcome, result, status, code, _ = end or self._choose(ENDS)
        if outcome is Outcome.PERHAPS_PAID and time < self.now - 12 * DAY:
            outcome, result, status, code, _ = ENDS[0]  # the doubts of then are resolved
        project = self._choose(PROJECTS)[0]
        key = self.keys[choice.choice([name for name, of in KEYS if of == project])]
        n, (width, height) = choice.choice((1, 1, 1, 2, 4)), choice.choice(SIZES)
        operation = choice.choice(("generations",) * 4 + ("edits",))
        id, cost = new_id(time / SECOND, choice.randbytes(10)), round(n * dollars * DOLLAR)
        asked = (f"req_{id}", f"req_{id}", key, self.projects[project], operation, model, model, n)
        if outcome is Outcome.JOINED:
            await database.join(Joined(id, time, *asked, images=n, saved=cost), REPLICA)
            return
        tags = {self.say("team"): self.say(choice.choice(("blue", "green")))} if choice.random() < 0.3 else {}
        user = self.say(choice.choice(("ana@example.com", "jo@example.com"))) if choice.random() < 0.5 else None
        wanted = json.dumps({"size": self.say(f"{width}x{height}"), "quality": "high"})
        admission = Admission(id, *asked, pixels=width * height, most=cost, end_user=user, tags=tags, asked=wanted)
        claims = [
            Claim(budget, period_at(budget.window, budget.timezone, time, budget.since))
            for budget in self.budgets
            if budget.counts(key, self.projects[project], model) and time >= budget.since
        ]
        await database.admit(admission, claims, REPLICA, time)
        took = int(typical * n**0.5 * choice.lognormvariate(0, 0.35) * 1000)
        is_paid, in_doubt = outcome is Outcome.DELIVERED, cost if outcome is Outcome.PERHAPS_PAID else 0
        attempts = list[AttemptResult]()
        at = (f"{provider}/{model}", model)
        mapped = self.say(f"size={width}x{height}") if operation == "edits" else None
        if choice.random() < 0.06:
            await database.sent(AttemptSent(id, 1, time, "nebula", *at, n, cost, self.say("quality"), mapped))
            attempts.append(AttemptResult(1, "nebula", *at, result="failed", ms=took // 3, http_status=503))
        whole = sum(each.ms or 0 for each in attempts)
        if result:
            seq = len(attempts) + 1
            await database.sent(AttemptSent(id, seq, time + whole * MILLI, provider, *at, n, cost, None, mapped))
            there = self.say(choice.randbytes(6).hex())
            drawn = n if is_paid else 0
            paid = cost if is_paid else 0
            attempts.append(AttemptResult(seq, provider, *at, result, drawn, took, status, there, paid, in_doubt))
        whole += took + 12
        more: dict[str, Any] = {}
        if attempts:
            more |= {"provider": provider, "deployment": at[0], "upstream_model": model}
        if is_paid:
            more |= {"width": width, "height": height, "format": "png", "first_ms": took}
        settlement = Settlement(
            id,
            time + whole * MILLI,
            outcome,
            cost if is_paid else 0,
            in_doubt,
            "price" if is_paid else "none",
            images=n if is_paid else 0,
            http_status=status or 502,
            error_code=self.say(code) if code else None,
            queue_ms=choice.randrange(900) if choice.random() < 0.2 else 0,
            total_ms=whole,
            attempts=tuple(attempts),
            **more,
        )
        await database.settle(settlement)

    async def tidy_up(self) -> None:
        database = self.ledger.database
        self.clock = self.now - 2 * DAY
        await self.registry.update_budget("bud_all", Actor("command", self.say("mara")), amount=75 * DOLLAR)
        uses = {id: self.now - place * 50_000 * SECOND for place, id in enumerate(self.keys.values())}
        await write_uses(database, uses)
        # The rollups of hours that had passed before they were filled.
        await database.execute([("delete from revision where name in ('rollup', 'entry')", ())])
        await Rollups(database, lambda: self.now).refresh()
        await self.ledger.refresh()
