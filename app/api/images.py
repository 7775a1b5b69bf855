"""The image endpoints: one request after the other through the same steps, on one screen. Plain ASGI, since nothing
here may hold a body whole."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from starlette.types import Receive, Scope, Send

from app.access.keyring import Key
from app.api.connection import header
from app.api.files import base_url
from app.api.following import serve
from app.api.requests.accept import apply_accept
from app.api.requests.reading import read_request
from app.api.requests.rules import invalid
from app.api.runtime import Runtime
from app.catalog.fitting import Fitted
from app.gateway.call import Call
from app.gateway.inputs import Preparation
from app.images import Operation
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
        runtime, request_id = self._runtime(), scope["state"]["request_id"]
        resources, log = runtime.resources, scope["state"]["log"]
        log.operation = str(self._operation)
        key = runtime.authenticate(scope)
        with ExitStack() as stack:
            held = stack.enter_context(ExitStack())
            uploads = stack.enter_context(resources.uploads())
            with resources.limits.reading(key, _announced_length(scope)):
                idempotency_key = _idempotency_key(scope)
                call = await self._read(runtime, request_id, key, scope, receive, uploads)
                log.model = call.request.model
                log.prompt = call.request.prompt if runtime.log_prompts else None
                is_retry = header(scope, b"x-stainless-retry-count") not in _FIRST
                find = partial(
                    resources.retention.find,
                    call.request,
                    key,
                    idempotency_key=idempotency_key,
                    is_retry=is_retry,
                )
                entry = await find()
                if not _has_answer(entry):
                    candidates = runtime.gateway.candidates(call.request, key)
                    ticket = await runtime.admission.admit(key, candidates, call.request.n)
                    held.callback(ticket.release)
                    entry = await find()  # another request may have begun the run meanwhile
            if entry and _has_answer(entry):
                held.close()
                stack.enter_context(resources.retention.join(entry, request_id))
                uploads.close()
                await serve(runtime, entry, scope, receive, send)
                return
            entry = _begin(runtime, call, candidates, entry, held, idempotency_key)
            stack.pop_all()  # the uploads and the ticket are the run's from now on
        await serve(runtime, entry, scope, receive, send)

    async def _read(
        self, runtime: Runtime, request_id: str, key: Key, scope: Scope, receive: Receive, uploads: Uploads
    ) -> Call:
        fetch = partial(runtime.fetch, uploads) if runtime.fetch else None
        request = await read_request(self._operation, scope, receive, runtime.body_limits, uploads, fetch)
        request = apply_accept(request, header(scope, b"accept"))
        preparation = Preparation(request, uploads, runtime.resources.workers, key.name) if request.images else None
        return Call(request, key, uploads, preparation, base_url(scope, runtime.public_url), id=request_id)


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
    held: ExitStack,
    idempotency_key: str | None,
) -> RunEntry:
    """Begin a run, which closes `held` at its end. Images that `failed` has drawn are not drawn again. Raises
    Unavailable if there is no room for it."""
    resources = runtime.resources
    resources.retention.make_room()
    if failed:
        call.drawn = failed.run.call.drawn
    events = runtime.gateway.draw(call, candidates)
    if failed:
        resources.retention.replace(failed)
    run = Run(
        call,
        events,
        resources.recording(),
        held,
        int(time.time()),
        time.monotonic,
        idempotency_key=idempotency_key,
        observers=resources.run_observers,
    )
    return resources.retention.add(run)


def _announced_length(scope: Scope) -> int | None:
    """Bytes that the body will have, if the head says so."""
    length = header(scope, b"content-length") or ""
    return int(length) if _LENGTH.fullmatch(length) else None
