"""API keys: they name a caller, its project and its limits. Some stand in the configuration, others were issued at run
time and are in the directory. Knows no HTTP but the text of two headers, and not how much a key has used.

    no key anywhere          every caller is let in, as `ANONYMOUS`
    a key, now or ever       a caller needs one: deleting the last key does not open the door again
    the sandbox              issued keys count for those who send them, and every other caller is `ANONYMOUS`
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, cast

from app.access.key_text import parse_key, resembles_key
from app.access.wrong_keys import WrongKeys
from app.errors import ApiError, Forbidden, RateLimited, Unauthenticated
from app.images import Operation, ResponseFormat
from app.ledger.values.directory import ApiKey, Directory, Project
from app.ledger.values.limits import NO_LIMITS, Limit, Limits, Owner, limits_of
from app.microseconds import to_microseconds

Scope = Literal["draw", "usage", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = ("draw", "usage", "metrics", "admin")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key. Runs, idempotency keys and links belong to its id, which a rotation keeps. `models` and `operations`
    are globs; without any, the key may use every one."""

    id: str
    name: str
    project: Project | None = None
    scopes: tuple[Scope, ...] = ("draw",)
    models: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    default_response_format: ResponseFormat | None = None

    def may_use(self, *names: str) -> bool:
        """True if one of a model's names is on the key's list."""
        return self.models in ((), ("*",)) or any(fnmatchcase(name, glob) for glob in self.models for name in names)

    def has_scope(self, scope: Scope) -> bool:
        """True if the key has the scope. An admin key has every scope but `draw`."""
        return scope in self.scopes or ("admin" in self.scopes and scope != "draw")

    def require(self, scope: Scope) -> None:
        """Raise Forbidden if the key lacks the scope."""
        if not self.has_scope(scope):
            raise Forbidden(_lacks(self, scope), code="insufficient_scope", should_retry=False)

    def require_operation(self, operation: Operation) -> None:
        """Raise Forbidden if the key may not use the operation."""
        if self.operations and not any(fnmatchcase(operation, glob) for glob in self.operations):
            allowed = ", ".join(self.operations)
            message = f"Key {self.name!r} may not ask for {operation}: its operations are {allowed}."
            raise Forbidden(message, code="operation_not_allowed", should_retry=False)

    def all_limits(self) -> tuple[Limit, ...]:
        """Return the limits that a request with this key uses: the key's own, and its project's."""
        own = limits_of(Owner("key", self.id, self.name), self.limits) if self.limits != NO_LIMITS else ()
        project = self.project
        return own + (limits_of(Owner("project", project.id, project.name), project.limits) if project else ())


ANONYMOUS = Key("anonymous", "anonymous")  # every caller of a gateway that has no keys


@dataclass(frozen=True, slots=True)
class StatedKey:
    """A key of the configuration, known by the digest of its text."""

    sha256: bytes
    key: Key


class IssuedKeys:
    """The keys of the directory. `directory` returns the newest one, `clock` gives seconds since the epoch, and
    `note_use` learns of each key that was used. Lives as long as the process."""

    def __init__(
        self,
        pepper: bytes,
        directory: Callable[[], Directory],
        clock: Callable[[], float],
        note_use: Callable[[str], None],
    ) -> None:
        self._pepper = pepper
        self._directory = directory
        self._clock = clock
        self._note_use = note_use
        self._has_had_keys = False
        self._seen = Directory()
        self._made = dict[str, Key]()  # of the keys of `_seen`, by their ids
        self._projects = dict[str, Project]()  # of `_seen`, by their names

    @property
    def has_had_keys(self) -> bool:
        """True once any key was issued, also after it is deleted."""
        self._look()
        return self._has_had_keys

    def find(self, secret: str) -> Key | None:
        """Return the key of a text; None: no such key was issued. Raises Unauthenticated if it is no longer good."""
        text = parse_key(secret)
        if text is None:
            return None
        self._look()
        now = to_microseconds(self._clock())
        found = self._seen.find_key(text.digest(self._pepper), now)
        if found is None:
            return None
        if not found.is_usable(now):
            raise _unusable(found)
        self._note_use(found.id)
        key = self._made.get(found.id)
        if key is None:
            key = self._made[found.id] = _key_of(found, self._seen.projects)
        return key

    def place(self, project: Project) -> Project:
        """Return the directory's version of a configured project, whose id may differ."""
        self._look()
        return self._projects.get(project.name, project)

    def _look(self) -> None:
        """Take the newest directory, and drop everything made from an older one."""
        directory = self._directory()
        if directory is not self._seen:
            self._seen = directory
            self._has_had_keys = self._has_had_keys or directory.has_had_keys or bool(directory.keys)
            self._made.clear()
            self._projects = {project.name: project for project in directory.projects.values()}


class Keyring:
    """All keys of one configuration, and those that were issued."""

    def __init__(
        self,
        stated: Iterable[StatedKey] = (),
        issued: IssuedKeys | None = None,
        wrong: WrongKeys | None = None,
        *,
        is_sandbox: bool = False,
    ) -> None:
        self._stated = tuple(stated)
        self._issued = issued
        self._wrong = wrong
        self._is_sandbox = is_sandbox

    @property
    def is_closed(self) -> bool:
        """True if a caller needs a key."""
        if self._stated:
            return True
        return self._issued is not None and self._issued.has_had_keys and not self._is_sandbox

    def authenticate(self, authorization: str | None, api_key: str | None = None, *, address: str | None = None) -> Key:
        """Find the key of an `Authorization` header or, if that has none, of an `api-key` header, which Azure's clients
        send. `address` is the caller's. Raises Unauthenticated; RateLimited after many wrong keys; Forbidden if the
        key's project is archived."""
        secret = _secret(authorization, api_key)
        key = self._find(secret) if secret else None
        if key is not None:
            if key.project is not None and key.project.archived_at is not None:
                message = f"Project {key.project.name!r} of this key is archived. Ask the gateway's operator for a key."
                raise Forbidden(message, code="project_archived", should_retry=False)
            return key
        if not self.is_closed:
            return ANONYMOUS
        if not secret:
            raise Unauthenticated(
                "You didn't provide an API key. Send the key that the gateway's operator gave you in the "
                "Authorization header, 'Authorization: Bearer YOUR_KEY', or as Azure's clients do: 'api-key: YOUR_KEY'."
            )
        raise self._refuse(secret, address)

    def stated_keys(self) -> tuple[ApiKey, ...]:
        """Return the keys of the configuration as the administration lists them."""
        return tuple(_listed(self._placed(stated.key)) for stated in self._stated)

    def _find(self, secret: str) -> Key | None:
        digest = hashlib.sha256(secret.encode()).digest()
        # Compare with all of them, so that the time taken does not reveal which one it was. Issued keys are looked up
        # by a digest under the pepper, which callers do not know.
        found = [stated.key for stated in self._stated if hmac.compare_digest(stated.sha256, digest)]
        if not found:
            return self._issued.find(secret) if self._issued else None
        return self._placed(found[-1])

    def _placed(self, key: Key) -> Key:
        """Return a stated key with the directory's version of its project."""
        if key.project is None or self._issued is None:
            return key
        return replace(key, project=self._issued.place(key.project))

    def _refuse(self, secret: str, address: str | None) -> ApiError:
        wait = self._wrong.count(address) if self._wrong else 0.0
        if wait:
            message = f"Too many wrong API keys came from this address. Try again in {wait:.1f} s, with a right one."
            return RateLimited(
                message, type="requests", code="rate_limit_exceeded", retry_after=wait, should_retry=False
            )
        if resembles_key(secret) and parse_key(secret) is None:
            why = "It is not complete, or was copied badly: its checksum is wrong."
        else:
            why = "Ask the gateway's operator for a key."
        return Unauthenticated(f"Incorrect API key provided: {_hint(secret)}. {why}", code="invalid_api_key")


def _secret(authorization: str | None, api_key: str | None) -> str:
    scheme, _, secret = (authorization or "").partition(" ")
    return (secret if scheme.lower() == "bearer" else "").strip() or (api_key or "").strip()


def _key_of(found: ApiKey, projects: Mapping[str, Project]) -> Key:
    return Key(
        found.id,
        found.name,
        projects.get(found.project_id) if found.project_id else None,
        cast(tuple[Scope, ...], found.scopes),
        found.models,
        found.operations,
        found.limits,
        cast(ResponseFormat | None, found.default_response_format),
    )


def _listed(stated: Key) -> ApiKey:
    return ApiKey(
        stated.id,
        stated.name,
        b"",
        stated.project.id if stated.project else None,
        stated.scopes,
        () if stated.models == ("*",) else stated.models,
        () if stated.operations == ("*",) else stated.operations,
        stated.limits,
        stated.default_response_format,
        source="file",
    )


def _unusable(key: ApiKey) -> Unauthenticated:
    if key.disabled_at is not None:
        why = "has been disabled" + (f" ({key.disabled_why})" if key.disabled_why else "")
    else:
        why = "has expired"
    message = f"The API key {key.id} ({key.name!r}) {why}. Ask the gateway's operator for another one."
    return Unauthenticated(message, code="invalid_api_key")


def _lacks(key: Key, scope: Scope) -> str:
    if scope == "draw" and "admin" in key.scopes:
        return f"Key {key.name!r} is an admin key, and admin keys do not draw. Use an ordinary key for images."
    if scope == "admin":
        return f"Key {key.name!r} is no admin key. `image-gateway keys create --admin --name NAME` makes one."
    return f"Key {key.name!r} lacks the scope {scope!r}: it has {', '.join(key.scopes)}. Ask for a key that has it."


def _hint(secret: str) -> str:
    """Quote enough of a wrong key to recognise it, and too little to use it."""
    return f"{secret[:3]}…{secret[-4:]}" if len(secret) >= 12 else "…"
