"""Ask every provider for its list of models, once, with the credential and over the connections that drawings take.
Never draws: each request is a GET. Knows the shapes of such lists, and no dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from app.catalog.deployments import Deployment, Model, Provider
from app.catalog.profiles import Profile, Timeouts
from app.catalog.redaction import body_without_secrets
from app.config.inventory import provider
from app.config.loading import Settings
from app.dialects import UpstreamRequest, failures
from app.errors import Failure, UpstreamError
from app.telemetry import connection_errors
from app.upstream.client import Upstream, UpstreamAnswer
from app.upstream.transport import AiohttpTransport

TIMEOUTS = Timeouts(connect=5, read=10, total=20)
LONGEST_LIST = 1_048_576  # bytes

# Names of a model in hosts' lists. Any of them may be the name that a drawing must state.
_NAMES = ("id", "model_name", "model_alias", "name")


class Outcome(Enum):
    UNREACHABLE = auto()
    REFUSED = auto()  # 401, 403
    CONNECTED = auto()  # it answers, and has no known list of models
    UNLISTED = auto()  # it answers, but not with a list
    LISTED = auto()


@dataclass(frozen=True, slots=True)
class Question:
    provider: Provider
    path: str | None  # path of the list of models, below the provider's base URL
    models: tuple[str, ...]  # configured models, by the provider's names


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one provider. `why` may hold words of the provider, without secrets."""

    provider: str
    outcome: Outcome
    why: str = ""
    credential: bool = True  # if a credential was sent
    count: int = 0
    not_listed: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        return self.outcome not in (Outcome.UNREACHABLE, Outcome.REFUSED)


def questions(settings: Settings, models: Sequence[Model]) -> tuple[Question, ...]:
    asked = [deployment for model in models for deployment in model.deployments]
    return tuple(
        Question(
            provider(name, entry),
            entry.models_path,
            tuple(dict.fromkeys(deployment.model for deployment in asked if deployment.provider.name == name)),
        )
        for name, entry in settings.providers.items()
    )


async def ask(asked: Iterable[Question], timeouts: Timeouts = TIMEOUTS) -> list[Finding]:
    """Ask all providers at once; the findings stand in the order of the questions."""
    async with AiohttpTransport() as transport:
        upstream = Upstream(transport)
        return await asyncio.gather(*(_finding(upstream, question, timeouts) for question in asked))


async def _finding(upstream: Upstream, question: Question, timeouts: Timeouts) -> Finding:
    asked = question.provider
    if question.path is None:  # no path is known, so the request needs no credential
        asked = replace(asked, api_key=None, headers={})
    request = UpstreamRequest(question.path or "", method="GET")
    has_begun = False
    try:
        async with upstream.send(request, Deployment(asked, "", Profile(timeout=timeouts))) as answer:
            has_begun = True
            return await _read(question, answer)
    except UpstreamError as error:
        if has_begun:
            return replace(_reached(question), why=f"its list did not come whole: {error.message}")
        return Finding(asked.name, Outcome.UNREACHABLE, _why(error, timeouts))


def _reached(question: Question) -> Finding:
    """Return the finding for a provider that answered."""
    return Finding(
        question.provider.name,
        Outcome.UNLISTED,
        credential=bool(question.provider.api_key or question.provider.headers),
    )


async def _read(question: Question, answer: UpstreamAnswer) -> Finding:
    finding = _reached(question)
    status = answer.head.status
    if question.path is None:
        return replace(finding, outcome=Outcome.CONNECTED)
    if not 200 <= status < 300:
        text = body_without_secrets(await answer.text(), question.provider)
        message = failures.from_status(answer.head, text).message
        outcome = Outcome.REFUSED if status in (401, 403) else Outcome.UNLISTED
        return replace(finding, outcome=outcome, why=_quote(question.path, status, message))
    body = await _body(answer)
    if body is None:
        return replace(finding, why=f"its list is longer than {LONGEST_LIST} bytes, and was not read")
    listed = names(failures.parse_json(body))
    if listed is None:
        return replace(finding, why=f"what it answers at {question.path!r} is no list of models; correct `models_path`")
    known = frozenset().union(*listed)
    missing = tuple(model for model in question.models if model not in known)
    return replace(finding, outcome=Outcome.LISTED, count=len(listed), not_listed=missing)


def _quote(path: str, status: int, message: str) -> str:
    said = f"status {status}" if message == f"status {status}" else f"status {status}: {message}"
    remedy = "; correct `models_path`, or set it to null" if status in (404, 405) else ""
    return f"{said} at {path!r}{remedy}"


async def _body(answer: UpstreamAnswer) -> bytes | None:
    """Return the body, or None if it is too long. Raises UpstreamError when it breaks off."""
    body = bytearray()
    async for piece in answer.pieces:
        body += piece
        if len(body) > LONGEST_LIST:
            return None
    return bytes(body)


def names(document: Any) -> frozenset[frozenset[str]] | None:
    """Return the models of a list, each with all its names, or None if it is no list of models.

    Known shapes: `{"data": [{"id"}]}` (OpenAI), `{"data": [{"model_name"}]}` (Nebul), `{"data": {"models":
    [{"model_name"}]}}` (Nebula Block), and a bare list.
    """
    found = document
    for key in ("data", "models"):
        found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, list):
        return None
    listed = frozenset(frozenset(_names(item)) for item in found) - {frozenset()}
    return listed if listed or not found else None


def _names(item: Any) -> Iterator[str]:
    if isinstance(item, dict):
        yield from (name for key in _NAMES if isinstance(name := item.get(key), str) and name)
    elif isinstance(item, str) and item:
        yield item


def _why(error: UpstreamError, timeouts: Timeouts) -> str:
    sent = error.failure is not Failure.NOT_SENT
    if error.timed_out:
        what, seconds = ("answer", timeouts.read) if sent else ("connection", timeouts.connect)
        return f"timeout: no {what} within {seconds:g} seconds"
    return connection_errors.explain(error) or (error.message if sent else f"connect: {error.message}")
