"""Commands in processes of their own, beside the ledger of a running gateway, which learns of each change."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.access.key_text import new_key
from app.access.keyring import ANONYMOUS, IssuedKeys, Key, Keyring
from app.errors import ApiError
from app.ledger.book.registry import Registry
from app.ledger.ledger import Ledger, Policy, open_ledger
from app.ledger.life import WATCH_SECONDS
from app.ledger.values.changes import Actor
from app.ledger.values.directory import ApiKey
from app.storage.secret import API_KEYS, read_secret
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CONFIG = """
data_dir: {}
providers: {{mine: {{base_url: 'http://10.0.0.7'}}}}
models: {{m: {{deployments: [{{provider: mine}}]}}}}
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Gateway:
    """The part of a gateway that knows keys, and the commands beside it."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.ledger = ledger
        pepper = read_secret(folder).derive(API_KEYS)
        issued = IssuedKeys(pepper, lambda: ledger.directory, time.time, ledger.note_use)
        self.keyring = Keyring((), issued)
        self._config = folder.parent / "config.yaml"
        self._config.write_text(CONFIG.format(folder))

    async def command(self, *words: str) -> str:
        """Run a command, and return what it prints."""
        python = (sys.executable, "-m", "app")
        process = await asyncio.create_subprocess_exec(
            *(*python, *words, "--config", str(self._config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode().strip()

    def find(self, text: str) -> Key | ApiError | None:
        """Return the key of a text, or the refusal. None: the caller was let in without one."""
        try:
            key = self.keyring.authenticate(f"Bearer {text}")
        except ApiError as error:
            return error
        return None if key is ANONYMOUS else key


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    folder = tmp_path / "data"
    folder.mkdir()

    def warn(what: str, **facts: object) -> None:
        raise AssertionError((what, facts))

    async with open_ledger(None, folder, policy=Policy(), clock=time.time, warn=warn) as ledger:
        yield Gateway(folder, ledger)


def test_a_change_is_looked_for_each_second() -> None:
    assert WATCH_SECONDS == 1


async def test_a_new_key_works_and_closes_the_door(gateway: Gateway) -> None:
    assert not gateway.keyring.is_closed
    text = await gateway.command("keys", "create", "--project", "design", "--name", "laptop")
    await until(lambda: gateway.keyring.is_closed and isinstance(gateway.find(text), Key))
    key = gateway.find(text)
    assert isinstance(key, Key)
    assert key.project is not None
    assert (key.id, key.project.name) == (text[4:12], "design")


@pytest.mark.parametrize("command", ["disable", "delete"])
async def test_a_key_that_was_withdrawn_is_refused(gateway: Gateway, command: str) -> None:
    text = await gateway.command("keys", "create", "--project", "design", "--name", "laptop")
    await until(lambda: isinstance(gateway.find(text), Key))
    await gateway.command("keys", command, "laptop")
    await until(lambda: isinstance(gateway.find(text), ApiError))
    assert gateway.keyring.is_closed


async def test_a_key_that_was_made_and_deleted_between_two_requests_closes_the_door(gateway: Gateway) -> None:
    registry = Registry(gateway.ledger.database, lambda: 1)
    made = new_key(secrets.choice, is_admin=False)
    await registry.add_key(ApiKey(made.id, "laptop", bytes(32)), Actor("command", "test"))
    await registry.delete_key(made.id, Actor("command", "test"))
    await until(lambda: gateway.keyring.is_closed)


async def test_a_rotated_key_is_known_by_both_texts(gateway: Gateway) -> None:
    old = await gateway.command("keys", "create", "--project", "design", "--name", "laptop")
    new = await gateway.command("keys", "rotate", "laptop", "--grace", "1h")
    await until(lambda: isinstance(gateway.find(new), Key))
    found = [gateway.find(text) for text in (old, new)]
    assert [key.id for key in found if isinstance(key, Key)] == [old[4:12]] * 2


async def test_archiving_a_project_ends_its_keys(gateway: Gateway) -> None:
    text = await gateway.command("keys", "create", "--project", "design", "--name", "laptop")
    await until(lambda: isinstance(gateway.find(text), Key))
    await gateway.command("projects", "archive", "design")
    await until(lambda: isinstance(gateway.find(text), ApiError))
    error = gateway.find(text)
    assert isinstance(error, ApiError)
    assert error.code == "project_archived"


async def test_keys_may_be_made_at_once_by_several_commands(gateway: Gateway) -> None:
    create = ("keys", "create", "--project", "design", "--name")
    texts = await asyncio.gather(*(gateway.command(*create, f"laptop {number}") for number in range(4)))
    await until(lambda: all(isinstance(gateway.find(text), Key) for text in texts))
    projects = {key.project.id for text in texts if isinstance(key := gateway.find(text), Key) and key.project}
    assert len(projects) == 1


async def test_the_hour_of_the_last_use_is_written_down_when_the_gateway_ends(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    async with open_ledger(None, folder, policy=Policy(), clock=time.time, warn=print) as ledger:
        gateway = Gateway(folder, ledger)
        text = await gateway.command("keys", "create", "--project", "design", "--name", "laptop")
        await until(lambda: isinstance(gateway.find(text), Key))
    hour = time.strftime("%Y-%m-%d %H", time.gmtime())
    assert hour[:10] in await gateway.command("keys", "list")
