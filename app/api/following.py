"""Follow a run for one caller: send its events as they come, and notice when the caller leaves. Knows no request body
and no provider."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from starlette.types import Receive, Scope, Send

from app.access.keyring import Key
from app.api.connection import break_off, connection, watching
from app.api.requests.body import ClientGone
from app.api.responses.bill import Bill, cost_headers
from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder
from app.api.responses.sending import Answer, send_json, send_raw, send_sse
from app.api.runtime import Runtime
from app.catalog.money import to_number
from app.errors import ApiError
from app.images import ImageRequest
from app.runs.entry import RunEntry
from app.runs.follower import Follower
from app.runs.run import Run


async def serve(
    runtime: Runtime, entry: RunEntry, scope: Scope, receive: Receive, send: Send, *, is_replay: bool = False
) -> None:
    """Answer one caller from a run. Raises the run's ApiError while nothing was sent, and ClientGone. `is_replay`: the
    run began for another request, so the answer costs nothing."""
    retention = runtime.resources.retention
    bill = Bill(runtime.admission.currency, entry.run.call.account, is_replay)
    account = None if is_replay else entry.run.call.account
    async with retention.follow(entry, finish_on_disconnect=runtime.finish_on_disconnect) as follower:
        answer = Answer(scope, send)
        try:
            if answer.lost:
                follower.left()
                raise ClientGone
            with WhileConnected(scope, receive, answer, follower):
                await _answer(runtime, entry.run, answer, bill)
        except Exception as error:
            if answer.started and not answer.finished:
                follower.broken()
                break_off(scope)
            if answer.gone and isinstance(error, ApiError):
                raise ClientGone from None
            if isinstance(error, ApiError) and account is not None and account.cost:
                told = cost_headers(account.cost, bill.currency)  # of images that were drawn before it failed
                scope["state"]["headers"] = [*scope["state"]["headers"], *told]
            raise
        finally:
            if (answer.finished or entry.run.has_ended) and (cost := bill.total()) is not None:
                answer.log.cost = to_number(cost)
                if account is not None and account.in_doubt:
                    answer.log.cost_in_doubt = to_number(account.in_doubt)
        follower.delivered()
        if found := connection(scope):
            found.on_broken(follower.broken_later())


async def count_joined(runtime: Runtime, request_id: str, run: Run, key: Key, request: ImageRequest) -> None:
    """Record that a request got the whole answer of an existing run. Never raises."""
    if run.recording.error is not None:  # a stream sends it as an event, and ends well all the same
        return
    model, user = runtime.catalog.own_name(request.model, key), runtime.admission.end_user(request)
    await runtime.resources.accounts.join(request_id, run.call.account, request, key, model, user)


async def _answer(runtime: Runtime, run: Run, answer: Answer, bill: Bill) -> None:
    request, reader = run.call.request, run.reader()
    if request.raw:
        await send_raw(answer, reader, RawEncoder(), bill)
    elif request.stream:
        await send_sse(answer, reader, SseEncoder(request, run.created, bill), runtime.keepalive_seconds, bill)
    else:
        encoder = JsonEncoder(request, run.created, bill)
        await send_json(answer, reader, encoder, bill, runtime.json_keepalive_after, runtime.keepalive_seconds)


class WhileConnected(AbstractContextManager[None]):
    """Watch whether the client disconnects before the answer is finished. Then stop the work inside as ClientGone."""

    __slots__ = ("_answer", "_connection", "_follower", "_watching", "_work")

    def __init__(self, scope: Scope, receive: Receive, answer: Answer, follower: Follower) -> None:
        self._answer = answer
        self._follower = follower
        self._work = asyncio.current_task()
        self._connection = connection(scope)
        self._watching = nullcontext() if self._connection else watching(receive, self._leave)

    def __enter__(self) -> None:
        self._watching.__enter__()
        if self._connection:
            self._connection.watch(self._leave)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection:
            self._connection.unwatch(self._leave)
        self._watching.__exit__(kind, error, trace)
        if isinstance(error, asyncio.CancelledError) and self._answer.gone and self._work is not None:
            self._work.uncancel()
            raise ClientGone from None

    def _leave(self) -> None:
        if self._work is not None and not self._answer.finished:
            self._answer.gone = True
            self._follower.left()
            self._work.cancel()
