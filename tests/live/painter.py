"""A provider that knows of each request how many images it drew for it: what the book is compared with. It speaks
OpenAI's dialect in plain HTTP/1.1, and is light enough for thousands of requests at once.

The prompt says what it does: `slow:SECONDS` before the answer, `hold` until `released` is set, `cut` after half of the
answer, `refuse` with 503 undrawn. The first word of a prompt names the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.live.loops import write
from tests.live.pictures import encoded, text

_WORD = re.compile(r"\b(slow|hold|cut|refuse)(?::([\d.]+))?\b")


class Painter:
    """`drawn`: images by the names of the requests. `at_once`: requests that it draws for now."""

    def __init__(self) -> None:
        self.drawn = Counter[str]()
        self.port = 0
        self.at_once = 0
        self.released = asyncio.Event()
        self._connections = dict[asyncio.Task[None], asyncio.StreamWriter]()
        self._image = {"b64_json": text(encoded(colour="red"))}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(lambda task: self._connections.pop(task).close())

    async def leave(self) -> None:
        """Break all connections off."""
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                [length] = re.findall(rb"(?i)content-length: (\d+)", head)
                asked = json.loads(await reader.readexactly(int(length)))
                if not await self._answer(writer, asked["prompt"], asked.get("n", 1)):
                    break

    async def _answer(self, writer: asyncio.StreamWriter, prompt: str, n: int) -> bool:
        said = dict(_WORD.findall(prompt))
        if "refuse" in said:
            await write(writer, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}")
            return True
        self.drawn[prompt.split()[0]] += n
        self.at_once += 1
        try:
            await asyncio.sleep(float(said.get("slow") or 0))
            if "hold" in said:
                await self.released.wait()
        finally:
            self.at_once -= 1
        body = json.dumps({"created": 1, "data": [self._image] * n}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        await write(writer, head + (body[: len(body) // 2] if "cut" in said else body))
        return "cut" not in said


@asynccontextmanager
async def painting() -> AsyncIterator[Painter]:
    painter = Painter()
    server = await asyncio.start_server(painter.accept, "127.0.0.1", 0, backlog=2048)
    painter.port = server.sockets[0].getsockname()[1]
    try:
        yield painter
    finally:
        server.close()
        await painter.leave()
