"""The path of one upstream request through the sandbox: read, note, check, take faults, draw, answer, deliver.

Knows no provider's wire format.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pybase64
from PIL import Image
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.sandbox import damage, drawing
from app.sandbox.delivery import Answer, ClientGone, Line, Piece, deliver
from app.sandbox.faults import UNDRAWN, FaultBook, Faults, without_marks
from app.sandbox.incoming import Incoming, read_incoming
from app.sandbox.journal import Gallery, Journal, described
from app.sandbox.openai import OpenAI
from app.sandbox.order import MASK_MEANINGS, Handed, Operation, Order, Provider, Refusal

CHUNKS_PER_EVENT = 6
BETWEEN_CHUNKS = 0.002  # seconds
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "text/html": "html"}


@dataclass(frozen=True, slots=True)
class World:
    """The state that all doors share. `seeds` gives one number per drawing that comes without a seed of its own."""

    journal: Journal
    book: FaultBook
    gallery: Gallery
    seeds: Iterator[int]
    seconds_per_drawing: float


class Door:
    """One operation of one provider, as an ASGI endpoint."""

    def __init__(self, provider: Provider, operation: Operation, world: World) -> None:
        self._provider = provider
        self._operation: Operation = operation
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            incoming = await read_incoming(scope, receive)
            self._world.journal.saw(self._provider.name, await asyncio.to_thread(described, incoming))
            answer, faults = await self._answer(incoming)
            await deliver(Line(scope, receive, send), answer, faults)
        except (ClientDisconnect, ClientGone):
            return

    async def _answer(self, incoming: Incoming) -> tuple[Answer, Faults]:
        faults = Faults()
        try:
            self._check_credential(incoming)
            order = await asyncio.to_thread(self._provider.read, self._operation, incoming)
            header = incoming.headers.get("x-sandbox-fault", "")
            faults = self._world.book.take(self._provider.name, header, order.prompt)
            asked_for = damage.refusal_asked_for(faults)
            if asked_for is not None:
                raise asked_for
            order = replace(order, prompt=without_marks(order.prompt))
            if order.stream and isinstance(self._provider, OpenAI):
                return await self._streamed(self._provider, order, faults), faults
            return await self._whole(order, incoming.origin, faults), faults
        except Refusal as refusal:
            return self._refused(refusal, faults), faults

    def _check_credential(self, incoming: Incoming) -> None:
        """Check the request's credential. Raises Refusal."""
        scheme, _, key = incoming.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            message = "You didn't provide an API key in an Authorization header using Bearer auth."
            raise Refusal(message, status=401, code="invalid_api_key")

    def _refused(self, refusal: Refusal, faults: Faults) -> Answer:
        media_type, body = damage.error_body(refusal, faults.status, self._provider.error)
        headers = [("content-type", media_type)]
        retry_after = faults.status and faults.status.options.get("retry_after")
        if retry_after:
            headers.append(("retry-after", retry_after))
        return Answer(refusal.status, tuple(headers), (Piece(body),))

    async def _whole(self, order: Order, origin: str, faults: Faults) -> Answer:
        if "html200" in faults:
            return Answer(200, (("content-type", "text/html"),), (Piece(damage.HTML),))
        if "moderation200" in faults or "failed200" in faults:
            refusal = damage.moderated() if "moderation200" in faults else damage.failed()
            return json_answer(damage.json_text(self._provider.error(refusal), faults), faults)
        started = time.perf_counter()
        files = await self._drawn(order, faults)
        seconds = round(time.perf_counter() - started + self._world.seconds_per_drawing, 3)
        as_url = order.as_url or "urlonly" in faults
        pictures = [self._handed(data, order, origin, seconds, faults, as_url=as_url) for data in files]
        if "noimage" in faults:
            pictures = []
        body = damage.json_text(self._provider.answer(order, pictures), faults)
        return json_answer(body, faults, wait=self._world.seconds_per_drawing)

    def _handed(
        self, data: bytes, order: Order, origin: str, seconds: float, faults: Faults, *, as_url: bool
    ) -> Handed:
        if "nullimage" in faults:
            return Handed(None, None, seconds)
        media_type = f"image/{order.output_format}"
        if as_url:
            name = self._world.gallery.hang(data, ENDINGS[media_type], media_type)
            return Handed(None, f"{origin}/pictures/{name}", seconds)
        return Handed(_base64(data, order, faults), None, seconds)

    async def _drawn(self, order: Order, faults: Faults) -> list[bytes]:
        """Draw all pictures of an order, and return them encoded. They are counted as soon as they are drawn."""
        seeds = [next(self._world.seeds) if order.seed is None else order.seed + index for index in range(order.n)]
        meaning = MASK_MEANINGS[self._provider.name]

        def work() -> list[bytes]:
            return [_encoded(drawing.draw(order, seed, meaning), order, faults) for seed in seeds]

        files = await asyncio.to_thread(work)
        self._world.journal.drew(self._provider.name, len(files))
        return files

    async def _streamed(self, provider: OpenAI, order: Order, faults: Faults) -> Answer:
        frames: list[bytes] = []
        if not any(fault.name in UNDRAWN for fault in faults.items):
            frames = await self._drawn_in_steps(order, faults)
        events = [
            provider.partial_event(order, index, _base64(data, order, faults)) for index, data in enumerate(frames[:-1])
        ]
        if "moderation200" in faults or "failed200" in faults:
            refusal = damage.moderated() if "moderation200" in faults else damage.failed()
            events.append({"type": "error", **provider.error(refusal)})
        elif frames and "noimage" not in faults:
            final = None if "nullimage" in faults else _base64(frames[-1], order, faults)
            events.append(provider.completed_event(order, final))
        pause = self._world.seconds_per_drawing / max(1, len(events))
        pieces = [piece for event in events for piece in _event_pieces(event, pause, faults)]
        return Answer(200, (("content-type", "text/event-stream"),), tuple(pieces), sized=False)

    async def _drawn_in_steps(self, order: Order, faults: Faults) -> list[bytes]:
        """Return the partial pictures and, last, the finished one."""
        seed = next(self._world.seeds)
        meaning, steps = MASK_MEANINGS[self._provider.name], order.partial_images

        def work() -> list[bytes]:
            image = drawing.draw(order, seed, meaning)
            images: list[Image.Image] = [*(drawing.coarse(image, step, steps) for step in range(steps)), image]
            return [_encoded(frame, order, faults) for frame in images]

        frames = await asyncio.to_thread(work)
        self._world.journal.drew(self._provider.name, 1)
        return frames


def _encoded(image: Image.Image, order: Order, faults: Faults) -> bytes:
    output_format = "jpeg" if "lying_jpeg" in faults else order.output_format
    return damage.spoiled_picture(drawing.encoded(image, output_format, order.quality_percent), faults)


def _base64(data: bytes, order: Order, faults: Faults) -> str:
    return damage.spoiled_base64(pybase64.b64encode(data).decode("ascii"), faults, f"image/{order.output_format}")


def json_answer(body: bytes, faults: Faults, wait: float = 0.0) -> Answer:
    headers = [("content-type", "text/plain" if "wrongtype" in faults else "application/json")]
    if "gzip" in faults:
        body = damage.compressed(body)
        headers.append(("content-encoding", "gzip"))
    return Answer(200, tuple(headers), (Piece(body),), wait)


def _event_pieces(event: dict[str, object], pause: float, faults: Faults) -> list[Piece]:
    """Return one server-sent event in several pieces, as a real one arrives."""
    data = f"event: {event['type']}\ndata: ".encode() + damage.json_text(event, faults, one_line=True) + b"\n\n"
    step = len(data) // CHUNKS_PER_EVENT + 1
    starts = range(0, len(data), step)
    return [Piece(data[start : start + step], BETWEEN_CHUNKS if start else pause) for start in starts]
