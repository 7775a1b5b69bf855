"""The image endpoints: one request after the other through the same steps, on one screen. Plain ASGI, since nothing
here may hold a body whole."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from starlette.types import Receive, Scope, Send

from app.api.answering import Answer, send_json, send_sse
from app.api.body import ClientGone, Limits
from app.api.encoders import JsonEncoder, SseEncoder
from app.api.reading import read_request
from app.gateway import Gateway
from app.images import Operation
from app.keys import Keys
from app.spool import Uploads


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints need of the rest."""

    gateway: Gateway
    keys: Keys
    limits: Limits
    uploads: Callable[[], Uploads]
    keepalive_seconds: float
    default_response_format: Literal["b64_json", "url"]
    log_prompts: bool = False


class ImageEndpoint:
    """`service` is asked for at each request, since it is there only while the application runs."""

    def __init__(self, operation: Operation, service: Callable[[], Service]) -> None:
        self._operation = operation
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, told = self._service(), scope["state"]["told"]
        told.operation = str(self._operation)
        key = service.keys.authenticate(authorization(scope))
        told.key = key.name
        service.keys.spend(key)
        with service.keys.hold(key), service.uploads() as uploads:
            request = await read_request(self._operation, scope, receive, service.limits, uploads)
            told.model = request.model
            told.prompt = request.prompt if service.log_prompts else None
            answer = Answer(send, told)
            async with while_connected(receive, answer), aclosing(service.gateway.draw(request, key)) as events:
                if request.stream:
                    await send_sse(answer, events, SseEncoder(request, int(time.time())), service.keepalive_seconds)
                else:
                    await send_json(answer, events, JsonEncoder(request, int(time.time())))


def authorization(scope: Scope) -> str | None:
    found = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    return None if found is None else found.decode("latin-1")


@contextlib.asynccontextmanager
async def while_connected(receive: Receive, answer: Answer) -> AsyncIterator[None]:
    """Stops what is done inside when the client leaves before the answer is finished, as ClientGone."""
    work = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        if work is not None and not answer.finished:
            gone = True
            work.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and work is not None:
            work.uncancel()
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
