"""The commands of the book, in this process, on a database of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner

from app.access.keyring import IssuedKeys
from app.commands.book import open_registry
from app.commands.cli import main
from app.config.loading import Settings, load
from app.ledger.book.registry import Registry
from app.storage.secret import API_KEYS, read_secret

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Book:
    """A configuration whose database the commands work on."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.file = folder / "config.yaml"
        self.file.write_text(json.dumps({"data_dir": str(folder / "data"), **config}))

    def __call__(self, *arguments: str) -> Outcome:
        done = CliRunner().invoke(main, [*arguments, "--config", str(self.file)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    def carry_out(self, *arguments: str) -> Outcome:
        """Run a command that succeeds."""
        outcome = self(*arguments)
        assert outcome.status == 0, outcome.err
        return outcome

    @property
    def settings(self) -> Settings:
        return load(self.file, {})

    def ask(self, work: Callable[[Registry], Awaitable[T]]) -> T:
        """Look at the database itself."""

        async def asked() -> T:
            async with open_registry(self.settings) as registry:
                return await work(registry)

        return asyncio.run(asked())

    def issued(self, now: float) -> IssuedKeys:
        """The keys as a gateway that reads the database now knows them."""
        directory = self.ask(lambda registry: registry.directory())
        pepper = read_secret(self.folder / "data").derive(API_KEYS)
        return IssuedKeys(pepper, lambda: directory, lambda: now, lambda _: None)


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.delenv("IMAGE_GATEWAY_CONFIG", raising=False)
    provider = {"mine": {"base_url": "http://10.0.0.7:8000/v1", "api_key": "upstream-secret"}}
    config = {
        "providers": provider,
        "models": {"m": {"deployments": [{"provider": "mine"}]}},
        "projects": {"ops": {}},
        "keys": [{"name": "ci", "key": "a-key-of-a-caller", "project": "ops"}],
    }
    return Book(tmp_path, config)
