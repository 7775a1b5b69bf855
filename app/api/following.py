"""Follow a run for one caller: send its events as they come, and notice when the caller leaves. Knows no request body
and no provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from app.access.keys import Keys
from app.api.requests.body import ClientGone, Limits
from app.api.requests.json_body import Fetch
from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder
from app.api.responses.sending import Answer, KeepAlive, send_json, send_raw, send_sse
from app.errors import ApiError
from app.events import Event
from app.gateway.gateway import Gateway
from app.imaging.workers import Workers
from app.runs.entry import RunEntry
from app.runs.follower import Follower
from app.runs.retention import Retention
from app.runs.run import Run, RunObserver
from app.server.protocol import break_off, connection
from app.storage.recording import Recording
from app.storage.signed_urls import Signer
from app.storage.spool import Uploads


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints need of the rest."""

    gateway: Gateway
    keys: Keys
    retention: Retention
    recording: Callable[[], Recording]
    limits: Limits
    uploads: Callable[[], Uploads]
    workers: Workers
    keepalive_seconds: float
    json_keepalive_after: float | None
    signer: Signer
    run_observers: tuple[RunObserver, ...] = ()
    public_url: str | None = None
    fetch: Callable[[Uploads], Fetch] | None = None
    finish_on_disconnect: bool = True
    log_prompts: bool = False


async def serve(service: Service, entry: RunEntry, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one caller from a run. Raises the run's ApiError while nothing was sent, and ClientGone."""
    retention = service.retention
    async with retention.follow(entry, finish_on_disconnect=service.finish_on_disconnect) as follower:
        with Answer(scope, send, follower.fell_behind) as answer:
            try:
                if answer.lost:
                    follower.left()
                    raise ClientGone
                with while_connected(scope, receive, answer, follower):
                    async with aclosing(follower.events()) as events:
                        await _answer(service, entry.run, answer, events)
            except Exception as error:
                if answer.started and not answer.finished:
                    follower.broken()
                    break_off(scope)
                if answer.gone and isinstance(error, ApiError):
                    raise ClientGone from None
                raise
        follower.delivered()
        if found := connection(scope):
            found.when_broken(follower.broken)


async def _answer(service: Service, run: Run, answer: Answer, events: AsyncGenerator[Event, None]) -> None:
    request = run.call.request
    if request.raw:
        await send_raw(answer, events, RawEncoder())
    elif request.stream:
        await send_sse(answer, events, SseEncoder(request, run.created), service.keepalive_seconds)
    else:
        after = service.json_keepalive_after
        pause = None if after is None else KeepAlive(after, service.keepalive_seconds)
        await send_json(answer, events, JsonEncoder(request, run.created), pause)


@contextmanager
def while_connected(scope: Scope, receive: Receive, answer: Answer, follower: Follower) -> Iterator[None]:
    """Watch whether the client disconnects before the answer is finished. Then stop the work inside as ClientGone: at
    once, or, if other followers depend on it, as soon as it has something to send."""
    work = asyncio.current_task()

    def gone() -> None:
        if work is not None and not answer.finished:
            answer.gone = True
            follower.left()
            if not follower.is_driving(work):
                work.cancel()

    found = connection(scope)
    try:
        with found.watched(gone) if found else _watching(receive, gone):
            yield
    except asyncio.CancelledError:
        if answer.gone and work is not None:
            work.uncancel()
            raise ClientGone from None
        raise


@contextmanager
def _watching(receive: Receive, gone: Callable[[], None]) -> Iterator[None]:
    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
