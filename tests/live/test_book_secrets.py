"""What is on the disk and in the log after requests of all kinds: no key, no prompt, no picture."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.sandbox.server import Sandbox
from tests.live.books import command
from tests.live.crowds import call, drawn_by, simulated
from tests.live.house import data_url, file_of, marked
from tests.live.servers import process
from tests.live.wire import ask, form, request
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PROMPT = "a vixen called Zerbinetta"
FILE_KEY, UPSTREAM_KEY = "the-secret-key-of-the-file", "upstream-secret"
SHORTEST = 60  # characters of base64, and bytes of a picture, that would be a leak


def texts_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("gateway.yaml", "secret"):
            yield str(path.relative_to(folder)), path.read_bytes()


def pieces(picture: bytes) -> list[bytes]:
    """Parts out of the middle of a picture, as bytes and in each of base64's three alignments."""
    middle = picture[len(picture) // 2 :][: SHORTEST * 3 // 4]
    return [middle, *(base64.b64encode(middle[shift:])[:-8] for shift in range(3))]


async def test_nothing_secret_is_stored_or_logged(sandbox: Sandbox, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "data_dir": str(tmp_path / "data"),
        "providers": {"openai": simulated(sandbox.base_url)},
        "models": {"flux": drawn_by("openai") | {"profile": {"price": 0.04, "operations": ["generations", "edits"]}}},
        "keys": [{"name": "file", "key": FILE_KEY, "images_per_minute": 1000}],
    }
    image, mask = file_of(Image.effect_noise((256, 256), 90)), marked((256, 256))
    with process(config, tmp_path) as gateway:
        issued = await asyncio.to_thread(command, tmp_path, "keys", "create", "--project", "p", "--name", "laptop")
        admin = await asyncio.to_thread(command, tmp_path, "keys", "create", "--admin", "--name", "root")
        await asyncio.to_thread(
            command, tmp_path, "budgets", "set", "--project", "p", "--amount", "9", "--window", "day"
        )
        async with asyncio.timeout(PATIENCE):
            while (await call(gateway.port, {"model": "flux", "prompt": PROMPT}, key=issued)).status != 200:
                await asyncio.sleep(0.2)
        drawn = list[bytes]()
        for key in (FILE_KEY, issued):
            for fault in ("", " [[fault:503]]", " [[fault:cut]]", " [[fault:moderation]]", " [[fault:401]]"):
                outcome = await call(gateway.port, {"model": "flux", "prompt": PROMPT + fault}, key=key)
                if outcome.images and outcome.reply:
                    drawn += [base64.b64decode(each["b64_json"]) for each in outcome.reply.json()["data"]]
            edit = {"model": "flux", "prompt": PROMPT, "images": [{"image_url": data_url(image)}]}
            await call(gateway.port, edit, "/v1/images/edits", key=key)
            kind, body = form(("model", "flux"), ("prompt", PROMPT), ("image", ("a.png", image)), ("mask", ("b", mask)))
            await call(gateway.port, body, "/v1/images/edits", key=key, content_type=kind)
            await call(gateway.port, {"model": "nothing", "prompt": PROMPT}, key=key)
            await call(gateway.port, {"model": "flux", "prompt": PROMPT, "size": "no"}, key=key)
        await call(gateway.port, {"model": "flux", "prompt": PROMPT}, key=issued[:-1] + "x")
        await call(gateway.port, {"model": "flux", "prompt": PROMPT}, key=f"{FILE_KEY}-that-is-wrong")
        assert drawn
        exports = list[tuple[str, bytes]]()
        for accept in ("application/json", "text/csv", "application/x-ndjson"):
            for path in ("drawings", "events", "keys", "usage", "providers"):
                head = {"authorization": f"Bearer {admin}", "accept": accept}
                reply = await ask(gateway.port, request("GET", f"/v1/gateway/{path}", None, **head))
                exports.append((f"{path} as {accept}", reply.body))
        assert any(b"flux" in body for _, body in exports)
        for words in (("usage", "--json"), ("keys", "list", "--json"), ("budgets", "list")):
            exports.append((" ".join(words), (await asyncio.to_thread(command, tmp_path, *words)).encode()))
        exports.append(("what it printed", gateway.printed().encode()))
        live = list(texts_of(tmp_path))  # with the database's log, which a stop moves into the file
    assert {"data/gateway.db", "data/gateway.db-wal", "data/journal"} <= {name for name, _ in live}
    secrets = [text.encode() for text in (PROMPT, "Zerbinetta", FILE_KEY, UPSTREAM_KEY, issued[12:], admin[12:])]
    secret = (tmp_path / "data/secret").read_bytes().strip()
    parts = [part for picture in (image, *drawn) for part in pieces(picture)]
    for name, content in [*live, *texts_of(tmp_path), *exports]:
        for leak in (*secrets, secret, json.dumps(PROMPT).encode()):
            assert leak not in content, (name, leak)
        if not name.startswith(("data/runs/", "data/files/", "data/spool/")):  # undelivered pictures wait there
            for part in parts:
                assert part not in content, (name, part)
