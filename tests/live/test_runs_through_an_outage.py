"""Stored runs while a Postgres is away: nothing is drawn twice, and the table is right again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.ledger.database.opening import open_database
from tests.ledger.conftest import new_database, required_binaries
from tests.ledger.postgres import running_postgres
from tests.live.loops import in_thread, write
from tests.live.pictures import encoded, text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, process, provider, served_by
from tests.live.wire import Reply, post
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

PNG = text(encoded())


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres(required_binaries()) as address:
        yield address


class Cable:
    """A connection to the database that another thread can pull out. `port` stays the same."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._is_out = False
        self._ends = set[asyncio.StreamWriter]()

    async def __aenter__(self) -> Cable:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()
        self._server.close()

    def pull(self) -> None:
        self._is_out = True
        self._loop.call_soon_threadsafe(self._close)

    def plug(self) -> None:
        self._is_out = False

    def _close(self) -> None:
        for end in self._ends:
            end.close()
        self._ends.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_out:
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._ends |= {writer, back}
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            await write(writer, data)
    writer.close()


async def registered(url: str) -> dict[str, str]:
    """The states of the stored runs, by the id of their first request."""
    database = await open_database(url, Path())
    try:
        rows: Any = await database.query("select names::json ->> 0, state from run")
        return dict(rows)
    finally:
        await database.aclose()


def wait_for(url: str, rows: dict[str, str]) -> None:
    async def look() -> None:
        async with asyncio.timeout(PATIENCE):
            while (found := await registered(url)) != rows:
                await asyncio.sleep(0.1)
        assert found == rows

    asyncio.run(look())


def draw(port: int, id: str) -> Reply:
    fields = {"model": "flux", "prompt": f"a {id} fox", "size": "64x64"}
    return asyncio.run(post(port, "/v1/images/generations", fields, x_request_id=id, idempotency_key=id))


@pytest.mark.parametrize("is_killed", [True, False])
def test_runs_that_ended_while_the_database_was_away_are_known_and_registered_later(
    server: str, tmp_path: Path, is_killed: bool
) -> None:
    url = new_database(server)
    user, _, rest = url.rpartition("@")
    host, _, name = rest.partition("/")
    with in_thread(Scripted) as upstream, in_thread(lambda: Cable(int(host.rpartition(":")[2]))) as cable:
        for _ in range(3):
            upstream.at("a", answer(image_json(PNG)))
        config: Config = {
            "providers": {"a": provider(f"{upstream.base_url}/a/v1", timeout={"read": 30})},
            "models": {"flux": served_by("a")},
            "secret": "s" * 64,
            "database": {"url": f"{user}@127.0.0.1:{cable.port}/{name}"},
        }
        with process(config, tmp_path) as first:
            assert draw(first.port, "red").status == 200
            wait_for(url, {"red": "delivered"})
            cable.pull()
            assert draw(first.port, "blue").status == 200
            assert asyncio.run(registered(url)) == {"red": "delivered"}
            if is_killed:
                os.kill(first.process.pid, signal.SIGKILL)
                first.process.wait()
            else:
                cable.plug()
                wait_for(url, {"red": "delivered", "blue": "delivered"})
        if is_killed:
            with process(config, tmp_path) as second:  # still without its database
                assert {draw(second.port, id).status for id in ("red", "blue")} == {200}
        cable.plug()
        with process(config, tmp_path) as third:
            assert {draw(third.port, id).status for id in ("red", "blue")} == {200}
            wait_for(url, {"red": "delivered", "blue": "delivered"})
            assert draw(third.port, "green").status == 200
            wait_for(url, {"red": "delivered", "blue": "delivered", "green": "delivered"})
        assert len(upstream.received("a")) == 3
