"""Follow a run for one caller: send its events as they come, and notice when the caller leaves. Knows no request body
and no provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial

from starlette.types import Receive, Scope, Send

from app.access.keys import Keys
from app.api.requests.body import ClientGone, Limits
from app.api.requests.json_body import Fetch
from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder
from app.api.responses.sending import Answer, KeepAlive, send_json, send_raw, send_sse
from app.errors import ApiError, Unavailable
from app.events import Event
from app.gateway.gateway import Gateway
from app.imaging.workers import Workers
from app.runs.entry import RunEntry
from app.runs.retention import Retention
from app.runs.run import Run
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
    report: Callable[[str, Exception], None]
    public_url: str | None = None
    fetch: Callable[[Uploads], Fetch] | None = None
    finish_on_disconnect: bool = True
    log_prompts: bool = False

    def outlives(self, run: Run) -> bool:
        """Whether the run goes on when the last caller leaves."""
        return bool(run.call.sent) and self.finish_on_disconnect


async def serve(service: Service, kept: RunEntry, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with a run's images. If the caller leaves, what was sent to a provider is seen to its end."""
    run, retention = kept.run, service.retention
    caller = Caller(service, run)
    try:
        with Answer(scope, send, lambda: run.detach(partial(retention.settled, kept))) as answer:
            if answer.lost:
                raise ClientGone
            with while_connected(scope, receive, answer, caller):
                async with aclosing(run.follow()) as events:
                    await _answer(service, run, answer, events)
        if run.recording.error is None:
            retention.delivered(kept)
            if found := connection(scope):
                found.when_broken(partial(retention.returned, kept))
    except Exception as error:
        caller.leave()
        if not run.present and service.outlives(run):
            await run.finish()
        run.owed = _owed(run, answer)
        if answer.started and not answer.finished:
            break_off(scope)
        if answer.gone and isinstance(error, ApiError):
            raise ClientGone from None
        raise
    finally:
        caller.leave()
        run.followers -= 1
        if not run.followers:
            run.abandon()
        await retention.settled(kept)


def _owed(run: Run, answer: Answer) -> bool:
    """Whether the caller could not be told of a failure, and is to be told when it comes back instead of having it
    drawn again: always if its answer had begun for the sake of a sign of life, a refusal also if it had left."""
    error = run.recording.error
    if error is None or not (run.failed_unpaid and run.failed_empty):
        return False
    return error.should_retry is False if answer.gone else answer.started


class Caller:
    """One who is answered from a run, and may leave: the last one takes along what was not sent to a provider yet."""

    def __init__(self, service: Service, run: Run) -> None:
        run.followers += 1
        run.present += 1
        run.call.left = False
        self._service = service
        self._run = run
        self._present = True

    def leave(self) -> None:
        if not self._present:
            return
        self._present = False
        self._run.present -= 1
        self._run.call.left = not self._run.present
        if not self._run.present and not self._service.outlives(self._run):
            self._run.abort(Unavailable("The caller left, so the work on the images was given up."))

    def drives(self, task: asyncio.Task[None] | None) -> bool:
        return self._run.driven_by(task)


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
def while_connected(scope: Scope, receive: Receive, answer: Answer, caller: Caller) -> Iterator[None]:
    """Watches whether the client leaves before the answer is finished. Then the work inside is stopped as ClientGone:
    at once, or, if others depend on it, as soon as it has something to send."""
    work = asyncio.current_task()

    def gone() -> None:
        if work is not None and not answer.finished:
            answer.gone = True
            caller.leave()
            if not caller.drives(work):
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
