"""An upstream that plays what a test says, and a gateway before it, without any network. Knows the engine's protocols
alone. Exceptions are raised as copies: those of a test outlive it, and would keep the frames that they passed."""

from __future__ import annotations

import asyncio
import copy
import json
import types
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from app.access.keyring import Key
from app.catalog.deployments import Deployment, Model, Provider
from app.catalog.models import Catalog
from app.catalog.profiles import Profile, Timeouts
from app.dialects import Decoder, Exchange, ResponseHead, UpstreamRequest
from app.dialects.failures import from_status
from app.dialects.json_answers import JsonAnswer, SmallDocument
from app.errors import Failure, UpstreamError
from app.events import Done, Event, ImageBegins, ImageEnds, ImageLink, Sink
from app.gateway.attempt import Attempt, Outcome
from app.gateway.call import Call
from app.gateway.delivery import Delivery
from app.gateway.exchanges import Exchanges
from app.gateway.gateway import Gateway, Policy
from app.images import ImageRequest, Operation
from app.imaging.workers import Workers
from app.routing.failover import RetryBudget
from app.routing.health import Health
from app.routing.queues import Slots
from app.storage.recording import Meter, Recording
from app.storage.spool import Spool, Uploads
from tests.drawings import into

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE_TEXT = PNG.encode()
IMAGE = {"data": [{"b64_json": PNG}]}
TOTAL = 600.0  # seconds that an attempt may take


def no(failure: Failure, **more: Any) -> UpstreamError:
    return UpstreamError(failure, f"no: {failure.name}", **more)


@dataclass
class Said:
    """An answer: its status, and its body in pieces. An exception among them breaks it there."""

    body: Any = None
    status: int = 200
    cut: BaseException | None = None
    step: int = 100_000  # bytes of a piece
    headers: Mapping[str, str] = field(default_factory=dict)

    def pieces(self) -> list[bytes | BaseException]:
        text = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        found: list[bytes | BaseException] = [text[at : at + self.step] for at in range(0, len(text), self.step)]
        return [*found[: len(found) // 2], self.cut] if self.cut else found


# What becomes of a request: it is answered, or it fails before that.
Step = Said | BaseException


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds


class Answering:
    def __init__(self, said: Said) -> None:
        self.head = ResponseHead(said.status, said.headers)
        self._said = said
        self.pieces = self._play()

    async def _play(self) -> AsyncGenerator[bytes, None]:
        for piece in self._said.pieces():
            await asyncio.sleep(0)
            if isinstance(piece, BaseException):
                raise copy.copy(piece)
            yield piece

    async def text(self) -> bytes:
        return b"".join([piece async for piece in self.pieces])

    async def let_end(self) -> None:
        async for _ in self.pieces:
            pass


@dataclass
class Upstream:
    """Plays its steps one after the other, and the last one for ever. Notes what was sent, and its timeouts."""

    steps: list[Step]
    sent: list[UpstreamRequest] = field(default_factory=list)
    timeouts: list[Timeouts | None] = field(default_factory=list)
    open: int = 0

    @asynccontextmanager
    async def send(
        self, request: UpstreamRequest, deployment: Deployment, timeouts: Timeouts | None = None
    ) -> AsyncIterator[Answering]:
        self.sent.append(request)
        self.timeouts.append(timeouts)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        await asyncio.sleep(0)
        if isinstance(step, BaseException):
            raise copy.copy(step)
        self.open += 1
        try:
            yield Answering(step)
        finally:
            self.open -= 1


@dataclass
class Links:
    """Fetches what lies behind each link."""

    found: bytes | UpstreamError = IMAGE_TEXT
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def as_base64(self, url: str, origin: str | None = None) -> AsyncGenerator[bytes, None]:
        self.asked.append((url, origin))
        await asyncio.sleep(0)
        if isinstance(self.found, UpstreamError):
            raise copy.copy(self.found)
        yield self.found[:20]
        yield self.found[20:]


# --- a dialect whose providers draw in jobs ---


def status_call(job: Mapping[str, Any], *, after: float = 0.0, note: bool = False, repeatable: bool = True) -> Exchange:
    return Exchange(
        UpstreamRequest(job["poll"], method="GET"),
        lambda _: SmallDocument(lambda document: _status(job, document, repeatable=repeatable)),
        from_status,
        after,
        is_repeatable=repeatable,
        job=job if note else None,
    )


def _status(job: Mapping[str, Any], document: Mapping[str, Any], *, repeatable: bool) -> Sequence[Event | Exchange]:
    match document["status"]:
        case "pending":
            return [status_call(job, after=0.5, repeatable=repeatable)]
        case "ready":
            return [ImageBegins(0), ImageLink(document["link"]), ImageEnds(), Done({"total_tokens": 1})]
        case "moderated":
            raise UpstreamError(Failure.REFUSED, "it is moderated", 400, is_final=True)
        case "failed":
            raise UpstreamError(Failure.FAILED, "it failed", is_final=True)
    raise UpstreamError(Failure.UNCERTAIN, "it says something else")


def jobs(*, repeatable: bool = True) -> Any:
    """The dialect: a submit is answered with `{"poll": path}`, a status call with `{"status": …, "link": …}`."""

    def submitted(document: Mapping[str, Any]) -> Sequence[Event | Exchange]:
        return [status_call(document, after=0.5, note=True, repeatable=repeatable)]

    return types.SimpleNamespace(
        profile=Profile(),
        encode=lambda request, deployment, nonce: UpstreamRequest("/submit", "application/json", (b"{}",)),
        decoder=lambda request, head: SmallDocument(submitted),
        error=from_status,
        resume=lambda job, request: status_call(job, repeatable=repeatable),
    )


def plain() -> Any:
    """A dialect of one exchange."""

    def decoder(request: ImageRequest, head: ResponseHead) -> Decoder:
        return JsonAnswer(request.n)

    return types.SimpleNamespace(
        profile=Profile(),
        encode=lambda request, deployment, nonce: UpstreamRequest("/draw", "application/json", (b"{}",)),
        decoder=decoder,
        error=from_status,
    )


SUBMITTED = Said({"poll": "/jobs/1"})
PENDING = Said({"status": "pending"})
READY = Said({"status": "ready", "link": "https://cdn.test/1.png"})


# --- a gateway ---


class Watching:
    """Observes: each attempt, and what was told of it, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Attempt]] = []
        self.sent_at_first: list[int] = []  # exchanges of each attempt when it began

    def attempt_began(self, attempt: Attempt) -> None:
        assert attempt.outcome is Outcome.UNDER_WAY
        self.told.append(("began", attempt))
        self.sent_at_first.append(attempt.exchanges)

    def first_image(self, attempt: Attempt) -> None:
        assert attempt.first_image_at is not None
        self.told.append(("first image", attempt))

    def attempt_ended(self, attempt: Attempt) -> None:
        assert attempt.outcome is not Outcome.UNDER_WAY
        self.told.append(("ended", attempt))

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for what, attempt in self.told if what == "began"]

    def of(self, attempt: Attempt) -> list[str]:
        return [what for what, each in self.told if each is attempt]


class Scene:
    """A gateway with deployments `a`, `b` …, each before an upstream of its own."""

    def __init__(self, *upstreams: list[Step], dialect: Any = None, retry_timeouts: bool = False, n: int = 1) -> None:
        self.time, self.links, self.watching = Time(), Links(), Watching()
        names = "abcdef"[: len(upstreams)]
        self.upstreams = {name: Upstream(list(steps)) for name, steps in zip(names, upstreams, strict=True)}
        self.deployments = [
            Deployment(
                Provider(name, "fake", f"https://{name}.test/v1", "the-secret", retry_timeouts=retry_timeouts),
                "flux",
                Profile(max_n=1, timeout=Timeouts(total=TOTAL)),
                priority=priority,
            )
            for priority, name in enumerate(names)
        ]
        self.request = ImageRequest(Operation.GENERATIONS, "flux", "a fox", n=n)
        self.call = Call(self.request, Key("team", "team"), Uploads(), id="run-1")
        self.remembered: list[Any] = []
        self.call.remember = self._remember
        self.health = Health(self.time)
        self.meter = Meter(1 << 30)
        self.gateway = Gateway(
            Catalog([Model("flux", tuple(self.deployments))]),
            Exchanges(self, self.links, self.time.sleep),
            lambda _: dialect or plain(),
            Policy(self.health, Slots(self.time, 10, 10.0), RetryBudget(self.time), lambda: 0.5),
            Delivery(None, "b64_json", None),  # type: ignore[arg-type]
            Workers(lambda: Spool(0)),
            recording=lambda: Recording(lambda: Spool(0), self.meter, 1 << 20),
            nonce=lambda: "nonce",
            clock=self.time,
            sleep=self.time.sleep,
            observers=[self.watching],
        )

    def send(self, request: UpstreamRequest, deployment: Deployment, timeouts: Timeouts | None = None) -> Any:
        return self.upstreams[deployment.provider.name].send(request, deployment, timeouts)

    async def draw(self, sink: Sink | None = None) -> list[Event]:
        """Return the events. `sink` gets each of them, too."""
        events: list[Event] = []
        candidates = self.gateway.candidates(self.request, self.call.key)
        await self.gateway.draw(self.call, candidates, into(events, sink))
        return events

    async def resume(self, *jobs: Any) -> list[Event]:
        self.call.request = self.request = replace(self.request.outline(), n=self.request.n)
        events: list[Event] = []
        await self.gateway.resume(self.call, jobs, into(events))
        return events

    def sent(self, name: str = "a") -> list[str]:
        return [request.target for request in self.upstreams[name].sent]

    @property
    def outcomes(self) -> list[Outcome]:
        return [attempt.outcome for attempt in self.watching.attempts]

    async def _remember(self, job: Any) -> None:
        self.remembered.append((job, self.sent()))


def image_of(events: Sequence[Event]) -> bytes:
    return b"".join(event.base64 for event in events if hasattr(event, "base64"))
