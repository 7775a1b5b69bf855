"""The image endpoints: one request after the other through the same steps, on one screen. Plain ASGI, since nothing
here may hold a body whole."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial

from starlette.types import Receive, Scope, Send

from app.access.keyring import Key
from app.access.max_cost import within
from app.access.refusals import rate_limit_headers
from app.api.connection import header
from app.api.files import base_url
from app.api.following import count_joined, serve
from app.api.requests.accept import apply_accept
from app.api.requests.gateway_headers import apply_headers
from app.api.requests.reading import read_request
from app.api.requests.rules import invalid
from app.api.runtime import Runtime
from app.catalog.fitting import Fitted
from app.errors import ApiError
from app.gateway.call import Call
from app.gateway.inputs import Preparation
from app.images import Operation
from app.ledger.values.limits import LimitState
from app.runs.entry import RunEntry
from app.runs.run import Run
from app.storage.spool import Uploads

_IDEMPOTENCY_KEY = re.compile(r"[ -~]{1,255}")
_LENGTH = re.compile(r"[0-9]{1,18}")
_FIRST = (None, "", "0")  # the values of `x-stainless-retry-count` on a request that was not made before


class ImageEndpoint:
    """Authenticate, read, then join a run of the same request, or be admitted and begin one."""

    def __init__(self, operation: Operation, runtime: Callable[[], Runtime]) -> None:
        self._operation = operation
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self._runtime()
        scope["state"]["log"].operation = str(self._operation)
        key = runtime.authenticate(scope)
        try:
            key.require("draw")
            key.require_operation(self._operation)
            await self._serve(runtime, key, scope, receive, send)
        except ApiError as error:
            if not any(name.startswith("x-ratelimit-") for name in error.headers):
                await _tell_limits(runtime, key, scope)
            raise

    async def _serve(self, runtime: Runtime, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, log, resources = scope["state"]["request_id"], scope["state"]["log"], runtime.resources
        with ExitStack() as stack:
            uploads = stack.enter_context(resources.uploads())
            async with resources.body_gate.enter(key, announced_length(scope)):
                idempotency_key = _idempotency_key(scope)
                call = await read_call(self._operation, runtime, request_id, key, scope, receive, uploads)
            log.model, call.trace_id = call.request.model, log.trace_id
            call.traceparent = header(scope, b"traceparent") if log.trace_id else None
            log.prompt = call.request.prompt if runtime.log_prompts else None
            is_retry = header(scope, b"x-stainless-retry-count") not in _FIRST
            find = partial(
                resources.retention.find,
                call.request,
                key,
                idempotency_key=idempotency_key,
                is_retry=is_retry,
            )
            may_join = idempotency_key is not None or is_retry
            entry = await find() if may_join else None
            if not _has_answer(entry):
                candidates = await find_candidates(runtime, call)
                model = runtime.catalog.own_name(call.request.model, key)
                try:
                    ticket = await runtime.admission.admit(request_id, key, call.request, candidates, model)
                except ApiError:
                    entry = await find() if may_join else None
                    if not _has_answer(entry):
                        raise
                else:
                    log.is_admitted = True
                    scope["state"]["headers"] = _limit_headers(ticket.limits)
                    call.account = resources.accounts.open(ticket.drawing_id, ticket.held, call.request)
                    stack.callback(call.account.give_back)
                    entry = await find() if may_join else None  # another request may have begun the run meanwhile
            if entry and _has_answer(entry):
                log.joined = "idempotency_key" if idempotency_key is not None else "sdk_retry"
                if call.account is not None:
                    await call.account.give_back()
                stack.enter_context(resources.retention.join(entry, request_id))
                uploads.close()
                await _tell_limits(runtime, key, scope)
                await serve(runtime, entry, scope, receive, send, is_replay=True)
                await count_joined(runtime, request_id, entry.run, key, call.request)
                return
            try:
                entry = _begin(runtime, call, candidates, entry, idempotency_key)
            except ApiError:
                if call.account is not None:
                    await call.account.give_back()  # before the caller can ask again
                raise
            stack.pop_all()  # the uploads and the ticket are the run's from now on
        await serve(runtime, entry, scope, receive, send)


async def read_call(
    operation: Operation,
    runtime: Runtime,
    request_id: str,
    key: Key,
    scope: Scope,
    receive: Receive,
    uploads: Uploads,
) -> Call:
    """Read a request with its headers. Raises ApiError, ClientGone."""
    fetch = partial(runtime.fetch, uploads) if runtime.fetch else None
    default_model = partial(runtime.catalog.default_model, operation, key)
    request = await read_request(operation, scope, receive, runtime.body_limits, uploads, fetch, default_model)
    request = apply_headers(apply_accept(request, header(scope, b"accept")), scope)
    preparation = Preparation(request, uploads, runtime.resources.workers, key.id) if request.images else None
    return Call(request, key, uploads, preparation, base_url(scope, runtime.public_url), id=request_id)


async def find_candidates(runtime: Runtime, call: Call) -> list[Fitted]:
    """Return the deployments that may draw the request, in order. Raises ApiError if there is none."""
    request = call.request
    candidates = runtime.gateway.candidates(request, call.key)
    if request.max_cost is None:
        return candidates
    if call.preparation is not None:  # the price of an edit may follow from the size of its image
        foreseen = [await call.preparation.foresee(fitted) for fitted in candidates]
        kept = within(request, foreseen, runtime.admission.currency)
        return [fitted for fitted, seen in zip(candidates, foreseen, strict=True) if any(seen is each for each in kept)]
    return within(request, candidates, runtime.admission.currency)


async def _tell_limits(runtime: Runtime, key: Key, scope: Scope) -> None:
    """Let the answer tell what is left of the key's limits, if its admission has not told it."""
    if not scope["state"]["headers"]:
        scope["state"]["headers"] = _limit_headers(await runtime.admission.limit_states(key))


def _limit_headers(states: Iterable[LimitState]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in rate_limit_headers(states).items()]


def _idempotency_key(scope: Scope) -> str | None:
    """Read the header. Raises InvalidRequest."""
    key = header(scope, b"idempotency-key") or None
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise invalid(
            "Idempotency-Key",
            "Invalid 'Idempotency-Key': expected at most 255 printable ASCII characters. A new UUID for each new "
            "request is a good choice.",
        )
    return key


def _has_answer(entry: RunEntry | None) -> bool:
    """True if the run can answer a request. A failure that cost nothing is drawn afresh, unless it is owed."""
    return entry is not None and not entry.run.may_be_drawn_afresh


def _begin(
    runtime: Runtime,
    call: Call,
    candidates: list[Fitted],
    failed: RunEntry | None,
    idempotency_key: str | None,
) -> RunEntry:
    """Begin a run. Images that `failed` has drawn are not drawn again. Raises Unavailable if there is no room for
    it."""
    resources = runtime.resources
    resources.retention.make_room()
    if failed:
        call.drawn = failed.run.call.drawn
        resources.retention.replace(failed)
    run = Run(
        call,
        partial(runtime.gateway.draw, call, candidates),
        resources.recording(),
        int(time.time()),
        time.monotonic,
        idempotency_key=idempotency_key,
        observers=resources.run_observers,
    )
    return resources.retention.begin(run)


def announced_length(scope: Scope) -> int | None:
    """Return the length of the body in bytes, if the head states it."""
    length = header(scope, b"content-length") or ""
    return int(length) if _LENGTH.fullmatch(length) else None
