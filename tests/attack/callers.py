"""Ordinary callers: each picture is compared byte for byte, and asked for again as the SDKs do, under the same key."""

import asyncio
import base64
import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass, field

from tests.attack.upstream import picture_of
from tests.live.crowds import EDITS, GENERATIONS, answered, get
from tests.live.pictures import laden
from tests.live.wire import Reply, events, form, line, request

PATIENCE = 60.0  # seconds for one piece of an answer
TRIES = 60
WAYS = ("json", "stream", "link", "edit", "leaving")


@dataclass(slots=True)
class Ledger:
    """`asked` and `got` are prompts; `lost` says why. `answers` counts the answers that were asked again too."""

    asked: set[str] = field(default_factory=set)
    got: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)


class Caller:
    def __init__(self, number: int, port: int, key: str, ledger: Ledger) -> None:
        self._port, self._key, self._ledger = port, key, ledger
        self._names = (f"caller-{number}-{count}" for count in itertools.count())
        self._ways = itertools.islice(itertools.cycle(WAYS), number, None)

    async def until(self, over: asyncio.Event) -> None:
        """Ask for one picture after the other; the last one is waited for."""
        while not over.is_set():
            prompt = next(self._names)
            self._ledger.asked.add(prompt)
            if fault := await self._fault(prompt, next(self._ways)):
                self._ledger.lost[prompt] = fault
            else:
                self._ledger.got.add(prompt)
            await asyncio.sleep(random.random() * 0.5)

    async def _fault(self, prompt: str, way: str) -> str | None:
        """Ask until there is an answer. Returns what is wrong with it."""
        wanted = laden(random.Random(prompt).randbytes(700_000)) if way == "edit" else picture_of(prompt)
        said = "nothing"
        for count in range(TRIES):
            asked, said = self._request(prompt, way, wanted, count), "left"
            try:
                if way == "leaving" and count == 0:
                    await self._leave(asked)
                    continue
                reply = await answered(self._port, asked, PATIENCE)
                said = str(reply.status) if reply.complete else "broken"
                if said == "200":
                    return None if await self._picture(reply) == wanted else "other bytes"
                if reply.complete and not is_retried(reply):
                    return f"{said} {reply.body[:200]!r}"
            except (OSError, EOFError) as error:  # a TimeoutError too
                said = type(error).__name__
            finally:
                self._ledger.answers[said] += 1
            await asyncio.sleep(0.5 + random.random())
        return said

    def _request(self, prompt: str, way: str, image: bytes, count: int) -> bytes:
        headers = {"authorization": f"Bearer {self._key}", "idempotency_key": prompt}
        headers["x_stainless_retry_count"] = str(count)
        fields = {"model": "flux", "prompt": prompt}
        if way == "edit":
            content_type, body = form(*fields.items(), ("image", ("a.png", image)))
            return request("POST", EDITS, body, content_type=content_type, **headers)
        more = {"stream": ("stream", True), "link": ("response_format", "url")}.get(way, ("n", 1))
        body = json.dumps({**fields, more[0]: more[1]}).encode()
        return request("POST", GENERATIONS, body, content_type="application/json", **headers)

    async def _leave(self, asked: bytes) -> None:
        """After some bytes of the answer, or before the first one."""
        async with line(self._port, limit=1024, patience=PATIENCE) as opened:
            await opened.send(asked)
            if random.random() < 0.5:
                await opened.head()
                await opened.piece()
            else:
                await asyncio.sleep(random.random() * 0.3)

    async def _picture(self, reply: Reply) -> bytes | None:
        if (reply.header("content-type") or "").startswith("text/event-stream"):
            found = [document for name, document in events(reply.body) if name.endswith(".completed")]
        else:
            found = reply.json()["data"]
        if len(found) != 1:
            return None
        if "url" not in found[0]:
            return base64.b64decode(found[0]["b64_json"], validate=True)
        link = found[0]["url"]
        for _ in range(TRIES):
            try:
                fetched = await get(self._port, link[link.index("/files/") :])
                if fetched.complete and fetched.status != 503:
                    return fetched.body
            except (OSError, EOFError):
                pass  # there was no connection left
            await asyncio.sleep(1)
        return None


def is_retried(reply: Reply) -> bool:
    """As both SDKs decide."""
    said = reply.header("x-should-retry")
    return said == "true" or (said is None and (reply.status in (408, 409, 429) or reply.status >= 500))
