"""An endpoint of the administration: authenticate, check the key's scope, let a function answer, and put the book's
refusals into words. Plain ASGI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.access.keyring import ANONYMOUS, Key
from app.access.keyring import Scope as KeyScope
from app.api.administration.book import Book, Mint, NewKey, Registry, Reports
from app.api.administration.fields import Fields, query_fields
from app.api.requests.body import Body, Limits
from app.errors import Conflict, InvalidRequest, NotFound, Unavailable, shortened
from app.ledger.database.protocol import DatabaseUnavailable
from app.ledger.values.changes import Actor, Missing, Taken
from app.ledger.values.directory import ApiKey, Directory
from app.ledger.values.records import Dimension, UnknownRow, UsageQuery, UsageRecord
from app.microseconds import to_microseconds

Content = Mapping[str, Any]
BODY = Limits(upload_bytes=65_536, request_bytes=65_536)
AWAY_SECONDS = 5.0  # until the database may be back


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStatus:
    """A deployment's health at this moment. `pauses` are the reasons for which it is not asked, with the seconds that
    each has left."""

    provider: str
    model: str
    is_paused: bool
    pauses: Mapping[str, float]
    failures: int
    running: int
    waiting: int
    max_concurrency: int | None
    typical_seconds: float | None
    lately_seconds: float | None = None  # for which places were held
    is_priced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCheck:
    """A provider's answer to a request for its models. `outcome`: it listed them (`listed`), answered otherwise
    (`unlisted`), has no known list (`connected`), refused the credential (`refused`) or was not reached
    (`unreachable`). `not_listed` are the configured models that its list lacks."""

    outcome: Literal["listed", "unlisted", "connected", "refused", "unreachable"]
    message: str
    has_credential: bool
    models: int
    not_listed: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """Everything that the endpoints work with. `authenticate` finds the caller of a request, and names it in the log
    line; it raises the errors of a keyring. `clock` gives seconds since the epoch. `is_open`: a caller without a key
    administrates, as in the sandbox. `check` asks a provider of that name for its models, which costs nothing; None:
    there is no such provider. `configuration` gives the settings without secrets, `stated_keys` its keys."""

    book: Book
    authenticate: Callable[[Scope], Key]
    mint: Mint
    deployments: Callable[[], Sequence[DeploymentStatus]]
    clock: Callable[[], float]
    check: Callable[[str], Awaitable[ProviderCheck | None]]
    configuration: Callable[[], Content]
    stated_keys: Callable[[], Iterable[ApiKey]]
    is_open: bool = False

    def administrator(self, scope: Scope, needed: KeyScope = "admin") -> Key:
        """Return the caller, whose key has the scope that is needed. Raises Unauthenticated and Forbidden."""
        caller = self.authenticate(scope)
        if not self.allows(caller, needed):
            caller.require(needed)
        return caller

    def allows(self, caller: Key, needed: KeyScope) -> bool:
        return (self.is_open and caller.id == ANONYMOUS.id) or caller.has_scope(needed)


@dataclass(frozen=True, slots=True)
class Reading:
    """The drawings that a caller may read: those of a project, those of a key, or all."""

    project_id: str | None = None
    key_id: str | None = None

    def narrow(self, only: Mapping[Dimension, tuple[str, ...]]) -> Mapping[Dimension, tuple[str, ...]] | None:
        """Restrict a query's filter to the drawings that may be read. None: it selects none of them."""
        own: dict[Dimension, str | None] = {"project_id": self.project_id, "key_id": self.key_id}
        narrowed = dict(only)
        for name, id in own.items():
            if id is not None:
                if id not in only.get(name, (id,)):
                    return None
                narrowed[name] = (id,)
        return narrowed


@dataclass(frozen=True, slots=True)
class AdminCall:
    """One request to the administration."""

    administration: Administration
    caller: Key
    scope: Scope
    receive: Receive

    @property
    def path(self) -> Mapping[str, str]:
        """The names in the path."""
        found: Mapping[str, str] = self.scope["path_params"]
        return found

    @property
    def actor(self) -> Actor:
        """The author of a change, for the audit log."""
        client = self.scope.get("client")
        return Actor("key", self.caller.id, client[0] if client else None, self.scope["state"]["request_id"])

    @property
    def now(self) -> int:
        """Microseconds since the epoch."""
        return to_microseconds(self.administration.clock())

    @property
    def currency(self) -> str:
        return self.administration.book.currency

    @property
    def is_admin(self) -> bool:
        return self.administration.allows(self.caller, "admin")

    @property
    def reading(self) -> Reading:
        """The drawings that the caller may read. An admin key reads all, one with the scope `usage` those of its
        project. Any other key, also one without a project, reads its own."""
        if self.is_admin:
            return Reading()
        if self.caller.has_scope("usage") and self.caller.project is not None:
            return Reading(project_id=self.caller.project.id)
        return Reading(key_id=self.caller.id)

    @property
    def accept(self) -> str:
        return Request(self.scope).headers.get("accept", "")

    def query(self) -> Fields:
        return query_fields(Request(self.scope).query_params.multi_items())

    async def body(self) -> Fields:
        """Read a body: an object in JSON, or nothing. Raises InvalidRequest."""
        raw = await Body(self.scope, self.receive, BODY).text()
        try:
            found = json.loads(raw) if raw.strip() else {}
        except (ValueError, RecursionError):
            raise InvalidRequest("The body is no JSON. Send an object.") from None
        if not isinstance(found, dict):
            raise InvalidRequest("The body is no object. Send a JSON object.")
        return Fields(found)

    async def reports(self) -> Reports:
        return await self.administration.book.reports()

    async def registry(self) -> Registry:
        return await self.administration.book.registry()

    def keys(self, directory: Directory) -> Mapping[str, ApiKey]:
        """Return all keys by their ids: those of the configuration, and the issued ones of the directory."""
        return {**{key.id: key for key in self.administration.stated_keys()}, **directory.keys}

    async def usage(self, query: UsageQuery) -> Sequence[UsageRecord]:
        """Return the sums of a query over the drawings that the caller may read."""
        only = self.reading.narrow(query.only)
        return [] if only is None else await (await self.reports()).usage(replace(query, only=only))

    async def refresh(self) -> None:
        """Load a change into this process before the caller learns of it."""
        await self.administration.book.refresh()

    def mint(self, *, is_admin: bool = False, id: str | None = None) -> NewKey:
        return self.administration.mint(is_admin=is_admin, id=id)


Answer = Callable[[AdminCall], Awaitable["Content | Response"]]


@dataclass(frozen=True, slots=True)
class Method:
    """The function that answers one method of a path. `needed`: the scope of the key; None: any key will do."""

    answer: Answer
    needed: KeyScope | None = "admin"


class Endpoint:
    """Answers one path, by its methods."""

    def __init__(self, administration: Callable[[], Administration], methods: Mapping[str, Method]) -> None:
        self._administration = administration
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        administration = self._administration()
        method = self._methods[scope["method"]]
        if method.needed is None:
            caller = administration.authenticate(scope)
        else:
            caller = administration.administrator(scope, method.needed)
        try:
            content = await method.answer(AdminCall(administration, caller, scope, receive))
        except DatabaseUnavailable:
            message = "The ledger's database cannot be reached. Try again."
            raise Unavailable(message, code="ledger_unavailable", retry_after=AWAY_SECONDS) from None
        except (Missing, UnknownRow) as error:
            raise not_found(str(error)) from None
        except Taken:
            raise Conflict("Another one has this name or id. Choose another name.", code="already_exists") from None
        response = content if isinstance(content, Response) else JSONResponse(content)
        response.headers["cache-control"] = "no-store"  # it may hold a key
        await response(scope, receive, send)


def route(path: str, administration: Callable[[], Administration], **methods: Method) -> Route:
    """Return the route of a path."""
    found = Route(path, Endpoint(administration, methods), methods=list(methods))
    found.methods = set(methods)  # Starlette adds HEAD
    return found


def not_found(id: str, kind: str = "object") -> NotFound:
    return NotFound(
        f"There is no {kind} {shortened(id)!r}. Look at the list for the ids that there are.", code="not_found"
    )


def streamed(pieces: AsyncIterator[str], media_type: str) -> StreamingResponse:
    """Return an answer that is sent as it is made."""
    return StreamingResponse(pieces, media_type=media_type)
