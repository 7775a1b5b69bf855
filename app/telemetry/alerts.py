"""Send the alerts that a budget has reached a threshold: once to the log, and to the operator's webhook until it
accepts them. The ledger finds the thresholds, in the transaction that settles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from app.catalog.money import to_text
from app.ledger.book.outbox import Message, Outbox
from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.values.directory import Budget, Directory
from app.ledger.values.windows import period_at
from app.microseconds import SECOND

KIND = "budget_alert"  # of the messages in the outbox
LOOK_SECONDS = 2.0


class Warn(Protocol):
    def __call__(self, what: str, **facts: object) -> None: ...


@dataclass(frozen=True, slots=True)
class BudgetAlerts:
    """`send` posts an id and a JSON text, and returns the reason if they are refused; None: there is no webhook."""

    outbox: Outbox
    directory: Callable[[], Directory]
    currency: str
    warn: Warn
    send: Callable[[str, str], Awaitable[str | None]] | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self) -> None:
        """Look for messages again and again, until the task is cancelled."""
        while True:
            await self.sleep(LOOK_SECONDS)
            try:
                await self.deliver()
            except DatabaseUnavailable:
                continue  # the ledger has said so
            except Exception as error:
                self.warn("budget alerts could not be told", reason=repr(error))

    async def deliver(self) -> int:
        """Deliver the due messages, and return their number. Raises DatabaseUnavailable."""
        messages = [message for message in await self.outbox.take() if message.kind == KIND]
        for message in messages:
            await self._deliver(message)
        return len(messages)

    async def _deliver(self, message: Message) -> None:
        event = self._event(message)
        told = {name: event["data"][name] for name in ("budget_id", "owner", "threshold", "used", "amount", "currency")}
        if message.tries == 1:
            self.warn("budget has reached a threshold", **told)
        if self.send is not None:
            reason = await self.send(event["id"], json.dumps(event, separators=(",", ":")))
            if reason is not None and not message.is_last_try:
                self.warn("webhook failed, it is tried again", event_id=event["id"], reason=reason)
                return
            if reason is not None:
                self.warn("webhook failed for good", event_id=event["id"], reason=reason)
        await self.outbox.finish(message)

    def _event(self, message: Message) -> dict[str, Any]:
        """Return the event as the webhook gets it. Its id is the same at each try, and on each replica."""
        body = json.loads(message.body)
        budget_id, starts_at, threshold = body["budget_id"], body["starts_at"], body["threshold"]
        budget = next((each for each in self.directory().budgets if each.id == budget_id), None)
        return {
            "id": f"evt_{budget_id}_{starts_at // SECOND}_{threshold}",
            "object": "event",
            "type": "budget.threshold_reached",
            "created_at": self.outbox.clock() // SECOND,
            "data": {
                "budget_id": budget_id,
                "threshold": threshold,
                "used": to_text(body["used_nano"]),
                "amount": to_text(body["amount_nano"]),
                "currency": self.currency,
                "starts_at": starts_at // SECOND,
                "ends_at": _end(budget, starts_at),
                "owner": None if budget is None else budget.owner or None,
                "scope": None if budget is None else budget.scope,
                "scope_id": None if budget is None else budget.scope_id,
                "window": None if budget is None else budget.window,
                "hard": None if budget is None else budget.hard,
            },
        }


def _end(budget: Budget | None, starts_at: int) -> int | None:
    if budget is None:
        return None
    ends_at = period_at(budget.window, budget.timezone, starts_at, budget.since).ends_at
    return None if ends_at is None else ends_at // SECOND
