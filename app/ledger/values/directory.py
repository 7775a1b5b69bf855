"""Projects, keys and budgets as frozen values, loaded as a whole. Holds no secret: keys are digests.

A process looks callers up in its newest directory and never in the database. The directory has a revision, which each
change raises, so that one small query tells whether it is old. A copy on the disk serves while the database is away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal

from app.ledger.values.limits import NO_LIMITS, Limits
from app.ledger.values.windows import Window

Source = Literal["file", "database"]
THRESHOLDS = (50, 80, 100)  # per cent, of a new budget that states none


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    created_at: int
    archived_at: int | None = None
    limits: Limits = NO_LIMITS
    source: Source = "database"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key. A rotation keeps the id and everything else: the old digest stays good until `previous_until`.

    `models` and `operations` are globs and names; none: every one. A directory has issued keys alone: those of the
    configuration's file are told beside them, and have neither a digest nor times.
    """

    id: str
    name: str
    digest: bytes
    project_id: str | None = None
    scopes: tuple[str, ...] = ("draw",)
    models: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    default_response_format: str | None = None
    previous_digest: bytes | None = None
    previous_until: int | None = None
    created_at: int = 0
    created_by: str = ""
    expires_at: int | None = None
    disabled_at: int | None = None
    disabled_why: str | None = None
    last_used_at: int | None = None
    source: Source = "database"

    def is_usable(self, now: int) -> bool:
        return self.disabled_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount for a window of time. `since` is when it was made, where `total` begins. `owner` names the project or
    key for messages. `thresholds` are per cent."""

    id: str
    scope: Literal["all", "project", "key"]
    scope_id: str | None
    amount: int
    window: Window
    timezone: str = "UTC"
    models: tuple[str, ...] = ()
    since: int = 0
    hard: bool = True
    thresholds: tuple[int, ...] = ()
    owner: str = ""
    source: Source = "database"

    @property
    def counted(self) -> tuple[object, ...]:
        """What distinguishes budgets: what they count, and their windows."""
        models = () if "*" in self.models else tuple(sorted(set(self.models)))
        return self.scope, self.scope_id, models, self.window, self.timezone

    def counts(self, key_id: str, project_id: str | None, model: str) -> bool:
        """True if a drawing with this key, project and model counts in the budget."""
        ids = {"key": key_id, "project": project_id}
        is_in_scope = self.scope == "all" or ids[self.scope] == self.scope_id
        return is_in_scope and (not self.models or any(fnmatchcase(model, glob) for glob in self.models))


@dataclass(frozen=True)
class Directory:
    """Everything at one revision. `has_had_keys`: a key was ever issued, also if it is deleted."""

    revision: int = 0
    projects: Mapping[str, Project] = field(default_factory=dict)
    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    has_had_keys: bool = False

    @cached_property
    def keys_by_digest(self) -> Mapping[bytes, ApiKey]:
        """Keys by each digest that is or was theirs: the caller compares `previous_until` with the clock."""
        current = {key.digest: key for key in self.keys.values()}
        return {key.previous_digest: key for key in self.keys.values() if key.previous_digest is not None} | current

    def find_key(self, digest: bytes, now: int) -> ApiKey | None:
        """Return the key of a digest that is good now, or of one that was rotated and is within its grace. The key may
        be disabled or expired."""
        key = self.keys_by_digest.get(digest)
        if key is None or key.digest == digest:
            return key
        return key if key.previous_until is not None and now < key.previous_until else None

    def naming(self, keys: Mapping[str, str]) -> Directory:
        """Return the directory with the names of the configuration's keys, by their ids, as owners of budgets: the
        database has only the ids of these."""
        budgets = (
            replace(budget, owner=keys.get(budget.scope_id or "", budget.owner)) if budget.scope == "key" else budget
            for budget in self.budgets
        )
        return replace(self, budgets=tuple(budgets))

    def budgets_of(self, key_id: str, project_id: str | None, model: str) -> tuple[Budget, ...]:
        """Return the budgets that a drawing counts in."""
        return tuple(budget for budget in self.budgets if budget.counts(key_id, project_id, model))


# --- as text ---


def encode(directory: Directory) -> str:
    """Write a directory as JSON."""
    content = {
        "revision": directory.revision,
        "projects": [asdict(project) for project in directory.projects.values()],
        "keys": [asdict(key) for key in directory.keys.values()],
        "budgets": [asdict(budget) for budget in directory.budgets],
        "has_had_keys": directory.has_had_keys,
    }
    return json.dumps(content, default=bytes.hex)


def decode(text: str) -> Directory:
    """Read what `encode` wrote. Raises ValueError."""
    try:
        content = json.loads(text)
        projects = [_read(Project, entry) for entry in content["projects"]]
        keys = [_read(ApiKey, entry) for entry in content["keys"]]
        budgets = tuple(_read(Budget, entry) for entry in content["budgets"])
        by_id = {project.id: project for project in projects}, {key.id: key for key in keys}
        return Directory(content["revision"], *by_id, budgets, content.get("has_had_keys", bool(keys)))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no directory: {error}") from None


def _read(kind: Any, entry: Mapping[str, Any]) -> Any:
    """Make a value of its JSON, without fields that a newer version may have added."""
    return kind(**dict(_fields(kind, entry)))


def _fields(kind: Any, entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in (known.name for known in fields(kind)):
        value = entry.get(name)
        if name == "limits":
            yield name, Limits(**entry[name])
        elif value is not None and name.endswith("digest"):
            yield name, bytes.fromhex(value)
        elif name in entry:
            yield name, tuple(value) if isinstance(value, list) else value
