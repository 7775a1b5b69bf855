"""The image endpoints: one request after the other through the same steps, on one screen. Plain ASGI, since nothing
here may hold a body whole."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from starlette.types import Receive, Scope, Send

from app.access.keys import Keys
from app.api.files import base_url
from app.api.requests.accept import honoured
from app.api.requests.body import ClientGone, Limits
from app.api.requests.json_body import Fetch
from app.api.requests.reading import read_request
from app.api.responses.encoders import JsonEncoder, RawEncoder, SseEncoder
from app.api.responses.sending import Answer, Pause, Told, send_json, send_raw, send_sse
from app.errors import ApiError, InvalidRequest, Unavailable
from app.gateway.gateway import Gateway
from app.gateway.inputs import Preparation
from app.images import Event, Operation
from app.imaging.workers import Studio
from app.runs.entry import Kept
from app.runs.retention import Retention
from app.runs.run import Call, Run
from app.server.protocol import break_off, connection
from app.storage.recording import Recording
from app.storage.signed_urls import Signer
from app.storage.spool import Uploads

_IDEMPOTENCY_KEY = re.compile(r"[ -~]{1,255}")
_FIRST = (None, "", "0")  # what `x-stainless-retry-count` says of a request that was not made before


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints need of the rest."""

    gateway: Gateway
    keys: Keys
    retention: Retention
    recording: Callable[[], Recording]
    limits: Limits
    uploads: Callable[[], Uploads]
    studio: Studio
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


class ImageEndpoint:
    """`service` is asked for at each request, since it is there only while the application runs."""

    def __init__(self, operation: Operation, service: Callable[[], Service]) -> None:
        self._operation = operation
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, state = self._service(), scope["state"]
        told: Told = state["told"]
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
                request = honoured(request, header(scope, b"accept"))
                told.model = request.model
                told.prompt = request.prompt if service.log_prompts else None
                link = partial(service.signer.url, base_url(scope, service.public_url), key.name)
                preparation = Preparation(request, uploads, service.studio, key.name) if request.images else None
                call = Call(request, key, uploads, preparation, link)
                found = await self._found(service, call, back)
            if found and (found.run.owed or not found.run.failed_unpaid):
                stack.enter_context(service.retention.joined(found, state["request_id"]))
                uploads.close()
                await serve(service, found, scope, receive, send)
                return
            kept = self._begun(service, call, back, found, state["request_id"], held)
            stack.pop_all()  # the uploads and the key's place are the run's from now on
        await serve(service, kept, scope, receive, send)

    async def _found(self, service: Service, call: Call, back: Back) -> Kept | None:
        """The run that the caller comes back for."""
        if not back.possible:
            return None
        return await service.retention.find(
            call.request, call.key, idempotency_key=back.idempotency_key, is_retry=back.is_retry
        )

    def _begun(
        self, service: Service, call: Call, back: Back, failed: Kept | None, request_id: str, held: ExitStack
    ) -> Kept:
        """A new run. What `failed` has drawn already is not drawn again."""
        if back.possible:
            service.keys.spend(call.key)
            held.enter_context(service.keys.hold(call.key))
        service.retention.make_room()
        if failed:
            call.drawn = failed.run.call.drawn
        events = service.gateway.draw(call)
        if failed:
            service.retention.replace(failed)
        run = Run(request_id, call, events, service.recording(), held, int(time.time()), time.monotonic, service.report)
        return service.retention.add(run, back.idempotency_key)


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


async def serve(service: Service, kept: Kept, scope: Scope, receive: Receive, send: Send) -> None:
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
        pause = None if after is None else Pause(after, service.keepalive_seconds)
        await send_json(answer, events, JsonEncoder(request, run.created), pause)


def header(scope: Scope, wanted: bytes) -> str | None:
    found = next((value for name, value in scope["headers"] if name == wanted), None)
    return None if found is None else found.strip(b" \t").decode("latin-1")


class RunEndpoint:
    """`GET /v1/images/runs/{id}`: waits for a run and gives the answer that its caller would have had."""

    def __init__(self, service: Callable[[], Service]) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service()
        key = service.keys.authenticate(header(scope, b"authorization"))
        scope["state"]["told"].key = key.name
        kept = service.retention.get(scope["path_params"]["run"], key)
        await serve(service, kept, scope, receive, send)


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
