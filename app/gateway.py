"""THE path of a request, in the order things happen: candidates, attempts, the upstream's answer as events.

Knows no HTTP and no provider: what does I/O comes in as a protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

from app import failover, fanout
from app.catalog import Catalog
from app.deployments import Deployment
from app.dialects import Dialect, ResponseHead, UpstreamRequest
from app.errors import UpstreamError
from app.failover import Attempt
from app.fitting import Fitted
from app.images import Event, ImageData, ImageLink, Served
from app.inspection import Inspector
from app.recording import Recording
from app.runs import Call


class Answer(Protocol):
    head: ResponseHead

    def pieces(self) -> AsyncGenerator[bytes, None]: ...

    async def text(self) -> bytes: ...


class Sender(Protocol):
    def send(self, request: UpstreamRequest, deployment: Deployment) -> AbstractAsyncContextManager[Answer]: ...


class Gateway:
    """`nonce` gives random text, `sleep` waits seconds, `report` is told of every attempt that failed."""

    def __init__(
        self,
        catalog: Catalog,
        sender: Sender,
        dialect: Callable[[str], Dialect],
        *,
        recording: Callable[[], Recording],
        nonce: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]],
        report: Callable[[Deployment, UpstreamError], None],
    ) -> None:
        self._catalog = catalog
        self._sender = sender
        self._dialect = dialect
        self._recording = recording
        self._nonce = nonce
        self._sleep = sleep
        self._report = report

    def draw(self, call: Call) -> AsyncGenerator[Event, None]:
        """The images as events. Raises ApiError, here or on the way; until the first image data comes it is clean."""
        request = call.request
        candidates = self._catalog.candidates(request, call.key)
        return self._images(call, candidates)

    def _images(self, call: Call, candidates: list[Fitted]) -> AsyncGenerator[Event, None]:
        """As many images as were asked for, however many a deployment draws at a time."""
        n, at_a_time = call.request.n, min(fitted.request.n for fitted in candidates)
        if n == 1:
            return self._attempts(call, candidates)

        def part(first: int, count: int) -> AsyncGenerator[Event, None]:
            return self._attempts(call, [fitted.part(first, count) for fitted in candidates])

        if at_a_time == n and not call.drawn.recordings:
            return fanout.in_a_row(n, part)
        return fanout.together(n, at_a_time, part, self._recording, call.drawn, as_they_land=call.request.stream)

    async def _attempts(self, call: Call, candidates: list[Fitted]) -> AsyncGenerator[Event, None]:
        """One attempt after the other until one delivers. One that has given image data is never abandoned."""
        plan = failover.plan(candidates)
        attempt = next(plan)
        while True:
            if attempt.wait:
                await self._sleep(attempt.wait)
            held: list[Event] | None = [_served(attempt)]
            try:
                async with aclosing(self._attempt(call, attempt.candidate)) as events:
                    async for event in events:
                        if held is None:
                            yield event
                            continue
                        held.append(event)
                        if type(event) is ImageData or type(event) is ImageLink:  # the commit point
                            first, held = held, None
                            for event in first:
                                yield event
                return
            except UpstreamError as error:
                self._report(attempt.candidate.deployment, error)
                if held is None:
                    raise failover.verdict([(attempt.candidate, error)]) from error
                try:
                    attempt = plan.send(error)
                except StopIteration as stop:
                    raise stop.value from error

    async def _attempt(self, call: Call, candidate: Fitted) -> AsyncGenerator[Event, None]:
        """One request to one deployment, and its answer. Raises UpstreamError."""
        deployment, request = candidate.deployment, candidate.request
        dialect = self._dialect(deployment.provider.dialect)
        call.sent = True
        async with self._sender.send(dialect.encode(request, deployment, self._nonce()), deployment) as answer:
            if answer.head.status // 100 != 2:
                raise dialect.error(answer.head, await answer.text())
            decoder, inspect = dialect.decoder(request, answer.head), Inspector()
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    for event in inspect(decoder.feed(piece)):
                        yield event
            for event in inspect(decoder.close()):
                yield event


def _served(attempt: Attempt[Fitted]) -> Served:
    fitted, deployment = attempt.candidate, attempt.candidate.deployment
    return Served(deployment.provider.name, deployment.model, attempt.number, fitted.dropped, fitted.mapped)
