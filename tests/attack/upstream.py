"""A provider whose pictures follow from the prompt, so that both ends know each byte; and some hostile ones beside it.
It counts what it draws. Knows no gateway."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

from aiohttp import web

from tests.attack.pictures import hostile_pictures
from tests.live.loops import bound
from tests.live.pictures import encoded, laden, text

SIZES = (2_000, 60_000, 60_000, 250_000, 2_000_000)  # bytes
LARGE = "large"  # a prompt that begins so is drawn in 8 MB


def picture_of(prompt: str) -> bytes:
    chance = random.Random(prompt)
    size = 8_000_000 if prompt.startswith(LARGE) else chance.choice(SIZES)
    return laden(chance.randbytes(size))


class Upstream:
    """`drawn` counts by prompt, also the pictures that never arrive."""

    def __init__(self) -> None:
        self.drawn: Counter[str] = Counter()
        self.base_url = ""
        self._answers: dict[str, Callable[[str], bytes]] = {
            "honest": lambda prompt: _image(picture_of(prompt)),
            "strings": lambda _: _strings(),
            "skeleton": lambda _: _skeleton(),
            "pictures": lambda prompt: _image(random.Random(prompt).choice(hostile_pictures())),
            "cut": lambda prompt: _image(picture_of(prompt)),
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Upstream"]:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/{kind}/v1/images/generations", self._generate)
        app.router.add_post("/{kind}/v1/images/edits", self._edit)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        listener = bound()
        await web.SockSite(runner, listener, backlog=1024).start()
        self.base_url = "http://{}:{}".format(*listener.getsockname())
        try:
            yield self
        finally:
            await runner.cleanup()

    def at(self, kind: str) -> str:
        return f"{self.base_url}/{kind}/v1"

    async def _generate(self, request: web.Request) -> web.Response:
        asked = await request.json()
        prompt, kind = asked["prompt"], request.match_info["kind"]
        self.drawn[prompt] += 1
        await asyncio.sleep(random.Random(prompt).random() * 0.3)
        body = self._answers[kind](prompt)
        if kind == "cut":
            await _cut(request, body)
        return web.Response(body=body, content_type="application/json")

    async def _edit(self, request: web.Request) -> web.Response:
        """The picture is the one that was sent."""
        form = await request.post()
        prompt, image = form["prompt"], form["image"]
        assert isinstance(prompt, str)
        assert isinstance(image, web.FileField)
        self.drawn[prompt] += 1
        return web.Response(body=_image(image.file.read()), content_type="application/json")


async def _cut(request: web.Request, body: bytes) -> None:
    """Send half of it, and break the connection."""
    response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(body))})
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
    if request.transport:
        request.transport.abort()


def _image(picture: bytes) -> bytes:
    return b'{"created":1,"data":[{"b64_json":"%b"}]}' % text(picture).encode()


@cache
def _strings() -> bytes:
    """4,000 pictures where one was asked for, behind a long list."""
    data = [{"b64_json": text(encoded())}] * 4_000
    return json.dumps({"created": 1, "filler": [0] * 300_000, "data": data}).encode()


@cache
def _skeleton() -> bytes:
    return (
        b'{"created":1,"a":'
        + b"[" * 500_000
        + b"]" * 500_000
        + b',"data":[{"b64_json":"%b"}]}' % text(encoded()).encode()
    )
