"""The image endpoints: one request after the other through the same steps, on one screen. Plain ASGI, since nothing
here may hold a body whole."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial

from starlette.types import Receive, Scope, Send

from app.api.files import base_url
from app.api.following import Service, serve
from app.api.requests.accept import apply_accept
from app.api.requests.reading import header, read_request
from app.api.responses.sending import RequestLog
from app.errors import InvalidRequest
from app.gateway.call import Call
from app.gateway.inputs import Preparation
from app.images import Operation
from app.runs.entry import RunEntry
from app.runs.run import Run

_IDEMPOTENCY_KEY = re.compile(r"[ -~]{1,255}")
_FIRST = (None, "", "0")  # what `x-stainless-retry-count` says of a request that was not made before


class ImageEndpoint:
    """`service` is asked for at each request, since it is there only while the application runs."""

    def __init__(self, operation: Operation, service: Callable[[], Service]) -> None:
        self._operation = operation
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, state = self._service(), scope["state"]
        told: RequestLog = state["told"]
        told.operation = str(self._operation)
        key = service.keys.authenticate(header(scope, b"authorization"))
        told.key = key.name
        back = Back(
            header(scope, b"idempotency-key") or None, is_retry=header(scope, b"x-stainless-retry-count") not in _FIRST
        )
        with ExitStack() as stack:
            held = stack.enter_context(ExitStack())
            if not back.possible:
                service.keys.spend(key)
                held.enter_context(service.keys.hold(key))
            uploads = stack.enter_context(service.uploads())
            fetch = service.fetch(uploads) if service.fetch else None
            with service.keys.reading(key) if back.possible else nullcontext():
                back.check()
                request = await read_request(self._operation, scope, receive, service.limits, uploads, fetch)
                request = apply_accept(request, header(scope, b"accept"))
                told.model = request.model
                told.prompt = request.prompt if service.log_prompts else None
                link = partial(service.signer.url, base_url(scope, service.public_url), key.name)
                preparation = Preparation(request, uploads, service.workers, key.name) if request.images else None
                call = Call(request, key, uploads, preparation, link, id=state["request_id"])
                found = await self._found(service, call, back)
            if found and not found.run.may_be_drawn_afresh:
                stack.enter_context(service.retention.join(found, state["request_id"]))
                uploads.close()
                await serve(service, found, scope, receive, send)
                return
            kept = self._begun(service, call, back, found, held)
            stack.pop_all()  # the uploads and the key's place are the run's from now on
        await serve(service, kept, scope, receive, send)

    async def _found(self, service: Service, call: Call, back: Back) -> RunEntry | None:
        """The run that the caller comes back for."""
        if not back.possible:
            return None
        return await service.retention.find(
            call.request, call.key, idempotency_key=back.idempotency_key, is_retry=back.is_retry
        )

    def _begun(self, service: Service, call: Call, back: Back, failed: RunEntry | None, held: ExitStack) -> RunEntry:
        """A new run. What `failed` has drawn already is not drawn again."""
        if back.possible:
            service.keys.spend(call.key)
            held.enter_context(service.keys.hold(call.key))
        service.retention.make_room()
        if failed:
            call.drawn = failed.run.call.drawn
        events = service.gateway.draw(call, service.gateway.candidates(call.request, call.key))
        if failed:
            service.retention.replace(failed)
        run = Run(
            call,
            events,
            service.recording(),
            held,
            int(time.time()),
            time.monotonic,
            idempotency_key=back.idempotency_key,
            observers=service.run_observers,
        )
        return service.retention.add(run)


@dataclass(frozen=True, slots=True)
class Back:
    """Whether the caller may have asked before: by its own word, or because an official SDK says that it retries."""

    idempotency_key: str | None
    is_retry: bool

    @property
    def possible(self) -> bool:
        return self.is_retry or self.idempotency_key is not None

    def check(self) -> None:
        """Raises InvalidRequest."""
        if self.idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(self.idempotency_key):
            raise InvalidRequest(
                "Invalid 'Idempotency-Key': expected at most 255 printable ASCII characters. A new UUID for each new "
                "request is a good choice.",
                param="Idempotency-Key",
                code="invalid_value",
            )
