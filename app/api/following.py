"""Follow a run for one caller: send its events as they come, and notice when the caller leaves. Knows no request body
and no provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from starlette.types import Receive, Scope, Send

from app.api.connection import break_off, connection, watching
from app.api.requests.body import ClientGone
from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder
from app.api.responses.sending import Answer, send_json, send_raw, send_sse
from app.api.runtime import Runtime
from app.errors import ApiError
from app.events import Event
from app.runs.entry import RunEntry
from app.runs.follower import Follower
from app.runs.run import Run


async def serve(runtime: Runtime, entry: RunEntry, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one caller from a run. Raises the run's ApiError while nothing was sent, and ClientGone."""
    retention = runtime.resources.retention
    async with retention.follow(entry, finish_on_disconnect=runtime.finish_on_disconnect) as follower:
        with Answer(scope, send, follower.fell_behind) as answer:
            try:
                if answer.lost:
                    follower.left()
                    raise ClientGone
                with while_connected(scope, receive, answer, follower):
                    async with aclosing(follower.events()) as events:
                        await _answer(runtime, entry.run, answer, events)
            except Exception as error:
                if answer.started and not answer.finished:
                    follower.broken()
                    break_off(scope)
                if answer.gone and isinstance(error, ApiError):
                    raise ClientGone from None
                raise
        follower.delivered()
        if found := connection(scope):
            found.on_broken(follower.broken)


async def _answer(runtime: Runtime, run: Run, answer: Answer, events: AsyncGenerator[Event, None]) -> None:
    request = run.call.request
    if request.raw:
        await send_raw(answer, events, RawEncoder())
    elif request.stream:
        await send_sse(answer, events, SseEncoder(request, run.created), runtime.keepalive_seconds)
    else:
        encoder = JsonEncoder(request, run.created)
        await send_json(answer, events, encoder, runtime.json_keepalive_after, runtime.keepalive_seconds)


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
        with found.watch(gone) if found else watching(receive, gone):
            yield
    except asyncio.CancelledError:
        if answer.gone and work is not None:
            work.uncancel()
            raise ClientGone from None
        raise
