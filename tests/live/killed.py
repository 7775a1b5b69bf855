"""Lets a process kill itself at a step of the book, at the first drawing whose request is named `victim…`."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from app.ledger.ledger import Ledger

STEPS = ("before reserve", "after reserve", "before sent", "after sent", "before settle", "after settle")


def kill_at(step: str) -> None:
    """Patch the ledger of this process."""
    when, _, name = step.partition(" ")
    name = {"reserve": "admit"}.get(name, name)
    original: Callable[..., Awaitable[Any]] = getattr(Ledger, name)

    async def patched(*args: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = await original(*args)
        os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(Ledger, name, patched)
